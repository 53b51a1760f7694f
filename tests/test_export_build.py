"""The command that turns checkpoints into bundles: a small trained network, built for real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from export import artifacts, build, parity, table
from runtime import bundle, files, images
from runtime.engines import ENGINES
from runtime.engines.cuda import why_no_gpu
from runtime.errors import UserError
from runtime.fidelity import LIMITS, hints
from runtime.predictor import Predictor
from tests import export_parts
from tests.export_parts import graphs, run
from tests.train_parts import CATEGORY, write_data
from train import checkpoint
from train import data as tables

needs_rtx = pytest.mark.skipif(not ENGINES["tensorrt-rtx"].installed(), reason="tensorrt-rtx is not installed")

pytestmark = pytest.mark.usefixtures("tiny_preset", "exported_once")


@pytest.fixture(scope="module")
def data(export_folder: Path) -> Path:
    return export_parts.data(export_folder)


@pytest.fixture(scope="module")
def checkpoints(export_folder: Path) -> Path:
    return export_parts.checkpoints(export_folder)


@pytest.fixture(scope="module")
def built(export_folder: Path) -> Path:
    return export_parts.built(export_folder)


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr: one error without a traceback, nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


# What a bundle holds


def test_a_bundle_verifies_and_says_where_it_comes_from(built: Path, checkpoints: Path, data: Path) -> None:
    page = bundle.verify(built)
    trained = checkpoint.read(checkpoints / "cap")
    assert (page.slug, page.categories, page.preprocess, page.routes) == ("cap", (CATEGORY,), trained.preprocess, None)
    assert page.provenance["checkpoint"] == trained.weights_sha256
    assert page.provenance["identity"] == trained.identity
    assert page.provenance["data"] == str(data)
    assert page.provenance.keys() >= {"facet-edge", "torch", "timm", "seed"}


def test_a_bundle_holds_its_page_its_artifacts_its_golden_photos_its_validation_and_nothing_else(built: Path) -> None:
    page = bundle.load(built)
    named = {artifact.file for artifact in page.artifacts} | {photo.file for photo in page.golden.photos}
    found = {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()}
    assert page.validation
    assert found == named | {"bundle.json", page.validation.file}
    assert {path.name for path in built.iterdir() if path.is_dir()} == {"golden"}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_graph_is_named_by_its_content_and_passed_the_gate_on_every_engine_here(
    built: Path, precision: str
) -> None:
    artifact = graphs(bundle.load(built))[precision]
    assert artifact.file == f"model.{precision}.{files.sha256_of(built / artifact.file)[:8]}.onnx"
    assert artifact.bytes == (built / artifact.file).stat().st_size
    assert artifact.built_with.keys() >= {"torch", "onnx"}
    assert ("nncf" in artifact.built_with) == (precision == "int8")
    assert artifact.engines == artifacts.GRAPH_ENGINES
    assert [(verdict.engine, verdict.hint) for verdict in artifact.verdicts] == [
        (engine, hint) for engine in artifacts.GRAPH_ENGINES for hint in hints(engine, precision)
    ]
    for verdict in artifact.verdicts:
        assert verdict.state == ("passed" if ENGINES[verdict.engine].installed() else "unrun"), verdict.reason


def test_a_graph_says_itself_what_it_is_of_whatever_its_precision(built: Path) -> None:
    page = bundle.load(built)
    (category,) = page.categories
    for artifact in graphs(page).values():
        said = {one.key: json.loads(one.value) for one in onnx.load(built / artifact.file).metadata_props}
        classes = {attribute.name: list(attribute.classes) for attribute in category.attributes}
        assert said["categories"] == [{"name": category.name, "attributes": classes}], artifact.precision
        assert said["preprocess"] == json.loads(msgspec.json.encode(page.preprocess)), artifact.precision


def test_a_lower_precision_is_a_smaller_file(built: Path) -> None:
    sizes = [graphs(bundle.load(built))[precision].bytes for precision in ("fp32", "fp16", "int8")]
    # 104,000 weights beside some 70 kB of nodes and names.
    assert sizes[1] < 0.65 * sizes[0]
    assert sizes[2] < sizes[0]


def test_golden_photos_show_every_class_and_are_small(built: Path, data: Path) -> None:
    page = bundle.load(built)
    assert len(page.golden.photos) == 6  # as many as the validation split has
    assert all((built / photo.file).stat().st_size < 20_000 for photo in page.golden.photos)
    for attribute in CATEGORY.attributes:
        rows = np.array(page.golden.probabilities[attribute.output])
        assert rows.shape == (6, len(attribute.classes))
        np.testing.assert_allclose(rows.sum(1), 1, rtol=0, atol=1e-5)  # six decimals each
        assert set(rows.argmax(1)) == set(range(len(attribute.classes)))


def test_golden_photos_are_validation_photos_as_the_graph_takes_them(built: Path, data: Path) -> None:
    page = bundle.load(built)
    table = tables.read(data)[0]
    expected = {images.fit(images.decode(table.paths[row]), page.preprocess).tobytes() for row in table.rows("val")}
    assert {images.decode(built / photo.file).tobytes() for photo in page.golden.photos} == expected


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_bundle_answers_its_golden_photos_as_recorded(built: Path, precision: str) -> None:
    page = bundle.load(built)
    with Predictor.open(built, engine="onnxruntime", precision=precision) as predictor:
        pixels = [images.fit(images.decode(built / photo.file), page.preprocess) for photo in page.golden.photos]
        found = predictor.probabilities(np.stack(pixels))
    for name, rows in page.golden.probabilities.items():
        largest = float(np.abs(found[name] - np.array(rows)).max())
        assert largest <= LIMITS[precision].probability + 1e-6, f"{name}: {largest}"  # six decimals are kept


def test_the_bundle_reads_colours_off_photos_it_never_saw(built: Path, data: Path) -> None:
    table = tables.read(data)[0]
    with Predictor.open(built) as predictor:
        answers = predictor(table.paths)
    right = [
        answer["colour"].label == CATEGORY.attributes[0].classes[label]
        for answer, label in zip(answers, table.labels_NL[:, 0], strict=True)
    ]
    assert sum(right) >= 22  # of 24, in the precision that was fastest here


@needs_rtx
def test_a_plan_is_built_for_real_and_recorded_as_unrun_where_there_is_no_gpu(built: Path) -> None:
    (plan,) = [artifact for artifact in bundle.load(built).artifacts if artifact.target]
    assert (plan.precision, plan.target, plan.engines) == ("fp16", "sm89", ("tensorrt-rtx",))
    assert plan.file == f"model.fp16.sm89.{plan.sha256[:8]}.plan"
    assert (built / plan.file).stat().st_size == plan.bytes > 10_000
    assert list(plan.built_with) == ["tensorrt-rtx"]
    (verdict,) = plan.verdicts
    if why_no_gpu():
        assert (verdict.state, verdict.figures, verdict.images_per_s) == ("unrun", {}, None)
        assert "no NVIDIA driver" in verdict.reason


def test_the_table_has_a_row_for_each_artifact_on_each_engine(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table.rows(bundle.load(built).artifacts)
    assert len(rows) == sum(len(artifact.verdicts) for artifact in bundle.load(built).artifacts)
    assert all(len(row) == len(table.COLUMNS) for row in rows)
    by_name = {(row[0], row[1]): row for row in rows}
    int8 = by_name["int8", "onnxruntime float"]
    assert int8[-1] == "passed"
    assert float(int8[4]) > 0.8
    assert int8[6] == "not judged"  # eighteen labels tell nothing
    assert table.lost({"hm_lost": 0.0012, "hm_lost_bound": 0.0056, "labels": 1438.0}) == "0.12 (< 0.56)"
    if ENGINES["tensorrt-rtx"].installed() and why_no_gpu():
        assert by_name["fp16 sm89", "tensorrt-rtx"][3:8] == ["", "", "", "", ""]
        assert by_name["fp16 sm89", "tensorrt-rtx"][-1] == "unrun"
        (why,) = table.reasons(bundle.load(built).artifacts)
        assert why.startswith("fp16 sm89 on tensorrt-rtx unrun: no NVIDIA driver")


# What it is asked to build for


@needs_rtx
def test_a_plan_alone_is_made_of_a_graph_that_passed_somewhere(checkpoints: Path, tmp_path: Path) -> None:
    options = ["--engine", "tensorrt-rtx", "--batch", "1", "2", "4"]
    assert run(checkpoints, tmp_path, *options) == 0
    graph, plan = bundle.verify(tmp_path / "cap").artifacts
    assert [(verdict.engine, verdict.state) for verdict in graph.verdicts] == [("onnxruntime", "passed")]
    assert (plan.engines, plan.target) == (("tensorrt-rtx",), build.DEFAULT_TARGET)
    assert plan.profile == bundle.Profile(min_batch=1, opt_batch=2, max_batch=4)
    # Another profile is another plan, of the same graph.
    assert run(checkpoints, tmp_path, *options[:2]) == 0
    again, other = bundle.verify(tmp_path / "cap").artifacts
    assert again.sha256 == graph.sha256
    assert other.profile == bundle.Profile()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "openvino", "--target", "sm89"), "add it: --engine openvino tensorrt-rtx"),
        (
            ("--batch", "4", "2", "8"),
            "a plan's batches must rise from 1 to 1024 at most; got min 4, opt 2, max 8\ngive them in that",
        ),
        (("--engine", "tensorrt"), "engine 'tensorrt' is not installed\ninstall it with: pip install"),
    ],
)
def test_what_cannot_be_built_for_is_said_before_anything_is_made(
    fails: Callable[..., str], checkpoints: Path, options: tuple[str, ...], said: str
) -> None:
    if "tensorrt" in options and ENGINES["tensorrt"].installed():
        pytest.skip("tensorrt is here")
    assert said in fails(checkpoints, *options)


def test_data_is_looked_for_where_asked_then_where_it_was_trained_on(data: Path, tmp_path: Path) -> None:
    assert build.data_folder(tmp_path, tmp_path, {"data": str(data)}) == tmp_path
    assert build.data_folder(None, tmp_path, {"data": str(data)}) == data
    # Of another's photos the gate would say nothing: the example's are for the shipped checkpoint alone.
    gone = {"data": str(tmp_path / "gone")}
    assert build.data_folder(None, build.EXAMPLE_CHECKPOINTS / "garment", gone) == build.EXAMPLE_DATA
    with pytest.raises(UserError, match=rf"are not in {tmp_path}/gone\nname their folder with: --data DIR$"):
        build.data_folder(None, tmp_path, gone)
    with pytest.raises(UserError, match=r"was trained on are not known\nname their folder with: --data DIR$"):
        build.data_folder(None, tmp_path, {})


# Mistakes: exit code 2, one clear error, and nothing half-written


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a build that must end with code 2, and gives its error; no folder may be left behind."""

    def fails(checkpoints: Path, *options: str) -> str:
        assert run(checkpoints, tmp_path / "bundles", "--precision", "fp32", *options) == 2
        assert not (tmp_path / "bundles" / "cap").exists()
        return refused(capsys)

    return fails


def test_a_calibration_folder_without_photos_is_named(
    fails: Callable[..., str], checkpoints: Path, tmp_path: Path
) -> None:
    said = fails(checkpoints, "--calibration", str(tmp_path / "gone"))
    assert f"{tmp_path / 'gone'}\nname a folder of photos with: --calibration DIR" in said
    (tmp_path / "one.jpg").write_bytes(b"not a photo")
    assert f"no photo in {tmp_path} can be read" in fails(checkpoints, "--calibration", str(tmp_path))


def test_an_unknown_category_is_answered_with_those_there_are(fails: Callable[..., str], checkpoints: Path) -> None:
    assert f"no checkpoint of 'scarf' in {checkpoints}; have: cap" in fails(checkpoints, "--category", "Scarf")


def test_a_folder_of_no_checkpoints_is_told_how_to_train_one(fails: Callable[..., str], tmp_path: Path) -> None:
    said = f"no checkpoint in {tmp_path}\ntrain one with: python -m train.fit"
    assert said in fails(tmp_path)


def test_without_checkpoints_and_without_the_example_the_command_to_train_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "EXAMPLE_CHECKPOINTS", tmp_path / "nowhere")
    assert build.main([]) == 2
    assert "no checkpoints/ folder here\ntrain one with: python -m train.fit --data DIR" in refused(capsys)


def test_an_unknown_target_is_answered_with_those_there_are(fails: Callable[..., str], checkpoints: Path) -> None:
    said = fails(checkpoints, "--target", "sm90")
    assert "no target 'sm90'; choose from: sm75, sm80, sm86, sm89, sm120, sm121" in said


def test_a_target_without_its_library_is_answered_with_the_install_line(
    fails: Callable[..., str], checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engines.EngineKind.installed", lambda kind: False)
    assert "pip install tensorrt-rtx cuda-bindings" in fails(checkpoints, "--target", "sm89")


def test_photos_labelled_with_another_taxonomy_are_refused(
    fails: Callable[..., str], checkpoints: Path, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "data")
    page = (data / "category_attributes.csv").read_text()
    (data / "category_attributes.csv").write_text(page.replace("shade", "brim"))
    said = fails(checkpoints, "--data", str(data))
    assert "another taxonomy: 'Cap' has attributes colour, brim, expected colour, shade" in said


def test_a_data_folder_that_is_not_there_is_named(fails: Callable[..., str], checkpoints: Path, tmp_path: Path) -> None:
    assert f"no such file: {tmp_path / 'gone' / 'train.csv'}" in fails(checkpoints, "--data", str(tmp_path / "gone"))


def test_a_checkpoint_whose_weights_were_changed_is_refused(
    fails: Callable[..., str], checkpoints: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "changed" / "cap"
    shutil.copytree(checkpoints / "cap", folder)
    (folder / "model.safetensors").write_bytes(b"changed")
    assert "is not the file that checkpoint.json describes" in fails(folder.parent)


def test_a_bundle_is_never_built_over_a_checkpoint(
    fails: Callable[..., str], checkpoints: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints, tmp_path / "checkpoints")
    said = fails(folder, "--out", str(folder))
    assert f"{folder / 'cap'} is a checkpoint: bundles go elsewhere" in said
    checkpoint.load(folder / "cap")


def test_too_many_unreadable_photos_are_refused(fails: Callable[..., str], checkpoints: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    (data / "train_images" / "000020.jpg").write_bytes(b"not an image")
    assert "1 of 6 photos are unreadable, more than 1%" in fails(checkpoints, "--data", str(data))


def test_an_error_midway_leaves_no_folder_behind(
    fails: Callable[..., str], checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parity, "judge", full)
    assert "No space left on device" in fails(checkpoints)


def test_a_folder_that_cannot_be_written_is_named(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(checkpoints, tmp_path / "file") == 2
    assert f"cannot write in {tmp_path / 'file' / 'cap'}: " in refused(capsys)


@pytest.mark.parametrize("option", ["--calibration-photos", "--gate-photos"])
@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_number_of_photos_below_one_is_refused(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, number: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(checkpoints, tmp_path, option, number)
    assert f"argument {option}: must be 1 or more, got {number}" in capsys.readouterr().err


def test_a_checkpoint_cannot_name_a_folder_outside_the_bundles(
    checkpoints: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = checkpoint.find(checkpoints).values()
    folder = shutil.copytree(source, tmp_path / "checkpoints" / "evil")
    page = folder / checkpoint.PAGE
    page.write_text(json.dumps(json.loads(page.read_text()) | {"slug": "../evil"}))
    said = build.main(["--checkpoints", str(folder), "--data", str(data), "--out", str(tmp_path / "bundles")])
    assert said == 2
    assert "has a slug that is no folder name: '../evil'" in capsys.readouterr().err
    assert not (tmp_path / "evil").exists()


def test_two_checkpoints_of_one_category_are_refused_before_either_is_built(
    checkpoints: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = checkpoint.find(checkpoints).values()
    for name in ("one", "two"):
        shutil.copytree(source, tmp_path / "both" / name)
    assert build.main(["--checkpoints", str(tmp_path / "both"), "--data", str(data), "--out", str(tmp_path / "b")]) == 2
    assert "are checkpoints of one category" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()

"""The command that turns checkpoints into bundles: a small trained network, built for real."""

# N photos

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from export import artifacts, build, evidence, parity, table
from runtime import bundle, images
from runtime.bundle import Artifact, Bundle, State, Verdict
from runtime.engines import ENGINES
from runtime.engines.cuda import why_no_gpu
from runtime.fidelity import LIMITS, Limits
from runtime.predictor import Predictor
from tests.train_parts import CATEGORY, write_data
from train import checkpoint, fit
from train import data as tables

needs_rtx = pytest.mark.skipif(not ENGINES["tensorrt-rtx"].installed(), reason="tensorrt-rtx is not installed")
IMPOSSIBLE = Limits(probability=0.0, agreement=1.0, slot=0.0)
"""No artifact but a bit-for-bit copy of PyTorch keeps these."""


pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("build") / "data")


@pytest.fixture(scope="module")
def checkpoints(data: Path) -> Path:
    """Holds `cap`, trained until it knows the colours."""
    out = data.parent / "checkpoints"
    assert fit.main(["--data", str(data), "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def other_checkpoints(data: Path) -> Path:
    """The same category, trained from another seed."""
    out = data.parent / "other"
    options = ["--preset", "tiny", "--seed", "1", "--max-steps", "2", "--quiet"]
    assert fit.main(["--data", str(data), "--out", str(out), *options]) == 0
    return out


def run(checkpoints: Path, out: Path, *options: str) -> int:
    return build.main(["--checkpoints", str(checkpoints), "--out", str(out), "--quiet", *options])


@pytest.fixture(scope="module")
def built(checkpoints: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with a graph of each precision, and with a plan where tensorrt-rtx is installed. Not to be changed."""
    out = tmp_path_factory.mktemp("built") / "bundles"
    assert run(checkpoints, out, "--precision", "fp32", "fp16", "int8") == 0
    return out / "cap"


def graphs(page: Bundle) -> dict[str, Artifact]:
    return {artifact.precision: artifact for artifact in page.artifacts if not artifact.target}


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


def test_a_bundle_holds_its_page_its_artifacts_its_golden_photos_and_nothing_else(built: Path) -> None:
    page = bundle.load(built)
    named = {artifact.file for artifact in page.artifacts} | {photo.file for photo in page.golden.photos}
    found = {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()}
    assert found == named | {"bundle.json"}
    assert {path.name for path in built.iterdir() if path.is_dir()} == {"golden"}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_graph_is_named_by_its_content_and_passed_the_gate_on_every_engine_here(
    built: Path, precision: str
) -> None:
    artifact = graphs(bundle.load(built))[precision]
    assert artifact.file == f"model.{precision}.{bundle.sha256_of(built / artifact.file)[:8]}.onnx"
    assert artifact.bytes == (built / artifact.file).stat().st_size
    assert artifact.built_with.keys() >= {"torch", "onnx"}
    assert ("nncf" in artifact.built_with) == (precision == "int8")
    assert artifact.engines == artifacts.GRAPH_ENGINES
    assert [(verdict.engine, verdict.hint) for verdict in artifact.verdicts] == [
        (engine, hint) for engine in artifacts.GRAPH_ENGINES for hint in parity.hints(engine, precision)
    ]
    for verdict in artifact.verdicts:
        assert verdict.state == ("passed" if ENGINES[verdict.engine].installed() else "unrun"), verdict.reason


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


def test_golden_photos_look_as_the_photos_that_they_were_made_of(built: Path, data: Path) -> None:
    def levels(paths: Iterable[Path]) -> np.ndarray:
        """The mean of each photo's channels, the photos sorted."""
        means_NC = np.stack([images.decode(path).mean((0, 1)) for path in paths])
        return means_NC[np.argsort(means_NC @ [1, 10, 100])]  # no two of these colours come near each other

    table = tables.read(data)[0]
    golden_NC = levels(built / photo.file for photo in bundle.load(built).golden.photos)
    # JPEG twice, at quality 85: noise of 15 levels a pixel averages out to less than one.
    np.testing.assert_allclose(golden_NC, levels(table.paths[row] for row in table.rows("val")), rtol=0, atol=3)


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
        assert by_name["fp16 sm89", "tensorrt-rtx"][-1].startswith("unrun: ")


# What the gate refuses at first


def test_an_int8_graph_that_is_refused_gets_tensors_back_in_float32_until_it_passes(
    checkpoints: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = graphs(bundle.load(built))["int8"]
    figures = [verdict.figures for verdict in before.verdicts if verdict.figures]
    # A little less than what it strays by as a whole, on one of the engines.
    least = 0.9 * max(figure["probability_difference"] for figure in figures)
    monkeypatch.setitem(LIMITS, "int8", Limits(probability=least, agreement=0.0, slot=0.05))
    assert run(checkpoints, tmp_path, "--precision", "int8") == 0
    after = graphs(bundle.verify(tmp_path / "cap"))["int8"]
    assert set(after.kept_float) > set(before.kept_float)
    for verdict in after.verdicts:
        assert verdict.state in ("passed", "unrun")
        assert not verdict.figures or verdict.figures["probability_difference"] <= least + 1e-6


def test_without_the_time_to_rank_tensors_no_graph_is_judged_twice(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    judge = parity.judge

    def watched(path: Path, *rest: Any, **options: Any) -> Verdict:
        judged.append(bundle.sha256_of(path))
        return judge(path, *rest, **options)

    monkeypatch.setattr(parity, "judge", watched)
    monkeypatch.setattr(artifacts, "RANKING_LIMIT_S", 0.0)
    monkeypatch.setitem(LIMITS, "int8", IMPOSSIBLE)
    assert run(checkpoints, tmp_path, "--precision", "int8") == 1
    ways = sum(len(parity.hints(engine, "int8")) for engine in artifacts.GRAPH_ENGINES)
    assert (len(judged), len(set(judged))) == (ways, 1)


# What is not done twice


def test_a_build_of_which_nothing_has_changed_does_nothing_and_says_so(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--checkpoints", str(checkpoints), "--out", str(tmp_path), "--precision", "fp32", "fp16"]
    assert build.main(options) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    first = capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "load", None)  # it is not even opened
        assert build.main(options) == 0
    second = capsys.readouterr()
    assert f"unchanged: {tmp_path / 'cap'}" in second.err
    # The same table but for its title.
    assert second.out.splitlines()[1:] == first.out.splitlines()[1:]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_is_new_alone_is_made(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    made: list[str] = []
    judge = parity.judge

    def watched(path: Path, precision: str, *rest: Any, **options: Any) -> Verdict:
        made.append(precision)
        return judge(path, precision, *rest, **options)

    monkeypatch.setattr(parity, "judge", watched)
    assert run(checkpoints, tmp_path, "--precision", "fp32", "fp16") == 0
    assert set(made) == {"fp16"}
    assert {artifact.precision for artifact in bundle.verify(tmp_path / "cap").artifacts} == {"fp32", "fp16"}


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "a photo": lambda data, bundles: os.utime(data / "train_images" / "000003.jpg"),
    "a label": lambda data, bundles: (data / "train.csv").write_text((data / "train.csv").read_text() + "\n"),
    "a damaged file": lambda data, bundles: next(bundles.rglob("*.onnx")).write_bytes(b"damaged"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_has_changed_is_made_again(
    data: Path, checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    own = tmp_path / "data"
    shutil.copytree(data, own)
    options = ["--checkpoints", str(checkpoints), "--data", str(own), "--out", str(tmp_path / "bundles")]
    assert build.main([*options, "--precision", "fp32"]) == 0
    CHANGES[change](own, tmp_path / "bundles")
    capsys.readouterr()
    assert build.main([*options, "--precision", "fp32"]) == 0
    assert "unchanged" not in capsys.readouterr().err
    bundle.verify(tmp_path / "bundles" / "cap")


@pytest.mark.parametrize("option", [("--gate-photos", "5"), ("--calibration-photos", "3"), ("--allow-drop", "2")])
def test_another_option_makes_it_again(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    options = ["--checkpoints", str(checkpoints), "--out", str(tmp_path), "--precision", "fp32"]
    assert build.main([*options, *option]) == 0
    assert "unchanged" not in capsys.readouterr().err


# What it is asked to build for


def test_engines_that_are_named_alone_judge_and_get_plans(checkpoints: Path, tmp_path: Path) -> None:
    assert run(checkpoints, tmp_path, "--engine", "onnxruntime") == 0
    (artifact,) = bundle.verify(tmp_path / "cap").artifacts
    assert artifact.engines == ("onnxruntime",)
    assert {verdict.engine for verdict in artifact.verdicts} == {"onnxruntime"}


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
        (("--batch", "4", "2", "8"), "a profile's batches must rise from 1 up; got min 4, opt 2, max 8"),
        (("--engine", "tensorrt"), "tensorrt"),
    ],
)
def test_what_cannot_be_built_for_is_said_before_anything_is_made(
    fails: Callable[..., str], checkpoints: Path, options: tuple[str, ...], said: str
) -> None:
    if "tensorrt" in options and ENGINES["tensorrt"].installed() and not why_no_gpu():
        pytest.skip("tensorrt and a GPU are here")
    assert said in fails(checkpoints, *options)


def test_int8_can_be_calibrated_on_photos_that_no_one_labelled(
    checkpoints: Path, data: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(data / "train_images", photos / "deep")
    (photos / "damaged.jpg").write_bytes(b"not a photo")
    options = ["--precision", "int8", "--engine", "onnxruntime", "--calibration", str(photos)]
    assert run(checkpoints, tmp_path, *options) == 0
    first = graphs(bundle.verify(tmp_path / "cap"))["int8"]
    # Other photos, another range: the first of them are not those that cover the training split.
    assert run(checkpoints, tmp_path, *options, "--calibration-photos", "2") == 0
    assert graphs(bundle.verify(tmp_path / "cap"))["int8"].sha256 != first.sha256
    capsys.readouterr()
    os.utime(photos / "deep" / "000003.jpg")
    assert build.main(["--checkpoints", str(checkpoints), "--out", str(tmp_path), *options]) == 0
    assert "unchanged" not in capsys.readouterr().err


def test_a_calibration_folder_without_photos_is_named(
    fails: Callable[..., str], checkpoints: Path, tmp_path: Path
) -> None:
    said = fails(checkpoints, "--calibration", str(tmp_path / "gone"))
    assert f"{tmp_path / 'gone'}\nname a folder of photos with: --calibration DIR" in said
    (tmp_path / "one.jpg").write_bytes(b"not a photo")
    assert f"no photo in {tmp_path} can be read" in fails(checkpoints, "--calibration", str(tmp_path))


# What later builds do


def test_a_later_build_adds_to_the_bundle_and_another_checkpoint_starts_it_anew(
    checkpoints: Path, other_checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    first = bundle.verify(tmp_path / "cap")
    assert list(graphs(first)) == ["fp32"]
    assert "Cap: 6 photos at the gate" in capsys.readouterr().out

    assert run(checkpoints, tmp_path, "--precision", "fp16") == 0
    second = bundle.verify(tmp_path / "cap")
    assert graphs(second).keys() == {"fp32", "fp16"}
    assert graphs(second)["fp32"] == graphs(first)["fp32"]
    assert second.golden == first.golden

    assert run(other_checkpoints, tmp_path, "--precision", "fp32") == 0
    third = bundle.verify(tmp_path / "cap")
    assert list(graphs(third)) == ["fp32"]
    assert graphs(third)["fp32"].sha256 != graphs(first)["fp32"].sha256
    left = {path.name for path in (tmp_path / "cap").iterdir()}
    assert left == {graphs(third)["fp32"].file, "bundle.json", "golden"}


def test_a_bundle_of_another_taxonomy_is_replaced_and_said_to_be(
    checkpoints: Path, other_checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    assert run(other_checkpoints, tmp_path, "--precision", "fp32") == 0
    assert "other attributes" not in capsys.readouterr().err
    page = bundle.load(tmp_path / "cap")
    (category,) = page.categories
    renamed = msgspec.structs.replace(category, attributes=category.attributes[:1])
    bundle.save(tmp_path / "cap", msgspec.structs.replace(page, categories=(renamed,)))
    assert run(checkpoints, tmp_path, "--precision", "fp16") == 0
    said = f"{tmp_path / 'cap'} had other attributes or classes (Cap: {category.attributes[0].name}): it is replaced"
    assert said in capsys.readouterr().err
    assert list(graphs(bundle.verify(tmp_path / "cap"))) == ["fp16"]


@pytest.mark.parametrize("change", ["temperatures", "offsets"])
def test_the_same_weights_with_another_page_start_the_bundle_anew(
    checkpoints: Path, tmp_path: Path, change: str
) -> None:
    (source,) = checkpoint.find(checkpoints).values()
    folder = shutil.copytree(source, tmp_path / "checkpoints" / "cap")
    assert run(folder, tmp_path, "--precision", "fp32") == 0
    first = bundle.verify(tmp_path / "cap")
    page = json.loads((folder / checkpoint.PAGE).read_text())
    if change == "temperatures":
        page["temperatures"] = {"colour": 1.5}
    else:
        page["categories"][0]["attributes"][1]["offsets"] = [0.0, 0.5]
    (folder / checkpoint.PAGE).write_text(json.dumps(page))
    assert run(folder, tmp_path, "--precision", "fp16") == 0
    second = bundle.verify(tmp_path / "cap")
    assert second.provenance["checkpoint"] == first.provenance["checkpoint"]
    assert list(graphs(second)) == ["fp16"]
    # The golden answers are calibrated, as the graph's are; offsets move no probability.
    changed = [name for name, rows in first.golden.probabilities.items() if rows != second.golden.probabilities[name]]
    assert changed == (["colour"] if change == "temperatures" else [])


def test_a_refused_artifact_is_left_out_and_the_exit_code_is_1(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "fp16", IMPOSSIBLE)
    assert run(checkpoints, tmp_path, "--precision", "fp32", "fp16") == 1
    page = bundle.verify(tmp_path / "cap")
    # Nor is there a plan: it would be made of the graph that was refused.
    assert [(artifact.precision, artifact.target) for artifact in page.artifacts] == [("fp32", "")]
    assert not list((tmp_path / "cap").glob("model.fp16*"))
    assert "refused: a probability differs by" in capsys.readouterr().out


def test_where_everything_is_refused_no_bundle_is_left(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(LIMITS, "fp32", IMPOSSIBLE)
    assert run(checkpoints, tmp_path / "bundles", "--precision", "fp32") == 1
    assert not (tmp_path / "bundles" / "cap").exists()
    said = capsys.readouterr().err
    assert "nothing passed the gate" in said
    assert "bundle:" not in said


def test_what_no_engine_passed_and_one_refused_is_refused(built: Path) -> None:
    artifact = graphs(bundle.load(built))["fp32"]

    def judged(*states: State) -> bool:
        verdicts = tuple(Verdict(engine="onnxruntime", state=state) for state in states)
        return artifacts.Made(artifact=msgspec.structs.replace(artifact, verdicts=verdicts), path=built).refused

    assert judged("refused", "unrun")
    assert judged("refused")
    assert not judged("refused", "passed")
    assert not judged("unrun")


# The photos it takes


def test_photos_are_taken_evenly_from_the_split_that_was_trained_on(data: Path, checkpoints: Path) -> None:
    model, page = checkpoint.load(checkpoints / "cap")
    photos = evidence.gather(model, page, data, calibration=5, gate=100)
    assert [photo.shape for photo in photos.calibration] == [(64, 64, 3)] * 5
    assert photos.gate_rows.tolist() == photos.table.rows("val").tolist()
    assert np.array_equal(photos.evidence.labels_NL, photos.table.labels_NL[photos.gate_rows])
    paths = [photos.table.paths[row] for row in photos.gate_rows]
    assert np.array_equal(
        photos.evidence.photos_NHWC, np.stack([images.fit(images.decode(path), page.preprocess) for path in paths])
    )


def test_the_split_that_a_checkpoint_was_trained_with_is_kept_where_the_data_gives_none(
    tmp_path: Path, checkpoints: Path
) -> None:
    def unsplit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{name: cell for name, cell in row.items() if name != "split"} for row in rows]

    data = write_data(tmp_path / "data", edit=unsplit)
    model, page = checkpoint.load(checkpoints / "cap")
    photos = evidence.gather(model, page, data, calibration=2, gate=100)
    assert (
        [photos.table.ids[row] for row in photos.gate_rows] == list(page.splits["val"]) == list(map(str, range(18, 24)))
    )


@pytest.mark.parametrize(
    ("precisions", "targets", "expected"),
    [
        (["fp32"], [], [("fp32", "", "")]),
        (["fp16", "fp16"], ["sm89", "sm89"], [("fp16", "", ""), ("fp16", "tensorrt-rtx", "sm89")]),
        (
            ["fp32", "int8"],
            ["sm89"],
            [("fp32", "", ""), ("int8", "", ""), ("fp32", "tensorrt-rtx", "sm89"), ("int8", "tensorrt-rtx", "sm89")],
        ),
        (
            ["int8", "fp16"],
            ["sm89", "sm75"],
            [
                ("int8", "", ""),
                ("fp16", "", ""),
                ("fp16", "tensorrt-rtx", "sm89"),
                ("fp16", "tensorrt-rtx", "sm75"),
            ],
        ),
    ],
)
def test_plans_come_after_their_graphs_and_from_the_half_graph_where_there_is_one(
    precisions: list[artifacts.Precision], targets: list[str], expected: list[tuple[str, str, str]]
) -> None:
    assert artifacts.jobs(precisions, [("tensorrt-rtx", target) for target in targets]) == expected


def test_data_is_looked_for_where_asked_then_where_it_was_trained_on(data: Path, tmp_path: Path) -> None:
    assert build.data_folder(tmp_path, {"data": str(data)}, quiet=True) == tmp_path
    assert build.data_folder(None, {"data": str(data)}, quiet=True) == data
    assert build.data_folder(None, {"data": str(tmp_path / "gone")}, quiet=True) == build.EXAMPLE_DATA


# Mistakes: exit code 2, one clear error, and nothing half-written


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a build that must end with code 2, and gives its error; no folder may be left behind."""

    def fails(checkpoints: Path, *options: str) -> str:
        assert run(checkpoints, tmp_path / "bundles", "--precision", "fp32", *options) == 2
        assert not (tmp_path / "bundles" / "cap").exists()
        return refused(capsys)

    return fails


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
    assert "pip install 'facet-edge[tensorrt-rtx]'" in fails(checkpoints, "--target", "sm89")


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


# What a crash leaves


def test_an_interrupted_build_leaves_the_earlier_bundle_as_it_was(
    checkpoints: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in built.rglob("*"):
        if path.is_file():
            copy = tmp_path / "cap" / path.relative_to(built)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    before = {path: path.read_bytes() for path in (tmp_path / "cap").rglob("*") if path.is_file()}

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parity, "judge", interrupt)
    assert run(checkpoints, tmp_path, "--precision", "fp32", "--gate-photos", "5") == 130
    after = {path: path.read_bytes() for path in (tmp_path / "cap").rglob("*") if path.is_file()}
    assert after == before
    assert json.loads((tmp_path / "cap" / "bundle.json").read_text())["slug"] == "cap"


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

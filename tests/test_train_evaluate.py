"""The command that scores a checkpoint or a bundle, on photos of one colour."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export import build
from tests.train_parts import CATEGORY, write_data
from train import answers, calibrate, checkpoint, evaluate, fit
from train.metrics import COLUMNS, Score

pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports go to the folder one is in, unless told otherwise."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("evaluate") / "data")


@pytest.fixture(scope="module")
def root(data: Path) -> Path:
    """Holds `checkpoints/cap` and the bundle made of it, `bundles/cap`."""
    root = data.parent
    out = root / "checkpoints"
    assert fit.main(["--data", str(data), "--preset", "tiny", "--max-steps", "4", "--out", str(out), "--quiet"]) == 0
    options = ["--checkpoints", str(out), "--out", str(root / "bundles"), "--precision", "fp32", "--quiet"]
    assert build.main(options) == 0
    return root


def scores(model: Path, data: Path, *options: str) -> dict[str, list[dict[str, Any]]]:
    """By category, the scores in metrics.json."""
    out = data.parent / "report"
    assert evaluate.main([str(model), "--data", str(data), "--out", str(out), "--quiet", *options]) == 0
    found = {name: entry["scores"] for name, entry in json.loads((out / "metrics.json").read_text()).items()}
    shutil.rmtree(out)
    return found


def same(found: list[dict[str, Any]], expected: tuple[Score, ...]) -> bool:
    """Whether both say the same; the loss may differ in its last digits: other batches, another memory layout."""
    return len(found) == len(expected) and all(
        line == asdict(replace(score, loss=line["loss"])) and line["loss"] == pytest.approx(score.loss, rel=1e-4)
        for line, score in zip(found, expected, strict=True)
    )


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr: one error without a traceback, nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def test_a_checkpoint_scores_what_it_scored_when_it_was_trained(root: Path, data: Path) -> None:
    (found,) = scores(root / "checkpoints" / "cap", data).values()
    page = checkpoint.read(root / "checkpoints" / "cap")
    assert same(found, page.metrics)


def test_a_bundle_scores_what_its_checkpoint_does(root: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for folder in ("checkpoints", "bundles"):
        assert evaluate.main([str(root / folder / "cap"), "--data", str(data), "--quiet"]) == 0
        tables.append(capsys.readouterr().out)
    # Three decimals of figures that differ by 1e-6; no probability of these lies on an edge.
    assert tables[0] == tables[1]
    assert "Cap, split val" in tables[0]
    assert all(column in tables[0] for column in COLUMNS)


@pytest.mark.parametrize(("split", "labels"), [("val", 11), ("train", 33)])
def test_a_split_is_scored_on_its_own_photos(root: Path, data: Path, split: str, labels: int) -> None:
    found = scores(root / "checkpoints" / "cap", data, "--split", split)["Cap"]
    assert sum(line["labels"] for line in found) == labels


@pytest.mark.parametrize(("folder", "kind"), [("checkpoints", "checkpoint"), ("bundles", "bundle")])
def test_a_report_is_written_to_a_folder_of_the_models_name(
    root: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str, kind: str
) -> None:
    assert evaluate.main([str(root / folder / "cap"), "--data", str(data)]) == 0
    assert sorted(path.name for path in (tmp_path / "reports" / "cap").iterdir()) == ["metrics.json", "report.html"]
    assert "report: reports/cap/report.html" in capsys.readouterr().err
    page = (tmp_path / "reports" / "cap" / "report.html").read_text()
    assert f"Evaluation of the {kind} <code>{root / folder / 'cap'}</code>" in page
    said = "A bundle's graph has its temperature in it" if kind == "bundle" else "No temperature was fitted"
    assert said.replace("'", "&#39;") in page


def test_a_checkpoints_temperatures_are_used(root: Path, data: Path, tmp_path: Path) -> None:
    (plain,) = scores(root / "checkpoints" / "cap", data).values()
    folder = shutil.copytree(root / "checkpoints" / "cap", tmp_path / "cap")
    page = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(page | {"temperatures": {"shade": calibrate.HOTTEST}}))
    (found,) = scores(folder, data).values()
    assert found[0] == plain[0]
    # Divided by twenty, two classes are all but equally likely; which is likelier does not change.
    assert found[1]["loss"] == pytest.approx(math.log(2), rel=0.05)
    assert found[1] == plain[1] | {"loss": found[1]["loss"]}


def test_a_split_that_was_drawn_by_a_seed_is_drawn_by_it_again(tmp_path: Path) -> None:
    data, out = write_data(tmp_path / "data", edit=without("split")), tmp_path / "out"
    options = ["--preset", "tiny", "--seed", "5", "--max-steps", "4", "--quiet", "--out", str(out)]
    assert fit.main(["--data", str(data), *options]) == 0
    (found,) = scores(out / "cap", data).values()
    # Another seed's validation photos were trained on.
    assert same(found, checkpoint.read(out / "cap").metrics)
    # A bundle has no room for the split, and draws it by the seed.
    bundles = tmp_path / "bundles"
    made = ["--checkpoints", str(out), "--data", str(data), "--out", str(bundles), "--precision", "fp32", "--quiet"]
    assert build.main([*made, "--engine", "onnxruntime"]) == 0
    (of_bundle,) = scores(bundles / "cap", data).values()
    assert same(of_bundle, checkpoint.read(out / "cap").metrics)


def test_a_split_that_nothing_gives_is_said_to_be_drawn_anew(
    root: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(tmp_path / "data", edit=without("split"))
    told = "the split was drawn anew by seed 0: photos that the model learnt from may be among these, unless"
    said = []
    for model, source in (("checkpoints", folder), ("bundles", folder), ("bundles", data)):
        assert evaluate.main([str(root / model / "cap"), "--data", str(source), "--quiet"]) == 0
        said.append((told in capsys.readouterr().err, told[1:] in Path("reports/cap/report.html").read_text()))
    # A checkpoint keeps its own split.
    assert said == [(False, False), (True, True), (False, False)]


def without(column: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [{name: cell for name, cell in row.items() if name != column} for row in rows]


def test_photos_that_are_not_there_count_in_their_own_split_alone(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", count=120)
    lost = data / "train_images" / "000001.jpg"  # of split train
    lost.unlink()
    model = str(root / "checkpoints" / "cap")
    assert evaluate.main([model, "--data", str(data), "--quiet"]) == 0
    assert "left out" not in capsys.readouterr().err
    assert evaluate.main([model, "--data", str(data), "--quiet", "--split", "train"]) == 1
    assert f"left out, not there: {lost}" in capsys.readouterr().err


def test_photos_come_with_their_groups(root: Path, tmp_path: Path) -> None:
    def sent(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"group": "" if row["id"] == "20" else f"sender{index // 2}"} for index, row in enumerate(rows)]

    with answers.opened(root / "bundles" / "cap") as model:
        (plain,) = answers.answers(model, write_data(tmp_path / "plain"), "val", quiet=True)
        (found,) = answers.answers(model, write_data(tmp_path / "data", edit=sent), "val", quiet=True)
    assert len(set(plain.groups_N)) == len(plain.paths) == 6
    assert found.groups_N.tolist() == ["sender9", "sender9", "id 20", "sender10", "sender11", "sender11"]


def test_the_way_of_a_gpu_gives_the_answers_of_a_cpu_and_the_same_photos_lost(root: Path, tmp_path: Path) -> None:
    def validate_all(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"split": "train" if index < 6 else "val"} for index, row in enumerate(rows)]

    data = write_data(tmp_path / "data", count=206, edit=validate_all)
    lost = data / "train_images" / "000050.jpg"
    lost.write_bytes(b"not an image")
    with answers.opened(root / "checkpoints" / "cap") as model:
        (expected,) = answers.answers(model, data, "val", quiet=True)
        whole = partial(answers.by_workers, *checkpoint.load(model.folder), torch.device("cpu"))
        (found,) = answers.answers(replace(model, whole_split=whole), data, "val", quiet=True)
    assert found.lost == expected.lost
    assert [(of.path, of.reason, bool(of.detail)) for of in found.lost] == [(lost, "unreadable", True)]
    assert found.paths == expected.paths and len(found.paths) == 199
    assert (found.labels_NL == expected.labels_NL).all()
    for ours_NK, theirs_NK in zip(found.probabilities, expected.probabilities, strict=True):
        np.testing.assert_allclose(ours_NK, theirs_NK, atol=1e-5)  # other batches, other additions


@pytest.mark.gpu
def test_a_checkpoint_answers_on_the_gpu_that_is_there(root: Path, data: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    with answers.opened(root / "checkpoints" / "cap") as model:
        (found,) = answers.answers(model, data, "val", quiet=True)
        (expected,) = answers.answers(answers._network(model.folder, torch.device("cpu")), data, "val", quiet=True)
        assert model.whole_split is not None and model.attention is not None
        assert model.attention(np.zeros((2, 64, 64, 3), np.uint8))["colour"].shape == (2, 2, 2)
    for ours_NK, theirs_NK in zip(found.probabilities, expected.probabilities, strict=True):
        np.testing.assert_allclose(ours_NK, theirs_NK, atol=0.05)  # bfloat16 has three digits


@pytest.mark.parametrize("folder", ["checkpoints", "bundles"])
def test_one_unreadable_photo_in_a_hundred_is_listed_and_the_rest_is_scored(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    def validate_all(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"split": "train" if index < 6 else "val"} for index, row in enumerate(rows)]

    data = write_data(tmp_path / "data", count=106, edit=validate_all)
    lost = data / "train_images" / "000050.jpg"
    lost.write_bytes(b"not an image")
    assert evaluate.main([str(root / folder / "cap"), "--data", str(data), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert f"left out, unreadable: {lost}" in err
    assert "average" in out


# Mistakes


def test_a_folder_of_neither_kind_is_answered_with_the_example(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f"neither bundle.json nor checkpoint.json in {tmp_path}\n"
    for folder, more in ((Path(__file__).parents[1], "try the example with: python -m train.evaluate"), (tmp_path, "")):
        monkeypatch.chdir(folder)
        assert evaluate.main([str(tmp_path), "--data", str(data)]) == 2
        assert refused(capsys).startswith(f"error: {said}{more}")


def test_a_split_without_labelled_photos_is_named(root: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(root / "checkpoints" / "cap"), "--data", str(data), "--split", "test"]) == 2
    assert f"no labelled row of 'Cap' in split 'test' of {data}" in refused(capsys)


def test_photos_of_another_category_are_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data")
    for name in ("train.csv", "category_attributes.csv"):
        (data / name).write_text((data / name).read_text().replace("Cap", "Hat"))
    assert evaluate.main([str(root / "checkpoints" / "cap"), "--data", str(data)]) == 2
    assert f"no category 'Cap' in {data}; have: Hat" in refused(capsys)


def test_a_bundle_and_data_of_other_attributes_are_told_apart_with_the_next_command(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data")
    page = (data / "category_attributes.csv").read_text()
    (data / "category_attributes.csv").write_text(page.replace("shade", "brim"))
    assert evaluate.main([str(root / "bundles" / "cap"), "--data", str(data)]) == 2
    said = f"{data} was labelled with another taxonomy: 'Cap' has attributes colour, brim, expected colour, shade\n"
    assert said + "name the data that the model was trained on with: --data DIR" in refused(capsys)


def test_a_label_that_the_model_does_not_know_is_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"attr_1": row["attr_1"].replace("red", "pink")} for row in rows]

    data = write_data(tmp_path / "data", edit=rename)
    assert evaluate.main([str(root / "bundles" / "cap"), "--data", str(data)]) == 2
    classes = ", ".join(CATEGORY.attributes[0].classes)
    assert f"'pink' (id 2) is not a class of 'colour'; its classes are: {classes}" in refused(capsys)


def test_a_report_that_cannot_be_written_is_said_before_any_photo_is_read(
    root: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scores.json").write_text("{}")
    options = ["--data", str(data), "--out", "scores.json"]
    assert evaluate.main([str(root / "checkpoints" / "cap"), *options]) == 2
    said = "cannot write the report in scores.json: Not a directory\nchoose another folder with: --out DIR"
    assert said in refused(capsys)


def test_a_network_that_answers_with_no_number_is_refused(
    root: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, page = checkpoint.load(root / "checkpoints" / "cap")
    with torch.no_grad():
        # Weights that are numbers, and a product that is none.
        model.heads.rows_of(1)[-1].fill_(3e38)
        model.heads.rows_of(1)[-2].fill_(3e38)
    checkpoint.save(tmp_path / "cap", model.state_dict(), page)
    assert evaluate.main([str(tmp_path / "cap"), "--data", str(data), "--quiet"]) == 2
    assert "the model answers 'shade' of 'Cap' with NaN: train it again" in refused(capsys)


def test_too_many_unreadable_photos_end_the_run(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data")
    (data / "train_images" / "000020.jpg").write_bytes(b"not an image")
    assert evaluate.main([str(root / "checkpoints" / "cap"), "--data", str(data), "--quiet"]) == 2
    assert "1 of 6 photos are unreadable, more than 1%" in refused(capsys)

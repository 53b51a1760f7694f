"""The command that scores a checkpoint or a bundle, on photos of one colour."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export import build
from tests.train_parts import CATEGORY, write_data
from train import checkpoint, evaluate, fit
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
    (folder / "checkpoint.json").write_text(json.dumps(page | {"temperatures": {"shade": 100.0}}))
    (found,) = scores(folder, data).values()
    assert found[0] == plain[0]
    # Divided by a hundred, two classes are all but equally likely; which is likelier does not change.
    assert found[1]["loss"] == pytest.approx(math.log(2), rel=0.05)
    assert found[1] == plain[1] | {"loss": found[1]["loss"]}


def test_score_gives_what_the_report_says(root: Path, data: Path) -> None:
    model = root / "checkpoints" / "cap"
    ((category, found, lost),) = evaluate.score(model, data, "val", quiet=True)
    assert (category.name, lost) == ("Cap", [])
    assert [asdict(score) for score in found] == scores(model, data)["Cap"]


def test_a_split_that_was_drawn_by_a_seed_is_drawn_by_it_again(tmp_path: Path) -> None:
    def unsplit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{name: cell for name, cell in row.items() if name != "split"} for row in rows]

    data, out = write_data(tmp_path / "data", edit=unsplit), tmp_path / "out"
    options = ["--preset", "tiny", "--seed", "5", "--max-steps", "4", "--quiet", "--out", str(out)]
    assert fit.main(["--data", str(data), *options]) == 0
    (found,) = scores(out / "cap", data).values()
    # Another seed's validation photos were trained on.
    assert same(found, checkpoint.read(out / "cap").metrics)


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
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(tmp_path), "--data", str(data)]) == 2
    said = f"neither bundle.json nor checkpoint.json in {tmp_path}\ntry the example with: python -m train.evaluate"
    assert said in refused(capsys)


def test_a_split_without_labelled_photos_is_named(root: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(root / "checkpoints" / "cap"), "--data", str(data), "--split", "test"]) == 2
    assert f"no labelled row of 'Cap' in split 'test' of {data}" in refused(capsys)


def test_photos_of_another_category_are_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data")
    for name in ("train.csv", "category_attributes.csv"):
        (data / name).write_text((data / name).read_text().replace("Cap", "Hat"))
    assert evaluate.main([str(root / "checkpoints" / "cap"), "--data", str(data)]) == 2
    assert f"no category 'Cap' in {data}; have: Hat" in refused(capsys)


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
        model.heads.rows_of(1)[-1].fill_(torch.nan)
    checkpoint.save(tmp_path / "cap", model.state_dict(), page)
    assert evaluate.main([str(tmp_path / "cap"), "--data", str(data), "--quiet"]) == 2
    assert "the model answers 'shade' of 'Cap' with NaN: train it again" in refused(capsys)


def test_too_many_unreadable_photos_end_the_run(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data")
    (data / "train_images" / "000020.jpg").write_bytes(b"not an image")
    assert evaluate.main([str(root / "checkpoints" / "cap"), "--data", str(data), "--quiet"]) == 2
    assert "1 of 6 photos are unreadable, more than 1%" in refused(capsys)

"""Training photos answered by networks that did not learn from them: whole runs, on a network of few weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from runtime import bundle
from runtime import validation as kept
from tests.export_parts import run as export
from tests.train_parts import CATEGORY, write_data, write_two
from train import checkpoint, crossfit, data, fit, out_of_fold, training
from train.config import MISSING
from train.crossfit import folded

pytestmark = pytest.mark.usefixtures("tiny_preset")

# Answers to three photos.
THIRDS = {"colour": np.full((3, 3), 1 / 3), "shade": np.full((3, 2), 0.5)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("crossfit") / "data")


@pytest.fixture(scope="module")
def trained(photos: Path) -> Path:
    return train(photos, photos.parent / "checkpoints", "--max-steps", "4")


@pytest.fixture
def checkpoints(trained: Path, tmp_path: Path) -> Path:
    """A copy for one test."""
    return Path(shutil.copytree(trained, tmp_path / "checkpoints"))


def train(data: Path, out: Path, *options: str) -> Path:
    assert fit.main(["--data", str(data), "--preset", "tiny", "--out", str(out), "--quiet", *options]) == 0
    return out


def run(data: Path, checkpoints: Path, *options: str) -> int:
    return crossfit.main(["--data", str(data), "--checkpoints", str(checkpoints), *options])


def test_each_training_row_is_in_one_fold_and_no_fold_divides_a_group(photos: Path) -> None:
    (table,) = data.read(photos)
    groups = np.array([str(index // 2) for index in range(len(table.ids))], object)
    table = checkpoint.replace(table, groups=groups)
    seen: list[int] = []
    for part in folded(table, 4, seed=0):
        asked = np.flatnonzero(part.splits == "test")
        assert len(asked) and not {*groups[asked]} & {*groups[part.splits == "train"]}
        assert np.array_equal(part.splits == "val", table.splits == "val")
        seen += asked.tolist()
    assert sorted(seen) == table.rows("train").tolist()


def test_test_photos_neither_train_nor_are_asked_for(photos: Path) -> None:
    (table,) = data.read(photos)
    homes = table.splits.astype(object)
    homes[:5] = "test"
    for part in folded(checkpoint.replace(table, splits=homes), 3, seed=0):
        assert not {*part.splits[:5]} & {"train", "val", "test"}


def test_every_training_photo_is_answered_and_bundles_keep_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = train(photos, tmp_path / "checkpoints")
    assert run(photos, checkpoints, "--folds", "3") == 0
    said = capsys.readouterr().out
    (table,) = data.read(photos)
    rows = table.rows("train")
    assert f"{len(rows)} training photos, each answered by a network that did not learn from it" in said
    folder = checkpoints / "cap"
    found = out_of_fold.read(folder, checkpoint.read(folder))
    assert found and not (folder / "folds").exists()
    assert sorted(map(tuple, found.labels_NL.tolist())) == sorted(map(tuple, table.labels_NL[rows].tolist()))
    for labels_N, attribute in zip(found.labels_NL.T, CATEGORY.attributes, strict=True):
        answers_NK = found.probabilities[attribute.output]
        assert np.abs(answers_NK.sum(1) - 1).max() < 1e-5
        known_N = labels_N != MISSING
        # The colours are learnt within these steps from any two thirds of the photos.
        assert (answers_NK.argmax(1) == labels_N)[known_N].mean() > 0.6

    out = tmp_path / "bundles"
    assert export(checkpoints, out, "--precision", "fp32", "--engine", "onnxruntime") == 0
    page = bundle.verify(out / "cap")
    validation = kept.read(out / "cap", page)
    assert page.validation and validation
    assert page.validation.photos_out_of_fold == len(rows) and page.validation.photos == len(table.rows("val"))
    labels_N = table.labels_NL[:, 0]
    assert len(validation.answers["colour"].labels_N) == (labels_N != MISSING).sum()
    own_NK = validation.answers["colour"].probabilities_NK[: page.validation.photos]
    others_NK = validation.answers["colour"].probabilities_NK[page.validation.photos :]
    assert {*map(tuple, others_NK)} == {*map(tuple, found.probabilities["colour"])} != {*map(tuple, own_NK)}
    assert len(validation.features_NF) == page.validation.photos


def test_the_answers_are_those_of_a_network_that_learnt_from_the_other_folds(photos: Path, checkpoints: Path) -> None:
    import torch

    from train.answers import by_workers

    folder = checkpoints / "cap"
    page = checkpoint.read(folder)
    assert run(photos, checkpoints, "--folds", "2", "--quiet") == 0
    found = out_of_fold.read(folder, page)
    assert found
    (table,) = data.read(photos)
    part = next(folded(table, 2, seed=0))
    cpu = torch.device("cpu")
    training.train(
        part, page.preset, training.Options(folder=checkpoints / "alone", data="", max_steps=4, quiet=True), cpu
    )
    model, its_page = checkpoint.load(checkpoints / "alone")
    answered = by_workers(model, its_page, cpu, part, "test")
    assert its_page.temperatures == {}  # of six validation photos there are none
    own_NK = answered.probabilities["colour"]
    assert np.abs(found.probabilities["colour"][: len(own_NK)] - own_NK).max() < 1e-5


def test_what_is_done_is_not_done_again_after_an_interruption(
    photos: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = training.train
    begun: list[str] = []

    def stopped(*args: object, **options: object) -> object:
        begun.append("training")
        if len(begun) == 2:
            raise KeyboardInterrupt
        return whole(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", stopped)
    assert run(photos, checkpoints, "--folds", "2") == 130
    monkeypatch.setattr(training, "train", whole)
    folds = checkpoints / "cap" / "folds"
    first = (folds / "1" / "model.safetensors").read_bytes()
    capsys.readouterr()

    assert run(photos, checkpoints, "--folds", "2") == 2
    assert f"go on with it: --resume, or start anew: rm -r {folds}" in capsys.readouterr().err
    assert (folds / "1" / "model.safetensors").read_bytes() == first
    assert run(photos, checkpoints, "--folds", "2", "--resume") == 0
    assert "is trained already" in capsys.readouterr().err
    assert (checkpoints / "cap" / out_of_fold.FILE).exists() and not folds.exists()

    monkeypatch.setattr(training, "train", stopped)  # which would begin anew
    assert run(photos, checkpoints, "--folds", "2", "--resume") == 0
    assert "Cap is done already" in capsys.readouterr().err
    assert run(photos, checkpoints, "--folds", "2") == 0
    assert "Cap is done already" in capsys.readouterr().err


def test_a_run_goes_on_as_it_was_begun_or_not_at_all(
    photos: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = checkpoints / "cap" / "folds"

    def stopped(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", stopped)
        assert run(photos, checkpoints, "--folds", "2") == 130
    assert f"{folds} holds what was trained\ngo on with the same command and: --resume" in capsys.readouterr().err
    assert run(photos, checkpoints, "--folds", "3", "--resume") == 2
    told = capsys.readouterr().err
    assert "begun with other data, weights or --folds\n" in told and f"start anew: rm -r {folds}" in told
    assert run(photos, checkpoints, "--folds", "2", "--resume", "--quiet") == 0


def test_a_photo_that_is_gone_or_cannot_be_read_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_data(tmp_path / "data", count=240)  # of fewer, one is too many
    checkpoints = train(photos, tmp_path / "checkpoints", "--max-steps", "2")
    gone, spoilt = photos / "train_images" / "000002.jpg", photos / "train_images" / "000001.jpg"
    gone.unlink()
    spoilt.write_bytes(spoilt.read_bytes()[:300])
    assert run(photos, checkpoints, "--folds", "2", "--quiet") == 1
    told = capsys.readouterr().err
    assert f"left out, unreadable: {spoilt}\nleft out, not there: {gone}" in told
    found = out_of_fold.read(checkpoints / "cap", checkpoint.read(checkpoints / "cap"))
    assert found and len(found.labels_NL) == 178


def test_a_limited_training_has_limited_folds(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = train(photos, tmp_path / "checkpoints", "--max-steps", "4")
    asked: list[int | None] = []
    whole = training.train

    def watched(*args: object, **options: object) -> object:
        asked.append(args[2].max_steps)  # type: ignore[attr-defined]
        return whole(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", watched)
    assert run(photos, checkpoints, "--folds", "2", "--quiet") == 0
    assert asked == [4, 4]


def test_a_joint_checkpoint_splits_with_what_is_beside_it(tmp_path: Path) -> None:
    photos = write_two(tmp_path / "data")
    checkpoints = train(photos, tmp_path / "checkpoints", "--joint", "--max-steps", "4")
    assert run(photos, checkpoints, "--folds", "2", "--quiet") == 0
    folder = checkpoints / "joint"
    page = checkpoint.read(folder)
    whole = out_of_fold.read(folder, page)
    pieces = {piece.name: out_of_fold.read(folder, piece) for piece in checkpoint.pages(page)}
    assert whole and pieces["Cap"]
    assert len(pieces["Cap"].labels_NL) == (whole.labels_NL[:, 1:3] != MISSING).any(1).sum()
    kept_N = (whole.labels_NL[:, 1:3] != MISSING).any(1)
    assert np.array_equal(pieces["Cap"].probabilities["colour"], whole.probabilities["Cap/colour"][kept_N])


def test_what_is_beside_new_weights_is_left_out_and_said(
    photos: Path, checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoints / "cap"
    page = checkpoint.read(folder)
    other = checkpoint.replace(page, weights_sha256="0" * 64)
    labels_NL = np.zeros((3, 2), int)
    out_of_fold.write(folder, other, labels_NL, THIRDS, made_of="")
    assert out_of_fold.read(folder, page) is None
    assert export(checkpoints, tmp_path / "bundles", "--precision", "fp32", "--engine", "onnxruntime") == 0
    assert "is of the weights before these, and is left out" in capsys.readouterr().err
    built = bundle.load(tmp_path / "bundles" / "cap")
    assert built.validation and built.validation.photos_out_of_fold == 0

    out_of_fold.write(folder, page, labels_NL, THIRDS, made_of="")
    assert export(checkpoints, tmp_path / "bundles", "--precision", "fp32", "--engine", "onnxruntime") == 0
    again = bundle.load(tmp_path / "bundles" / "cap")
    assert again.validation and again.validation.photos_out_of_fold == 3
    assert again.artifacts == built.artifacts


@pytest.mark.parametrize("spoilt", ["text", "cut", "labels", "shape", "classes", "nan", "dtype", "bfloat16"])
def test_a_file_that_is_none_is_named_with_what_to_do(checkpoints: Path, spoilt: str) -> None:
    folder = checkpoints / "cap"
    page = checkpoint.read(folder)
    labels_NL, answers = np.zeros((3, 2), int), {name: half.copy() for name, half in THIRDS.items()}
    asked = page
    if spoilt == "labels":
        labels_NL = labels_NL + 9
    if spoilt == "shape":
        answers["colour"] = answers["colour"][:, :2]
    if spoilt == "nan":
        answers["shade"][1, 0] = np.nan
    if spoilt == "classes":
        colour, shade = CATEGORY.attributes
        fewer = msgspec.structs.replace(CATEGORY, attributes=(colour, msgspec.structs.replace(shade, classes=("a",))))
        asked = checkpoint.replace(page, categories=(fewer,))
    out_of_fold.write(folder, asked, labels_NL, answers, made_of="")
    path = folder / out_of_fold.FILE
    if spoilt == "text":
        path.write_text("no tensors")
    if spoilt == "dtype":
        path.write_bytes(path.read_bytes().replace(b'"dtype":"I16"', b'"dtype":"U16"'))
    if spoilt == "bfloat16":
        path.write_bytes(path.read_bytes().replace(b'"dtype":"I16"', b'"dtype":"BF16"'))
    if spoilt == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(out_of_fold.UserError, match=r"(?s)out_of_fold.*anew with: python -m train.crossfit"):
        out_of_fold.read(folder, page)


def test_one_group_of_photos_cannot_be_folded(
    tmp_path: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grouped = write_data(
        tmp_path / "grouped",
        edit=lambda rows: [row | {"group": "all" if row["split"] == "train" else "other"} for row in rows],
    )
    assert run(grouped, checkpoints) == 2
    assert "are of one group" in capsys.readouterr().err
    assert not (checkpoints / "cap" / "folds").exists()


@pytest.mark.parametrize("folds", ["1", "0", "-2", "21", "two"])
def test_folds_are_from_2_to_20(folds: str, photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(photos, trained, "--folds", folds)
    assert "must be a whole number from 2 to 20" in capsys.readouterr().err


def test_photos_that_did_not_train_the_checkpoint_are_refused(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swapped = {"train": "val", "val": "train"}
    other = write_data(tmp_path / "other", edit=lambda rows: [row | {"split": swapped[row["split"]]} for row in rows])
    assert run(other, checkpoints) == 2
    assert "did not learn from these training photos, such as id 18\nname the data" in capsys.readouterr().err
    # One that does not say by which, but of how many, as those whose pages are older.
    folder = checkpoints / "cap"
    page = checkpoint.read(folder)
    silent = checkpoint.replace(page, splits={}, provenance=page.provenance | {"photos": "99"})
    checkpoint.save(folder, checkpoint.load(folder)[0].state_dict(), silent)
    assert run(other, checkpoints) == 2
    assert "did not learn from these training photos, 6 of them where it was 99" in capsys.readouterr().err


def test_a_checkpoint_in_training_is_not_answered_for(
    photos: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoints / "cap" / checkpoint.UNFINISHED).touch()
    assert run(photos, checkpoints) == 2
    assert "an unfinished training is in" in capsys.readouterr().err


def test_what_a_folds_network_never_saw_is_no_label(tmp_path: Path) -> None:
    """Green is one group's alone, so that whoever answers for it has not seen it."""

    def grouped(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"group": row["split"] if row["attr_1"] == "green" else row["id"]} for row in rows]

    photos = write_data(tmp_path / "data", edit=grouped)
    (table,) = data.read(photos)
    checkpoints = train(photos, tmp_path / "checkpoints", "--max-steps", "2")
    assert run(photos, checkpoints, "--folds", "3", "--quiet") == 0
    found = out_of_fold.read(checkpoints / "cap", checkpoint.read(checkpoints / "cap"))
    assert found
    green = CATEGORY.attributes[0].classes.index("green")
    labels_N = table.labels_NL[table.rows("train"), 0]
    counts_K = np.bincount(labels_N, minlength=3)
    assert counts_K[green] > 0
    counts_K[green] = 0
    colours_N = found.labels_NL[:, 0]
    assert np.bincount(colours_N[colours_N != MISSING], minlength=3).tolist() == counts_K.tolist()


def test_a_training_that_time_cut_short_has_folds_of_the_same_time(
    photos: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoints / "cap"
    page = checkpoint.read(folder)
    cut = checkpoint.replace(page, provenance=page.provenance | {training.CUT: "by --max-hours"})
    checkpoint.save(folder, checkpoint.load(folder)[0].state_dict(), cut)
    limits: list[float] = []
    whole = training.train

    def watched(*args: object, limit_s: float | None = None) -> object:
        limits.append(limit_s or 0)
        return whole(*args, limit_s=60)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", watched)
    assert run(photos, checkpoints, "--folds", "2", "--quiet") == 0
    took = sum({epoch.phase: epoch.seconds for epoch in page.history}.values())
    assert limits == pytest.approx([took + 2] * 2, abs=0.1) and took > 0


def test_bundles_keep_what_they_have_when_the_file_is_gone(photos: Path, checkpoints: Path, tmp_path: Path) -> None:
    folder = checkpoints / "cap"
    out_of_fold.write(folder, checkpoint.read(folder), np.zeros((3, 2), int), THIRDS, made_of="")
    options = (tmp_path / "bundles", "--precision", "fp32", "--engine", "onnxruntime")
    assert export(checkpoints, *options) == 0
    before = bundle.load(tmp_path / "bundles" / "cap")
    (folder / out_of_fold.FILE).unlink()
    assert export(checkpoints, *options) == 0
    assert bundle.load(tmp_path / "bundles" / "cap") == before


def test_of_many_training_photos_some_are_kept(
    photos: Path, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.validation.OUT_OF_FOLD", 2)
    folder = checkpoints / "cap"
    out_of_fold.write(folder, checkpoint.read(folder), np.zeros((3, 2), int), THIRDS, made_of="")
    assert export(checkpoints, tmp_path / "bundles", "--precision", "fp32", "--engine", "onnxruntime") == 0
    kept_as = bundle.load(tmp_path / "bundles" / "cap").validation
    assert kept_as and kept_as.photos_out_of_fold == 2


def test_bundles_are_no_checkpoints(photos: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoints / "cap" / checkpoint.PAGE).rename(checkpoints / "cap" / "bundle.json")
    assert run(photos, checkpoints) == 2
    assert "holds bundles, which are made of checkpoints" in capsys.readouterr().err

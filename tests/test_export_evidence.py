"""Which photos calibrate and judge."""

# N photos, L attributes

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export import evidence
from export.evidence import covering
from runtime import images, inputs
from runtime.bundle import Attribute, Category
from tests import export_parts
from tests.train_parts import write_data
from train import checkpoint
from train.config import MISSING
from train.table import Table

pytestmark = pytest.mark.usefixtures("tiny_preset", "exported_once")


@pytest.fixture(scope="module")
def data(export_folder: Path) -> Path:
    return export_parts.data(export_folder)


@pytest.fixture(scope="module")
def checkpoints(export_folder: Path) -> Path:
    return export_parts.checkpoints(export_folder)


def table(labels_NL: np.ndarray, *, val: int = 0) -> Table:
    """All rows train but the last `val`."""
    rows = len(labels_NL)
    classes = tuple("abcdefghijklmnopqrst"[: labels_NL.max() + 1])
    names = [f"attribute {index}" for index in range(labels_NL.shape[1])]
    return Table(
        categories=(
            Category(
                name="Cap", attributes=tuple(Attribute(name=name, classes=classes, output=name) for name in names)
            ),
        ),
        routes=None,
        ids=tuple(map(str, range(rows))),
        paths=tuple(Path(f"{index}.jpg") for index in range(rows)),
        labels_NL=labels_NL,
        kinds_N=np.zeros(rows, np.int64),
        groups=np.arange(rows),
        splits=np.array(["train"] * (rows - val) + ["val"] * val, object),
        targets=(),
        absent=(),
    )


def test_every_class_that_so_many_can_show_is_shown_however_rare() -> None:
    labels_NL = np.zeros((1000, 2), np.int64)
    labels_NL[500:, 0] = 1
    labels_NL[[13, 700], 1] = [1, 2]
    chosen = covering(table(labels_NL), "train", 8)
    assert len(chosen) == len(set(chosen)) == 8
    assert {13, 700} <= set(chosen.tolist())
    # The two common classes of the first attribute have their turns too.
    assert len(set(labels_NL[chosen, 0])) == 2


def test_the_first_rows_show_every_category_and_class() -> None:
    """What takes only the first of the photos, as the ranges of fp16 do, must not see one category alone."""
    labels_NL = np.full((1000, 5), MISSING)
    for category in range(5):
        rows = slice(200 * category, 200 * category + 200)
        labels_NL[rows, category] = np.arange(200) % 2
    first = covering(table(labels_NL), "train", 128)[:10]
    assert {(row // 200, row % 2) for row in first.tolist()} == {(c, k) for c in range(5) for k in range(2)}


def test_the_rows_are_of_the_split_and_spread_over_it() -> None:
    labels_NL = np.zeros((300, 1), np.int64)
    chosen = np.sort(covering(table(labels_NL, val=100), "train", 7))
    assert chosen.max() < 200
    assert np.diff([0, *chosen, 200]).max() < 80


@pytest.mark.parametrize(("count", "found"), [(3, 3), (10, 10), (50, 10)])
def test_there_are_as_many_as_asked_for_or_as_there_are(count: int, found: int) -> None:
    labels_NL = np.array([[index % 3, MISSING if index % 2 else 0] for index in range(10)])
    assert len(covering(table(labels_NL), "train", count)) == found


def test_int8_is_calibrated_on_photos_of_another_folder_where_one_is_named(
    checkpoints: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(data / "train_images", photos / "deep")
    (photos / "damaged.jpg").write_bytes(b"not a photo")
    model, page = checkpoint.load(checkpoints / "cap")
    taken = evidence.gather(model, page, data, calibration=5, gate=100, elsewhere=photos).calibration
    found = inputs.find([photos / "deep"])
    # Evenly over those that can be read.
    expected = [images.load(found[len(found) * place // 5], page.preprocess) for place in range(5)]
    assert np.array_equal(np.stack(list(taken)), np.stack(expected))
    assert len(taken) == 5
    said = f"1 of {len(found) + 1} files in {photos} cannot be read, and do not calibrate\n"
    assert capsys.readouterr().err == said


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

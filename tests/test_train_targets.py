"""Unlabelled photos of the target domain: whose they are, from a folder or from a listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.bundle import Routes
from runtime.errors import UserError
from tests.train_parts import TOPS, write_csv, write_two
from train import data, fit, targets
from train.table import Table, joint, router


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two(tmp_path_factory.mktemp("targets") / "data")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[Table]:
    """Cap and Women Tops & Tunics."""
    return data.read(folder)


def write_photos(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.full((8, 8, 3), 99, np.uint8))


def listing(folder: Path, kinds: Mapping[str, str], *, absent: Sequence[str] = ()) -> Path:
    """A listing of those ids and their categories; the photos lie where they should, but for those absent."""
    write_photos(folder / "test_images", [f"{int(id):06d}.jpg" for id in kinds if id not in absent])
    write_csv(folder / "test.csv", [{"id": id, "Category": kind} for id, kind in kinds.items()])
    return folder / "test.csv"


def names(table: Table) -> list[str]:
    return [path.name for path in table.targets]


def test_without_any_the_photos_of_the_validation_split_are_taken(two: list[Table]) -> None:
    for table in two:
        assert table.targets == tuple(table.paths[row] for row in table.rows("val"))


# A folder


def test_one_category_takes_a_whole_folder(two: list[Table], tmp_path: Path) -> None:
    write_photos(tmp_path / "new" / "in", ["b.jpg", "a.jpg"])
    (table,) = targets.given(two[:1], tmp_path / "new")
    assert table.targets == (tmp_path / "new" / "in" / "a.jpg", tmp_path / "new" / "in" / "b.jpg")


@pytest.mark.parametrize("one", [joint, router])
def test_categories_trained_as_one_take_a_whole_folder(
    two: list[Table], tmp_path: Path, one: Callable[[list[Table]], Table]
) -> None:
    write_photos(tmp_path / "new", ["b.jpg", "a.jpg"])
    (table,) = targets.given([one(two)], tmp_path / "new")
    assert names(table) == ["a.jpg", "b.jpg"]


def test_one_folder_for_categories_trained_apart_is_answered_with_the_two_ways_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "new", ["a.jpg", "b.jpg"])
    options = ["--data", str(folder), "--out", str(tmp_path / "out"), "--target-photos", str(tmp_path / "new")]
    assert fit.main(options) == 2
    assert capsys.readouterr().err == (
        f"error: the photos in {tmp_path / 'new'} would be taken for those of each of 2 categories\n"
        "name theirs with: --category NAME, or say which photo is whose in a listing: --target-photos test.csv\n"
    )
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_told_with_what_could_be(two: list[Table], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder: .*new\nname a folder of photos or a listing"):
        targets.given(two, tmp_path / "new")


# A listing


def test_each_category_takes_its_own_photos_of_a_listing_and_a_joint_model_all(
    two: list[Table], tmp_path: Path
) -> None:
    kinds = {"7": "Cap", "8": TOPS.name, "000009": "Cap", "10": "Scarf", "11": TOPS.name}
    path = listing(tmp_path, kinds)
    # Of the same name as one of the listing, and none of it.
    write_photos(tmp_path / "train_images", ["000007.jpg"])
    caps, tops = targets.given(two, path)
    assert names(caps) == ["000007.jpg", "000009.jpg"]
    assert names(tops) == ["000008.jpg", "000011.jpg"]
    assert {photo.parent for photo in caps.targets} == {tmp_path / "test_images"}
    for one in (joint, router):
        (table,) = targets.given([one(two)], path)
        assert names(table) == ["000007.jpg", "000008.jpg", "000009.jpg", "000011.jpg"]


def test_a_category_that_routes_takes_the_photos_of_those_it_routes_to(two: list[Table], tmp_path: Path) -> None:
    path = listing(tmp_path, {"7": "Cap", "8": TOPS.name, "9": "Boot", "10": "Scarf"})
    routing = replace(two[0], routes=Routes(attribute="colour", to={"red": TOPS.name, "blue": "Boot"}))
    (table,) = targets.given([routing], path)
    assert names(table) == ["000007.jpg", "000008.jpg", "000009.jpg"]


def test_a_category_without_a_line_is_told_those_there_are(two: list[Table], tmp_path: Path) -> None:
    path = listing(tmp_path, {"7": "Cap", "8": "Boot"})
    with pytest.raises(
        UserError, match=rf"test\.csv lists no photo of '{TOPS.name}', but of: Boot, Cap\nadd .*--category"
    ):
        targets.given(two, path)


def test_a_listing_without_its_photos_beside_it_is_told_where_they_go(two: list[Table], tmp_path: Path) -> None:
    path = listing(tmp_path, {"7": "Cap"})
    (tmp_path / "test_images").rename(tmp_path / "photos")
    with pytest.raises(
        UserError, match=r"no folder .*test_images, where the photos of .*test\.csv are looked for\nput .*: ln -s "
    ):
        targets.given(two[:1], path)


def test_a_listed_photo_in_a_hundred_may_be_missing_and_is_left_out_and_more_are_an_error(
    two: list[Table], tmp_path: Path
) -> None:
    kinds = {str(index): "Cap" for index in range(100)}
    (table,) = targets.given(two[:1], listing(tmp_path / "one", kinds, absent=["5"]))
    assert len(table.targets) == 99
    assert table.absent == (tmp_path / "one" / "test_images" / "000005.jpg",)
    with pytest.raises(
        UserError,
        match=r"2 of 100 target photos are not there, more than 1%; the first:\n"
        r"  .*000005\.jpg\n  .*000006\.jpg\n.*: --target-photos",
    ):
        targets.given(two[:1], listing(tmp_path / "two", kinds, absent=["5", "6"]))

"""A data folder of the challenge's shape: its counts are the taxonomy's, and its photos show their labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import synthetic
from runtime import images
from runtime.challenge import COLUMNS, DUMMY
from train import data, taxonomy

PHOTOS, TEST_PHOTOS = 700, 90
PAGE = json.loads(taxonomy.SHIPPED.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "data"
    assert synthetic.main([str(out), "--photos", str(PHOTOS), "--test-photos", str(TEST_PHOTOS), "--quiet"]) == 0
    return out


def lines(path: Path) -> list[list[str]]:
    return [*csv.reader(path.read_text().splitlines())]


def test_the_full_size_has_the_taxonomys_rows_labels_and_missing_cells() -> None:
    known = synthetic.categories()
    rows = synthetic.draw(known, synthetic.PHOTOS, np.random.default_rng(0))
    table = synthetic.table(known, rows)
    assert len(table) == 70_213
    for category in PAGE["categories"]:
        mine = table[table["Category"] == category["name"]]
        assert len(mine) == category["rows"]
        assert set(mine["len"]) == {len(category["attributes"])}
        for attribute in category["attributes"]:
            counts = mine[attribute["column"]].value_counts().to_dict()
            missing = counts.pop("")
            assert counts == attribute["classes"]
            # The taxonomy gives it with four decimals.
            assert missing / len(mine) == pytest.approx(attribute["missing"], abs=5.1e-5)
        unused = [f"attr_{index}" for index in range(len(category["attributes"]) + 1, 11)]
        assert (mine[unused] == "").all(axis=None)


def test_a_smaller_size_has_the_same_shares_and_two_labels_of_every_class(folder: Path) -> None:
    table = pd.read_csv(folder / "train.csv", dtype=str, keep_default_na=False)
    assert len(table) == PHOTOS
    for category in PAGE["categories"]:
        mine = table[table["Category"] == category["name"]]
        share = len(mine) / category["rows"]
        assert len(mine) == pytest.approx(PHOTOS * category["rows"] / 70_213, abs=1)
        for attribute in category["attributes"]:
            counts = mine[attribute["column"]].value_counts()
            commonest = max(attribute["classes"], key=attribute["classes"].get)
            for name, count in attribute["classes"].items():
                # The commonest gives way where rare classes are rounded up and hardly a label is missing.
                assert counts[name] == pytest.approx(max(2, count * share), abs=0.51 if name != commonest else 12)


def test_it_is_laid_out_as_the_challenge_is(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "category_attributes.parquet",
        "sample_submission.csv",
        "test.csv",
        "test_images",
        "train.csv",
        "train_images",
    ]
    assert lines(folder / "train.csv")[0] == lines(folder / "sample_submission.csv")[0] == list(COLUMNS)
    head, *rows = lines(folder / "test.csv")
    assert head == ["id", "Category"]
    assert [row[:2] for row in lines(folder / "sample_submission.csv")[1:]] == rows
    for images_folder, count in ((folder / "train_images", PHOTOS), (folder / "test_images", TEST_PHOTOS)):
        assert sorted(path.name for path in images_folder.iterdir()) == [f"{id:06d}.jpg" for id in range(count)]


def test_the_sample_has_a_class_in_the_columns_that_a_category_uses_and_the_dummy_in_the_others(folder: Path) -> None:
    attributes = {category["name"]: category["attributes"] for category in PAGE["categories"]}
    for _, category, length, *labels in lines(folder / "sample_submission.csv")[1:]:
        assert int(length) == len(attributes[category])
        for label, attribute in zip(labels, attributes[category], strict=False):
            assert label in attribute["classes"]
        assert set(labels[int(length) :]) <= {DUMMY}


def test_training_reads_it(folder: Path) -> None:
    tables = data.read(folder)
    assert tuple(table.categories[0] for table in tables) == taxonomy.read(taxonomy.SHIPPED)
    assert sum(len(table.paths) for table in tables) == PHOTOS
    assert not any(table.absent for table in tables)


def test_a_photo_shows_its_category_and_its_labels_and_none_is_another_twice(folder: Path) -> None:
    paths = sorted((folder / "train_images").iterdir())
    assert len({path.read_bytes() for path in paths}) == PHOTOS
    # The mean of each patch, [N, patch, colour]; where two rows have one label they look alike, else they do not.
    pixels_NHWC = np.stack([images.decode(path) for path in paths]).astype(float)
    patches_NPC = pixels_NHWC.reshape(PHOTOS, 4, 8, 4, 8, 3).mean((2, 4)).reshape(PHOTOS, 16, 3)
    rows = lines(folder / "train.csv")[1:]
    for patch, column in ((0, 1), (4, 1), (5, 3), (9, 7), (14, 12)):
        for category in {row[1] for row in rows} if column > 1 else {""}:
            shown: dict[str, list[np.ndarray]] = {}
            for row, patches_PC in zip(rows, patches_NPC, strict=True):
                if row[column] and category in ("", row[1]):
                    shown.setdefault(row[column], []).append(patches_PC[patch])
            means = [np.mean(values, 0) for values in shown.values()]
            spread = max((np.abs(np.array(values) - np.mean(values, 0)).max() for values in shown.values()), default=0)
            apart = [np.abs(one - other).max() for index, one in enumerate(means) for other in means[:index]]
            assert min(apart, default=255) > 2 * spread


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        synthetic.write(tmp_path / str(seed), photos=PHOTOS, test_photos=TEST_PHOTOS, seed=seed)
    for name in ("train.csv", "test.csv", "sample_submission.csv", "train_images/000000.jpg", "test_images/000080.jpg"):
        assert (tmp_path / "0" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "1" / "train.csv").read_bytes() != (folder / "train.csv").read_bytes()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert synthetic.main([str(tmp_path)]) == 2
    assert f"{tmp_path} is there already\nchoose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]

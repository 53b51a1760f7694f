"""What int8 is judged on: the test split in the place of the validation split, and no photo of it in training."""

from __future__ import annotations

import csv
from pathlib import Path

from benchmarks import trained_int8
from tests.train_parts import write_data
from train import data


def test_the_test_split_is_judged_on_and_calibrates_nothing(tmp_path: Path) -> None:
    def with_test(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"split": "test" if index % 6 == 0 else row["split"]} for index, row in enumerate(rows)]

    source = write_data(tmp_path / "data", edit=with_test)
    with (source / "train.csv").open(newline="") as file:
        by_split: dict[str, set[str]] = {}
        for row in csv.DictReader(file):
            by_split.setdefault(row["split"], set()).add(row["id"])
    trained_int8.judged_on(source, tmp_path / "judged")
    trained_int8.judged_on(source, tmp_path / "judged")  # a second time, as the command may be typed
    (table,) = data.read(tmp_path / "judged")
    found = {split: {table.ids[row] for row in table.rows(split)} for split in ("train", "val")}
    assert found == {"train": by_split["train"], "val": by_split["test"]}
    assert by_split["test"]
    assert all(path.exists() for path in table.paths)

"""The tasks of the recipe study: whose photos train, which choose, and which are scored."""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import record
from runtime.files import replacing

if TYPE_CHECKING:
    from train.table import Table

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "recipes"
FOLDS = 5
VAL_SHARE = 0.2
GARMENT = "garment"
BY_EYE = tuple(f"eye-{fold}" for fold in range(FOLDS))


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options of a benchmark on these photos, the module of that name: where they are, and where results go."""
    made = record.parser(name, description)
    made.add_argument("--source", type=Path, required=True, metavar="DIR", help="labels.csv, attributes.csv, images/")
    return made


def main(parser: argparse.ArgumentParser, measure: Callable[[Path, Path], int], argv: Sequence[str] | None) -> int:
    """Such a command: its exit code, once `measure` has put what it found of the photos into the folder asked for."""
    args = parser.parse_args(argv)
    return record.run(lambda: measure(args.source, args.out), into=args.out)


def prepare(source: Path) -> None:
    """The photos in the challenge's layout, and a train.csv for each task."""
    from train import data, splits
    from train.table import joint

    whole = BUILD / "clothing"
    if not (whole / "train.csv").exists():
        command = [sys.executable, "examples/make_examples.py", "--source", str(source), "--full", str(whole)]
        subprocess.run(command, cwd=ROOT, check=True)
    with (whole / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    _write(BUILD / GARMENT, whole, [row for row in rows if row["Category"] == "Garment"])
    seen = [row for row in rows if row["split"] != "test"]
    by_eye = [table for table in data.read(whole) if table.name != "Garment"]
    merged = joint(by_eye)
    folds_N = splits.folds(merged.labels_NL, merged.groups, count=FOLDS, seed=0)
    fold_of = dict(zip(merged.groups, folds_N.tolist(), strict=True))
    for fold in range(FOLDS):
        rest = [index for index, group in enumerate(merged.groups) if fold_of[group] != fold]
        chosen = splits.stratified(merged.labels_NL[rest], merged.groups[rest], share=VAL_SHARE, seed=fold)
        val = {merged.groups[index] for index, mine in zip(rest, chosen, strict=True) if mine}

        def home(row: dict[str, str], fold: int = fold, val: set[str] = val) -> str:
            # A sender's Garment rows go with its other rows: no photo is trained on in one head and scored in another.
            if fold_of.get(row["group"]) == fold:
                return "test"
            if row["group"] in val or (row["group"] not in fold_of and row["split"] == "val"):
                return "val"
            return "train"

        _write(BUILD / BY_EYE[fold], whole, [row | {"split": home(row)} for row in seen])


def tables_of(task: str, *, together: bool = False) -> list[Table]:
    """The tables that a task trains on: one a category, or all of them on one backbone."""
    from train import data
    from train.table import joint

    tables = data.read(BUILD / task, names=["Garment"] if task == GARMENT else [])
    mine = tables if task == GARMENT else [table for table in tables if table.name != "Garment"]
    return [joint(mine)] if together else mine


def _write(folder: Path, whole: Path, rows: Sequence[dict[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    photos = folder / "train_images"
    photos.unlink(missing_ok=True)
    photos.symlink_to(whole / "train_images")
    shutil.copy(whole / "category_attributes.csv", folder)
    with replacing(folder / "train.csv") as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)

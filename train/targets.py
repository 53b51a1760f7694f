"""Unlabelled photos like those to come, for the MMD term: all of a folder, or each category's own of a listing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from runtime import inputs, listing
from runtime.errors import UserError
from runtime.listing import Entry, photo_of
from train import data
from train.table import Table

PHOTOS = "test_images"
"""Beside a listing, as the challenge has it: photos of train_images/ have the same names."""


def given(tables: Sequence[Table], path: Path) -> list[Table]:
    """The tables with the photos at `path` in place of those of their validation split.

    Args:
        path: a folder, for one table alone, or a listing such as the challenge's test.csv, of which each table takes
            the photos of its categories.
    """
    if not path.exists():
        raise UserError(
            f"no such file or folder: {path}\n"
            "name a folder of photos or a listing like the challenge's test.csv with: --target-photos"
        )
    if path.is_dir() or path.suffix.lower() in inputs.PHOTO_SUFFIXES:
        # Photos of shirts would draw the features of sarees towards them.
        if len(tables) > 1:
            raise UserError(
                f"the photos in {path} would be taken for those of each of {len(tables)} categories\n"
                "name theirs with: --category NAME, or say which photo is whose in a listing: --target-photos test.csv"
            )
        return [replace(table, targets=tuple(inputs.find([path]))) for table in tables]
    entries, folder = listing.read(path), path.parent / PHOTOS
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}, where the photos of {path} are looked for\n"
            f"put them there, or a link: ln -s /path/of/the/photos {quote(str(folder))}"
        )
    found = listing.photos(entries, [folder])
    return [_listed(table, path, entries, found, folder) for table in tables]


def _listed(table: Table, path: Path, entries: Sequence[Entry], found: Mapping[str, Path], folder: Path) -> Table:
    kinds = {category.name for category in table.categories}
    if table.routes:
        kinds.update(table.routes.to.values())
    names = [photo_of(entry.id) for entry in entries if entry.category in kinds]
    if not names:
        have = ", ".join(sorted({entry.category for entry in entries}))
        raise UserError(
            f"{path} lists no photo of {table.name!r}, but of: {have}\n"
            "add its photos there, or train others with: --category NAME"
        )
    absent = tuple(folder / name for name in names if name not in found)
    data.refuse_lost_targets(absent, len(names), "not there")
    return replace(table, targets=tuple(found[name] for name in names if name in found), absent=table.absent + absent)

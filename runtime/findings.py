"""What needs a look: cells that contradict the photo, or are empty, or strange, those first where a look mends most."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.cells import Cell, Photo, Questions
from runtime.errors import UserError
from runtime.files import refuse_pipe, replacing
from runtime.spreadsheet import plain
from runtime.verdicts import Judged, Verdict

COLUMNS = (
    "image",
    "line",
    "category",
    "attribute",
    "column",
    "verdict",
    "declared",
    "predicted",
    "confidence",
    "declared_confidence",
    "worth",
    "note",
)


class Finding(NamedTuple):
    """A cell, or a whole photo, that needs a look."""

    image: str
    line: int
    """Of the listing."""
    category: str
    verdict: Verdict
    worth: float = 0.0
    """The chance that a look mends it, 0-1."""
    note: str = ""
    attribute: str = ""
    column: str = ""
    """Its header in the listing."""
    declared: str = ""
    predicted: str = ""
    confidence: float | None = None
    declared_confidence: float | None = None

    def texts(self) -> list[str]:
        """Under COLUMNS; a spreadsheet shows them, and runs none."""

        def text(name: str) -> str:
            value = getattr(self, name)
            if isinstance(value, float):
                return f"{value:.4f}"
            return "" if value is None else plain(str(value))

        return list(map(text, COLUMNS))


def of_photo(photo: Photo) -> Finding:
    """The photo was not answered."""
    return Finding(photo.image, photo.record.line, photo.category, "error", note=photo.error)


def of_cell(photo: Photo, cell: Cell, judged: Judged, questions: Questions) -> Finding:
    """The cell does not agree."""
    note = ""
    if judged.verdict == "unknown value":
        near = questions.nearest(cell)
        note = f"no class of {cell.attribute}" + (f"; nearest: {', '.join(near)}" if near else ", and none is like it")
    return Finding(
        photo.image,
        photo.record.line,
        cell.category,
        judged.verdict,
        judged.worth,
        note,
        attribute=cell.attribute,
        column=questions.listing.header[cell.column],
        declared=cell.declared,
        predicted=cell.value,
        confidence=cell.confidence,
        declared_confidence=cell.declared_confidence if cell.meant else None,
    )


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]], *, option: str = "--out") -> None:
    """A CSV table, in one step; UserError where it cannot be written."""
    try:
        refuse_pipe(path)
        with (
            # A link's own place is not taken, but the file's that it leads to.
            replacing(Path(os.path.realpath(path))) as beside,
            beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            # Every cell is quoted: a spreadsheet that takes `;` for the delimiter would part them elsewhere.
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(columns)
            writer.writerows(rows)
    except OSError as err:
        raise UserError(f"cannot write {path}: {err.strerror}\nchoose another file with: {option} FILE") from err

"""A run as one page to look through: each photo small beside its attributes, to be filtered, with no other file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from runtime import images, page

TEMPLATE = Path(__file__).resolve().parent / "report.html"
# Of a photo's longer side: 5,000 photos make a page of 15 MB.
PIXELS = 96
# Decoded at a time.
CHUNK = 64
CONFIDENCE = "_confidence"


def write(
    path: Path,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    max_pixels: int = images.MAX_PIXELS,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write the page, row by row; on an error nothing changes at `path`.

    Args:
        columns: of the table, as `runtime.table.columns` gives them.
        rows: their texts.
    """
    attributes = [name for name in columns[6:] if f"{name}{CONFIDENCE}" in columns]
    shown = _rows(columns, attributes, rows, max_pixels, advance)
    page.write(path, TEMPLATE, {"title": title, "attributes": attributes}, shown)


def _rows(
    columns: Sequence[str],
    attributes: Sequence[str],
    rows: Iterable[Sequence[str]],
    max_pixels: int,
    advance: Callable[[], None],
) -> Iterator[list[object]]:
    """Each row as the page's script takes it."""
    remaining = iter(rows)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        while chunk := [dict(zip(columns, row, strict=True)) for row in islice(remaining, CHUNK)]:
            for row, picture in zip(chunk, pool.map(partial(_picture, max_pixels=max_pixels), chunk), strict=True):
                answers = [
                    (index, row[name] or None, float(row[f"{name}{CONFIDENCE}"]))
                    for index, name in enumerate(attributes)
                    if row[f"{name}{CONFIDENCE}"]
                ]
                sure = float(row["category_confidence"]) if row["category_confidence"] else None
                yield [row["image"], row["category"], sure, row["status"], row["error"], picture, answers]
                advance()


def _picture(row: dict[str, str], *, max_pixels: int) -> str:
    """The photo, small; empty where it was not read."""
    return "" if row["status"] == "error" else page.picture(Path(row["image"]), PIXELS, max_pixels=max_pixels)

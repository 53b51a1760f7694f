"""The challenge's submission file: a line for each id of its test.csv, in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from runtime import images
from runtime.bundle import Category
from runtime.errors import UserError
from runtime.fleet import Row
from runtime.output import Sheet

MOST_ATTRIBUTES = 10
COLUMNS = ("id", "Category", "len", *(f"attr_{index}" for index in range(1, MOST_ATTRIBUTES + 1)))
# What the challenge's entries put where there is no answer: a blank cell reads as one that was forgotten.
DUMMY = "dummy_value"


def sheet(categories: Mapping[str, Category], *, least: float = 0.0, max_pixels: int = images.MAX_PIXELS) -> Sheet:
    """The submission of these categories, each by the name that the listing gives it.

    Args:
        least: there is no answer where there is less confidence in it.
        max_pixels: of a photo that is read.
    """
    for name, category in categories.items():
        if (count := len(category.attributes)) > MOST_ATTRIBUTES:
            raise UserError(
                f"category {name!r} has {count} attributes, and a submission takes {MOST_ATTRIBUTES} at most\n"
                "write them all with: --format table"
            )
    return Sheet(
        columns=COLUMNS,
        values=lambda row: cells(row, categories.get(row.category), least=least),
        status=partial(status, max_pixels=max_pixels),
        newline="\n",
    )


def cells(row: Row, category: Category | None, *, least: float = 0.0) -> list[str]:
    """A row's text under COLUMNS; `len` is 0 where no bundle serves the category, so that it stays a number."""
    attributes = category.attributes if category else ()
    found = (row.answers.get(attribute.name) for attribute in attributes)
    labels = [answer.label if answer and answer.confidence >= least else DUMMY for answer in found]
    return [row.id, row.category, str(len(attributes)), *labels, *[DUMMY] * (MOST_ATTRIBUTES - len(labels))]


def status(texts: Sequence[str], row: Row, *, max_pixels: int) -> str:
    """A row has no column for it. Where it has no answer, either its photo is not read, or it was never sure enough."""
    if row.status != "ok":
        return row.status
    if texts[2] == "0":
        return "skipped"
    answered = any(text != DUMMY for text in texts[3:])
    return "ok" if answered or images.is_readable(row.image, max_pixels=max_pixels) else "error"

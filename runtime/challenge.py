"""The challenge's submission file: a line for each id of its test.csv, in that order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runtime.bundle import Category
from runtime.errors import UserError
from runtime.fleet import Row
from runtime.table import csv_lines

MOST_ATTRIBUTES = 10
COLUMNS = ("id", "Category", "len", *(f"attr_{index}" for index in range(1, MOST_ATTRIBUTES + 1)))
# What the challenge's entries put where there is no answer: a blank cell reads as one that was forgotten.
DUMMY = "dummy_value"


def cells(row: Row, category: Category | None) -> list[str]:
    """A row's text under COLUMNS; `len` is 0 where no bundle serves the category, so that it stays a number."""
    attributes = category.attributes if category else ()
    found = (row.answers.get(attribute.name) for attribute in attributes)
    labels = [answer.label if answer else DUMMY for answer in found]
    return [row.id, row.category, str(len(attributes)), *labels, *[DUMMY] * (MOST_ATTRIBUTES - len(labels))]


@contextmanager
def csv_file(path: Path, categories: Mapping[str, Category]) -> Iterator[Callable[[Row], None]]:
    """As `table.csv_file`, for rows of these categories, each by the name that the listing gives it."""
    for name, category in categories.items():
        if (count := len(category.attributes)) > MOST_ATTRIBUTES:
            raise UserError(
                f"category {name!r} has {count} attributes, and a submission takes {MOST_ATTRIBUTES} at most\n"
                "write them all with: --format table"
            )
    with csv_lines(path, COLUMNS, newline="\n") as put:
        yield lambda row: put(cells(row, categories.get(row.category)))

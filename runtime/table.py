"""The table of predictions: a row for each photo, as CSV in a file and as a table on the terminal."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import UserError
from runtime.fleet import Row
from runtime.terminal import print_table

FIXED = ("image", "category", "category_confidence", "routed_from", "status", "error")


def columns(attributes: Sequence[str]) -> list[str]:
    """The header: what every row has, then each attribute and its confidence."""
    return [*FIXED, *(column for name in attributes for column in (name, f"{name}_confidence"))]


def cells(row: Row, attributes: Sequence[str]) -> list[str]:
    """A row's text in the header's order; blank where an attribute does not apply."""
    answers = [row.answers.get(name) for name in attributes]
    return [
        str(row.image),
        row.category,
        _number(row.category_confidence),
        row.routed_from,
        row.status,
        row.error,
        *(text for answer in answers for text in ((answer.label, _number(answer.confidence)) if answer else ("", ""))),
    ]


@contextmanager
def csv_file(path: Path, attributes: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    """Write rows beside `path` and put them there in one step at the end; on an error nothing changes there."""
    with csv_lines(path, columns(attributes)) as put:
        yield lambda row: put(cells(row, attributes))


@contextmanager
def csv_lines(path: Path, header: Sequence[str], *, newline: str = "\r\n") -> Iterator[Callable[[Sequence[str]], None]]:
    """As `csv_file`, line by line, whatever the columns."""
    with _named(path):
        # A folder would be found out only by the last step; a device or a pipe would have its place taken.
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is not a file\nchoose another file with: --out FILE")
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        # surrogateescape: a file name need not be UTF-8, and its bytes must come back as they were.
        file = beside.open("w", newline="", encoding="utf-8", errors="surrogateescape")

    def put(line: Sequence[str]) -> None:
        with _named(path):
            writer.writerow(line)

    try:
        writer = csv.writer(file, lineterminator=newline)
        put(header)
        yield put
        with _named(path):
            file.close()
            os.replace(beside, path)
    finally:
        # What could not be written above cannot be now, and was told already.
        with suppress(OSError):
            file.close()
        beside.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """The system's refusal to write as a UserError that names the file."""
    try:
        yield
    except OSError as err:
        raise UserError(f"cannot write {path}: {err.strerror}\nchoose another file with: --out FILE") from err


def show(rows: Sequence[Row]) -> None:
    """The rows on the terminal: photo, category, and the answers or the error in one cell that wraps."""

    def told(row: Row) -> str:
        if row.status != "ok":
            return f"{row.status}: {row.error}"
        return " · ".join(f"{name} {answer.label} {answer.confidence:.2f}" for name, answer in row.answers.items())

    print_table(
        "", ("photo", "category", "attributes, with confidence"), [(r.image.name, r.category, told(r)) for r in rows]
    )


def _number(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.4f}"

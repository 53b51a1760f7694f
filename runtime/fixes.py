"""Changes to a listing: decided by whoever looked, or covered by the promise; written to a new file, each traceable."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runtime import declared
from runtime.declared import ID, IMAGE
from runtime.errors import UserError
from runtime.files import refuse_pipe, replacing
from runtime.findings import Finding, write
from runtime.spreadsheet import is_formula, plain
from runtime.vocabulary import folded

VERSION = 1
COLUMNS = ("line", "column", "before", "after", "why")
DECISIONS = ("accept", "reject", "skip")
AGAIN = "download them from the page of: python -m runtime.audit LISTING PHOTOS --report audit.html"


class ChangedError(UserError):
    """The listing is not any more what the changes are of."""


class Change(NamedTuple):
    """One cell of a listing, and what is to stand there."""

    line: int
    column: str
    """Its header."""
    before: str
    after: str
    why: str


def promised(findings: Iterable[Finding], precision: float) -> list[Change]:
    """The changes that need no look, as far as the promise goes: empty cells filled, and what contradicts replaced."""
    return [
        Change(one.line, one.column, one.declared, one.predicted, f"{one.verdict}, {one.worth:.4f}, at {precision:g}")
        for one in findings
        if one.verdict in ("fills", "contradicts")
    ]


def decided(path: Path, listing: Path, names_photos: Container[str] = ()) -> list[Change]:
    """The changes that were accepted on an audit's page; UserError where the file is none, or is of another listing.

    Args:
        names_photos: headers of columns that do, beside `image` and `id`: they never change.
    """
    try:
        refuse_pipe(path)
        content = json.loads(path.read_bytes())
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}\n{AGAIN}") from None
    except (ValueError, RecursionError) as err:
        raise UserError(f"{path} is no file of decisions: {err}\n{AGAIN}") from None
    if (
        not isinstance(content, dict)
        or content.get("version") != VERSION
        or not isinstance(content.get("decisions"), list)
    ):
        raise UserError(f"{path} is no file of decisions, of version {VERSION}\n{AGAIN}")
    if content.get("listing") != declared.digest_of(listing):
        raise UserError(f"{path} was decided on another listing than {listing}, or before that was changed\n{AGAIN}")
    accepted = [_decision(path, one) == "accept" for one in content["decisions"]]
    changes = [_change(path, one, names_photos) for one in content["decisions"]]
    if repeated := [cell for cell, count in Counter(change[:2] for change in changes).items() if count > 1]:
        raise UserError(f"{path} decides line {repeated[0][0]}, {repeated[0][1]}, twice\n{AGAIN}")
    return [change for change, is_accepted in zip(changes, accepted, strict=True) if is_accepted]


def apply(listing: Path, changes: Sequence[Change], out: Path, *, digest: str) -> None:
    """Write the listing with the changes to `out`, and what changed beside it; what is not changed stays byte for byte.

    Raises ChangedError, with nothing written, where its SHA-256 is not `digest`, which the changes are of; UserError
    where a cell is not as it was when its change was found.
    """
    by_line: dict[int, list[Change]] = {}
    for change in changes:
        by_line.setdefault(change.line, []).append(change)
    told: list[Change] = []
    try:
        refuse_pipe(out)
        # A link's own place is not taken, but the file's that it leads to.
        with (
            replacing(Path(os.path.realpath(out))) as beside,
            beside.open("w", newline="", encoding="utf-8") as file,
        ):
            check_unchanged(listing, digest)
            file.writelines(_lines(listing, by_line, told))
            check_unchanged(listing, digest)
    except OSError as err:
        raise UserError(f"cannot write {out}: {err.strerror}\nchoose another file with: --fix FILE") from err
    write(traces(out), COLUMNS, ([str(one.line), *map(plain, one[1:])] for one in told), option="--fix")


def check_unchanged(listing: Path, digest: str) -> None:
    """ChangedError where its lines may be other ones than when it was read."""
    if declared.digest_of(listing) != digest:
        raise ChangedError(f"{listing} was changed since it was read: its lines may be other ones\naudit it again")


def _lines(listing: Path, by_line: dict[int, list[Change]], told: list[Change]) -> Iterator[str]:
    """The listing's text, each row as it is or changed."""
    delimiter, places = declared.delimiter(listing), dict[str, int]()
    for record in declared.records(listing):
        here = by_line.pop(record.line, None) if record.cells and places else None
        yield _changed(listing, record, here, places, delimiter, told) if here else record.text
        places = places or {name.strip(): place for place, name in enumerate(record.cells)}
    if by_line:
        raise UserError(f"{listing} has no row in line {min(by_line)}\n{AGAIN}")


def traces(out: Path) -> Path:
    """Where the changes are told, one a row."""
    return out.with_name(f"{out.stem}.changes.csv")


def _changed(
    listing: Path,
    record: declared.Record,
    changes: Sequence[Change],
    places: Mapping[str, int],
    delimiter: str,
    told: list[Change],
) -> str:
    """The row's text with the changes, which are told as they were made."""
    cells = list(record.cells)
    for change in changes:
        place = places.get(change.column)
        now = "" if place is None else declared.cell(record, place)
        as_it_was = now == change.before or (not change.before and declared.is_empty(now))
        if place is None or not as_it_was:
            seen = "no such column" if place is None else repr(now)
            raise UserError(
                f"{listing}, line {change.line}: {change.column} should be {change.before!r}, and is {seen}\n{AGAIN}"
            )
        cells += [""] * (place + 1 - len(cells))
        told.append(change._replace(before=cells[place].strip()))
        cells[place] = change.after
    buffer = io.StringIO()
    ending = record.text[len(record.text.rstrip("\r\n")) :]
    # What is written between quotes hangs on the writer's own ending: this one has both signs that may end a line.
    csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + ending


def _decision(path: Path, one: Any) -> str:
    found = one.get("decision") if isinstance(one, dict) else None
    if found not in DECISIONS:
        raise UserError(f"{path}: {str(one)[:200]!r} is no decision, which are: {', '.join(DECISIONS)}\n{AGAIN}")
    return str(found)


def _change(path: Path, one: dict[str, Any], names_photos: Container[str]) -> Change:
    line, words = one.get("line"), [one.get(name) for name in ("column", "declared", "predicted")]
    if type(line) is not int or not all(isinstance(word, str) for word in words):
        raise UserError(f"{path}: {str(one)[:200]!r} names no line, column, declared and predicted value\n{AGAIN}")
    column, before, predicted = map(str, words)
    if is_formula(predicted) or not predicted.isprintable() or folded(column) in (IMAGE, ID) or column in names_photos:
        raise UserError(f"{path}: {str(one)[:200]!r} is no value that an audit predicts\n{AGAIN}")
    return Change(line, column, before, predicted, "accepted")

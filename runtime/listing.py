"""A listing: the challenge's test.csv, which names photos by id and says what category each is of."""

from __future__ import annotations

import csv
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from sys import intern
from typing import NamedTuple

from runtime.errors import UserError
from runtime.files import refuse_pipe
from runtime.fleet import Row
from runtime.inputs import find

COLUMNS = ("id", "Category")
FIRST_LINE = f"its first line should be: {','.join(COLUMNS)}"


class Entry(NamedTuple):
    """One line: the id as it is written there, and the category."""

    id: str
    category: str


def photo_of(id: str) -> str:
    """The file name of an id's photo: `12` -> `000012.jpg`; what is no number names its file itself."""
    return f"{id.lstrip('0') or '0':0>6}.jpg" if id.isascii() and id.isdigit() else id


def read(path: Path) -> list[Entry]:
    """The lines of a listing, in its order; UserError when it is not one."""
    try:
        refuse_pipe(path)
        # Spreadsheets put a byte order mark first: utf-8-sig takes it off.
        with path.open(newline="", encoding="utf-8-sig") as file:
            entries = list(_entries(path, csv.reader(file, strict=True)))
    except OSError as err:
        raise UserError(
            f"cannot read {path}: {err.strerror}\nname the challenge's test.csv with: --listing FILE"
        ) from None
    except UnicodeDecodeError as err:
        raise not_utf8(path, err) from None
    except csv.Error as err:
        raise UserError(f"{path} is not a CSV table: {err}\n{FIRST_LINE}") from None
    if not entries:
        raise UserError(f"{path} has no rows\nbelow {','.join(COLUMNS)} add a line for each photo, such as: 12,Sarees")
    return entries


def not_utf8(path: Path, err: UnicodeDecodeError) -> UserError:
    """The error for a table of another encoding, as spreadsheets write them."""
    encoding = "UTF-16" if err.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
    return UserError(
        f"{path} is not UTF-8 text: byte 0x{err.object[err.start]:02x}, {err.reason}\n"
        f"save it as CSV UTF-8, or convert it with: iconv -f {encoding} -t UTF-8 {quote(str(path))} > utf8.csv"
    )


def photos(entries: Sequence[Entry], inputs: Sequence[Path]) -> dict[str, Path]:
    """File name -> path of each photo of the listing that the inputs hold; UserError if two have the same name."""
    found: dict[str, Path] = {}
    for path in find(inputs, names={photo_of(entry.id) for entry in entries}):
        other = found.setdefault(path.name, path)
        # realpath, which a link that leads nowhere does not stop: its row says so later.
        if other != path and os.path.realpath(other) != os.path.realpath(path):
            raise UserError(
                f"two photos are named {path.name}: {other} and {path}\n"
                "give the folder of the listing's own photos alone, such as: test_images/"
            )
    return found


def rows(entries: Sequence[Entry], photos: Mapping[str, Path], served: Container[str]) -> Iterator[Row]:
    """A row for each entry, in order; settled already where its photo is not there or nobody serves its category."""
    for entry in entries:
        name = photo_of(entry.id)
        row = Row(image=photos.get(name, Path(name)), id=entry.id, category=entry.category)
        if name not in photos:
            row.fail("no file of this name in the folders given")
        elif entry.category not in served:
            row.skip()
        yield row


def _entries(path: Path, lines: Iterator[list[str]]) -> Iterator[Entry]:
    stripped = ((number, [cell.strip() for cell in cells]) for number, cells in enumerate(lines, 1))
    numbered = ((number, cells) for number, cells in stripped if any(cells))
    _, header = next(numbered, (0, []))
    if not header:
        raise UserError(f"{path} is empty\n{FIRST_LINE}")
    if absent := [column for column in COLUMNS if column not in header]:
        raise UserError(f"{path} lacks column {', '.join(absent)}; it has: {', '.join(header)[:120]!r}\n{FIRST_LINE}")
    places = [header.index(column) for column in COLUMNS]
    seen: dict[str, int] = {}
    for number, cells in numbered:
        id, category = (cells[place] if place < len(cells) else "" for place in places)
        if not id:
            raise UserError(f"{path} has no id in line {number}\ngive every line the id of its photo")
        if (first := seen.setdefault(photo_of(id), number)) != number:
            raise UserError(f"{path} has id {id!r} in lines {first} and {number}\nleave one of the two out")
        yield Entry(id, intern(category))

"""A listing with what its supplier declared: the challenge's train.csv, or any table of photos and attributes."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from sys import intern
from typing import NamedTuple, TextIO

from runtime.bundle import Category
from runtime.challenge import DUMMY
from runtime.errors import UserError
from runtime.files import refuse_pipe, sha256_of
from runtime.fleet import Row
from runtime.inputs import find
from runtime.listing import not_utf8, photo_of
from runtime.vocabulary import folded

IMAGE, ID, CATEGORY = "image", "id", "category"
# The challenge's columns, which hold the attributes of each row's category by number.
NUMBERED = "attr_"
NUMBER = re.compile(rf"{NUMBERED}(\d{{1,3}})")
DELIMITERS = ",;\t"
MARK = "\ufeff"
# What says that nothing is declared, folded, beside an empty cell and dashes.
EMPTY = frozenset(["na", "nan", "null", folded(DUMMY)])
DASHES = "-–—"
# Of a category: more is none, and would make a line of an error too long for a table.
LONGEST = 200
# Of a file's name with its folders, as systems have it: a longer one is none.
LONGEST_NAME = 4096
# Of a header that an error shows; of a file, by which its delimiter is told.
SHOWN, HEAD = 200, 1 << 16


class Record(NamedTuple):
    """One row as it stands in the file."""

    line: int
    """Where it begins, counted from 1."""
    cells: list[str]
    """None at all where the line holds nothing."""
    text: str
    """The same as it is written."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where things stand in a row."""

    key: int
    """What names the photo."""
    is_id: bool
    """Whether that is an id of the challenge, whose photo is 000007.jpg for 7, and not a file's name."""
    category: int | None
    named: Mapping[str, int]
    """Folded attribute -> its column."""
    numbered: Mapping[int, int]
    """Number of the attribute in its category, from 1 -> its column."""

    def of(self, category: Category | None, attribute: str) -> int | None:
        """The column of an attribute, given with the category that has it; None where the listing has none for it."""
        if self.numbered and category is not None:
            names = [one.name for one in category.attributes]
            return self.numbered.get(names.index(attribute) + 1) if attribute in names else None
        return self.named.get(folded(attribute))


@dataclass(kw_only=True)
class Listing:
    """All rows of a listing, in memory; of 70,000 with ten attributes some 60 MB."""

    path: Path
    header: list[str]
    columns: Columns
    records: list[Record] = field(default_factory=list)
    first: dict[str, int] = field(default_factory=dict)
    """The photo's name -> the line where it stands first."""
    digest: str = ""
    """The file's SHA-256, as it was read."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """As it is and folded -> the name of each that there is a bundle of."""

    def photo(self, record: Record) -> str:
        """The name of the row's photo, as it is looked for."""
        key = cell(record, self.columns.key)
        return photo_of(key) if self.columns.is_id else key

    def category(self, record: Record) -> str:
        """That is declared, by its own name where there is a bundle of it; empty where none is."""
        text = "" if self.columns.category is None else cell(record, self.columns.category)[:LONGEST]
        return intern(self.categories.get(text) or self.categories.get(folded(text), text))


def cell(record: Record, column: int) -> str:
    """Its text without blanks around it; empty in a row that is too short."""
    return record.cells[column].strip() if column < len(record.cells) else ""


def is_empty(text: str) -> bool:
    """Whether it says that nothing is declared."""
    return not text.strip().strip(DASHES) or folded(text) in EMPTY


def read(
    path: Path, attributes: Sequence[str], columns: Sequence[tuple[str, str]], categories: Sequence[str] = ()
) -> Listing:
    """The rows of a listing; UserError where it is none, or lacks what is needed.

    Args:
        attributes: the names of those that can be judged.
        columns: what is called otherwise there: `image`, `id`, `category` or an attribute, and the column's name.
        categories: the names of those that there are bundles of.
    """
    digest = digest_of(path)
    rows = (record for record in records(path) if record.cells)
    header = next(rows, None)
    if header is None:
        raise UserError(f"{path} is empty\nits first line should name its columns, such as: id,Category,attr_1")
    names = [name.strip() for name in header.cells]
    known = {folded(name): name for name in categories} | {name: name for name in categories}
    found = _columns(path, names, attributes, columns)
    listing = Listing(path=path, header=names, columns=found, categories=known, digest=digest)
    for record in rows:
        listing.first.setdefault(listing.photo(record), record.line)
        listing.records.append(record)
    if digest_of(path) != digest:
        raise UserError(f"{path} was changed while it was read\ntry again")
    if not listing.records:
        raise UserError(f"{path} has no rows\nbelow its first line add one for each photo")
    if not any(map(listing.category, listing.records)):
        listing.columns = replace(listing.columns, category=None)  # it says nothing
    return listing


def digest_of(path: Path) -> str:
    """The SHA-256 of a listing; UserError where it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror or err}\nname a listing, such as: train.csv") from None


def records(path: Path) -> Iterator[Record]:
    """Every row, the header first, lines that hold nothing among them; UserError where the file is no table."""
    parted = delimiter(path)
    with _opened(path) as file:
        # Spreadsheets put a byte order mark first, which is no part of the first column's name.
        start = len(MARK.encode()) if file.read(1) == MARK else 0
        file.seek(start)
        yield from _records(path, file, parted, MARK if start else "")


def delimiter(path: Path) -> str:
    """What parts the columns of this listing; UserError where the file cannot be read."""
    with _opened(path) as file:
        return delimiter_of(file.read(HEAD))


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The listing's text; UserError where it cannot be read."""
    try:
        refuse_pipe(path)
        with path.open(newline="", encoding="utf-8") as file:
            yield file
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}\nname a listing, such as: train.csv") from None
    except UnicodeDecodeError as err:
        raise not_utf8(path, err) from None


def delimiter_of(text: str) -> str:
    """What parts the columns of a table that begins so: of a comma, a semicolon and a tab the one that its header has
    most of, outside of quotes."""
    lines = re.sub(r'"[^"]*"', "", text.removeprefix(MARK)).splitlines()
    return max(DELIMITERS, key=next((line for line in lines if line.strip()), "").count)


def _records(path: Path, file: Iterable[str], delimiter: str, mark: str) -> Iterator[Record]:
    taken = [mark]

    def one_by_one() -> Iterator[str]:
        for line in file:
            taken.append(line)
            yield line

    line = 1
    reader = csv.reader(one_by_one(), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            yield Record(line, cells if any(cell.strip() for cell in cells) else [], "".join(taken))
            line = reader.line_num + 1
            taken.clear()
    except csv.Error as err:
        raise UserError(
            f"{path} is not a CSV table: line {line}: {err}\nmend that line, or save the table anew as CSV UTF-8"
        ) from None


def _columns(
    path: Path, header: Sequence[str], attributes: Sequence[str], mapped: Sequence[tuple[str, str]]
) -> Columns:
    """Where a header has what; UserError where that is not clear."""
    for given in ([folded(name) for name, _ in mapped], [column for _, column in mapped]):
        if repeated := [one for one, count in Counter(given).items() if count > 1]:
            raise UserError(f"--columns has {repeated[0]!r} twice: each attribute is in a column of its own")
    taken = {column for _, column in mapped}
    known = {folded(name): name for name in (IMAGE, ID, CATEGORY, *attributes)}
    # Those that are looked for are told without case and plural, where nobody says which it is.
    sought = [folded(name) for name in header if folded(name) in known and name not in taken]
    for given in (list(filter(None, header)), sought):
        if repeated := [name for name, count in Counter(given).items() if count > 1]:
            raise UserError(f"{path} has two columns called {repeated[0]!r}\nrename one of them")
    for name, column in mapped:
        if column not in header:
            raise UserError(f"{path} has no column {column!r} for {name}; it has: {_shown(header)}")
    if strange := [name for name, _ in mapped if folded(name) not in known]:
        raise UserError(
            f"--columns maps {strange[0]!r}, which is no attribute of these bundles\n"
            f"they have: {', '.join(dict.fromkeys([IMAGE, ID, CATEGORY, *attributes]))}"
        )
    by_name = {folded(name): place for place, name in enumerate(header) if name not in taken}
    places = by_name | {folded(name): header.index(column) for name, column in mapped}
    key = places.get(IMAGE, places.get(ID))
    if key is None:
        raise UserError(
            f"{path} has no column {IMAGE!r} or {ID!r}; it has: {_shown(header)}\n"
            f"say which one names the photos with: --columns {IMAGE}=COLUMN"
        )
    # A router made of a Category column has an attribute of that name.
    its_own = {folded(name) for name in attributes} - {IMAGE, ID, CATEGORY}
    named = {name: places[name] for name in its_own & places.keys()}
    numbers = ((NUMBER.fullmatch(name), place) for place, name in enumerate(header))
    numbered = {int(found[1]): place for found, place in numbers if found}
    category = places.get(CATEGORY)
    if not named and not (numbered and category is not None):
        raise UserError(
            f"{path} has no column of an attribute; it has: {_shown(header)}\n"
            f"the bundles know: {', '.join(attributes)}; name one with: --columns {attributes[0]}=COLUMN"
        )
    return Columns(
        key=key,
        is_id=IMAGE not in places,
        category=category,
        named=named,
        numbered={} if named or category is None else numbered,
    )


def _shown(header: Sequence[str]) -> str:
    text = ", ".join(header)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@dataclass(kw_only=True)
class Listed(Row):
    """What one photo of a listing gave."""

    record: Record


def photos(listing: Listing, inputs: Sequence[Path]) -> dict[str, list[Path]]:
    """File name -> every photo of that name that the inputs hold, of those that the listing names."""
    names = {PurePosixPath(listing.photo(record)).name for record in listing.records}
    try:
        paths = find(inputs, names=names)
    except UserError as err:  # its remedy is an example of another command
        raise UserError(
            f"{str(err).splitlines()[0]}\nname the folder that holds the photos of {listing.path}"
        ) from None
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.name, []).append(path)
    return found


def rows(
    listing: Listing, photos: Mapping[str, Sequence[Path]], served: Container[str] | None = None
) -> Iterator[Listed]:
    """A row for each of the listing, in order; settled already where its photo is not there or stands there twice, or
    nobody serves its category.

    Args:
        served: the categories that there are bundles of, where the listing says which a photo is of.
    """
    # A photo whose folder a row names is that row's, and not that of another row which names another folder.
    names = dict.fromkeys(map(listing.photo, listing.records))
    claimed = {path for name in names if "/" in name for path in _named(name, photos)}
    for record in listing.records:
        name = listing.photo(record)
        category = "" if served is None else listing.category(record)
        row = Listed(image=Path(name), id=cell(record, listing.columns.key), category=category, record=record)
        if not name:
            row.fail("no photo is named")
        elif len(name) > LONGEST_NAME:
            row.image = Path(name[:LONGEST])
            row.fail(f"no file has a name of {len(name)} signs")
        elif listing.columns.is_id and (first := listing.first[name]) != record.line:
            row.fail(f"line {first} has this id already")
        else:
            _find(row, name, photos, claimed)
            if served is not None and row.status == "ok" and category not in served:
                row.skip()
        yield row


def _find(row: Row, name: str, photos: Mapping[str, Sequence[Path]], claimed: Container[Path]) -> None:
    """Give the row its photo: of several of one name that whose folders are named too."""
    alike = photos.get(PurePosixPath(name).name, ())
    nearest = _named(name, photos) or [path for path in alike if path not in claimed]
    found = list({os.path.realpath(path): path for path in nearest}.values())  # of links to one file, one
    if len(found) == 1:
        row.image = found[0]
    elif found:
        row.fail(f"{len(found)} photos have this name: {found[0]} and {found[1]}")
    else:
        row.fail("no file of this name in the folders given")


def _named(name: str, photos: Mapping[str, Sequence[Path]]) -> list[Path]:
    """The photos that lie in folders as the name has it."""
    parts = PurePosixPath(name).parts
    alike = photos.get(parts[-1], ()) if parts else ()
    return [path for path in alike if path.absolute().parts[-len(parts) :] == parts]

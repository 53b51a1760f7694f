"""What people type, matched to the classes of an attribute: `Full Sleeves ` is `long`.

A value is matched after trimming, case and plural folding, then through aliases. Those in runtime/aliases/, one file a
taxonomy, count where an attribute of their name has a class of theirs; whoever runs a command may add a file.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from runtime.bundle import Attribute
from runtime.errors import UserError
from runtime.files import refuse_pipe
from runtime.listing import not_utf8

SHIPPED = Path(__file__).resolve().parent / "aliases"
COLUMNS = ("attribute", "value", "class")
LAYOUT = f"its first line should be: {','.join(COLUMNS)}"
# Named where a value is no class; and how alike they must be.
NEAREST, ALIKE = 2, 0.5
# Of what is typed, lines repeat a few values many times.
REMEMBERED = 10_000

Aliases = Mapping[tuple[str, str], tuple[str, ...]]
"""Folded attribute, empty for any, and folded value -> folded classes, the later files' first."""


class Alias(NamedTuple):
    """One line of a file of aliases, as it is written."""

    attribute: str
    """Empty for any."""
    value: str
    label: str
    """Of the class that is meant."""


class Vocabulary:
    """The classes of one attribute, and all that people call them."""

    def __init__(self, attribute: Attribute, aliases: Aliases) -> None:
        self.attribute = attribute
        self._aliases = aliases
        self._name = folded(attribute.name)
        self._folded: dict[str, list[int]] = {}
        for index, label in enumerate(attribute.classes):
            self._folded.setdefault(folded(label), []).append(index)
        self._trimmed = {label.strip().casefold(): index for index, label in reversed([*enumerate(attribute.classes)])}
        self.index_of = lru_cache(REMEMBERED)(self._index_of)

    def _index_of(self, text: str) -> int | None:
        """The class that is meant, by its place among the attribute's classes; None where it is none, or unclear."""
        exact = self._trimmed.get(text.strip().casefold())
        if exact is not None:
            return exact
        value = folded(text)
        tried = [value]
        for attribute in (self._name, ""):
            tried += self._aliases.get((attribute, value), ())
        meant = (self._folded.get(name, []) for name in tried)
        found = next((indices for indices in meant if indices), [])
        return found[0] if len(found) == 1 else None

    def nearest(self, text: str) -> list[str]:
        """The classes that look most like it, the likest first."""
        alike = get_close_matches(folded(text), self._folded, n=NEAREST, cutoff=ALIKE)
        return [self.attribute.classes[index] for name in alike for index in self._folded[name]][:NEAREST]


def read(extra: Iterable[Path] = ()) -> Aliases:
    """The shipped aliases and those of the files given, which come first; UserError for what is no such file."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for path in [*sorted(SHIPPED.glob("*.csv")), *extra]:
        for alias in _lines(path):
            key = folded(alias.attribute), folded(alias.value)
            found[key] = (folded(alias.label), *found.get(key, ()))
    return found


def idle(extra: Iterable[Path], attributes: Iterable[Attribute]) -> Iterator[str]:
    """A line about each file of aliases some of which lead to no class of these attributes."""
    classes: dict[str, set[str]] = {}
    for attribute in attributes:
        classes.setdefault(folded(attribute.name), set()).update(map(folded, attribute.classes))
    anywhere = set().union(*classes.values())
    for path in extra:
        aliases = list(_lines(path))
        lost = [
            alias
            for alias in aliases
            if folded(alias.label) not in (classes.get(folded(alias.attribute), ()) if alias.attribute else anywhere)
        ]
        if lost:
            yield f"{path}: {len(lost)} of {len(aliases)} aliases lead to no class here, such as: {','.join(lost[0])}"


@lru_cache(REMEMBERED)
def folded(text: str) -> str:
    """Without case, plural and whatever is no letter or digit: `Short-Sleeves` -> `shortsleeve`."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(sign if sign.isalnum() else " " for sign in plain).split()
    return "".join(map(_singular, words))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _lines(path: Path) -> Iterator[Alias]:
    try:
        refuse_pipe(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            if absent := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise UserError(f"{path} lacks column {', '.join(absent)}\n{LAYOUT}")
            for row in rows:
                attribute, value, label = (row[name] or "" for name in COLUMNS)
                if not folded(value) or not folded(label):
                    raise UserError(f"{path}, line {rows.line_num}: an alias needs a value and a class\n{LAYOUT}")
                yield Alias(attribute, value, label)
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}\nname a file with: --aliases FILE") from None
    except UnicodeDecodeError as err:
        raise not_utf8(path, err) from None
    except csv.Error as err:
        raise UserError(f"{path} is not a CSV table: {err}\n{LAYOUT}") from None

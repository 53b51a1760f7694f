"""A taxonomy: which categories there are, what can be asked of each, and the possible answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from runtime.bundle import RESERVED, Attribute, Category, slug_of
from runtime.errors import UserError
from runtime.files import refuse_pipe

SHIPPED = Path(__file__).resolve().parent / "taxonomies" / "visual_taxonomy.json"
"""The challenge's own five categories, counted from what its participants published: the file says how."""


class _Attribute(msgspec.Struct):
    name: str
    classes: dict[str, int] | tuple[str, ...]
    """With or without the number of labels of each, which nothing here needs."""


class _Category(msgspec.Struct):
    name: str
    attributes: tuple[_Attribute, ...]
    """In the order of the columns attr_1, attr_2, ..."""


class _Page(msgspec.Struct):
    categories: tuple[_Category, ...]


def read(path: Path) -> tuple[Category, ...]:
    """The categories of a taxonomy file; classes are in alphabetical order, as training puts them."""
    try:
        refuse_pipe(path)
        page = msgspec.json.decode(path.read_bytes(), type=_Page)
    except OSError as err:
        raise UserError(f"cannot read {path}: {err.strerror}\nthe challenge's own taxonomy is {SHIPPED}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise UserError(f"{path} is not a taxonomy: {err}\nsee how one is written in {SHIPPED}") from None
    _check_names(path, "categories", [category.name for category in page.categories], least=1)
    by_slug(path, [category.name for category in page.categories])
    return tuple(_category(path, category) for category in page.categories)


def by_slug(path: Path, categories: Iterable[str]) -> dict[str, str]:
    """Slug -> category; UserError where two would share a folder. `path` is where they are written."""
    found: dict[str, str] = {}
    for name in categories:
        if (other := found.setdefault(slug_of(name), name)) != name:
            raise UserError(
                f"{path}: categories {other!r} and {name!r} would share the folder {slug_of(name)!r}: rename one"
            )
    return found


def refuse_reserved(path: Path, category: str, attributes: Iterable[str]) -> None:
    """UserError where an attribute has a name that every graph uses itself."""
    if taken := sorted(RESERVED & set(attributes)):
        raise UserError(f"{path}: {taken[0]!r} names a tensor of every graph: rename that attribute of {category!r}")


def _category(path: Path, read: _Category) -> Category:
    names = [attribute.name for attribute in read.attributes]
    _check_names(path, f"attributes of {read.name!r}", names, least=1)
    refuse_reserved(path, read.name, names)
    for attribute in read.attributes:
        _check_names(path, f"classes of {attribute.name!r} of {read.name!r}", list(attribute.classes), least=2)
    return Category(
        name=read.name,
        attributes=tuple(
            Attribute(name=attribute.name, classes=tuple(sorted(attribute.classes)), output=attribute.name)
            for attribute in read.attributes
        ),
    )


def _check_names(path: Path, what: str, names: Sequence[str], *, least: int) -> None:
    if len(names) < least:
        raise UserError(f"{path}: {what}: {least} or more are needed, got {len(names)}")
    if strays := [name for name in names if name != name.strip() or not name or not name.isprintable()]:
        raise UserError(f"{path}: {what} must be names with nothing around them, got {strays[0]!r}")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: {what}: one is listed twice: {', '.join(names)}")

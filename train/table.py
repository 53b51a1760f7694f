"""Labelled photos as training sees them: one category's, several on one backbone, or categories as the label."""

# N rows, L attributes

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from runtime.bundle import ROUTED_BY, ROUTER, Attribute, Category, Routes, name_of, slug_of, tells_apart
from runtime.errors import UserError
from train.config import MISSING

SPLITS = ("train", "val", "test")
ITS_OWN = "name the data that the model was trained on with: --data DIR"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one category, or of several that share a backbone."""

    categories: tuple[Category, ...]
    routes: Routes | None
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels_NL: np.ndarray
    """int64 class indices; MISSING where nobody typed one."""
    kinds_N: np.ndarray
    """int64: the index of each row's category among the categories."""
    groups: np.ndarray
    """Rows of one group belong together, such as a supplier's; by default each row is its own."""
    splits: np.ndarray
    """`train`, `val` or `test`, one a row."""
    targets: tuple[Path, ...]
    """Unlabelled photos of the target domain."""
    absent: tuple[Path, ...]
    """Photos that train.csv or a listing of target photos names and that are not there; their rows are left out."""
    absent_splits: tuple[str, ...] = ()
    """The split of each that train.csv names; they come first."""
    drawn: bool = False
    """Whether the splits were drawn by a seed, and neither given by train.csv nor kept by a checkpoint."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return name_of(self.categories)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Every attribute, in the order of the labels' columns."""
        return tuple(attribute for category in self.categories for attribute in category.attributes)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The category and the name of every attribute, in that order."""
        return [(category.name, attribute.name) for category in self.categories for attribute in category.attributes]

    def rows(self, split: str, *, complete: bool = False) -> np.ndarray:
        """Indices of the rows of a split that have any label, or every label of their category."""
        known_NL = self.labels_NL != MISSING
        kept = known_NL.any(1)
        if complete:
            owner_L = np.repeat(np.arange(len(self.categories)), [len(c.attributes) for c in self.categories])
            kept = (known_NL | (owner_L != self.kinds_N[:, None])).all(1)
        return np.flatnonzero((self.splits == split) & kept)

    def commonest(self) -> list[int]:
        """For each attribute, the class with the most training labels."""
        labels_NL = self.labels_NL[self.rows("train")]
        return [
            int(np.bincount(column[column != MISSING], minlength=len(attribute.classes)).argmax())
            for attribute, column in zip(self.attributes, labels_NL.T, strict=True)
        ]

    def split_ids(self) -> dict[str, tuple[str, ...]]:
        """The ids of each split, as a checkpoint keeps them."""
        return {split: tuple(np.array(self.ids, object)[self.splits == split]) for split in SPLITS}


def joint(tables: Sequence[Table]) -> Table:
    """All tables as one, for one backbone with the heads of every category; each row keeps its own labels alone.

    Outputs are named `<category>/<attribute>`. What routes a photo to its category comes first: a category that
    does so already, else the category itself as one more label.
    """
    routing = [table for table in tables if table.routes]
    if len(tables) < 2:
        raise UserError("a joint model needs two categories or more\ntrain this one alone: leave out --joint")
    if len(routing) > 1:
        names = " and ".join(table.name for table in routing)
        raise UserError(f"{names} both name other categories: one model can have one router\nleave out --joint")
    if not routing and any(table.name == ROUTER for table in tables):
        raise UserError(f"a joint model has a {ROUTER!r} of its own: call the category of that name something else")
    ordered = sorted(tables, key=lambda table: table.routes is None)
    # A router that is made of the other tables' rows adds a label to them, and no row.
    made = [] if routing else [router(ordered)]
    categories = tuple(_prefixed(category) for table in [*made, *ordered] for category in table.categories)
    outputs = [attribute.output for category in categories for attribute in category.attributes]
    if repeated := [output for output, count in Counter(outputs).items() if count > 1]:
        raise UserError(
            f"two attributes of a joint model would both be called {repeated[0]!r}\nrename one, or leave out --joint"
        )
    merged = _stacked(ordered, categories, routes=(made or ordered)[0].routes)
    for table in made:
        merged.labels_NL[:, 0] = table.labels_NL[:, 0]
    return merged


def router(tables: Sequence[Table]) -> Table:
    """The rows of all tables with the category as their one label."""
    names = tuple(table.name for table in tables)
    if len(names) < 2:
        raise UserError(f"a router chooses among categories, and there is one: {names[0]!r}\nleave out --router")
    if routing := [table.name for table in tables if table.routes]:
        raise UserError(
            f"{routing[0]!r} tells the categories apart already\n"
            f"train it with: --category {slug_of(routing[0])}, or name the others with: --router --category NAME NAME"
        )
    if ROUTER in names:
        raise UserError(f"{ROUTER!r} is what a router made of categories is called: rename that category")
    attribute = Attribute(name=ROUTED_BY, classes=names, output=ROUTED_BY)
    category = Category(name=ROUTER, attributes=(attribute,))
    merged = _stacked(tables, (category,), routes=Routes(attribute=ROUTED_BY, to={name: name for name in names}))
    labels_N = np.repeat(np.arange(len(tables)), [len(table.paths) for table in tables])
    return replace(merged, labels_NL=labels_N[:, None], kinds_N=np.zeros_like(merged.kinds_N))


def table_for(categories: Sequence[Category], tables: Sequence[Table]) -> Table:
    """The one table that a model of `categories` learns from, made of the tables of its products, in their order.

    That is the table itself, all of them joined, or their router; with the model's own categories, offsets included.
    """
    if len(categories) > 1:
        made = joint(tables)
    elif tells_apart(categories[0]):
        made = router(tables)
    else:
        made = tables[0]
    pairs = zip_longest(_questions(made.categories), _questions(categories), fillvalue="nothing")
    for found, expected in pairs:
        if found != expected:
            raise UserError(
                f"the data was labelled with another taxonomy: {found}, where the model has {expected}\n{ITS_OWN}"
            )
    return replace(made, categories=tuple(categories))


def products_of(categories: Sequence[Category]) -> list[str]:
    """The categories, by name, whose tables `table_for` takes."""
    if len(categories) == 1 and tells_apart(categories[0]):
        return list(categories[0].attributes[0].classes)
    return [category.name for category in categories if not tells_apart(category)]


def _questions(categories: Sequence[Category]) -> list[str]:
    return [
        f"{category.name} {attribute.name} ({', '.join(attribute.classes)})"
        for category in categories
        for attribute in category.attributes
    ]


def _prefixed(category: Category) -> Category:
    attributes = [
        Attribute(name=a.name, classes=a.classes, output=f"{category.name}/{a.name}", offsets=a.offsets)
        for a in category.attributes
    ]
    return Category(name=category.name, attributes=tuple(attributes))


def _refuse_divided(tables: Sequence[Table]) -> None:
    """UserError where a photo is in one split for one category and in another for another."""
    homes: dict[Path, str] = {}
    for table in tables:
        for path, split in zip(table.paths, table.splits, strict=True):
            if (home := homes.setdefault(path, split)) != split:
                raise UserError(
                    f"{path.name} is in split {home!r} of one category and in {split!r} of another: the model would be "
                    "judged on what it learnt from\ngive its rows one split, or leave out --joint and --router"
                )


def _stacked(tables: Sequence[Table], categories: tuple[Category, ...], *, routes: Routes | None) -> Table:
    names = [category.name for category in categories]
    starts = np.cumsum([0, *(len(category.attributes) for category in categories)])
    labels, kinds = [], []
    _refuse_divided(tables)
    for table in tables:
        labels_NL = np.full((len(table.paths), starts[-1]), MISSING)
        kind = names.index(table.name) if table.name in names else 0
        if table.name in names:
            labels_NL[:, starts[kind] : starts[kind + 1]] = table.labels_NL
        labels.append(labels_NL)
        kinds.append(np.full(len(table.paths), kind))
    return Table(
        categories=categories,
        routes=routes,
        ids=tuple(text for table in tables for text in table.ids),
        paths=tuple(path for table in tables for path in table.paths),
        labels_NL=np.concatenate(labels),
        kinds_N=np.concatenate(kinds),
        groups=np.concatenate([table.groups for table in tables]),
        splits=np.concatenate([table.splits for table in tables]),
        targets=tuple(dict.fromkeys(path for table in tables for path in table.targets)),
        absent=tuple(path for table in tables for path in table.absent),
        absent_splits=tuple(split for table in tables for split in table.absent_splits),
        drawn=any(table.drawn for table in tables),
    )

"""The bundles of one run, and which of them answers for which photo."""

# B batch, K classes

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from runtime.bundle import Attribute, Bundle, Category, Preprocess, load, slug_of
from runtime.errors import UserError
from runtime.predictor import Answer, Predictor, labelled
from runtime.terminal import note

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

    Batch = Mapping[Preprocess, np.ndarray]
    """A batch of photos, uint8 RGB [B, H, W, 3], in each size that the fleet takes."""


@dataclass(kw_only=True)
class Row:
    """What one photo gave."""

    image: Path
    id: str = ""
    """The photo's id in the listing that names it; empty where there is none."""
    category: str = ""
    category_confidence: float | None = None
    routed_from: str = ""
    status: str = "ok"
    error: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    shows: Answer | None = None
    """What a router says of a photo whose category is given, where it is asked to check that."""

    def fail(self, reason: str) -> None:
        """The photo cannot be read."""
        self.status, self.error = "error", reason

    def skip(self) -> None:
        """Nobody answers for the photo's category."""
        self.status = "skipped"
        self.error = f"no bundle serves category {self.category!r}" if self.category else "no category is given"


class Served(NamedTuple):
    """A category, and the predictor that answers for it."""

    predictor: Predictor
    category: Category


class Check(NamedTuple):
    """How a router is asked whether a photo is of the category that it is given."""

    category: str
    """The router's own."""
    attribute: Attribute
    leads: Mapping[str, str]
    """Class -> category, where there is one."""

    def classes(self, category: str) -> list[str]:
        """Those that lead there."""
        return [label for label, name in self.leads.items() if name == category]


class Fleet:
    """A router, or a category for all, or rows that bring their own; and for each category who answers for it.

    Categories that share a bundle share its predictor, and no predictor sees a photo twice. Any number of threads may
    have their batches filled.
    """

    def __init__(self, served: dict[str, Served], *, router: Served | None = None, category: str = "") -> None:
        self.top = 1
        """How many labels an answer has."""
        self._served = served
        self._router = router
        self._category = category
        self._checks = False
        """Whether the router is asked of photos whose category is given too."""
        self._homes: dict[str, str] = {}
        self._held = ExitStack()

    @classmethod
    def open(
        cls,
        folders: Iterable[Path],
        *,
        category: str | None,
        engine: str,
        precision: str | None,
        homes: Iterable[str] = (),
        streams: int = 1,
    ) -> Fleet:
        """The fleet over these bundles: the one of `category`, else those that photos' folders are named after, and the
        router and all it can reach.

        Args:
            homes: the names of the photos' folders.
            streams: how many batches are to be answered at once.
        """
        pages = _pages(folders)
        predictor = _opener(engine, precision, streams)
        if category is None and (homely := {home: found for home in homes if (found := _find(pages, home))}):
            router = _router(pages, needed=False)
            fleet = cls._routed(pages, router, predictor) if router else cls({})
            for folder, served in homely.values():
                fleet._served.setdefault(served.name, Served(predictor(folder), served))
            fleet._homes = {home: served.name for home, (_, served) in homely.items()}
            return fleet
        first = _router(pages) if category is None else None
        if first is not None:
            return cls._routed(pages, first, predictor)
        found = _find(pages, _names(pages)[0] if category is None else category)
        if found is None:
            raise _unserved(pages, f"category {category!r}", name=category or "NAME")
        folder, served = found
        return cls({served.name: Served(predictor(folder), served)}, category=served.name)

    @classmethod
    def listed(
        cls,
        folders: Iterable[Path],
        categories: Iterable[str],
        *,
        engine: str,
        precision: str | None,
        streams: int = 1,
        checks: bool = False,
    ) -> Fleet:
        """The fleet for rows that bring their category, one of `categories`; what no bundle serves is skipped.

        Args:
            checks: whether the router, where there is one, says of each photo what it shows.
        """
        pages = _pages(folders)
        predictor = _opener(engine, precision, streams)
        asked = list(dict.fromkeys(categories))
        served = {
            name: Served(predictor(found[0]), found[1]) for name in asked if (found := _find(pages, name)) is not None
        }
        if not served:
            raise _unserved(pages, f"any of the {len(asked)} categories listed, {asked[0]!r} the first")
        fleet = cls(served)
        if checks and (first := _router(pages, needed=False)):
            router = pages[first].router
            assert router is not None
            fleet._router, fleet._checks = Served(predictor(first), router), True
        return fleet

    @classmethod
    def _routed(cls, pages: Mapping[Path, Bundle], first: Path, predictor: Callable[[Path], Predictor]) -> Fleet:
        router = pages[first].router
        assert router is not None
        reached = set(_leads(pages[first]).values()) - {router.name}
        served: dict[str, Served] = {}
        # The router's own bundle comes first: what it serves itself costs no second pass.
        for folder in dict.fromkeys([first, *pages]):
            for category in pages[folder].products:
                if category.name in reached and category.name not in served:
                    served[category.name] = Served(predictor(folder), category)
        return cls(served, router=Served(predictor(first), router))

    def __enter__(self) -> Self:
        with ExitStack() as held:
            for predictor in self.predictors:
                held.enter_context(predictor)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def home(self, path: Path) -> str:
        """The category that the photo's folder is named after; empty where it is named after none."""
        return self._homes.get(home_of(os.path.dirname(path)), "")  # noqa: PTH120

    @property
    def predictors(self) -> list[Predictor]:
        """Every predictor of the run, the router's first."""
        routers = [self._router] if self._router else []
        return list(dict.fromkeys(served.predictor for served in [*routers, *self._served.values()]))

    @property
    def served(self) -> dict[str, Served]:
        """By the name of each category that a photo's attributes may be of, the router's own first."""
        router = self._router
        speaks = router and (self._checks or router.category in router.predictor.bundle.products)
        return ({router.category.name: router} if router and speaks else {}) | self._served

    @property
    def check(self) -> Check | None:
        """How a given category is checked; None where none is."""
        if not self._checks or self._router is None:
            return None
        page, category = self._router.predictor.bundle, self._router.category
        assert page.routes is not None
        attribute = next(one for one in category.attributes if one.name == page.routes.attribute)
        return Check(category.name, attribute, _leads(page))

    @property
    def engines(self) -> set[str]:
        """What the run's bundles are answered by."""
        return {predictor.choice.engine for predictor in self.predictors}

    @property
    def has_others(self) -> bool:
        """Whether something else here might answer too, and nobody has looked which is the fastest."""
        return any(not predictor.choice.tuned and len(predictor.engines) > 1 for predictor in self.predictors)

    @property
    def categories(self) -> dict[str, Category]:
        """What a photo of the run can be, by the name that its row then has, the router's own category first."""
        return {name: served.category for name, served in self.served.items()}

    @property
    def attributes(self) -> list[str]:
        """The name of every attribute of the run, each once."""
        return list(
            dict.fromkeys(attribute.name for category in self.categories.values() for attribute in category.attributes)
        )

    @property
    def most_classes(self) -> int:
        """Of any attribute."""
        return max(len(attribute.classes) for category in self.categories.values() for attribute in category.attributes)

    @property
    def specs(self) -> list[Preprocess]:
        """The sizes in which the run needs each photo, each once."""
        return list(dict.fromkeys(predictor.bundle.preprocess for predictor in self.predictors))

    def fill(self, rows: list[Row], photos: Batch) -> None:
        """Answer the rows of one batch, in place: each by its own category, which a router tells or the row brings."""
        if not rows:
            return
        routed: Mapping[str, np.ndarray] = {}
        if self._router and (self._checks or not all(row.category for row in rows)):
            routed = self._router.predictor.probabilities(photos[self._router.predictor.bundle.preprocess])
            self._route(rows, routed, self._router)
        members: dict[Predictor, dict[str, list[int]]] = {}
        for index, row in enumerate(rows):
            row.category = row.category or self._category
            if served := self._served.get(row.category):
                members.setdefault(served.predictor, {}).setdefault(row.category, []).append(index)
            elif not row.answers:
                row.skip()
        for predictor, categories in members.items():
            outputs, seen = routed, list(range(len(rows)))
            if not routed or self._router is None or predictor is not self._router.predictor:
                seen = sorted(index for indices in categories.values() for index in indices)
                pixels_BHWC = photos[predictor.bundle.preprocess]
                # Indexed, they are copied.
                outputs = predictor.probabilities(pixels_BHWC if len(seen) == len(rows) else pixels_BHWC[seen])
            slots = {index: slot for slot, index in enumerate(seen)}
            for name, indices in categories.items():
                category, places = self._served[name].category, [slots[index] for index in indices]
                found = labelled(category, outputs, places, top=self.top)
                for index, answers in zip(indices, found, strict=True):
                    rows[index].answers |= answers

    def _route(self, rows: list[Row], outputs: Mapping[str, np.ndarray], router: Served) -> None:
        """Give each row its category; with a router that is a category itself, also that category's answers."""
        page = router.predictor.bundle
        assert page.routes is not None
        leads, also_a_product = _leads(page), router.category in page.products
        for row, answers in zip(rows, labelled(router.category, outputs, top=self.top), strict=True):
            row.shows = answers[page.routes.attribute] if self._checks else None
            if row.category:
                continue  # its folder, or its listing, says it
            label, confidence, _ = answers[page.routes.attribute]
            category = leads.get(label, "")
            if also_a_product:
                row.category, row.answers = router.category.name, answers
                if category not in self._served:
                    continue
            row.category, row.category_confidence = category, confidence
            row.routed_from = router.category.name


def home_of(folder: str) -> str:
    """What the folder is called, also where it is named from inside of itself."""
    name = os.path.basename(folder)  # noqa: PTH119
    return name if name not in ("", ".", "..") else os.path.basename(os.path.abspath(folder))  # noqa: PTH100, PTH119


def _opener(engine: str, precision: str | None, streams: int) -> Callable[[Path], Predictor]:
    """What opens a bundle, each once."""
    return cache(lambda folder: Predictor.open(folder, engine=engine, precision=precision, streams=streams))


def _pages(folders: Iterable[Path]) -> dict[Path, Bundle]:
    """The bundles' pages; of two that serve one category the first answers, which is said."""
    pages = {folder: load(folder) for folder in folders}
    servers: dict[str, list[Path]] = {}
    for folder, page in pages.items():
        for category in page.products:
            servers.setdefault(category.name, []).append(folder)
    for name, (first, *others) in servers.items():
        if others:
            note(f"{name} is served by {first.name} and by {others[0].name}: {first.name} answers")
    return pages


def _router(pages: Mapping[Path, Bundle], *, needed: bool = True) -> Path | None:
    """The bundle that sees every photo first, or None where there is one category alone; UserError if it is unclear,
    where one is needed."""
    routers = [folder for folder, page in pages.items() if page.router]
    # A router that only tells categories apart comes before a category that also leads to others.
    first = [folder for folder in routers if pages[folder].router not in pages[folder].products] or routers
    names = _names(pages)
    if not needed and len(first) != 1:
        return None
    if len(first) > 1 or (not first and len(names) != 1):
        raise UserError(
            f"{len(first)} routers among {len(pages)} bundles, of {len(names)} categories: which one must be given\n"
            f"add: --category NAME, one of: {', '.join(names)}"
        )
    return first[0] if first else None


def _leads(page: Bundle) -> dict[str, str]:
    """Class of the router -> category; the classes of a router that only tells categories apart are their names."""
    router, routes = page.router, page.routes
    assert router and routes
    named = {} if router in page.products else {label: label for label in router.attributes[0].classes}
    return named | routes.to


def _find(pages: Mapping[Path, Bundle], name: str) -> tuple[Path, Category] | None:
    """The bundle that serves the category of this name or slug, and the category."""
    served = ((folder, category) for folder, page in pages.items() for category in page.products)
    return next(((folder, category) for folder, category in served if category.called(name)), None)


def _names(pages: Mapping[Path, Bundle]) -> list[str]:
    return [category.name for page in pages.values() for category in page.products]


def _unserved(pages: Mapping[Path, Bundle], what: str, *, name: str = "NAME") -> UserError:
    from difflib import get_close_matches

    names = _names(pages)
    close = {slug_of(one): one for one in names}
    near = get_close_matches(slug_of(name), close, n=1)
    remedy = (
        f"did you mean: --category {shlex.quote(close[near[0]])}"
        if near
        else f"build it with: python -m export.build --category {shlex.quote(name)}"
    )
    return UserError(f"no bundle serves {what}; have: {', '.join(names) or 'none'}\n{remedy}")

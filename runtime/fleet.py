"""The bundles of one run, and which of them answers for which photo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from runtime.bundle import Bundle, Preprocess, load, slug_of
from runtime.errors import UserError
from runtime.predictor import Answer, Predictor

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

    Fitted = Mapping[Preprocess, np.ndarray]


@dataclass(kw_only=True)
class Row:
    """What one photo gave."""

    image: Path
    category: str = ""
    category_confidence: float | None = None
    routed_from: str = ""
    status: str = "ok"
    error: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)


class Fleet:
    """One bundle that sees every photo and, where it is a router, the specialists that it sends them on to."""

    def __init__(self, first: Predictor, category: str, specialists: Mapping[str, Predictor]) -> None:
        self._first = first
        self._category = category
        self._specialists = specialists
        self._stack = ExitStack()

    @classmethod
    def open(cls, folders: Iterable[Path], *, category: str | None, engine: str, precision: str | None) -> Fleet:
        """The fleet over these bundles: the one of `category`, else the router and all it can reach."""
        pages = {folder: load(folder) for folder in folders}

        def predictor(folder: Path) -> Predictor:
            return Predictor.open(folder, engine=engine, precision=precision)

        if category is not None:
            folder, name = _serving(pages, category)
            return cls(predictor(folder), name, {})
        routers = [folder for folder, page in pages.items() if page.routes]
        first = next(iter(routers or pages))
        names = [served.name for page in pages.values() for served in page.categories]
        if len(routers) > 1 or (not routers and len(names) > 1):
            raise UserError(
                f"{len(routers)} routers among {len(pages)} bundles, so the category must be given\n"
                f"add: --category NAME, one of: {', '.join(names)}"
            )
        routes = pages[first].routes
        reached = set(routes.to.values()) if routes else set()
        specialists = {
            served.name: folder
            for folder, page in pages.items()
            for served in page.categories
            if served.name in reached and folder != first
        }
        opened = {folder: predictor(folder) for folder in dict.fromkeys(specialists.values())}
        return cls(
            predictor(first),
            pages[first].categories[0].name,
            {name: opened[folder] for name, folder in specialists.items()},
        )

    def __enter__(self) -> Self:
        for predictor in self.predictors:
            self._stack.enter_context(predictor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def predictors(self) -> list[Predictor]:
        """Every predictor of the run, the first one first."""
        return list(dict.fromkeys([self._first, *self._specialists.values()]))

    @property
    def attributes(self) -> list[str]:
        """The name of every attribute of the run, each once."""
        return list(
            dict.fromkeys(
                attribute.name
                for predictor in self.predictors
                for category in predictor.bundle.categories
                for attribute in category.attributes
            )
        )

    @property
    def specs(self) -> list[Preprocess]:
        """The sizes in which the run needs each photo, each once."""
        return list(dict.fromkeys(predictor.bundle.preprocess for predictor in self.predictors))

    def fill(self, rows: list[Row], photos: list[Fitted]) -> None:
        """Answer the rows of one batch, in place: the first bundle for all, each specialist for its own."""
        if not rows:
            return
        for row, answers in zip(rows, _answers(self._first, photos), strict=True):
            row.category, row.answers = self._category, answers
        routes = self._first.bundle.routes
        if routes is None:
            return
        members: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            category = routes.to.get(row.answers[routes.attribute].label)
            if category is not None and category in self._specialists:
                members.setdefault(category, []).append(index)
        for category, indices in members.items():
            answers_of = _answers(self._specialists[category], [photos[index] for index in indices])
            for index, answers in zip(indices, answers_of, strict=True):
                row = rows[index]
                row.category, row.routed_from = category, self._category
                row.category_confidence = row.answers[routes.attribute].confidence
                row.answers = {**row.answers, **answers}


def _answers(predictor: Predictor, photos: list[Fitted]) -> list[dict[str, Answer]]:
    import numpy as np

    spec = predictor.bundle.preprocess
    return predictor.answers(np.stack([photo[spec] for photo in photos]))


def _serving(pages: Mapping[Path, Bundle], category: str) -> tuple[Path, str]:
    for folder, page in pages.items():
        for served in page.categories:
            if category in (served.name, slug_of(served.name)):
                return folder, served.name
    have = ", ".join(served.name for page in pages.values() for served in page.categories)
    raise UserError(
        f"no bundle serves category {category!r}; have: {have}\n"
        f"build it with: python -m export.build --category {category!r}"
    )

"""How fast photos come out of training's loader, with nothing else to do."""

# N photos

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.cache import ROOT

if TYPE_CHECKING:
    from train.table import Table

BATCH = 16
WORKERS = (0, 1, 2)
# What a photo costs beside its pixels shows on the smallest; what it costs in all, on photos as people take them.
TINY_PHOTOS = 8192
TRUE_PHOTOS = 512
TRUE_SIDE = 224


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One way to load, measured."""

    photos: str
    side: int
    """Of the network's input, in pixels."""
    workers: int
    augmented: bool
    start_s: float
    """To the first batch."""
    photos_per_s: float
    """From then on."""

    def line(self) -> str:
        """The rate in one line."""
        changed = "augmented" if self.augmented else "unchanged"
        return (
            f"loader, {self.photos} at {self.side} px, {changed}, {self.workers} workers: "
            f"{self.photos_per_s:.0f} photos/s, the first batch after {self.start_s:.2f} s"
        )


def rates(table: Table, side: int) -> Iterator[Rate]:
    """Of a table's photos, as large as the network's input, and of those under examples/photos over and over."""
    from runtime import inputs

    examples = inputs.find([ROOT / "examples" / "photos"])
    # As many paths as there are rows: where the photos are found is the same work for both.
    true = replace(table, paths=tuple(itertools.islice(itertools.cycle(examples), len(table.paths))))
    for named, photos, size, count in (
        ("synthetic photos", table, side, TINY_PHOTOS),
        ("examples/photos", true, TRUE_SIDE, TRUE_PHOTOS),
    ):
        for augmented in (False, True):
            for workers in WORKERS:
                start_s, photos_per_s = _measured(photos, size, count, workers, augmented=augmented)
                yield Rate(
                    photos=named,
                    side=size,
                    workers=workers,
                    augmented=augmented,
                    start_s=start_s,
                    photos_per_s=photos_per_s,
                )


def _measured(table: Table, side: int, count: int, workers: int, *, augmented: bool) -> tuple[float, float]:
    import numpy as np

    from runtime.bundle import Preprocess
    from train.config import PRESETS
    from train.photos import Item, Photos, loaded

    spec = Preprocess(height=side, width=side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    photos = Photos(table, spec, PRESETS["default"].augment if augmented else None, 0)
    rows = np.random.default_rng(0).permutation(len(table.paths))[:count]
    groups = [[Item(int(row), 0) for row in rows[start : start + BATCH]] for start in range(0, len(rows), BATCH)]
    started = time.perf_counter()
    found = loaded(photos, groups, workers)
    # The first batch starts the workers, and they have begun on the next ones when it comes: it counts as one of many.
    seen = len(next(found).images_BHWC)
    first = time.perf_counter()
    for batch in found:
        seen += len(batch.images_BHWC)
    assert seen == len(rows), "a photo was not read"
    return first - started, (seen - BATCH) / (time.perf_counter() - first)

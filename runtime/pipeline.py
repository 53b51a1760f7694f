"""Photos through decode workers and the fleet's bundles to rows: bounded, in order, one row a photo."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import images
from runtime.fleet import Fleet, Row

if TYPE_CHECKING:
    from runtime.bundle import Preprocess
    from runtime.fleet import Fitted

# Batches that are being decoded while one is with the engine: more only costs memory.
AHEAD = 2


def rows(photos: Iterable[Path], fleet: Fleet, *, batch: int, workers: int) -> Iterator[Row]:
    """A row for each photo, in order, while the next batches are decoded by `workers` threads."""
    remaining = iter(photos)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    under_way: deque[list[tuple[Path, Future[Fitted]]]] = deque()
    try:
        while True:
            while len(under_way) <= AHEAD and (chunk := list(islice(remaining, batch))):
                under_way.append([(path, pool.submit(_load, path, fleet.specs)) for path in chunk])
            if not under_way:
                return
            yield from _answer(under_way.popleft(), fleet)
    finally:
        pool.shutdown(cancel_futures=True)


def _load(path: Path, specs: list[Preprocess]) -> Fitted:
    image_HWC = images.decode(path)
    return {spec: images.fit(image_HWC, spec) for spec in specs}


def _answer(chunk: list[tuple[Path, Future[Fitted]]], fleet: Fleet) -> list[Row]:
    done, readable, photos = [], [], []
    for path, future in chunk:
        row = Row(image=path)
        try:
            photos.append(future.result())
            readable.append(row)
        except images.PhotoError as err:
            row.status, row.error = "error", str(err)
        done.append(row)
    fleet.fill(readable, photos)
    return done

"""Photos through decode workers and the fleet's bundles to rows: bounded, in order, one row a photo."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import images
from runtime.fleet import Fleet, Row
from runtime.headers import PhotoError

if TYPE_CHECKING:
    from runtime.bundle import Preprocess
    from runtime.fleet import Fitted

# Batches that are being decoded while one is with the engine: more only costs memory.
AHEAD = 2


def rows(photos: Iterable[Path], fleet: Fleet, *, batch: int, workers: int) -> Iterator[Row]:
    """A row for each photo, in order, while the next batches are decoded by `workers` threads."""
    return answered((Row(image=path) for path in photos), fleet, batch=batch, workers=workers)


def answered(
    unanswered: Iterable[Row], fleet: Fleet, *, batch: int, workers: int, max_pixels: int = images.MAX_PIXELS
) -> Iterator[Row]:
    """The same rows, in order, each answered; one that is settled already, by its status, keeps its place."""
    remaining = iter(unanswered)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    under_way: deque[list[tuple[Row, Future[Fitted] | None]]] = deque()
    load = partial(_load, specs=fleet.specs, max_pixels=max_pixels)
    try:
        while True:
            while len(under_way) <= AHEAD and (chunk := list(islice(remaining, batch))):
                under_way.append([(row, pool.submit(load, row.image) if row.status == "ok" else None) for row in chunk])
            if not under_way:
                return
            yield from _answer(under_way.popleft(), fleet)
    finally:
        pool.shutdown(cancel_futures=True)


def _load(path: Path, *, specs: list[Preprocess], max_pixels: int) -> Fitted:
    # Once, as large as the largest of them needs it.
    least = max(spec.height for spec in specs), max(spec.width for spec in specs)
    image_HWC = images.decode(path, least=least, max_pixels=max_pixels)
    return {spec: images.fit(image_HWC, spec) for spec in specs}


def _answer(chunk: list[tuple[Row, Future[Fitted] | None]], fleet: Fleet) -> list[Row]:
    readable, photos = [], []
    for row, future in chunk:
        if future is None:
            continue
        # Not `result()` in a try: the error would hold this frame, and with it every pixel of the batch.
        err = future.exception()
        if isinstance(err, PhotoError):
            row.fail(str(err))
        else:
            photos.append(future.result())
            readable.append(row)
    fleet.fill(readable, photos)
    return [row for row, _ in chunk]

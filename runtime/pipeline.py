"""Photos through the fleet's bundles to rows: several batches at once, bounded, in order, one row a photo."""

# B batch, H height, W width

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import images, machine
from runtime.engines import ENGINES
from runtime.fleet import Fleet, Row
from runtime.headers import PhotoError

if TYPE_CHECKING:
    import numpy as np

    from runtime.bundle import Preprocess
    from runtime.fleet import Batch

# Batches that wait for a worker, so that none waits while the rows of another are written.
AHEAD = 2


def workers(engines: Iterable[str]) -> int:
    """How many batches are best in the making at once: one a core, and one more where those that are with one of these
    engines leave their own threads waiting."""
    return machine.cores() + any(ENGINES[name].waits for name in engines)


def rows(photos: Iterable[Path], fleet: Fleet, *, batch: int, workers: int) -> Iterator[Row]:
    """A row for each photo, in order, while `workers` threads take the next batches."""
    return answered((Row(image=path) for path in photos), fleet, batch=batch, workers=workers)


def answered(
    unanswered: Iterable[Row], fleet: Fleet, *, batch: int, workers: int, max_pixels: int = images.MAX_PIXELS
) -> Generator[Row]:
    """The same rows, in order, each answered; one that is settled already, by its status, keeps its place.

    A worker takes a batch from its files to its answers. On a CPU whose cores answer a batch each, nothing else
    competes for them; an engine that answers one batch at a time has the next ones decoded meanwhile.
    """
    remaining = iter(unanswered)
    under_way: deque[Future[list[Row]]] = deque()
    desks = Desks(fleet.specs, batch)
    stop = threading.Event()
    work = partial(_answer, fleet=fleet, desks=desks, max_pixels=max_pixels, stop=stop)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="answer")
    try:
        while True:
            while len(under_way) < workers + AHEAD and (chunk := list(islice(remaining, batch))):
                under_way.append(pool.submit(work, chunk))
            if not under_way:
                return
            yield from under_way.popleft().result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


class Desks(threading.local):
    """Each worker's memory for the photos of a batch, in each of the sizes: new memory costs more than what is done
    with it, where a page of it is slow to get."""

    def __init__(self, specs: list[Preprocess], batch: int) -> None:
        self._specs = specs
        # A photo is decoded once, as large as the largest of the sizes needs it.
        self._least = max(spec.height for spec in specs), max(spec.width for spec in specs)
        self._batch = batch
        self._pixels: dict[Preprocess, np.ndarray] = {}

    def put(self, path: Path, place: int, *, max_pixels: int) -> None:
        """Read the photo into that place of the batch; PhotoError where it cannot be read."""
        image_HWC = images.decode(path, least=self._least, max_pixels=max_pixels)
        for spec in self._specs:
            self._of(spec)[place] = images.fit(image_HWC, spec)

    def first(self, count: int) -> Batch:
        """So many of the photos, uint8 RGB [B, H, W, 3] in each size, until others are put there."""
        return {spec: self._of(spec)[:count] for spec in self._specs}

    def _of(self, spec: Preprocess) -> np.ndarray:
        import numpy as np

        if spec not in self._pixels:
            self._pixels[spec] = np.empty((self._batch, spec.height, spec.width, 3), np.uint8)
        return self._pixels[spec]


def _answer(chunk: list[Row], *, fleet: Fleet, desks: Desks, max_pixels: int, stop: threading.Event) -> list[Row]:
    readable: list[Row] = []
    for row in chunk:
        if stop.is_set():
            return []  # nobody waits for it any more
        if row.status != "ok":
            continue
        try:
            desks.put(row.image, len(readable), max_pixels=max_pixels)
        except PhotoError as err:
            row.fail(str(err))
        else:
            readable.append(row)
    fleet.fill(readable, desks.first(len(readable)))
    return chunk

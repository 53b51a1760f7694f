"""Command: which artifact, engine and options are fastest on this machine; predict takes them from then on.

python -m runtime.tune
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from runtime import bundle, cache, golden, images, machine, pipeline, tuned
from runtime.bundle import Artifact, Bundle, Preprocess, Verdict
from runtime.engines import ENGINES, Engine, EngineOptions, open_engine
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.fidelity import batch_of
from runtime.files import probe
from runtime.predictor import BATCH
from runtime.terminal import note, print_table, progress
from runtime.tuned import Tuned

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("artifact", "engine", "streams", "batch", "images/s", "of the fastest")
# A first look at each way, then the best of them in turns: a machine that slows down slows all of them.
LOOK_S, LOOK_RUNS = 0.6, 3
# A way that is so much slower than the best before it is not looked at twice.
HOPELESS = 0.6
FINALISTS, NEAR = 4, 0.85
ROUNDS = 5
# Than the largest that are computed at once.
LARGER = 4
# Of the cores: with more at work for others, tune found a photo at a time fastest on two cores, which was not.
BUSY = 0.5
# Of each worker in a row, of a network that takes its time one: the last of them end a little apart.
CALLS, CALLS_S = 4, 1.0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.tune",
        description="Time every artifact that passed its gate in every way this machine has, and keep the fastest.",
    )
    parser.add_argument(
        "bundles", type=Path, nargs="*", metavar="BUNDLE", help="a bundle, or a folder of them (default: as predict)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: tune(args))


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to answer a bundle's photos here."""

    artifact: Artifact
    engine: str
    hint: str
    streams: int
    batch: int

    def opened(self, folder: Path) -> Engine:
        options = EngineOptions(streams=self.streams, hint=self.hint)
        return open_engine(self.engine, folder / self.artifact.file, options)


@dataclass(frozen=True, kw_only=True)
class Photos:
    """What a bundle is timed with: its golden photos, read and decoded again for every batch, as predict must."""

    paths: Sequence[Path]
    spec: Preprocess

    def desks(self, size: int) -> pipeline.Desks:
        """Memory for so many of them, as predict's workers have it."""
        return pipeline.Desks([self.spec], size)

    def on(self, desks: pipeline.Desks, size: int) -> np.ndarray:
        """So many of them, the same ones again where there are fewer."""
        for place, path in enumerate(itertools.islice(itertools.cycle(self.paths), size)):
            desks.put(path, place, max_pixels=images.MAX_PIXELS)
        return desks.first(size)[self.spec]


@dataclass(kw_only=True)
class Timed:
    """How fast a way was, time after time, in images a second."""

    way: Way
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def tune(args: argparse.Namespace) -> int:
    roots = args.bundles or [bundle.default_root()[0]]
    folders = [folder for root in roots for folder in bundle.find(root).values()]
    try:
        probe(cache.folder("tuned"))
    except OSError as err:
        raise _unkept(err) from None
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > BUSY * machine.cores():
        note(f"this machine is busy (load {load:.1f}): what is fastest now may not be when it is quiet")
    failed = 0
    for folder in folders:
        try:
            tune_one(folder, quiet=args.quiet)
        except UserError as err:
            if len(folders) == 1:
                raise
            note(f"{folder}: {err}")
            failed += 1
    return PARTLY_DONE if failed else DONE


def tune_one(folder: Path, *, quiet: bool) -> None:
    """Find the fastest way for one bundle, print what was tried and keep the winner."""
    page = bundle.verify(folder)
    # The likely best first: others are held against them.
    faithful = sorted(passed(folder, page), key=lambda found: -(found[1].images_per_s or 0.0))
    if not faithful:
        raise UserError(f"no artifact of {folder} passes here\nsee why with: python -m export.verify {folder}")
    ways = [way for artifact, verdict in faithful for way in ways_of(page, artifact, verdict)]
    photos = Photos(paths=_photos(folder, page), spec=page.preprocess)
    with progress(page.slug, len(ways) + ROUNDS, quiet=quiet) as advance:
        timed: list[Timed] = []
        for way in ways:
            advance.tell(f"{way.artifact.precision} on {way.engine}")
            timed.append(look(folder, way, photos, best=max((each.rate for each in timed), default=0.0)))
            advance(1)
        advance.tell("the best in turns")
        finals = compare(folder, finalists(timed), photos, advance=lambda: advance(1))
    finals.sort(key=lambda each: -each.rate)
    taken = [each.way for each in finals]
    best, *others = *finals, *(each for each in timed if each.way not in taken)
    rows = [row(each, best) for each in (best, *sorted(others, key=lambda each: -each.rate))]
    print_table(f"{page.slug} on {machine.processor().name}, {machine.processor().cores} cores", COLUMNS, rows)
    keep(page, best)


def passed(folder: Path, page: Bundle) -> Iterator[tuple[Artifact, Verdict]]:
    """Each artifact and engine whose gate passed and whose golden photos do so here."""
    for artifact in page.artifacts:
        for verdict in artifact.verdicts:
            # What no gate has seen yet, `export.verify` tries: then it is passed or refused.
            if verdict.state == "passed" and ENGINES[verdict.engine].installed():
                here = golden.check(folder, page, artifact, verdict.engine, verdict.hint)
                if here.state == "passed":
                    yield artifact, here


def ways_of(page: Bundle, artifact: Artifact, verdict: Verdict) -> Iterator[Way]:
    """The options that are worth a try."""
    if artifact.profile:
        streams, most = [1], artifact.profile.max_batch
    else:
        cores, most = machine.cores(), batch_of(page.preprocess.height, page.preprocess.width)
        streams = [count for count in (1, 2, 4, 8, 16, 32) if count < cores] + [cores]
    batches = [size for size in (1, 4, 16) if size < most] + [most]
    for at_once in streams:
        if at_once == 1:
            sizes = batches
        elif ENGINES[verdict.engine].waits:
            # Larger ones than one call computes at once: after the photos are decoded, the network's weights must come
            # back into the caches, and a stream goes through the batch photo by photo.
            sizes = [*batches, LARGER * most]
        else:
            # Computed by the thread that brings it, a batch's size is memory, and hardly time.
            sizes = [BATCH]
        for batch in sizes:
            yield Way(artifact=artifact, engine=verdict.engine, hint=verdict.hint, streams=at_once, batch=batch)


def look(folder: Path, way: Way, photos: Photos, *, best: float) -> Timed:
    """Time one way alone, for a moment, and for less where it is far from the best so far."""
    timed = Timed(way=way)
    with way.opened(folder) as engine:
        engine.infer(photos.on(photos.desks(way.batch), way.batch))  # what is only done once
        started = time.perf_counter()
        while len(timed.rates) < LOOK_RUNS or time.perf_counter() - started < LOOK_S:
            timed.rates.append(rate(engine, way, photos))
            if timed.rate < HOPELESS * best:
                break
    return timed


def finalists(timed: Sequence[Timed]) -> list[Timed]:
    """Those that may be the fastest: the best few, as far as they are near the first."""
    ordered = sorted(timed, key=lambda each: -each.rate)
    return [each for each in ordered[:FINALISTS] if each.rate >= NEAR * ordered[0].rate]


def compare(
    folder: Path, found: Sequence[Timed], photos: Photos, *, advance: Callable[[], None] = lambda: None
) -> list[Timed]:
    """The same ways timed anew, in turns."""
    with ExitStack() as held:
        made = [Timed(way=each.way) for each in found]
        engines = [held.enter_context(each.way.opened(folder)) for each in made]
        for number in range(ROUNDS + 1):
            for each, engine in zip(made, engines, strict=True):
                started = time.perf_counter()
                rates: list[float] = []
                while not rates or time.perf_counter() - started < LOOK_S / 2:
                    rates.append(rate(engine, each.way, photos))
                if number:  # the first pays for what is only done once
                    each.rates.append(statistics.median(rates))
            if number:
                advance()
    return made


def rate(engine: Engine, way: Way, photos: Photos) -> float:
    """Images a second from files to answers, by as many workers as predict has: a way that lets one batch in at a time
    may answer as fast, and keep the others waiting."""
    workers, turns = pipeline.workers([way.engine]), BoundedSemaphore(way.streams)
    desks = photos.desks(way.batch)

    def answer() -> None:
        batch_BHWC = photos.on(desks, way.batch)
        with turns:
            engine.infer(batch_BHWC)

    def seconds(calls: int) -> float:
        started = time.perf_counter()
        for done in [pool.submit(answer) for _ in range(calls * workers)]:
            done.result()
        return time.perf_counter() - started

    with ThreadPoolExecutor(workers) as pool:
        first = seconds(1)
        if first > CALLS_S:
            return workers * way.batch / first
        return CALLS * workers * way.batch / seconds(CALLS)


def row(timed: Timed, best: Timed) -> list[str]:
    way = timed.way
    return [
        " ".join(filter(None, (way.artifact.precision, way.artifact.target))),
        f"{way.engine} {way.hint}".strip(),
        str(way.streams),
        str(way.batch),
        f"{timed.rate:.1f}",
        f"{timed.rate / best.rate:.2f}",
    ]


def keep(page: Bundle, best: Timed) -> None:
    """Write the winner down for this machine."""
    way = best.way
    found = Tuned(
        sha256=way.artifact.sha256,
        engine=way.engine,
        hint=way.hint,
        streams=way.streams,
        batch=way.batch,
        images_per_s=round(best.rate, 2),
    )
    try:
        path = tuned.write(page, found)
    except OSError as err:
        raise _unkept(err) from None
    note(f"predict takes the first from now on: {path}")


def _unkept(err: OSError) -> UserError:
    return UserError(
        f"cannot keep what is found: {err.strerror}: {err.filename}\nname a folder with: XDG_CACHE_HOME=DIR"
    )


def _photos(folder: Path, page: Bundle) -> list[Path]:
    photos = [folder / photo.file for photo in page.golden.photos]
    if not photos:
        raise UserError(f"{folder} has no golden photos to time with\n{bundle.rebuild(folder)}")
    return photos


if __name__ == "__main__":
    raise SystemExit(main())

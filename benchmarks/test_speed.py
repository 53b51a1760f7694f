"""Every way to answer the same photos with the same weights, in turns: the network alone, and from folder to table.

Answers are compared first. Each way waits in a process of its own for its turn; a ratio is that of two turns of one
round, so that a machine which slows down slows both.
"""

# N photos, K classes of one attribute

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import turns
from benchmarks.networks import NETWORKS
from benchmarks.record import Agreement, Contest, Result
from benchmarks.turns import Process, Worker
from benchmarks.ways import KINDS, OURS, REFERENCE
from benchmarks.works import WORKS, Work
from export.parity import LIMITS
from runtime import bundle, inputs

# The gate's floor for int8 on equal pixels. From file to table the pixels differ as well, by each way's own decoder and
# filter, and labels are held to it all the same: below it two ways would no longer be doing the same work.
AGREEMENT = LIMITS["int8"].agreement
ROUNDS, FULL_ROUNDS = 3, 5
# Photos, with --full.
COMPARED = 16


@dataclass(frozen=True, kw_only=True)
class Entrants:
    """The ways that are here for one work, started, and how near each one's answers are to PyTorch's in float32."""

    work: Work
    workers: list[Worker]
    missing: dict[str, str]
    """Why the others are not."""
    answers: dict[str, Agreement]
    limits: Process
    """What measures the machine's own rates."""
    rounds: int
    full: bool

    @property
    def ours(self) -> Worker:
        return self.workers[0]

    def count(self, photos: int) -> Callable[[Worker], int]:
        """How many photos a way has a turn: so many, or few where it takes one after the other; with --full all."""
        return lambda worker: self.work.few if KINDS[worker.way].single and not self.full else photos


@pytest.fixture(scope="session")
def limits() -> Iterator[Process]:
    """What measures the machine's own rates."""
    with Process("limits", "benchmarks.limits") as process:
        yield process


@pytest.fixture(scope="session")
def entrants(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, limits: Process
) -> Iterator[Entrants]:
    """Those of the work that the test names."""
    full: bool = request.config.getoption("full")
    work = WORKS[request.param]()
    if work.name in NETWORKS and not (work.bundle / bundle.PAGE).exists():
        # In a process of its own: what exporting loads and holds is gone before a clock starts.
        subprocess.run([sys.executable, "-m", "benchmarks.networks", work.name], check=True, stdout=subprocess.DEVNULL)
    scratch = tmp_path_factory.mktemp(request.param)
    asked = [name for name, kind in KINDS.items() if full or not kind.full]
    with ExitStack() as held:
        workers, missing = turns.started(work.name, asked, held)
        assert not missing.keys() & {OURS, REFERENCE}, missing
        yield Entrants(
            work=work,
            workers=workers,
            missing=missing,
            answers=compared(workers, scratch, COMPARED if full else work.compared),
            limits=limits,
            rounds=FULL_ROUNDS if full else ROUNDS,
            full=full,
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entrants" in metafunc.fixturenames:
        metafunc.parametrize("entrants", [*WORKS], indirect=True, scope="session")


# A comparison that fails does so before the clock starts, and is failure enough.
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_the_network_alone(entrants: Entrants, benchmark: BenchmarkFixture, keep: Callable[[Contest], None]) -> None:
    count = entrants.count(entrants.work.alone)
    found = contest(entrants, "alone", count, benchmark, lambda worker, number: ("alone", count(worker)))
    if benchmark.enabled:
        keep(found)


@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_from_folder_to_table(
    entrants: Entrants, benchmark: BenchmarkFixture, keep: Callable[[Contest], None], tmp_path: Path
) -> None:
    most = entrants.work.whole_full if entrants.full else entrants.work.whole
    count = entrants.count(most)
    photos = inputs.find([Path(__file__).resolve().parent.parent / "examples" / "photos"])
    outs = {worker.way: tmp_path / f"{worker.slug}.csv" for worker in entrants.workers}

    def folder(worker: Worker, number: int) -> Path:
        """The round's photos; for a way that takes few, the first of them."""
        path = tmp_path / f"{number}-{count(worker)}"
        return path if path.exists() else turns.linked(path, photos, number * most, count(worker))

    def agree(folders: dict[str, Path]) -> dict[str, float]:
        """The share of the labels of each way's table that are the reference's; ours must be the same work."""
        found = {way: labels(outs[way], entrants.work, folder) for way, folder in folders.items()}
        wanted = found[REFERENCE]
        shares = {way: float((one[: len(wanted)] == wanted[: len(one)]).mean()) for way, one in found.items()}
        assert shares[OURS] >= AGREEMENT
        return shares

    first = turns.linked(tmp_path / "first", photos, 0, entrants.work.few)
    for worker in entrants.workers:
        worker.ask("whole", first, outs[worker.way])
    before = agree({worker.way: first for worker in entrants.workers})
    found = contest(
        entrants,
        "whole",
        count,
        benchmark,
        lambda worker, number: ("whole", folder(worker, number), outs[worker.way]),
        agree=before,
    )
    # What was timed is what was compared: the last round's tables are of its photos.
    last = len(found.limits) - 1
    agree({worker.way: folder(worker, last) for worker in entrants.workers})
    if benchmark.enabled:
        keep(found)


def contest(
    entrants: Entrants,
    kind: str,
    count: Callable[[Worker], int],
    benchmark: BenchmarkFixture,
    request: Callable[[Worker, int], tuple[object, ...]],
    *,
    agree: dict[str, float] | None = None,
) -> Contest:
    """Time the ways in turns; the plug-in's clock runs in our turns."""
    rates: dict[str, list[float]] = {worker.way: [] for worker in entrants.workers}
    limits: list[dict[str, float]] = []

    def turn(worker: Worker, number: int) -> None:
        rates[worker.way].append(turns.turn(worker, request(worker, number)))

    def others() -> None:
        number = len(rates[OURS])
        limits.append(entrants.limits.ask("rates"))
        rivals = entrants.workers[1:]
        shift = number % max(1, len(rivals))
        for worker in [*rivals[shift:], *rivals[:shift]]:
            turn(worker, number)

    benchmark.pedantic(lambda: turn(entrants.ours, len(rates[OURS])), setup=others, rounds=entrants.rounds)
    results = [
        Result(
            way=worker.way,
            what=worker.what,
            photos=count(worker),
            images_per_s=tuple(rates[worker.way]),
            answers=entrants.answers[worker.way],
            labels_agree=None if agree is None else agree[worker.way],
        )
        for worker in entrants.workers
    ]
    found = Contest(
        model=entrants.work.name,
        kind=kind,
        results=results,
        missing=entrants.missing,
        gop=entrants.work.gop,
        limits=limits,
    )
    benchmark.extra_info |= found.summary()
    return found


def compared(workers: list[Worker], scratch: Path, photos: int) -> dict[str, Agreement]:
    """How near each way's answers to the same pixels are to PyTorch's in float32."""
    found = {}
    for worker in workers:
        path = scratch / f"{worker.slug}.npz"
        worker.ask("answers", path, photos)
        with np.load(path) as arrays:
            found[worker.way] = dict(arrays)
    wanted = found[REFERENCE]
    near = {way: agreement(one, wanted) for way, one in found.items()}
    # Random weights tell photos apart by little: there a limit alone would let any answer pass.
    between_photos = float(max(np.ptp(rows_NK, axis=0).max() for rows_NK in wanted.values()))
    ours = near[OURS]
    limits = LIMITS[workers[0].what.split()[0]]
    assert ours.largest_difference <= limits.probability
    assert ours.labels_agree >= limits.agreement
    assert ours.largest_difference < between_photos
    return near


def agreement(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> Agreement:
    """How near two sets of probabilities [N, K] are."""
    gaps = np.concatenate([np.abs(found[name] - wanted[name]).ravel() for name in wanted])
    # A NaN compares as no difference at all: it must count as the largest.
    gaps = np.nan_to_num(gaps, nan=np.inf)
    return Agreement(
        largest_difference=float(gaps.max()),
        mean_difference=float(gaps.mean()),
        labels_agree=float(np.mean([found[name].argmax(1) == wanted[name].argmax(1) for name in wanted])),
    )


def labels(out: Path, work: Work, folder: Path) -> np.ndarray:
    """The labels of a table, a row a photo and a column an attribute; every photo must have its row."""
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(path) for path in sorted(folder.iterdir())]
    return np.array([[row[attribute.name] for attribute in work.page.attributes] for row in rows])

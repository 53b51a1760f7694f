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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import rounds, turns
from benchmarks.cache import drop_others
from benchmarks.contest import Agreement, Contest, Result
from benchmarks.networks import NETWORKS
from benchmarks.turns import Process, Worker
from benchmarks.ways import KINDS, OURS, REFERENCE
from benchmarks.works import WORKS, Work
from export.parity import LIMITS
from runtime import bundle, inputs

# The gate's floor for int8 on equal pixels. From file to table the pixels differ as well, by each way's own decoder and
# filter, and labels are held to it all the same: below it two ways would no longer be doing the same work.
AGREEMENT = LIMITS["int8"].agreement
# With --full: rounds, and photos whose answers are compared.
FULL_ROUNDS, COMPARED = 5, 16


@dataclass(frozen=True, kw_only=True)
class Entrants:
    """The ways that are here for one work, started, and how near each one's answers are to PyTorch's in float32."""

    work: Work
    workers: list[Worker]
    missing: dict[str, str]
    """Why the others are not."""
    failed: dict[str, str]
    """Those that ended before they could answer, and with which words."""
    answers: dict[str, Agreement]
    limits: Process | None
    """What measures the machine's own rates, where it can."""
    rounds: int
    full: bool

    @property
    def ours(self) -> Worker:
        return self.workers[0]

    def count(self, photos: int, worker: Worker) -> int:
        """How many photos a way has a turn: so many, or few where it takes one after the other unless with --full; in
        whole batches, as many of them as it has under way at once."""
        asked = self.work.few if KINDS[worker.way].single and not self.full else photos
        return -(-asked // worker.step) * worker.step


@pytest.fixture(scope="session")
def limits() -> Iterator[Process]:
    """What measures the machine's own rates."""
    with Process("limits", "benchmarks.limits") as process:
        process.ready()
        yield process


@pytest.fixture(scope="session")
def entrants(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    limits: Process,
    tell: Callable[[str], None],
) -> Iterator[Entrants]:
    """Those of the work that the test names."""
    full: bool = request.config.getoption("full")
    work = WORKS[request.param]()
    if work.name in NETWORKS and not (work.bundle / bundle.PAGE).exists():
        tell(f"{work.name}: the network and its bundle are made, some minutes")
        # In a process of its own: what exporting loads and holds is gone before a clock starts.
        subprocess.run([sys.executable, "-m", "benchmarks.networks", work.name], check=True, stdout=subprocess.DEVNULL)
    if not work.made.exists():
        drop_others(work.made)
        tell(f"{work.name}: the other ways make their graphs of it, some minutes")
    scratch = tmp_path_factory.mktemp(request.param)
    asked = [name for name, kind in KINDS.items() if full or not kind.full]
    with ExitStack() as held:
        workers, missing, failed = turns.started(work.name, asked, held, tell)
        here = {worker.way for worker in workers}
        assert {OURS, REFERENCE} <= here, {**missing, **failed}
        missing |= {name: "only with --full" for name in KINDS if name not in asked}
        missing |= {"the machine's own rates": limits.missing} if limits.missing else {}
        failed |= {"the machine's own rates": limits.failed} if limits.failed else {}
        yield Entrants(
            work=work,
            workers=workers,
            missing=missing,
            failed=failed,
            answers=compared(workers, scratch, COMPARED if full else work.compared),
            limits=None if limits.missing or limits.failed else limits,
            rounds=FULL_ROUNDS if full else work.rounds,
            full=full,
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entrants" in metafunc.fixturenames:
        metafunc.parametrize("entrants", [*WORKS], indirect=True, scope="session")


def test_the_network_alone(entrants: Entrants, benchmark: BenchmarkFixture, keep: Callable[[Contest], None]) -> None:
    found = contest(entrants, "alone", entrants.work.alone, benchmark, lambda worker, number, count: ("alone", count))
    if benchmark.enabled:
        keep(found)
    assert not entrants.failed


def test_from_folder_to_table(
    entrants: Entrants, benchmark: BenchmarkFixture, keep: Callable[[Contest], None], tmp_path: Path
) -> None:
    most = entrants.work.whole_full if entrants.full else entrants.work.whole
    photos = inputs.find([Path(__file__).resolve().parent.parent / "examples" / "photos"])

    def out(way: str, number: int) -> Path:
        return tmp_path / f"{way}-{number}.csv"

    def folder(number: int, count: int) -> Path:
        """The round's photos; for a way that takes few, the first of them."""
        path = tmp_path / f"{number}-{count}"
        return path if path.exists() else turns.linked(path, photos, number * most, count)

    def request(worker: Worker, number: int, count: int) -> tuple[object, ...]:
        return "whole", folder(number, count), out(worker.way, number)

    found = contest(entrants, "whole", most, benchmark, request)
    # What was timed is what is compared: the last round's tables.
    last = entrants.rounds
    tables = {one.way: labels(out(one.way, last), entrants.work, folder(last, one.photos)) for one in found.results}
    wanted = tables[REFERENCE]
    shares = {way: float((one[: len(wanted)] == wanted[: len(one)]).mean()) for way, one in tables.items()}
    assert shares[OURS] >= AGREEMENT
    if benchmark.enabled:
        keep(replace(found, results=[replace(one, labels_agree=shares[one.way]) for one in found.results]))
    assert not entrants.failed


def contest(
    entrants: Entrants,
    kind: str,
    photos: int,
    benchmark: BenchmarkFixture,
    request: Callable[[Worker, int, int], tuple[object, ...]],
) -> Contest:
    """Time the ways in turns, ours last in each round, another first among the rest; few photos in the round that does
    not count.

    Args:
        request: what a way is asked in the round of that number, over so many photos.
    """

    def play(number: int) -> tuple[dict[str, float], dict[str, float]]:
        limits = entrants.limits.ask("rates") if entrants.limits and number else {}
        shift = 1 + number % (len(entrants.workers) - 1)
        order = [*entrants.workers[shift:], *entrants.workers[1:shift], entrants.ours]
        rates = {}
        for worker in order:
            count = entrants.count(photos if number else entrants.work.few, worker)
            rates[worker.way] = turns.turn(worker, request(worker, number, count))
        return rates, limits

    played = benchmark.pedantic(lambda: rounds.taken(play, entrants.rounds), rounds=1)
    results = [
        Result(
            way=worker.way,
            what=worker.what,
            how=worker.how[kind],
            exact=KINDS[worker.way].exact,
            photos=entrants.count(photos, worker),
            images_per_s=tuple(rates[worker.way] for (rates, _), _ in played),
            answers=entrants.answers[worker.way],
            labels_agree=None,
        )
        for worker in entrants.workers
    ]
    found = Contest(
        model=entrants.work.name,
        kind=kind,
        results=results,
        missing=entrants.missing,
        failed=entrants.failed,
        gop=entrants.work.gop,
        limits=[limits for (_, limits), _ in played if limits],
        others=[others for _, others in played],
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

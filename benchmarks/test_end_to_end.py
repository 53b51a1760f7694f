"""`predict` beside the reference's own way: the same folder of photos, the same weights, a table each.

Both networks are loaded before a clock starts. Answers are compared first; then the two take turns, round by round,
so that a machine which slows down slows both.
"""

# N photos, K classes of one attribute

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.choices import passed
from benchmarks.record import Agreement, Measurement
from benchmarks.stages import predict
from benchmarks.works import WORKS, Work
from export.artifacts import GRAPH_ENGINES
from export.parity import LIMITS
from runtime import bundle, inputs, machine
from runtime.fleet import Fleet
from runtime.predictor import Predictor, choose

# The gate's floor for int8 on equal pixels. The two whole ways differ in their pixels too and are held to it all the
# same, at any precision: below it they would no longer be doing the same work.
WHOLE_AGREEMENT = LIMITS["int8"].agreement
FULL = [(name, engine, precision) for name in WORKS for engine in GRAPH_ENGINES for precision in ("fp32", "int8")]
BARE = [("demo", "auto", None), ("convnext_base", "auto", "int8")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = FULL if metafunc.config.getoption("full") else BARE
    names = ["-".join(filter(None, case)) for case in cases]
    metafunc.parametrize(("work", "engine", "precision"), cases, indirect=["work"], ids=names, scope="session")


# A comparison that fails does so before the clock starts, and is failure enough.
@pytest.mark.filterwarnings("ignore:Benchmark fixture was not used")
def test_predict_beside_the_reference_way(
    work: Work,
    engine: str,
    precision: str | None,
    benchmark: BenchmarkFixture,
    keep: Callable[[Measurement], None],
    tmp_path: Path,
) -> None:
    if engine != "auto" and not passed(bundle.load(work.bundle), engine, precision):
        pytest.skip(f"the bundle of {work.model} holds no {precision} that passed the gate on {engine}")
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    options = {"engine": engine, "precision": precision, "streams": machine.cores()}
    with Fleet.open([work.bundle], category=work.category, **options) as fleet:
        [predictor] = fleet.predictors
        artifact, found_engine, verdict = predictor.choice

        probabilities = answers(predictor, work.pixels)
        same_pixels = agreement(probabilities, work.on_our_pixels)
        between_photos = float(max(np.ptp(rows_NK, axis=0).max() for rows_NK in work.on_our_pixels.values()))
        limits = LIMITS[artifact.precision]
        assert same_pixels.largest_difference <= limits.probability
        assert same_pixels.labels_agree >= limits.agreement
        # Random weights tell photos apart by little: there the limit alone would let any answer pass.
        assert same_pixels.largest_difference < between_photos

        # The first of each is the warm-up too.
        predict(fleet, inputs.find([work.folder]), ours)
        work.reference.predict(work.folder, theirs)
        compared = labels(ours, work)
        whole = Agreement(
            largest_difference=agreement(probabilities, work.on_their_pixels).largest_difference,
            labels_agree=float((compared == labels(theirs, work)).mean()),
        )
        assert whole.labels_agree >= WHOLE_AGREEMENT

        ours_s: list[float] = []
        theirs_s: list[float] = []
        # The setup comes before each round and outside the plug-in's clock: it is the reference's turn.
        benchmark.pedantic(
            clocked(lambda: predict(fleet, inputs.find([work.folder]), ours), ours_s),
            setup=clocked(lambda: work.reference.predict(work.folder, theirs), theirs_s),
            rounds=work.rounds,
        )
    assert (labels(ours, work) == compared).all(), "what was timed is not what was compared"
    measurement = Measurement(
        model=work.model,
        precision=artifact.precision,
        engine=found_engine,
        hint=verdict.hint,
        artifact=artifact.file,
        chosen_by_auto=predictor.choice == choose(predictor.bundle, engine="auto", precision=None),
        photos=len(work.paths),
        batch=predictor.batch,
        ours_s=tuple(ours_s),
        theirs_s=tuple(theirs_s),
        same_pixels=same_pixels,
        same_network=agreement(work.on_our_pixels, work.on_their_pixels),
        whole=whole,
        between_photos=between_photos,
    )
    benchmark.extra_info |= measurement.summary()
    if benchmark.enabled:
        keep(measurement)


def answers(predictor: Predictor, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
    """The artifact's outputs [N, K] by name, computed in batches of the size that is timed."""
    size = predictor.batch
    starts = range(0, len(photos_NHWC), size)
    parts = [predictor.probabilities(photos_NHWC[start : start + size]) for start in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def agreement(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> Agreement:
    """How near two sets of probabilities [N, K] are, over the outputs that `wanted` names."""
    pairs = [(found[name], wanted_NK) for name, wanted_NK in wanted.items()]
    return Agreement(
        # A NaN compares as no difference at all: it must count as the largest.
        largest_difference=float(max(np.nan_to_num(np.abs(some - other), nan=np.inf).max() for some, other in pairs)),
        labels_agree=float(np.mean([some.argmax(1) == other.argmax(1) for some, other in pairs])),
    )


def labels(out: Path, work: Work) -> np.ndarray:
    """The labels of a table, a row a photo and a column an attribute; every photo must have its row."""
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(path) for path in work.paths]
    names = [attribute.name for attribute in work.reference.page.attributes]
    return np.array([[row[name] for name in names] for row in rows])


def clocked(call: Callable[[], None], seconds: list[float]) -> Callable[[], None]:
    """The call, each time adding to `seconds` how long it took."""

    def timed() -> None:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)

    return timed

"""Command: what predict chooses by itself once `tune` has run, beside every choice that a user can name.

python -m benchmarks.choices

Each choice is a fleet of its own that takes the same photos from the folder to the table, in turns. `tune` keeps what
it finds in a folder of this command's own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import busy, record
from benchmarks.stages import WORKERS, linked, predict, served
from runtime import bundle, tune
from runtime.engines import ENGINES
from runtime.errors import DONE, PARTLY_DONE
from runtime.fleet import Fleet
from runtime.terminal import note

LEAST = 0.95
AUTO = ("auto", None)
# Photos and rounds of each work.
SIZES = {"shipped": (400, 9), "convnext_base": (16, 5), "convnext_atto": (400, 9)}


def parser() -> argparse.ArgumentParser:
    return record.parser(
        "choices", "Time predict with what tune found, and with every engine and precision by name, in turns."
    )


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Measure the works, keep what was found, and say whether auto comes near enough to the best."""
    load_before = busy.before()
    works = served()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        found = {name: compared(name, bundles) for name, bundles in works.items()}
    for name, one in found.items():
        note(f"{name}: auto gives {one['auto_of_best']} of the best named choice, {one['best']}")
    path = record.keep({"model": "choices"}, {"works": found}, full=True, load_before=load_before, into=into)
    note(f"kept in {path}")
    return DONE if all(float(str(one["auto_of_best"])) >= LEAST for one in found.values()) else PARTLY_DONE


def compared(name: str, bundles: Sequence[Path]) -> dict[str, object]:
    """Images a second of auto after `tune`, and of each choice by name; medians over the rounds."""
    count, rounds = SIZES[name]
    started = time.perf_counter()
    for folder in bundles:
        tune.tune_one(folder, quiet=True)
    tuned_s = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as scratch:
        photos, out = linked(Path(scratch, "photos"), count), Path(scratch, "out.csv")
        seconds: dict[tuple[str, str | None], list[float]] = {choice: [] for choice in (AUTO, *named(bundles))}
        what: dict[tuple[str, str | None], str] = {}
        for _ in range(rounds):
            for engine, precision in seconds:
                # Opened anew: the memory and threads of others that are open slow each down.
                with Fleet.open(bundles, category=None, engine=engine, precision=precision, streams=WORKERS) as fleet:
                    predict(fleet, photos[: 4 * WORKERS], out)
                    begun = time.perf_counter()
                    predict(fleet, photos, out)
                    seconds[engine, precision].append(time.perf_counter() - begun)
                    what[engine, precision] = "; ".join(
                        dict.fromkeys(str(predictor.choice) for predictor in fleet.predictors)
                    )
    rates = {choice: count / statistics.median(each) for choice, each in seconds.items()}
    best = max((choice for choice in rates if choice != AUTO), key=rates.__getitem__)
    ratios = [of_best / of_auto for of_best, of_auto in zip(seconds[best], seconds[AUTO], strict=True)]
    return {
        "auto_of_best": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "best": " ".join(filter(None, best)),
        "tune_s": round(tuned_s, 1),
        "photos": count,
        "choices": [
            {
                "choice": " ".join(filter(None, choice)),
                "what": what[choice],
                "images_per_s": round(rates[choice], 2),
                "rounds_s": [round(one, 4) for one in seconds[choice]],
            }
            for choice in seconds
        ],
    }


def named(bundles: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Every engine and precision that passed in all the bundles."""
    pages = [bundle.load(folder) for folder in bundles]
    for engine in ENGINES:
        for precision in ("fp32", "fp16", "int8"):
            if ENGINES[engine].installed() and all(passed(page, engine, precision) for page in pages):
                yield engine, precision


def passed(page: bundle.Bundle, engine: str, precision: str | None) -> bool:
    """Whether the bundle has an artifact of that precision that the gate let through on that engine."""
    return any(
        verdict.engine == engine and verdict.state == "passed"
        for artifact in page.artifacts
        if artifact.precision == precision
        for verdict in artifact.verdicts
    )


if __name__ == "__main__":
    raise SystemExit(main())

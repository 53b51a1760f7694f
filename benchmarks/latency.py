"""Command: how long one photo takes, from its file to its answers, where photos come one at a time.

python -m benchmarks.latency

The challenge that the reference system was made for asked for at most 500 ms an image. The reference's own network,
ConvNeXt-Base at 512 px in int8, is given 200 photos one after the other, each decoded and answered on all cores.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import busy, record
from benchmarks.cache import CACHE, ROOT
from benchmarks.networks import CONVNEXT_BASE
from runtime import bundle, inputs, tune, tuned
from runtime.errors import DONE, PARTLY_DONE
from runtime.predictor import Predictor
from runtime.terminal import note, progress

PHOTOS = 200
LIMIT_MS = 500


def parser() -> argparse.ArgumentParser:
    return record.parser("latency", "Time single photos from file to answers, one after the other.")


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Time them and keep what was found; PARTLY_DONE where one in twenty takes longer than it may."""
    load_before = busy.before()
    CONVNEXT_BASE.make(["int8"])
    os.environ["XDG_CACHE_HOME"] = str(CACHE)
    if tuned.read(bundle.load(CONVNEXT_BASE.bundle)) is None:
        tune.tune_one(CONVNEXT_BASE.bundle, quiet=False)
    photos = inputs.find([ROOT / "examples" / "photos"])
    taken: list[float] = []
    with Predictor.open(CONVNEXT_BASE.bundle) as predictor, progress("photos", PHOTOS) as advance:
        predictor([photos[-1]])  # what is only done once
        for index in range(PHOTOS):
            started = time.perf_counter()
            predictor([photos[index % len(photos)]])
            taken.append(1000 * (time.perf_counter() - started))
            advance(1)
        what = str(predictor.choice)
    ordered = sorted(taken)
    found = {name: round(ordered[int(share * PHOTOS) - 1], 1) for name, share in (("p50", 0.5), ("p95", 0.95))}
    head = {"model": "latency", "what": what, "p50_ms": found["p50"], "p95_ms": found["p95"], "limit_ms": LIMIT_MS}
    body = {"photos": PHOTOS, "longest_ms": round(ordered[-1], 1), "ms": [round(one, 1) for one in taken]}
    path = record.keep(head, body, full=True, load_before=load_before, into=into)
    note(f"p50 {found['p50']} ms, p95 {found['p95']} ms, limit {LIMIT_MS}\nkept in {path}")
    return DONE if found["p95"] <= LIMIT_MS else PARTLY_DONE


if __name__ == "__main__":
    raise SystemExit(main())

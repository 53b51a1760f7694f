"""Command: where predict's time goes, and how near the whole comes to the sum of its parts.

python -m benchmarks.stages

Three things in turns, in one process, on the same cores and the same photos: decoding alone, by predict's own workers;
the networks alone, on the batches that predict gave them; and predict from the folder to the table. A pipeline that
wastes nothing takes as long as the first two together, since either alone keeps every core busy. The shipped bundles
are taken as they are after installation, the others as `tune` found them fastest.
"""

# N photos, B batch, H height, W width, C channels

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import busy, networks, record, turns
from benchmarks.cache import CACHE, ROOT
from benchmarks.networks import CONVNEXT_ATTO, CONVNEXT_BASE
from runtime import bundle, images, inputs, machine, output, pipeline, table, tune, tuned
from runtime.errors import DONE, PARTLY_DONE
from runtime.fleet import Fleet
from runtime.terminal import note

if TYPE_CHECKING:
    import numpy as np

    from runtime.predictor import Predictor

    Call = tuple[Predictor, np.ndarray]

LEAST = 0.95
WORKERS = machine.cores()
PHOTOS = ROOT / "examples" / "photos"
SHIPPED = ROOT / "examples" / "bundles"
# Photos and rounds of each work: some ten seconds a round.
SIZES = {"shipped": (800, 9), "convnext_base": (48, 5), "convnext_atto": (800, 9)}


def parser() -> argparse.ArgumentParser:
    return record.parser("stages", "Time decoding alone, the networks alone and predict as a whole, in turns.")


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Measure the works, keep what was found, and say whether each reaches what is asked."""
    load_before = busy.before()
    found = {name: stages(name, bundles, fastest=name in networks.NETWORKS) for name, bundles in served().items()}
    for name, one in found.items():
        note(f"{name}, {one['what']}: {one['images_per_s']} images/s, {one['efficiency']} of its parts alone")
    path = record.keep({"model": "stages"}, {"works": found}, full=True, load_before=load_before, into=into)
    note(f"kept in {path}")
    return DONE if all(float(str(one["efficiency"])) >= LEAST for one in found.values()) else PARTLY_DONE


def served() -> dict[str, list[Path]]:
    """The bundles of each work: the shipped ones, router and all, and two networks, made where they are not there."""
    for network in (CONVNEXT_BASE, CONVNEXT_ATTO):
        network.make(["int8"])
    made = {network.name: [network.bundle] for network in (CONVNEXT_BASE, CONVNEXT_ATTO)}
    return {"shipped": list(bundle.find(SHIPPED).values()), **made}


def stages(name: str, bundles: Sequence[Path], *, fastest: bool) -> dict[str, object]:
    """Seconds a photo of each stage alone and of the whole, and the whole's efficiency; medians over the rounds.

    Args:
        fastest: as `tune` finds it, instead of as it is after installation.
    """
    count, rounds = SIZES[name]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as held:
        os.environ["XDG_CACHE_HOME"] = str(CACHE if fastest else scratch)
        if fastest:
            for folder in bundles:
                tune_once(folder)
        photos = linked(Path(scratch, "photos"), count)
        out = Path(scratch, "out.csv")
        fleet = held.enter_context(Fleet.open(bundles, category=None, engine="auto", precision=None, streams=WORKERS))
        callers = held.enter_context(ThreadPoolExecutor(WORKERS))
        calls = recorded(fleet, photos, out)
        seconds: dict[str, list[float]] = {"decode": [], "networks": [], "whole": []}
        works: dict[str, Callable[[], object]] = {
            "decode": lambda: decode(fleet, photos),
            "networks": lambda: list(callers.map(lambda call: call[0].probabilities(call[1]), calls)),
            "whole": lambda: predict(fleet, photos, out),
        }
        for number in range(rounds):
            # Each first in turn: the threads of one look for work for a while after it, on the same cores.
            for stage in [*works][number % 3 :] + [*works][: number % 3]:
                started = time.perf_counter()
                works[stage]()
                seconds[stage].append(time.perf_counter() - started)
        what = "; ".join(dict.fromkeys(str(predictor.choice) for predictor in fleet.predictors))
    parts = zip(seconds["decode"], seconds["networks"], seconds["whole"], strict=True)
    ratios = [(of_decode + of_networks) / of_whole for of_decode, of_networks, of_whole in parts]
    return {
        "what": what,
        "photos": count,
        "batch": batch_for(fleet),
        "images_per_s": round(count / statistics.median(seconds["whole"]), 2),
        **{f"{stage}_ms": round(1e3 * statistics.median(each) / count, 3) for stage, each in seconds.items()},
        "efficiency": round(statistics.median(ratios), 3),
        "efficiency_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "rounds_s": {stage: [round(each, 4) for each in of_stage] for stage, of_stage in seconds.items()},
    }


def tune_once(folder: Path) -> None:
    """Have the bundle tuned for this machine, if it is not yet; `XDG_CACHE_HOME` says where that is kept."""
    if tuned.read(bundle.load(folder)) is None:
        tune.tune_one(folder, quiet=True)


def predict(fleet: Fleet, photos: Sequence[Path], out: Path) -> None:
    """What `python -m runtime.predict` does once its networks are loaded and the photos are found."""
    with output.opened(out, table.sheet(fleet.attributes), []) as written:
        for row in pipeline.rows(photos, fleet, batch=batch_for(fleet), workers=pipeline.workers(fleet.engines)):
            written.write(row)


def batch_for(fleet: Fleet) -> int:
    """Photos at a time, as predict takes them."""
    return min(predictor.batch for predictor in fleet.predictors)


def decode(fleet: Fleet, photos: Sequence[Path]) -> None:
    """Every photo in the sizes that the fleet takes, by predict's workers."""
    put = partial(pipeline.Desks(fleet.specs, 1).put, place=0, max_pixels=images.MAX_PIXELS)
    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(put, photos):
            pass


def recorded(fleet: Fleet, photos: Sequence[Path], out: Path) -> list[Call]:
    """Each batch that predict gives a network, in order."""
    calls: list[Call] = []

    def kept(predictor: Predictor, batch_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        calls.append((predictor, batch_BHWC.copy()))
        return type(predictor).probabilities(predictor, batch_BHWC)

    for predictor in fleet.predictors:
        predictor.probabilities = partial(kept, predictor)  # type: ignore[method-assign]
    predict(fleet, photos, out)
    for predictor in fleet.predictors:
        del predictor.probabilities  # type: ignore[method-assign]
    return calls


def linked(folder: Path, count: int) -> list[Path]:
    """A folder of so many links to the example photos, at most 512 px wide."""
    return inputs.find([turns.linked(folder, inputs.find([PHOTOS]), 0, count)])


if __name__ == "__main__":
    raise SystemExit(main())

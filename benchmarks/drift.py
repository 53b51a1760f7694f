"""Command: how often an audit calls photos drifted, that are and that are not, over how many of them it sees.

    python -m benchmarks.drift --source DIR

DIR is what examples/make_examples.py reads. The shipped Garment keeps the features of 256 validation photos. Beside
those come samples, twenty of each size: of the other validation photos, by the same senders; of the test photos, by
other senders; of these blurred, or without colour; and of shoes and trousers alone.
"""

# N photos, F features, H height, W width, C channels

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import busy, record, tasks
from benchmarks.cache import ROOT
from export import evidence
from export import validation as drawn_by
from runtime import drift, images, machine, validation
from runtime.errors import DONE, PARTLY_DONE
from runtime.listing import photo_of
from runtime.predictor import BATCH, Predictor
from runtime.terminal import note, progress
from train import checkpoint

SIZES = (20, 40, 80, 160, 256)
DRAWS = 20
MOST_FALSE = 2
"""Of twenty draws of the same photos, at a level of 5 %: more have a chance of 8 %."""
OTHER_KINDS = ("Shoes", "Pants")
BLUR_PX = 3.0
"""Of a photo at the network's 224 px."""

Change = Callable[[np.ndarray], np.ndarray]


def parser() -> argparse.ArgumentParser:
    return tasks.parser("drift", "How often photos are called drifted that are, and that are not.")


def main(argv: Sequence[str] | None = None) -> int:
    return tasks.main(parser(), measure, argv)


def measure(source: Path, into: Path) -> int:
    """Compute the features once, draw the samples, keep how many of them were called drifted."""
    load_before = busy.before()
    tasks.prepare(source)
    folder, data = ROOT / "examples" / "bundles" / tasks.GARMENT, tasks.BUILD / tasks.GARMENT
    with Predictor.open(folder, streams=machine.cores()) as predictor:
        kept = validation.read(folder, predictor.bundle)
        assert kept is not None, "a shipped bundle keeps its validation photos"
        sources = samples(predictor, data, folder.name)
    found = {
        name: [alarms(kept.features_NF, features_NF, size) for size in SIZES] for name, features_NF in sources.items()
    }
    path = record.keep(
        {"model": "drift", "sizes": list(SIZES), "draws": DRAWS, "level": drift.LEVEL},
        {"kept": len(kept.features_NF), "alarms": found},
        full=True,
        load_before=load_before,
        into=into,
    )
    note(f"kept in {path}")
    return DONE if max(one["alarms"] for one in found["the same senders"]) <= MOST_FALSE else PARTLY_DONE


def samples(predictor: Predictor, data: Path, slug: str) -> dict[str, np.ndarray]:
    """Features of all photos of each kind of sample, float32 [N, F]."""
    page = checkpoint.read(ROOT / "examples" / "checkpoints" / slug)
    table = evidence.table(page, data)
    others = [table.paths[row] for row in drawn_by.drawn(table)[drawn_by.FEATURES :]]
    with (data / "train.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    test = [data / "train_images" / photo_of(row["id"]) for row in rows]
    kinds = [path for path, row in zip(test, rows, strict=True) if row["attr_1"] in OTHER_KINDS]
    return {
        "the same senders": features(predictor, others),
        "other senders": features(predictor, test),
        "blurred": features(predictor, test, _blurred),
        "without colour": features(predictor, test, _grey),
        "shoes and trousers": features(predictor, kinds),
    }


def features(predictor: Predictor, paths: Sequence[Path], change: Change = lambda image_HWC: image_HWC) -> np.ndarray:
    """As `runtime.drift.features`, of photos that are changed once they are fitted."""
    spec, parts = predictor.bundle.preprocess, []
    with progress("features", len(paths)) as advance:
        for start in range(0, len(paths), BATCH):
            pixels = [change(images.load(path, spec)) for path in paths[start : start + BATCH]]
            parts.append(predictor.probabilities(np.stack(pixels))["features"])
            advance(len(pixels))
    return np.concatenate(parts)


def alarms(kept_NF: np.ndarray, features_NF: np.ndarray, size: int) -> dict[str, Any]:
    """How many of the draws are called drifted, and how far apart they are in the median."""
    rng = np.random.default_rng(size)
    found = [
        drift.between(kept_NF, features_NF[rng.permutation(len(features_NF))[:size]], seed=seed)
        for seed in range(DRAWS)
    ]
    return {
        "photos": min(size, len(features_NF)),
        "alarms": sum(one.found for one in found),
        "mmd2": round(float(np.median([one.distance for one in found])), 5),
        "p": [one.p for one in found],
    }


def _blurred(image_HWC: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(image_HWC, (0, 0), BLUR_PX)


def _grey(image_HWC: np.ndarray) -> np.ndarray:
    import cv2

    return np.repeat(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


if __name__ == "__main__":
    raise SystemExit(main())

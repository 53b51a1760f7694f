"""What a bundle keeps of validation photos, so that an audit can promise something: made with its own served network.

Not PyTorch's answers: what int8 changes belongs to what is promised. Those to training photos out of fold, where the
checkpoint has them, are PyTorch's: no bundle was made of those networks.
"""

# N photos, L attributes, K classes, F features

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from export import graph
from runtime import bundle, files, images, machine, validation
from runtime.bundle import ValidationFile
from runtime.headers import PhotoError
from runtime.predictor import BATCH, Predictor

if TYPE_CHECKING:
    from train.out_of_fold import OutOfFold
    from train.table import Table

PHOTOS = 2000
"""Enough to promise 95 % where three in a hundred values contradict; with ConvNeXt-Base at 512 px, four to eight
minutes of two cores."""
FEATURES = 256
"""Photos whose features are kept, for drift: half a megabyte of MobileNetV2's."""
OUT_OF_FOLD = 8000
"""Training photos whose answers are kept: a megabyte for thirty classes."""


def lacks(folder: Path, out_of_fold: OutOfFold | None) -> bool:
    """Whether the bundle there, which is whole, keeps nothing yet, or not what was answered out of fold since."""
    kept = bundle.load(folder).validation
    return not kept or (out_of_fold is not None and kept.out_of_fold != out_of_fold.sha256)


def add(
    folder: Path,
    table: Table,
    *,
    out_of_fold: OutOfFold | None = None,
    advance: Callable[[float], None] = lambda amount: None,
) -> ValidationFile:
    """Let the bundle in `folder` answer validation photos of `table`, and keep what it says; gives what is kept.

    Args:
        out_of_fold: what else to keep.
        advance: told the photos that are done.
    """
    page = bundle.load(folder)
    rows = drawn(table)
    with Predictor.open(folder, streams=machine.cores()) as predictor:
        kept, outputs = _answers(predictor, [table.paths[row] for row in rows], advance)
        answered_by = str(predictor.choice)
    rows = rows[kept]
    labels_NL = table.labels_NL[rows]
    answers = {one.output: outputs[one.output] for category in page.categories for one in category.attributes}
    if out_of_fold:
        some = np.random.default_rng(0).permutation(len(out_of_fold.labels_NL))[:OUT_OF_FOLD]
        labels_NL = np.concatenate([labels_NL, out_of_fold.labels_NL[some]])
        answers = {
            output: np.concatenate([own_NK, out_of_fold.probabilities[output][some]])
            for output, own_NK in answers.items()
        }
    content = validation.packed(
        labels_NL,
        answers,
        outputs[graph.FEATURES][:FEATURES],
        table.kinds_N[rows][:FEATURES],
    )
    sha256 = hashlib.sha256(content).hexdigest()
    file = f"validation.{sha256[:8]}.npz"
    files.replace_file(folder / file, content)
    kept_as = ValidationFile(
        file=file,
        sha256=sha256,
        photos=len(rows),
        answered_by=answered_by,
        out_of_fold=out_of_fold.sha256 if out_of_fold else "",
        photos_out_of_fold=len(labels_NL) - len(rows),
    )
    bundle.save(folder, msgspec.structs.replace(page, validation=kept_as))
    return kept_as


def drawn(table: Table) -> np.ndarray:
    """Rows of the validation split, PHOTOS at most: each as likely as any other, the same each time."""
    return np.random.default_rng(0).permutation(table.rows("val"))[:PHOTOS]


def _answers(
    predictor: Predictor, paths: Sequence[Path], advance: Callable[[float], None]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which of the photos can be read, and what the network says of those, by output."""
    spec = predictor.bundle.preprocess

    def answer(start: int) -> tuple[list[int], dict[str, np.ndarray]]:
        places, pixels = [], []
        for place in range(start, min(start + BATCH, len(paths))):
            try:
                pixels.append(images.load(paths[place], spec))
            except PhotoError:
                continue
            places.append(place)
        found = predictor.probabilities(np.stack(pixels)) if pixels else {}
        advance(min(BATCH, len(paths) - start))
        return places, found

    with ThreadPoolExecutor(machine.cores()) as pool:
        parts = list(pool.map(answer, range(0, len(paths), BATCH)))
    places = [place for found, _ in parts for place in found]
    answered = [found for _, found in parts if found]
    return np.array(places, np.int64), {
        name: np.concatenate([found[name] for found in answered]) for name in answered[0]
    }

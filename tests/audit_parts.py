"""What tests of an audit share: bundles that keep validation answers, and a listing with its photos."""

# N photos, H height, W width, C channels, L attributes

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from runtime import audit, bundle, files, validation
from runtime.bundle import ValidationFile
from runtime.predictor import Predictor
from tests.conftest import RGB

# Enough for every promise of these tests: none of them is a wrong answer.
LABELS = 2000


def with_validation(folder: Path, into: Path, truth: Mapping[str, Mapping[str, str]], labels: int = LABELS) -> Path:
    """A copy of the bundle in `folder` that keeps its own answers to noisy photos of one colour.

    Args:
        truth: for each colour of photo the label of each output.
    """
    copy = Path(shutil.copytree(folder, into / folder.name))
    page = bundle.load(copy)
    attributes = [attribute for category in page.categories for attribute in category.attributes]
    rng = np.random.default_rng(0)
    colours = [list(truth)[index % len(truth)] for index in range(labels)]
    side = page.preprocess.height, page.preprocess.width
    noise_NHWC = rng.integers(-25, 26, (labels, *side, 3))
    photos_NHWC = np.clip(np.array([RGB[colour] for colour in colours])[:, None, None] + noise_NHWC, 0, 255)
    with Predictor.open(copy) as predictor:
        outputs = predictor.probabilities(photos_NHWC.astype(np.uint8))
    labels_NL = np.array([[one.classes.index(truth[colour][one.output]) for one in attributes] for colour in colours])
    probabilities = {one.output: outputs[one.output] for one in attributes}
    content = validation.packed(labels_NL, probabilities, outputs["features"][:64], np.zeros(64))
    sha256 = hashlib.sha256(content).hexdigest()
    kept = ValidationFile(file=f"validation.{sha256[:8]}.npz", sha256=sha256, photos=labels, answered_by="itself")
    files.replace_file(copy / kept.file, content)
    bundle.save(copy, msgspec.structs.replace(page, validation=kept))
    return copy


def write(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*args: object) -> int:
    return audit.main([os.fspath(arg) if isinstance(arg, Path) else str(arg) for arg in args])


def photos(folder: Path, colours: Sequence[str], make_photo: Callable[..., Path]) -> list[str]:
    """Their names: a photo of each colour in turn."""
    return [make_photo(folder / f"{index:03d}.png", colour).name for index, colour in enumerate(colours)]

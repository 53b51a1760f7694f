"""The two works that are timed: a network, its artifacts, and a folder of photos."""

# N photos, H height, W width, C channels, K classes of one attribute

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks import reference_network
from benchmarks.reference_network import ROOT
from benchmarks.reference_way import ReferenceWay
from export.evidence import spread
from runtime import bundle, images, inputs
from train import data

EXAMPLES = ROOT / "examples"
DEMO = "garment"


@dataclass(frozen=True, kw_only=True)
class Work:
    """One network to time, and what PyTorch answers for its photos on either pixel path."""

    model: str
    bundle: Path
    category: str
    folder: Path
    """Its photos, and nothing else."""
    reference: ReferenceWay
    rounds: int

    @cached_property
    def paths(self) -> list[Path]:
        return inputs.find([self.folder])

    @cached_property
    def pixels(self) -> np.ndarray:
        """The photos as the runtime makes them: uint8 RGB, 0-255, of the network's size."""
        spec = self.reference.page.preprocess
        return np.stack([images.fit(images.decode(path), spec) for path in self.paths])

    @cached_property
    def on_our_pixels(self) -> dict[str, np.ndarray]:
        """PyTorch's probabilities [N, K] by attribute, for the runtime's pixels."""
        return self._eager(self.pixels)

    @cached_property
    def on_their_pixels(self) -> dict[str, np.ndarray]:
        """PyTorch's probabilities [N, K] by attribute, for Pillow's pixels."""
        return self._eager(np.stack([self.reference.pixels(path) for path in self.paths]))

    def _eager(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        rows = [self.reference.probabilities(photo_HWC) for photo_HWC in photos_NHWC]
        names = [attribute.output for attribute in self.reference.page.attributes]
        return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def demo(scratch: Path, *, full: bool) -> Work:
    """The shipped Garment model: 224 px, over validation photos of examples/clothing."""
    checkpoint, bundle = EXAMPLES / "checkpoints" / DEMO, EXAMPLES / "bundles" / DEMO
    table = data.read(EXAMPLES / "clothing", names=[DEMO])[0]
    paths = [table.paths[row] for row in table.rows("val")]
    return Work(
        model="demo",
        bundle=bundle,
        category=table.name,
        folder=_copied(spread(paths, len(paths) if full else 96), scratch),
        reference=ReferenceWay.open(checkpoint),
        rounds=15 if full else 7,
    )


def convnext_base(scratch: Path, *, full: bool) -> Work:
    """The reference system's network: ConvNeXt-Base at 512 px with five heads, over photos of examples/photos."""
    # In a process of its own: what exporting loads and holds is gone before the clock starts.
    command = [sys.executable, "-m", "benchmarks.reference_network", "--precision", "int8", *["fp32"] * full]
    home = Path(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    return Work(
        model="convnext_base",
        bundle=home / "bundles" / bundle.slug_of(reference_network.CATEGORY.name),
        category=reference_network.CATEGORY.name,
        folder=_copied(spread(inputs.find([EXAMPLES / "photos"]), 8 if full else 4), scratch),
        reference=ReferenceWay.open(home / "checkpoint"),
        rounds=5 if full else 3,
    )


WORKS: dict[str, Callable[..., Work]] = {"demo": demo, "convnext_base": convnext_base}


def _copied(paths: Sequence[Path], folder: Path) -> Path:
    for path in paths:
        shutil.copy(path, folder)
    return folder

"""The works that are timed: a network, its weights and its bundle, and the photos of a turn."""

# N photos, H height, W width, C channels

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cache import ROOT, home
from benchmarks.networks import CONVNEXT_ATTO, CONVNEXT_BASE, Network
from runtime import images, inputs
from runtime.files import sha256_of

if TYPE_CHECKING:
    import numpy as np

    from train.checkpoint import Checkpoint

EXAMPLES = ROOT / "examples"
DEMO = "garment"
# What the neighbours' graphs are made by; of photos for calibration as many as NNCF's guide has at least.
MAKERS = (
    "benchmarks/ways/*_models.py",
    "benchmarks/ways/optimum_quantise.py",
    "benchmarks/ways/pixels.py",
    "benchmarks/ways/plain.py",
    "runtime/images.py",
    "train/checkpoint.py",
    "train/heads.py",
    "train/network.py",
)
CALIBRATION_PHOTOS = 64


@dataclass(frozen=True, kw_only=True)
class Work:
    """One network to time, every way from the same weights."""

    name: str
    checkpoint: Path
    bundle: Path
    made: Path
    """Where the ways keep what they make of the checkpoint."""
    batch: int
    """Photos at a time, of the ways that take several."""
    compared: int
    """Photos that every way must answer alike, as the runtime reads them, before a clock starts."""
    alone: int
    """Photos that the network alone answers in a turn."""
    whole: int
    """Photos from folder to table in a turn."""
    whole_full: int
    """The same with --full: 200 in a turn or over its rounds."""
    few: int
    """Photos of a turn for a way that takes one after the other: of its many more seconds as few say as much."""
    rounds: int
    """That count: where turns take seconds, chance has less of a part in each."""

    @cached_property
    def page(self) -> Checkpoint:
        from train import checkpoint

        return checkpoint.read(self.checkpoint)

    @cached_property
    def gop(self) -> float:
        """10^9 operations of its linear layers for a photo, as the graph in the bundle has them."""
        import onnx

        from export.graph import checked
        from export.work import multiplications

        path = next(self.bundle.glob("model.*.onnx"))
        return 2 * sum(multiplications(checked(onnx.load(path))).values()) / 1e9

    def calibration(self) -> Iterator[np.ndarray]:
        """Photos for whoever quantises the network, normalised as it takes them: float32 [1, 3, H, W] each."""
        from benchmarks.ways import pixels
        from export.evidence import spread

        for path in spread(inputs.find([EXAMPLES / "clothing" / "train_images"]), CALIBRATION_PHOTOS):
            yield pixels.normalised(images.load(path, self.page.preprocess)[None], self.page)

    @property
    def size(self) -> int:
        return self.page.preprocess.height

    @property
    def outputs(self) -> list[str]:
        return [attribute.output for attribute in self.page.attributes]

    def pixels(self, count: int) -> np.ndarray:
        """So many photos as the runtime makes them: uint8 RGB [N, H, W, 3], 0-255, of the network's size."""
        import numpy as np

        found = inputs.find([EXAMPLES / "photos"])
        fitted = [images.load(path, self.page.preprocess) for path in found[:count]]
        return np.stack([fitted[index % len(fitted)] for index in range(count)])


SMALL = {"batch": 8, "compared": 16, "alone": 64, "whole": 160, "whole_full": 200, "few": 16, "rounds": 3}
"""Of a network that answers a photo in milliseconds."""


def demo() -> Work:
    """The shipped Garment model: MobileNetV2 at 224 px, two heads, trained."""
    return Work(
        name="demo",
        checkpoint=EXAMPLES / "checkpoints" / DEMO,
        bundle=EXAMPLES / "bundles" / DEMO,
        made=_peers("demo", [sha256_of(path) for path in sorted((EXAMPLES / "checkpoints" / DEMO).glob("*.*"))]),
        **SMALL,
    )


def convnext_base() -> Work:
    """The reference system's network: ConvNeXt-Base at 512 px with five heads."""
    # PyTorch answers two at a time faster than four, ONNX Runtime one.
    return _random(CONVNEXT_BASE, batch=2, compared=2, alone=4, whole=8, whole_full=40, few=2, rounds=2)


def convnext_atto() -> Work:
    """A small network: ConvNeXt-atto at 224 px with three heads."""
    return _random(CONVNEXT_ATTO, **SMALL)


WORKS: dict[str, Callable[[], Work]] = {
    "demo": demo,
    "convnext_base": convnext_base,
    "convnext_atto": convnext_atto,
}


def _random(network: Network, **sizes: int) -> Work:
    return Work(
        name=network.name,
        checkpoint=network.checkpoint,
        bundle=network.bundle,
        made=_peers(network.name, [network.home.name]),
        **sizes,
    )


def _peers(name: str, made_of: Sequence[str]) -> Path:
    """Where the graphs of the other ways are kept, of the checkpoint that this names."""
    makers = (path for pattern in MAKERS for path in sorted(ROOT.glob(pattern)))
    return home(f"peers-{name}", [*made_of, CALIBRATION_PHOTOS], makers)

"""The reference system's own way from a folder to a table: PyTorch eager in float32, Pillow, one photo at a time.

The network is the project's own, from a checkpoint, so that both ways answer with the same weights; only how a photo
reaches them and what computes them differs.
"""

# H height, W width, C channels, K classes of one attribute

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from PIL import Image

from benchmarks.ways import table
from runtime import machine
from train import checkpoint

if TYPE_CHECKING:
    from benchmarks.works import Work
    from train.checkpoint import Checkpoint
    from train.network import FacetModel

CPU = torch.device("cpu")


def open_way(work: Work) -> ReferenceWay:
    """The reference's way over the work's checkpoint."""
    torch.set_num_threads(machine.cores())
    return ReferenceWay.open(work.checkpoint)


class ReferenceWay:
    """One model, loaded once; `whole` is what gets timed, the two steps beneath it are what gets compared."""

    what = "PyTorch eager float32, Pillow"
    step = 1
    how: ClassVar = {"alone": "one photo at a time", "whole": "one photo at a time"}

    def __init__(self, model: FacetModel, page: Checkpoint, device: torch.device = CPU) -> None:
        self.page = page
        self._device = device
        self._model = model.eval().to(device)
        self._mean_C11 = torch.tensor(page.preset.model.mean).view(3, 1, 1)
        self._std_C11 = torch.tensor(page.preset.model.std).view(3, 1, 1)

    @classmethod
    def open(cls, folder: Path, device: torch.device = CPU) -> ReferenceWay:
        """The reference's way over the checkpoint in `folder`."""
        return cls(*checkpoint.load(folder), device)

    def answers(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [N, K] by output name, one photo after the other."""
        rows = [self.probabilities(photo_HWC) for photo_HWC in photos_NHWC]
        names = [attribute.output for attribute in self.page.attributes]
        return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}

    def alone(self, photos_NHWC: np.ndarray) -> float:
        """Images a second, one photo after the other."""
        started = time.perf_counter()
        self.answers(photos_NHWC)
        return len(photos_NHWC) / (time.perf_counter() - started)

    def whole(self, folder: Path, out: Path) -> None:
        """Write a CSV row for each JPEG of the folder: its name, then each attribute's label and probability."""
        with table.opened(out, self.page) as write:
            for path in sorted(folder.glob("*.jpg")):
                write(path, self.probabilities(self.pixels(path)))

    def pixels(self, path: Path) -> np.ndarray:
        """The photo as Pillow decodes and squashes it: uint8 RGB [H, W, 3], 0-255."""
        size = self.page.preprocess
        with Image.open(path) as photo:
            # Any enlarging or shrinking by the same filter, its support widened where it shrinks, as torchvision does.
            fitted = photo.convert("RGB").resize((size.width, size.height), Image.Resampling.BILINEAR)
        return np.array(fitted)

    @torch.inference_mode()
    def probabilities(self, image_HWC: np.ndarray) -> list[np.ndarray]:
        """Each attribute's class probabilities [K], float32, for one uint8 RGB image of the model's size."""
        image_CHW = torch.from_numpy(image_HWC).permute(2, 0, 1).contiguous().float().div(255)
        batch_1CHW = ((image_CHW - self._mean_C11) / self._std_C11)[None]
        logits = self._model(batch_1CHW.to(self._device)).logits
        return [logits_1K.softmax(1)[0].cpu().numpy() for logits_1K in logits]

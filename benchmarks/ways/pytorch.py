"""PyTorch in bfloat16 on channels-last memory, batch by batch, with torchvision's transforms and a DataLoader.

As PyTorch's own guides to inference on a CPU have it; `compile` adds torch.compile.
"""

# N photos, B batch, C channels, H height, W width, K classes

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.ways import table
from runtime import machine
from train import checkpoint

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.works import Work


def open_way(work: Work, *, compile: str = "") -> PyTorch:
    """The work's checkpoint, in bfloat16."""
    torch.set_num_threads(machine.cores())
    return PyTorch(work, compiled=bool(compile))


class PyTorch:
    """The network, loaded, and compiled if it is to be."""

    def __init__(self, work: Work, *, compiled: bool) -> None:
        self.what = f"PyTorch{' torch.compile' if compiled else ''} bfloat16, channels last"
        self.step = work.batch
        self.how = dict.fromkeys(("alone", "whole"), f"batches of {work.batch}")
        self._work = work
        model, page = checkpoint.load(work.checkpoint)
        model = model.eval().to(torch.bfloat16, memory_format=torch.channels_last)
        self._model = torch.compile(model) if compiled else model
        self._normalise = v2.Normalize(page.preset.model.mean, page.preset.model.std)

    def answers(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [N, K] by output name, a batch after the other."""
        found = [self._probabilities(batch_BCHW) for batch_BCHW in self._inputs(photos_NHWC)]
        columns = (torch.cat(column).numpy() for column in zip(*found, strict=True))
        return dict(zip(self._work.outputs, columns, strict=True))

    def alone(self, photos_NHWC: np.ndarray) -> float:
        """Images a second, a batch after the other, the network's input at hand."""
        batches = self._inputs(photos_NHWC)
        started = time.perf_counter()
        for batch_BCHW in batches:
            self._probabilities(batch_BCHW)
        return len(photos_NHWC) / (time.perf_counter() - started)

    def whole(self, folder: Path, out: Path) -> None:
        """Photos read and changed by a worker a core, batches answered as they come."""
        photos = Photos(sorted(folder.glob("*.jpg")), self._work.size, self._normalise)
        workers = torch.get_num_threads()
        with table.opened(out, self._work.page) as write:
            at = 0
            for batch_BCHW in DataLoader(photos, batch_size=self._work.batch, num_workers=workers):
                images_BCHW = batch_BCHW.to(torch.bfloat16, memory_format=torch.channels_last)
                columns = [found.numpy() for found in self._probabilities(images_BCHW)]
                for row in zip(*columns, strict=True):
                    write(photos.paths[at], row)
                    at += 1

    def _inputs(self, photos_NHWC: np.ndarray) -> list[torch.Tensor]:
        # Copied: the arrays may be read-only, of which torch warns.
        images_NCHW = torch.tensor(photos_NHWC).permute(0, 3, 1, 2)
        images_NCHW = self._normalise(v2.functional.to_dtype(images_NCHW, torch.float32, scale=True))
        return list(images_NCHW.to(torch.bfloat16, memory_format=torch.channels_last).split(self._work.batch))

    @torch.inference_mode()
    def _probabilities(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        return [logits_BK.float().softmax(1) for logits_BK in self._model(images_BCHW).logits]


class Photos(Dataset[torch.Tensor]):
    """Photos as normalised float32 tensors [3, H, W]."""

    def __init__(self, paths: list[Path], size: int, normalise: v2.Normalize) -> None:
        self.paths = paths
        self._changed = v2.Compose(
            [v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalise]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as photo:
            changed: torch.Tensor = self._changed(photo.convert("RGB"))
        return changed

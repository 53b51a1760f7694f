"""ONNX Runtime at its defaults, over one of the graphs of `onnx_models`."""

# N photos, B batch, C channels, H height, W width, K classes

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.ways import onnx_models, pixels, table

if TYPE_CHECKING:
    from benchmarks.works import Work

# That choosing between two batch sizes goes on for, each tried once at least.
CHOOSING_S = 0.5
GRAPHS = {
    "fp32": (onnx_models.exported, "fp32 as torch.onnx.export gives it"),
    "static": (onnx_models.static, "int8 by quantize_static"),
    "dynamic": (onnx_models.dynamic, "int8 by Optimum, dynamic"),
}


def open_way(work: Work, *, graph: str) -> OnnxRuntime:
    """The work's graph, exported and quantised where it is not there yet."""
    made, called = GRAPHS[graph]
    return OnnxRuntime(work, made(work, onnxruntime.InferenceSession), f"ONNX Runtime {called}")


class OnnxRuntime:
    """A session over the graph, with no option set."""

    def __init__(self, work: Work, session: onnxruntime.InferenceSession, what: str) -> None:
        self.what = what
        self._work = work
        self._session = session
        self._name = session.get_inputs()[0].name

    @cached_property
    def step(self) -> int:
        """One photo at a time or several, whatever is faster here: found out when it is first asked for."""
        photos_NHWC = self._work.pixels(self._work.batch)
        sizes = (1, self._work.batch)
        best = dict.fromkeys(sizes, 0.0)
        for size in sizes:
            self._rate(photos_NHWC[:size], size)  # what is only done once
            if size == 1 and self._rate(photos_NHWC[:1], 1) < 1:
                return 1  # a photo of a second fills the cores: Optimum's ConvNeXt-Base gained nothing by four
        started = time.perf_counter()
        while not all(best.values()) or time.perf_counter() - started < CHOOSING_S:
            for size in sizes:
                best[size] = max(best[size], self._rate(photos_NHWC[:size], size))
        return max(best, key=best.__getitem__)

    @property
    def how(self) -> dict[str, str]:
        alone = f"batches of {self.step}" if self.step > 1 else "one photo at a time"
        return {"alone": alone, "whole": "one photo at a time"}

    def answers(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [N, K] by output name, a batch after the other."""
        found = [self._run(batch_BCHW) for batch_BCHW in self._inputs(photos_NHWC, self.step)]
        columns = (np.concatenate(column) for column in zip(*found, strict=True))
        return dict(zip(self._work.outputs, columns, strict=True))

    def alone(self, photos_NHWC: np.ndarray) -> float:
        """Images a second, a batch after the other, the network's input at hand."""
        return self._rate(photos_NHWC, self.step)

    def whole(self, folder: Path, out: Path) -> None:
        """As its quick start has it: a photo read, changed, answered, and then the next."""
        size = self._work.size
        with table.opened(out, self._work.page) as write:
            for path in sorted(folder.glob("*.jpg")):
                with Image.open(path) as photo:
                    fitted_HWC = np.asarray(photo.convert("RGB").resize((size, size)))
                answers = self._run(pixels.normalised(fitted_HWC[None], self._work.page))
                write(path, [answer_1K[0] for answer_1K in answers])

    def _rate(self, photos_NHWC: np.ndarray, size: int) -> float:
        batches = self._inputs(photos_NHWC, size)
        started = time.perf_counter()
        for batch_BCHW in batches:
            self._run(batch_BCHW)
        return len(photos_NHWC) / (time.perf_counter() - started)

    def _inputs(self, photos_NHWC: np.ndarray, size: int) -> list[np.ndarray]:
        photos_NCHW = pixels.normalised(photos_NHWC, self._work.page)
        return [photos_NCHW[start : start + size] for start in range(0, len(photos_NCHW), size)]

    def _run(self, images_BCHW: np.ndarray) -> list[np.ndarray]:
        found: list[np.ndarray] = self._session.run(None, {self._name: images_BCHW})
        return found

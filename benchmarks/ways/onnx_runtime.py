"""ONNX Runtime at its defaults: the graph as torch.onnx.export gives it, or the int8 one that Optimum makes of that.

Optimum's dynamic quantisation is ONNX Runtime's own, by a configuration for this kind of processor. Its package asks
for an older transformers than the rest has here, and so has an environment of its own: `make bench-peers`.
"""

# N photos, B batch, H height, W width, C channels, K classes

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.networks import CACHE
from benchmarks.ways import pixels, table

if TYPE_CHECKING:
    from benchmarks.works import Work

OPTIMUM = CACHE / "optimum" / "bin" / "python"
QUANTISE = Path(__file__).resolve().parent / "optimum_quantise.py"


def open_way(work: Work, *, graph: str) -> OnnxRuntime:
    """The work's graph, exported and quantised where it is not there yet."""
    path = exported(work)
    if graph == "int8":
        path = quantised(path)
    return OnnxRuntime(work, path, graph)


class OnnxRuntime:
    """A session over the graph, with no option set."""

    def __init__(self, work: Work, path: Path, graph: str) -> None:
        self._work = work
        self._session = onnxruntime.InferenceSession(str(path))
        self._name = self._session.get_inputs()[0].name
        # One photo at a time or several, whatever is faster here.
        photos_NHWC = work.pixels(work.batch)
        self._rate(photos_NHWC[:1], 1)  # what is only done once
        rates = {1: self._rate(photos_NHWC[: work.few], 1), work.batch: self._rate(photos_NHWC, work.batch)}
        self._batch = max(rates, key=rates.__getitem__)
        made = "as torch.onnx.export gives it" if graph == "fp32" else "by Optimum, dynamic"
        self.what = f"ONNX Runtime {graph} {made}, batches of {self._batch}"

    def answers(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [N, K] by output name, a batch after the other."""
        found = [self._run(batch_BCHW) for batch_BCHW in self._inputs(photos_NHWC, self._batch)]
        columns = (np.concatenate(column) for column in zip(*found, strict=True))
        return dict(zip(self._work.outputs, columns, strict=True))

    def alone(self, photos_NHWC: np.ndarray) -> float:
        """Images a second, a batch after the other, the network's input at hand."""
        return self._rate(photos_NHWC, self._batch)

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


def exported(work: Work) -> Path:
    """The graph with its defaults, any batch; made where it is not there yet."""
    import torch

    from benchmarks.ways import plain

    path = work.made / "torch" / "model.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        model, _ = plain.load(work.checkpoint)
        beside = path.with_name(f"{os.getpid()}.part.onnx")
        sample = torch.zeros(2, 3, work.size, work.size)
        torch.onnx.export(
            model,
            (sample,),
            str(beside),
            dynamo=True,
            external_data=False,
            dynamic_shapes={"images_BCHW": {0: torch.export.Dim("batch")}},
        )
        beside.rename(path)
    return path


def quantised(path: Path) -> Path:
    """The int8 graph that Optimum makes of it; LookupError where Optimum is not there."""
    out = path.with_name("model_quantized.onnx")
    if not out.exists():
        if not OPTIMUM.exists():
            raise LookupError("Optimum is not installed; install it with: make bench-peers")
        subprocess.run([OPTIMUM, QUANTISE, path, out.parent], check=True, stdout=subprocess.DEVNULL)
    return out

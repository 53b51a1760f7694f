"""OpenVINO by its own tools: ov.convert_model, NNCF's int8, benchmark_app, and its documented asynchronous loop."""

# N photos, H height, W width, C channels, K classes

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import openvino

from benchmarks.ways import openvino_models, table

if TYPE_CHECKING:
    from benchmarks.works import Work

SECONDS = 1
"""That benchmark_app runs for."""


def open_way(work: Work, *, precision: str) -> OpenVino:
    """The work's model in that precision, converted and quantised where it is not there yet."""
    made = openvino_models.quantised if precision == "int8" else openvino_models.converted
    return OpenVino(work, made(work), precision)


class OpenVino:
    """A model on disk; each call compiles it, as its tools do, before any clock starts."""

    # benchmark_app has batches and streams of its own choice, and no photos.
    step = 1
    how: ClassVar = {"alone": "benchmark_app, throughput hint", "whole": "AsyncInferQueue, throughput hint"}

    def __init__(self, work: Work, path: Path, precision: str) -> None:
        self.what = f"OpenVINO {precision}{' by NNCF' if precision == 'int8' else ''}"
        self._work = work
        self._path = path
        # Of an int8 model the library itself chooses what lies between: bfloat16 where the processor has it.
        self._settings = {} if precision == "int8" else {"INFERENCE_PRECISION_HINT": precision}

    def answers(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [N, K] by output name."""
        found: list[list[np.ndarray]] = [[] for _ in photos_NHWC]
        queue = openvino.AsyncInferQueue(self._compiled)
        queue.set_callback(lambda request, index: found.__setitem__(index, _rows(request)))
        for index, photo_HWC in enumerate(photos_NHWC):
            queue.start_async({0: photo_HWC[None, :, :, ::-1]}, index)
        queue.wait_all()
        columns = map(np.stack, zip(*found, strict=True))
        return dict(zip(self._work.outputs, columns, strict=True))

    def alone(self, photos_NHWC: np.ndarray) -> float:
        """Images a second by benchmark_app, which makes up its own input."""
        tool = shutil.which("benchmark_app", path=str(Path(sys.executable).parent)) or "benchmark_app"
        hints = ["-infer_precision", self._settings["INFERENCE_PRECISION_HINT"]] if self._settings else []
        with tempfile.TemporaryDirectory() as folder:
            options = ["-hint", "throughput", "-t", str(SECONDS), "-json_stats", "-report_type", "no_counters"]
            command = [tool, "-m", str(self._path), "-d", "CPU", *options, "-report_folder", folder, *hints]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            (report,) = Path(folder).glob("*.json")
            return float(json.loads(report.read_text())["execution_results"]["throughput"])

    def whole(self, folder: Path, out: Path) -> None:
        """A queue of requests: a photo is read and fitted while others are answered; rows in order at the end."""
        paths = sorted(folder.glob("*.jpg"))
        found: list[list[np.ndarray]] = [[] for _ in paths]
        queue = openvino.AsyncInferQueue(self._compiled)
        queue.set_callback(lambda request, index: found.__setitem__(index, _rows(request)))
        size = self._work.size
        for index, path in enumerate(paths):
            photo_HWC = cv2.resize(cv2.imread(str(path)), (size, size))
            queue.start_async({0: photo_HWC[None]}, index)
        queue.wait_all()
        with table.opened(out, self._work.page) as write:
            for path, answers in zip(paths, found, strict=True):
                write(path, answers)

    @cached_property
    def _compiled(self) -> Any:
        """With photos as OpenCV reads them, uint8 BGR [1, H, W, 3], scaled and normalised in the graph."""
        core = openvino.Core()
        steps = openvino.preprocess.PrePostProcessor(core.read_model(self._path))
        config = self._work.page.preset.model
        given = steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        given.set_color_format(openvino.preprocess.ColorFormat.BGR)
        changed = steps.input().preprocess().convert_element_type(openvino.Type.f32)
        changed.convert_color(openvino.preprocess.ColorFormat.RGB)
        changed.mean([255 * value for value in config.mean]).scale([255 * value for value in config.std])
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        return core.compile_model(steps.build(), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", **self._settings})


def _rows(request: Any) -> Sequence[np.ndarray]:
    """The only photo's probabilities [K], copied: the request is used again."""
    return [tensor.data[0].copy() for tensor in request.output_tensors]

"""OpenVINO by its own tools: ov.convert_model, NNCF's int8, benchmark_app, and its documented asynchronous loop."""

# N photos, H height, W width, C channels, K classes

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import openvino

from benchmarks.networks import ROOT
from benchmarks.ways import pixels, table
from runtime import images, inputs

if TYPE_CHECKING:
    from benchmarks.works import Work

SECONDS = 2
"""That benchmark_app runs for."""
CALIBRATION_PHOTOS = 64


def open_way(work: Work, *, precision: str) -> OpenVino:
    """The work's model in that precision, converted and quantised where it is not there yet."""
    return OpenVino(work, quantised(work) if precision == "int8" else converted(work), precision)


class OpenVino:
    """A model on disk; each call compiles it, as its tools do, before any clock starts."""

    def __init__(self, work: Work, path: Path, precision: str) -> None:
        self.what = f"OpenVINO {precision}{' by NNCF' if precision == 'int8' else ''}, throughput hint"
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


def converted(work: Work) -> Path:
    """The model as ov.convert_model gives it, for one photo, float32; made where it is not there yet."""
    import torch

    from benchmarks.ways import plain

    path = work.made / "openvino" / "model.xml"
    if not path.exists():
        model, _ = plain.load(work.checkpoint)
        sample = torch.zeros(1, 3, work.size, work.size)
        made = openvino.convert_model(model, example_input=sample, input=[1, 3, work.size, work.size])
        _save(made, path)
    return path


def quantised(work: Work) -> Path:
    """The model as nncf.quantize gives it at its defaults; made where it is not there yet."""
    path = work.made / "openvino" / "int8.xml"
    if not path.exists():
        import nncf

        from export.evidence import spread

        found = spread(inputs.find([ROOT / "examples" / "clothing" / "train_images"]), CALIBRATION_PHOTOS)

        def read(photo: Path) -> np.ndarray:
            return pixels.normalised(images.load(photo, work.page.preprocess)[None], work.page)

        dataset = nncf.Dataset(found, read)
        made = nncf.quantize(openvino.Core().read_model(converted(work)), dataset, subset_size=len(found))
        _save(made, path)
    return path


def _save(model: openvino.Model, path: Path) -> None:
    """Whole or not at all: several ways may make it at once."""
    beside = path.with_name(f"{os.getpid()}.part.xml")
    openvino.save_model(model, beside, compress_to_fp16=False)
    beside.with_suffix(".bin").rename(path.with_suffix(".bin"))
    beside.rename(path)


def _rows(request: Any) -> Sequence[np.ndarray]:
    """The only photo's probabilities [K], copied: the request is used again."""
    return [tensor.data[0].copy() for tensor in request.output_tensors]

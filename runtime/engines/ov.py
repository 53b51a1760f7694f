"""OpenVINO on the CPU."""

from __future__ import annotations

import functools
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from runtime.engines import EngineOptions
from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import openvino
    from typing_extensions import Self

ONE, SEVERAL = "LATENCY", "THROUGHPUT"
"""The library's words for what a model is compiled for: one photo at a time has all cores, of several each has some."""


def create(path: Path, options: EngineOptions, package: str) -> OpenVinoEngine:
    """The engine over one .onnx file, not yet compiled."""
    return OpenVinoEngine(path, options)


def computes_in(hint: str) -> bool:
    """Whether this processor computes in the precision of that hint: bfloat16 is not in every one."""
    return hint != "bf16" or "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.cache
def _core() -> openvino.Core:
    """The process's one: with several made and dropped, 2026 releases now and then end in a segmentation fault
    (github.com/ultralytics/ultralytics/pull/25864)."""
    import openvino

    return openvino.Core()


class OpenVinoEngine:
    """A graph compiled for a batch of one, several such under way at once: call `infer` from one thread at a time.

    Compiled for any batch the library changes a map's layout around every convolution, and ConvNeXt-Base in int8 takes
    twice as long.
    """

    def __init__(self, path: Path, options: EngineOptions) -> None:
        self._path = path
        self._options = options
        self._model: openvino.Model | None = None
        self._requests: dict[str, list[openvino.InferRequest]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.outputs: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        if not computes_in(self._options.hint):
            raise UserError(
                f"this processor does not compute in {self._options.hint}\n"
                "predict without it with: --engine onnxruntime"
            )
        model = _core().read_model(str(self._path))
        shape = model.input("images").partial_shape
        shape[0] = 1
        model.reshape({"images": shape})
        # Of one photo, without the batch.
        self._shapes = {output.get_any_name(): tuple(output.shape)[1:] for output in model.outputs}
        self.outputs = tuple(self._shapes)
        self._model = model
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.clear()
        self._model = None

    def infer(self, images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Each output by its name, float32 with B rows, for uint8 RGB images."""
        import numpy as np

        assert self._model is not None, "infer() outside `with`"
        count = len(images_BHWC)
        answers = {name: np.empty((count, *shape), np.float32) for name, shape in self._shapes.items()}
        requests = self._requests_for(count)
        # In turn: photos of one size take one time each.
        for index in range(count + len(requests)):
            request, done = requests[index % len(requests)], index - len(requests)
            if 0 <= done < count:
                request.wait()
                for name, rows in answers.items():
                    rows[done] = request.get_tensor(name).data[0]
            if index < count:
                request.start_async({"images": images_BHWC[index : index + 1]})
        return answers

    def _requests_for(self, count: int) -> list[openvino.InferRequest]:
        """Those that answer so many photos soonest; for one, those for several where they are there already."""
        wanted = ONE if count == 1 and SEVERAL not in self._requests else SEVERAL
        if wanted not in self._requests:
            settings: dict[str, str | int] = {"PERFORMANCE_HINT": wanted}
            if self._options.threads:
                settings["INFERENCE_NUM_THREADS"] = self._options.threads
            if self._options.streams and wanted == SEVERAL:
                settings["NUM_STREAMS"] = self._options.streams
            if self._options.hint:
                settings["INFERENCE_PRECISION_HINT"] = self._options.hint
            compiled = _core().compile_model(self._model, "CPU", settings)
            at_once = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            self._requests[wanted] = [compiled.create_infer_request() for _ in range(at_once)]
        return self._requests[wanted]

"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from runtime.engines import EngineOptions
from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import openvino
    from typing_extensions import Self


def create(path: Path, options: EngineOptions, package: str) -> OpenVinoEngine:
    """The engine over one .onnx file, not yet compiled."""
    return OpenVinoEngine(path, options)


def computes_in(hint: str) -> bool:
    """Whether this processor computes in the precision of that hint: bfloat16 is not in every one."""
    if hint != "bf16":
        return True
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    """One compiled model with one request: call `infer` from one thread at a time."""

    def __init__(self, path: Path, options: EngineOptions) -> None:
        self._path = path
        self._options = options
        self._model: openvino.CompiledModel | None = None
        self.outputs: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        import openvino

        settings: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._options.threads:
            settings["INFERENCE_NUM_THREADS"] = self._options.threads
        if self._options.hint:
            if not computes_in(self._options.hint):
                raise UserError(
                    f"this processor does not compute in {self._options.hint}\n"
                    "predict without it with: --engine onnxruntime"
                )
            settings["INFERENCE_PRECISION_HINT"] = self._options.hint
        self._model = openvino.Core().compile_model(str(self._path), "CPU", settings)
        self.outputs = tuple(output.get_any_name() for output in self._model.outputs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = None

    def infer(self, images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Each output by its name, float32 with B rows, for uint8 RGB images."""
        assert self._model is not None, "infer() outside `with`"
        results = self._model({"images": images_BHWC})
        # Copied: the request writes its next answer into the same memory.
        return {name: results[index].copy() for index, name in enumerate(self.outputs)}

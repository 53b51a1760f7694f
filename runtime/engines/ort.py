"""ONNX Runtime on the CPU: the engine of the base install."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from runtime import machine
from runtime.engines import EngineOptions

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime
    from typing_extensions import Self


def create(path: Path, options: EngineOptions, package: str) -> OnnxRuntimeEngine:
    """The engine over one .onnx file, not yet loaded."""
    return OnnxRuntimeEngine(path, options)


class OnnxRuntimeEngine:
    """One ONNX Runtime session."""

    def __init__(self, path: Path, options: EngineOptions) -> None:
        self._path = path
        self._options = options
        self._session: onnxruntime.InferenceSession | None = None
        self.outputs: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3  # errors only: its warnings speak of its own graph passes
        without: list[str] = []
        if self._options.hint == "float":
            # These leave a ReLU to the uint8 pair behind it, which then goes: 1.32 answers as if there were no ReLUs.
            without = ["ClipQuantRewrite", "ReluQuantRewrite"]
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
            settings.add_session_config_entry("session.enable_quant_qdq_cleanup", "1")
        # Else its threads look for work all the time, on the cores that open the session, decode the next photos and
        # compute the run's other networks: a session took twice as long to open, and four of them to answer.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Left to choose (0), it takes all of the machine's cores and binds a thread to each, also to those that this
        # process may not use.
        chooses = self._options.streams == 1 and machine.cores() == os.cpu_count()
        threads = self._options.threads or (0 if chooses else machine.cores())
        settings.intra_op_num_threads = -(-threads // self._options.streams)
        self._session = onnxruntime.InferenceSession(
            str(self._path), settings, providers=["CPUExecutionProvider"], disabled_optimizers=without
        )
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None

    def infer(self, images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Each output by its name, float32 with B rows, for uint8 RGB images."""
        assert self._session is not None, "infer() outside `with`"
        return dict(zip(self.outputs, self._session.run(self.outputs, {"images": images_BHWC}), strict=True))

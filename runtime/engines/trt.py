"""TensorRT-RTX and TensorRT, which share one API: a plan on the NVIDIA GPU that it was built for."""

# B batch, H height, W width, C channels

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Iterable, MutableSequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from runtime.bundle import rebuild
from runtime.engines import EngineOptions
from runtime.engines.cuda import Buffer, first_gpu
from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self


def create(path: Path, options: EngineOptions, package: str) -> TensorRtEngine:
    """The engine over one .plan file, not yet on the GPU; the options speak of CPUs alone."""
    return TensorRtEngine(path, package)


class TensorRtEngine:
    """One execution context on one stream: call `infer` from one thread at a time."""

    def __init__(self, path: Path, package: str) -> None:
        self._path = path
        self._package = package
        self._held = ExitStack()
        self._context: Any = None
        self._buffers: dict[str, Buffer] = {}
        self.outputs: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            try:
                self._gpu = held.enter_context(first_gpu())
            except UserError as err:
                raise UserError(f"{err}\npredict on the CPU with: --engine onnxruntime") from None
            trt = importlib.import_module(self._package)
            # Bounded: a library that remarks on every call must not fill the memory of a long run.
            self._log: deque[str] = deque(maxlen=100)
            engine = self._deserialised(trt)
            held.callback(self._drop)  # runs before the GPU is left: the context points into its memory
            self._context = engine.create_execution_context()
            if self._context is None:
                raise RuntimeError(f"{self._path}: no execution context: {telling(self._log)}")
            self._take_buffers(trt, engine)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def infer(self, images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Each output by its name, float32 with B rows, for uint8 RGB images; B may exceed the plan's batch."""
        import numpy as np

        assert self._context is not None, "infer() outside `with`"
        images = self._buffers["images"]
        if images_BHWC.shape[1:] != images.host.shape[1:] or images_BHWC.dtype != images.host.dtype:
            raise ValueError(f"{images_BHWC.dtype} {list(images_BHWC.shape)} for uint8 {list(images.host.shape)}")
        largest, total = len(images.host), len(images_BHWC)
        answers = {name: np.empty((total, *self._buffers[name].host.shape[1:]), np.float32) for name in self.outputs}
        for start in range(0, total, largest):
            chunk = slice(start, min(start + largest, total))
            rows = chunk.stop - chunk.start
            images.host[:rows] = images_BHWC[chunk]
            self._run(max(rows, self._min_batch))  # rows past the chunk's own hold old pixels, and are not read
            for name, answer in answers.items():
                answer[chunk] = self._buffers[name].host[:rows]  # copies, and converts from fp16
        return answers

    def _run(self, rows: int) -> None:
        """Turn the first rows of the input's host memory into those of the outputs'."""
        images = self._buffers["images"]
        self._gpu.upload(images, rows)
        if not (
            self._context.set_input_shape("images", (rows, *images.host.shape[1:]))
            and self._context.execute_async_v3(self._gpu.stream)
        ):
            raise RuntimeError(f"{self._path} did not run a batch of {rows}: {telling(self._log)}")
        for name in self.outputs:
            self._gpu.download(self._buffers[name], rows)
        self._gpu.wait()

    def _deserialised(self, trt: ModuleType) -> Any:
        try:
            runtime = trt.Runtime(kept_log(trt, self._log))
            # A version-compatible plan brings its own library's lean runtime, which is host code. Any plan is code of
            # whoever built it: the hashes of a bundle tell damage from none, not a friend from an enemy.
            runtime.engine_host_code_allowed = True
            engine = runtime.deserialize_cuda_engine(self._path.read_bytes())
        except TypeError:  # the binding's word for a library that cannot start; its log has the reason
            engine = None
        if engine is None:
            name = self._package.replace("_", "-")
            raise UserError(
                f"{self._path} was built for another GPU or library version than this "
                f"{name} {trt.__version__}: {telling(self._log)}\n{rebuild(self._path.parent, self._path.name)}"
            )
        return engine

    def _take_buffers(self, trt: ModuleType, engine: Any) -> None:
        """Host and device memory for every tensor, at the largest batch of the plan's one profile."""
        import numpy as np

        smallest, _, largest = engine.get_tensor_profile_shape("images", 0)
        self._min_batch: int = smallest[0]
        self._context.set_input_shape("images", tuple(largest))  # from which the outputs' shapes follow
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.outputs = tuple(n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT)
        for name in names:
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            buffer = self._gpu.buffer(tuple(self._context.get_tensor_shape(name)), dtype)
            self._buffers[name] = buffer
            self._context.set_tensor_address(name, buffer.device)

    def _drop(self) -> None:
        self._context = None  # the last reference: it alone keeps the plan and the library's runtime alive
        self._buffers.clear()


def kept_log(trt: ModuleType, lines: MutableSequence[str]) -> Any:
    """A logger for the library that adds what it says to `lines`, down to INFO, and prints nothing."""

    class KeptLog(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the binding refuses super().__init__

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.INFO):
                lines.append(f"{severity.name}: {message}")

    return KeptLog()


def telling(lines: Iterable[str]) -> str:
    """The first two errors of a kept log: the first is the cause, the rest mostly its echoes."""
    errors = [line.partition(": ")[2] for line in lines if line.startswith(("ERROR", "INTERNAL_ERROR"))]
    return "\n".join(errors[:2]) or "the library gave no reason"

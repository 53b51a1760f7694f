"""OpenVINO on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from runtime import cache, machine
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


class Request(NamedTuple):
    """One photo's inference, and the library's memory of its photo and its answers."""

    handle: openvino.InferRequest
    image_HWC: np.ndarray
    answers: dict[str, np.ndarray]
    """By output name, without the batch."""


class OpenVinoEngine:
    """A graph compiled for a batch of one: a call's photos go side by side, or with several streams one by one, each
    call on a stream of its own.

    Compiled for any batch the library changes a map's layout around every convolution, and ConvNeXt-Base in int8 takes
    twice as long.
    """

    def __init__(self, path: Path, options: EngineOptions) -> None:
        self._path = path
        self._options = options
        self._model: openvino.Model | None = None
        self._requests: dict[str, list[Request]] = {}
        self._free: SimpleQueue[list[Request]] = SimpleQueue()
        """Those of each stream, where there are several; a call takes one stream's and puts them back."""
        self._shape: tuple[int, ...] = ()
        """Of one photo, the batch of one included; and so of each output."""
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
        self._shape = tuple(model.input("images").shape)
        self._shapes = {output.get_any_name(): tuple(output.shape) for output in model.outputs}
        self.outputs = tuple(self._shapes)
        self._model = model
        if self._options.streams > 1:
            requests = self._compiled(SEVERAL)
            # Two for each, so that a stream has its next photo while the answer to the last is taken.
            for pair in zip(requests[::2], requests[1::2], strict=True):
                self._free.put(list(pair))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._requests.clear()
        self._free = SimpleQueue()
        self._model = None

    def infer(self, images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Each output by its name, float32 with B rows, for uint8 RGB images."""
        import numpy as np

        assert self._model is not None, "infer() outside `with`"
        # Written into an array of ours, one number a photo would do for all its pixels.
        if images_BHWC.shape[1:] != self._shape[1:] or images_BHWC.dtype != np.uint8:
            raise ValueError(f"{images_BHWC.dtype} {list(images_BHWC.shape)} for uint8 {list(self._shape)}")
        count = len(images_BHWC)
        answers = {name: np.empty((count, *shape[1:]), np.float32) for name, shape in self._shapes.items()}
        if self._options.streams > 1:
            requests = self._free.get()
            try:
                _go_through(requests, images_BHWC, answers)
            finally:
                self._free.put(requests)
        else:
            _go_through(self._requests_for(count), images_BHWC, answers)
        return answers

    def _requests_for(self, count: int) -> list[Request]:
        """Those that answer so many photos soonest; for one, those for several where they are there already."""
        wanted = ONE if count == 1 and SEVERAL not in self._requests else SEVERAL
        if wanted not in self._requests:
            self._requests[wanted] = self._compiled(wanted)
        return self._requests[wanted]

    def _compiled(self, wanted: str) -> list[Request]:
        """As many requests as it is best to have under way."""
        settings: dict[str, str | int] = {"PERFORMANCE_HINT": wanted}
        if self._options.threads:
            settings["INFERENCE_NUM_THREADS"] = self._options.threads
        if self._options.streams > 1:
            settings["NUM_STREAMS"] = self._options.streams
        if self._options.hint:
            settings["INFERENCE_PRECISION_HINT"] = self._options.hint
        compiled = self._made(settings)
        streams = self._options.streams
        at_once = 2 * streams if streams > 1 else compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return [self._request(compiled.create_infer_request()) for _ in range(at_once)]

    def _made(self, settings: dict[str, str | int]) -> openvino.CompiledModel:
        """The model compiled; taken from the cache where it may be, and kept there."""
        if not self._options.kept_as:
            return self._new(settings)
        made_with = [machine.version_of("openvino"), asdict(machine.processor()), settings]
        made_of = [self._options.kept_as, *made_with]
        found = cache.read("openvino", made_of)
        if found is not None:
            with suppress(RuntimeError):
                return _core().import_model(found, "CPU", settings)
        compiled = self._new(settings)
        cache.write("openvino", made_of, compiled.export_model().getbuffer())
        return compiled

    def _new(self, settings: dict[str, str | int]) -> openvino.CompiledModel:
        assert self._model is not None
        return _core().compile_model(self._model, "CPU", settings)

    def _request(self, handle: openvino.InferRequest) -> Request:
        """The request and the memory that it reads and writes, looked up once. Given arrays with each call the bindings
        take longer than a small network, and where two threads call for the first time at once they wait for each
        other for good: one process in eight, with 2026.4."""
        answers = {name: handle.get_tensor(name).data[0] for name in self._shapes}
        return Request(handle, handle.get_tensor("images").data[0], answers)


def _go_through(requests: Sequence[Request], images_BHWC: np.ndarray, answers: dict[str, np.ndarray]) -> None:
    """Fill in each photo's answers; the requests take turns, since photos of one size take one time each."""
    count = len(images_BHWC)
    try:
        for index in range(count + len(requests)):
            request, done = requests[index % len(requests)], index - len(requests)
            if 0 <= done < count:
                request.handle.wait()
                for name, rows in answers.items():
                    rows[done] = request.answers[name]
            if index < count:
                request.image_HWC[:] = images_BHWC[index]
                request.handle.start_async()
    except BaseException:
        # Ctrl-C, say: the next call would find those that are under way busy.
        for request in requests[:count]:
            with suppress(RuntimeError):  # its own failure, told once
                request.handle.wait()
        raise

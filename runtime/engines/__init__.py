"""Inference engines behind one small protocol; which one is there is found without importing any."""

# B batch, H height, W width, K classes, F features

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, cast

from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self


# ONNX Runtime 1.32 began to tell its makers what it runs; it asks this before it is loaded, and nothing later stops it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class Engine(Protocol):
    """A graph on a device: cheap to make, the device is taken by `with` and given back after it."""

    outputs: tuple[str, ...]
    """Names of the graph's outputs, in its order; set once entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def infer(self, images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        """Each output by its name, float32 with B rows, for uint8 RGB images.

        It may be called from as many threads at once as the engine has streams.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What changes an engine's speed or its digits."""

    threads: int | None = None
    """CPU threads; None leaves the choice to the engine."""
    streams: int = 1
    """Calls of `infer` that are to be answered at once, on a CPU each by its share of the threads: several batches,
    a core each, take less time than one after the other on all cores, which wait for each other in every layer."""
    kept_as: str = ""
    """The artifact's SHA-256, under which the user's cache may keep what is slow to make of it; empty for nothing."""
    hint: str = ""
    """An engine's own word for how it computes; empty leaves the choice to the engine.

    OpenVINO: the precision between int8 layers, `f32` or `bf16`. ONNX Runtime: `float` computes an int8 graph in
    float32, from its int8 weights, which is faster where its int8 kernels do not cover the model's layers.
    """


@dataclass(frozen=True, kw_only=True)
class EngineKind:
    """Where an engine's code is, what must be installed for it, and what it reads."""

    module: str
    package: str
    suffix: str
    """The artifacts that it reads: `.onnx`, or the `.plan` of that library alone."""
    waits: bool = True
    """A thread that calls it waits while others compute, its own or a GPU's."""

    @property
    def distribution(self) -> str:
        """The name that its package is installed by."""
        return self.package.replace("_", "-")

    @property
    def install(self) -> str:
        """The command that installs it, where nothing but this room is too; with it what moves photos to a GPU."""
        return f"pip install {self.distribution}{' cuda-bindings' if self.suffix == '.plan' else ''}"

    def installed(self) -> bool:
        spec = find_spec(self.package)
        # Without an origin it is a folder of that name, of models perhaps, which stands where Python looks.
        return spec is not None and spec.origin is not None


# In the order in which `auto` tries them: plans need a GPU of their own kind, so they are never tried unasked.
ENGINES = {
    "onnxruntime": EngineKind(module="runtime.engines.ort", package="onnxruntime", suffix=".onnx", waits=False),
    "openvino": EngineKind(module="runtime.engines.ov", package="openvino", suffix=".onnx"),
    "tensorrt-rtx": EngineKind(module="runtime.engines.trt", package="tensorrt_rtx", suffix=".plan"),
    "tensorrt": EngineKind(module="runtime.engines.trt", package="tensorrt", suffix=".plan"),
}


def require(name: str) -> EngineKind:
    """The engine's kind, or a UserError that names the install line when it is not installed."""
    if name not in ENGINES:
        raise UserError(f"no engine {name!r}; have: {', '.join(ENGINES)}")
    kind = ENGINES[name]
    if not kind.installed():
        raise UserError(f"engine {name!r} is not installed\ninstall it with: {kind.install}")
    return kind


def open_engine(name: str, path: Path, options: EngineOptions) -> Engine:
    """The named engine over the artifact at `path`, not yet entered."""
    kind = require(name)
    module = importlib.import_module(kind.module)
    return cast("Engine", module.create(path, options, kind.package))

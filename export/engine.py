"""A plan from an ONNX file, through one path for TensorRT-RTX, which builds without a GPU, and TensorRT.

Precision is the graph's: half tensors stay half and Q/DQ pairs become INT8, as the network is strongly typed.
It needs `runtime` alone, so that an edge box builds its own plan from a bundle's ONNX.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime.engines import require
from runtime.engines.cuda import why_no_gpu
from runtime.engines.trt import kept_log, telling
from runtime.errors import UserError

RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""GPU kinds that TensorRT-RTX builds for on any machine: Turing, A100, Ampere, Ada, Blackwell, GB10."""

REPORT_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The batch sizes that a plan accepts."""

    min_batch: int = 1
    """One photo must run alone."""
    opt_batch: int = 8
    """The size that kernels are chosen for."""
    max_batch: int = 32
    """What the buffers are sized for: 14 MB of pixels at 384 px; larger batches run in pieces."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch:
            raise UserError(
                "a profile's batches must rise from 1 up; "
                f"got min {self.min_batch}, opt {self.opt_batch}, max {self.max_batch}"
            )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan as written, and what it was built with."""

    path: Path
    size_bytes: int
    library: str
    version: str
    target: str | None
    """One of RTX_TARGETS; None where it is the GPU of the machine that built it."""
    profile: Profile
    build_s: float
    tensor_types: dict[str, int]
    """How many of the parsed network's tensors have each type, e.g. {"HALF": 210, "INT8": 55}."""
    log: tuple[str, ...]


def plan_from_onnx(
    onnx_path: Path,
    plan_path: Path,
    *,
    package: str,
    target: str | None,
    profile: Profile,
    on_progress: Callable[[float], None] | None = None,
) -> Plan:
    """The plan, written to `plan_path` in one step, or not at all.

    Args:
        package: `tensorrt_rtx`, with one of RTX_TARGETS; or `tensorrt`, for the GPU here, with no target.
        on_progress: told the fraction of the library's steps done, up to 1.0, from the caller's own thread.
    """
    library = package.replace("_", "-")
    require(library)
    if package == "tensorrt":
        _check_own_gpu(target)
    trt = importlib.import_module(package)
    log: list[str] = []
    logger = kept_log(trt, log)
    builder = trt.Builder(logger)
    network = _parsed(trt, builder, logger, onnx_path)
    config = builder.create_builder_config()
    if package == "tensorrt_rtx":
        _aim(trt, config, target)
    _add_profile(builder, network, config, profile, onnx_path)
    started_s = time.perf_counter()
    serialised = _built(trt, builder, network, config, on_progress or (lambda fraction: None))
    build_s = time.perf_counter() - started_s
    if serialised is None:
        raise UserError(f"{library} {trt.__version__} cannot build {onnx_path}: {telling(log)}")
    _write(plan_path, serialised)
    return Plan(
        path=plan_path,
        size_bytes=serialised.nbytes,
        library=library,
        version=trt.__version__,
        target=target,
        profile=profile,
        build_s=build_s,
        tensor_types=_tensor_types(network),
        log=tuple(log),
    )


def _check_own_gpu(target: str | None) -> None:
    if target is not None:
        raise UserError(f"tensorrt builds for this machine's own GPU alone; got target {target!r}")
    if reason := why_no_gpu():
        raise UserError(f"tensorrt builds only beside the GPU that will run the plan: {reason}")


def _aim(trt: ModuleType, config: Any, target: str | None) -> None:
    known = [name for name in RTX_TARGETS if hasattr(trt.ComputeCapability, name.upper())]
    if target not in known:
        raise UserError(f"tensorrt-rtx {trt.__version__} has no target {target!r}; choose one of: {', '.join(known)}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)


def _parsed(trt: ModuleType, builder: Any, logger: Any, onnx_path: Path) -> Any:
    # A choice on 10.x, on 11 the only kind of network: the flag may be gone.
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, logger)
    # By its path, not its bytes: weights may lie in a file beside it.
    if not parser.parse_from_file(str(onnx_path)):
        error = parser.get_error(0)
        where = f"node {error.node_name() or error.node()} ({error.node_operator()}): "
        raise UserError(f"{onnx_path} does not parse: {where if error.node_operator() else ''}{error.desc()}")
    return network


def _add_profile(builder: Any, network: Any, config: Any, profile: Profile, onnx_path: Path) -> None:
    limits = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        images = network.get_input(index)
        batch, *rest = images.shape
        if batch != -1 or -1 in rest:
            raise UserError(
                f"{onnx_path}: input {images.name!r} has shape {(batch, *rest)}; "
                "a plan needs the batch dynamic (-1) and every other dimension fixed"
            )
        sizes = (profile.min_batch, profile.opt_batch, profile.max_batch)
        limits.set_shape(images.name, *((size, *rest) for size in sizes))
    config.add_optimization_profile(limits)


def _built(trt: ModuleType, builder: Any, network: Any, config: Any, on_progress: Callable[[float], None]) -> Any:
    """The serialised plan, or None where the library gave up.

    It builds on a thread of its own: the bindings swallow whatever is raised inside their callbacks, Ctrl-C too.
    """
    monitor = config.progress_monitor = _monitor(trt)
    with ThreadPoolExecutor(1) as thread:
        build = thread.submit(builder.build_serialized_network, network, config)
        try:
            while wait([build], REPORT_EVERY_S).not_done:
                on_progress(monitor.fraction)
        finally:
            monitor.stopped = True
    serialised = build.result()
    if serialised is not None:
        on_progress(1.0)
    return serialised


def _monitor(trt: ModuleType) -> Any:
    """A progress monitor with the `fraction` done so far, whose build ends early once it is `stopped`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # the binding refuses super().__init__
            self.fraction = 0.0
            self.stopped = False
            self._spans: dict[str, tuple[float, float]] = {}
            """For each phase under way, where its next step starts and how much of the whole a step is."""

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            start, width = self._spans.get(parent or "", (0.0, 1.0))
            self._spans[name] = (start, width / steps)

        def step_complete(self, name: str, step: int) -> bool:
            start, width = self._spans.get(name, (self.fraction, 0.0))
            self._spans[name] = (start + width, width)
            # A step may hold several phases, each of which starts again where the step does.
            self.fraction = max(self.fraction, start + width)
            return not self.stopped

        def phase_finish(self, name: str) -> None:
            self._spans.pop(name, None)

    return Monitor()


def _tensor_types(network: Any) -> dict[str, int]:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made = [layer.get_output(index) for layer in layers for index in range(layer.num_outputs)]
    return dict(Counter(tensor.dtype.name for tensor in inputs + made))


def _write(plan_path: Path, serialised: Any) -> None:
    plan_path.parent.mkdir(parents=True, exist_ok=True)
    beside = plan_path.with_name(f"{plan_path.name}.part")
    try:
        beside.write_bytes(serialised)
        beside.replace(plan_path)
    finally:
        beside.unlink(missing_ok=True)

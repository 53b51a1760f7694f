"""A plan from an ONNX file, through one path for TensorRT-RTX, which builds without a GPU, and TensorRT.

Precision is the graph's: half tensors stay half and Q/DQ pairs become INT8, as the network is strongly typed.
It needs `runtime` alone, so that an edge box builds its own plan from a bundle's ONNX.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from types import ModuleType
from typing import Any

from runtime.bundle import Patch, Profile
from runtime.engines import require
from runtime.engines.cuda import why_no_gpu
from runtime.engines.trt import kept_log, telling
from runtime.errors import UserError
from runtime.files import replace_file
from runtime.plans import RTX_TARGETS
from runtime.terminal import note

REPORT_EVERY_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Options:
    """What only TensorRT can be asked for."""

    hardware_compatible: bool = False
    """The plan runs on every GPU from Ampere on, not on this kind alone."""
    version_compatible: bool = False
    """The plan runs on later versions of the library too."""
    timing_cache: Path | None = None
    """A file of what earlier builds measured, read where it is there and written back; it changes no plan's answers.

    TensorRT-RTX has the calls, but times no kernels: there they do nothing, and are to be removed.
    """


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
    options: Options = Options(),
    patches: Sequence[Patch] = (),
    log_path: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Plan:
    """The plan, written to `plan_path` in one step, or not at all.

    Args:
        package: `tensorrt_rtx`, with one of RTX_TARGETS; or `tensorrt`, for the GPU here, with no target.
        patches: what TensorRT reads otherwise in the file.
        log_path: takes the library's words as they come; a build that fails names it.
        on_progress: told the fraction of the library's steps done, up to 1.0, from the caller's own thread.
    """
    trt = library_for(package, target, options)
    name = f"{package.replace('_', '-')} {trt.__version__}"
    with _logged(log_path) as log:
        logger = kept_log(trt, log)
        try:
            builder = trt.Builder(logger)
        except TypeError:  # the binding's word for a library that cannot start; its log has the reason
            raise UserError(f"{name} cannot start here: {telling(log)}") from None
        with patched(onnx_path, patches, beside=plan_path) as path:
            network = parsed(trt, builder, logger, path)
        config = builder.create_builder_config()
        if target:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)
        _add_profile(builder, network, config, profile, onnx_path)
        _add_options(trt, config, options, log)
        before = len(log)  # a timing cache that is no use has its errors too, which stop no build
        started_s = time.perf_counter()
        serialised = _built(trt, builder, network, config, on_progress or (lambda fraction: None))
        build_s = time.perf_counter() - started_s
        if serialised is None:
            raise UserError(f"{name} cannot build {onnx_path}: {telling(log[before:])}")
        replace_file(plan_path, serialised)
        if options.timing_cache:
            _keep_cache(config, options.timing_cache)
    return Plan(
        path=plan_path,
        size_bytes=serialised.nbytes,
        library=package.replace("_", "-"),
        version=trt.__version__,
        target=target,
        profile=profile,
        build_s=build_s,
        tensor_types=_tensor_types(network),
        log=tuple(log),
    )


def library_for(package: str, target: str | None, options: Options = Options()) -> ModuleType:
    """The library, once it is sure that it can be asked for such a plan here; else a UserError with what to do."""
    library = package.replace("_", "-")
    require(library)
    if package == "tensorrt":
        if target is not None:
            raise UserError(f"tensorrt builds for this machine's own GPU alone; got target {target!r}")
        if reason := why_no_gpu():
            raise UserError(f"tensorrt builds only beside the GPU that will run the plan: {reason}")
        return importlib.import_module(package)
    trt = importlib.import_module(package)
    known = [name for name in RTX_TARGETS if hasattr(trt.ComputeCapability, name.upper())]
    if target not in known:
        raise UserError(f"{library} {trt.__version__} has no target {target!r}; choose one of: {', '.join(known)}")
    # Its bindings take all three, and then warn, fail for a library that is not shipped, or do nothing.
    if options.hardware_compatible:
        raise UserError(
            "a plan of tensorrt-rtx runs on one kind of GPU: --hardware-compatible is TensorRT's alone\n"
            f"build one for each kind with: --target {' '.join(known)}"
        )
    if options.version_compatible:
        raise UserError(
            "a plan of tensorrt-rtx runs on the version that built it: --version-compatible is TensorRT's alone\n"
            "leave it out, and after an upgrade build the plan again with the same command"
        )
    if options.timing_cache:
        raise UserError("tensorrt-rtx times no kernels and keeps no timing cache\nleave out: --timing-cache")
    return trt


def made_from(
    graph_sha256: str,
    *,
    library: str,
    version: str,
    target: str,
    profile: Profile,
    options: Options = Options(),
) -> str:
    """A digest of all that decides a plan; what has the same need not be made again."""
    sizes = [profile.min_batch, profile.opt_batch, profile.max_batch]
    flags = [options.hardware_compatible, options.version_compatible]
    return hashlib.sha256(json.dumps([graph_sha256, library, version, target, sizes, flags]).encode()).hexdigest()


class _Log(list[str]):
    """Lines, and the file that takes each as it comes: a build that the system kills for its memory leaves them too."""

    def __init__(self, file: RawIOBase | None) -> None:
        super().__init__()
        self._file = file

    def append(self, line: str) -> None:
        super().append(line)
        if self._file:
            with suppress(OSError):  # a full disk: the build itself will say so
                self._file.write(f"{line}\n".encode(errors="backslashreplace"))


@contextmanager
def _logged(path: Path | None) -> Iterator[_Log]:
    """The build's log, kept in `path` where it tells of a failure; an interrupt or a full disk needs no telling."""
    if path is None:
        yield _Log(None)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb", buffering=0) as file:
            yield _Log(file)
    except UserError as err:
        raise UserError(f"{err}\nall that the library said: {path}") from None
    except (KeyboardInterrupt, OSError):
        path.unlink(missing_ok=True)
        raise


@contextmanager
def patched(path: Path, patches: Sequence[Patch], *, beside: Path) -> Iterator[Path]:
    """The file as it is where there are no patches, else a copy with them that is there for as long."""
    if not patches:
        yield path
        return
    content = bytearray(path.read_bytes())
    for patch in patches:
        end = patch.at + len(patch.bytes) // 2
        if end > len(content):
            raise UserError(f"{path} has {len(content)} bytes, and its page changes some up to {end}: build it anew")
        content[patch.at : end] = bytes.fromhex(patch.bytes)
    copy = beside.with_suffix(".signed.onnx")
    try:
        copy.write_bytes(content)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def parsed(trt: ModuleType, builder: Any, logger: Any, onnx_path: Path) -> Any:
    """The library's network of an ONNX file, strongly typed; UserError with the node that it cannot take."""
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


def _add_options(trt: ModuleType, config: Any, options: Options, log: Sequence[str]) -> None:
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.timing_cache:
        _take_cache(config, options.timing_cache, log)


def _take_cache(config: Any, path: Path, log: Sequence[str]) -> None:
    """Let the build start from the measurements in `path`, or from none, with a note where they are no use here."""
    content = path.read_bytes() if path.exists() else b""
    before = len(log)
    cache = config.create_timing_cache(content)
    taken = cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)
    # Of a damaged file, or another version's, the library makes an empty cache; its log alone tells.
    if any("timing cache" in line.lower() for line in log[before:]) or not taken:
        note(f"timing cache {path} is damaged, or of another GPU or library version: not used, and written anew")
    if not taken:
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_cache(config: Any, path: Path) -> None:
    try:
        replace_file(path, config.get_timing_cache().serialize())
    except OSError as err:  # the plan is there, which took the time
        note(f"timing cache {path} cannot be written: {err.strerror}")


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

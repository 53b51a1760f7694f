"""The CUDA seam: one stream and buffers that lie on host and device both, on pycuda or else cuda-python."""

# B batch

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Self

NO_DRIVER = "no NVIDIA driver found on this machine"


def first_gpu() -> Gpu:
    """The machine's first GPU, not yet held; CUDA_VISIBLE_DEVICES chooses another."""
    return _PyCudaGpu() if find_spec("pycuda") else _CudaPythonGpu()


def why_no_gpu() -> str:
    """Why no GPU can be used here; empty where one can."""
    try:
        with first_gpu():
            return ""
    except UserError as err:
        return str(err)


def gpu_here() -> str:
    """The kind of the machine's first GPU, such as `sm89`, as targets are called; empty where none can be used."""
    try:
        with first_gpu() as gpu:
            major, minor = gpu.capability()
            return f"sm{major}{minor}"
    except UserError:
        return ""


@dataclass(frozen=True)
class Buffer:
    """One array twice, batch first: page-locked on the host, without which no copy is asynchronous, and on
    the device. The host side is a view of memory that is gone once the Gpu is left: copy out what is to stay."""

    host: np.ndarray
    device: int
    """Its address on the device."""


class Gpu(ABC):
    """A stream and the buffers made for it: taken by `with`, all given back after it.

    It is the device's primary context, the one that TensorRT itself uses, so no other need be passed about.
    """

    stream: int
    """The stream's handle, for a library that queues work on it; set once entered."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            self.stream = self._take(held)
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    @abstractmethod
    def _take(self, held: ExitStack) -> int:
        """The new stream's handle; what must be undone is left in `held`."""

    @abstractmethod
    def capability(self) -> tuple[int, int]:
        """The GPU's compute capability: (8, 9) is Ada."""

    @abstractmethod
    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """Page-locked host memory and device memory of one shape, neither cleared."""

    @abstractmethod
    def upload(self, buffer: Buffer, rows: int) -> None:
        """Queue the copy of the first `rows` to the device."""

    @abstractmethod
    def download(self, buffer: Buffer, rows: int) -> None:
        """Queue the copy of the first `rows` from the device."""

    @abstractmethod
    def wait(self) -> None:
        """Return once all that was queued on the stream is done."""


class _CudaPythonGpu(Gpu):
    def _take(self, held: ExitStack) -> int:
        try:
            from cuda.bindings import runtime
        except ModuleNotFoundError:
            raise UserError(
                "neither pycuda nor cuda-bindings is installed\ninstall one with: pip install cuda-bindings"
            ) from None
        self._cuda = runtime
        error, _ = runtime.cudaGetDeviceCount()
        if error != runtime.cudaError_t.cudaSuccess:
            raise UserError(self._why_no_device(error))
        try:
            self._stream = self._checked(runtime.cudaStreamCreate())
        except RuntimeError as err:  # busy, full, or fallen over
            raise UserError(f"the GPU cannot be used: {err}") from None
        # What is given back goes unchecked: a device that failed would only repeat the error under way.
        held.callback(runtime.cudaStreamDestroy, self._stream)
        return int(self._stream)

    def capability(self) -> tuple[int, int]:
        kinds, device = self._cuda.cudaDeviceAttr, self._checked(self._cuda.cudaGetDevice())
        major, minor = (
            self._checked(self._cuda.cudaDeviceGetAttribute(kind, device))
            for kind in (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
        )
        return int(major), int(minor)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        import ctypes  # not at the top: what only reads a bundle loads this file too

        import numpy as np

        size = math.prod(shape) * dtype.itemsize
        host = self._checked(self._cuda.cudaHostAlloc(size, self._cuda.cudaHostAllocDefault))
        self._held.callback(self._cuda.cudaFreeHost, host)
        device = self._checked(self._cuda.cudaMalloc(size))
        self._held.callback(self._cuda.cudaFree, device)
        pinned = memoryview((ctypes.c_byte * size).from_address(host))
        return Buffer(np.ndarray(shape, dtype, pinned), device)

    def upload(self, buffer: Buffer, rows: int) -> None:
        host_B = buffer.host[:rows]
        self._copy(buffer.device, host_B.ctypes.data, host_B.nbytes)

    def download(self, buffer: Buffer, rows: int) -> None:
        host_B = buffer.host[:rows]
        self._copy(host_B.ctypes.data, buffer.device, host_B.nbytes)

    def wait(self) -> None:
        self._checked(self._cuda.cudaStreamSynchronize(self._stream))

    def _copy(self, to: int, source: int, size: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDefault  # the two addresses say which way
        self._checked(self._cuda.cudaMemcpyAsync(to, source, size, kind, self._stream))

    def _checked(self, answer: tuple[Any, ...]) -> Any:
        """The call's result, if it has one; every call answers (error, *results)."""
        error, *results = answer
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise RuntimeError(f"CUDA: {self._text(error)}")
        return results[0] if results else None

    def _text(self, error: Any) -> str:
        return str(self._cuda.cudaGetErrorString(error)[1].decode())

    def _why_no_device(self, error: Any) -> str:
        driver = self._checked(self._cuda.cudaDriverGetVersion())  # 12060 is CUDA 12.6, 0 no driver at all
        if not driver:
            return NO_DRIVER
        version = f"{driver // 1000}.{driver % 1000 // 10}"
        reason = f"the NVIDIA driver, of CUDA {version}, gives no GPU: {self._text(error)}"
        if error == self._cuda.cudaError_t.cudaErrorInsufficientDriver:
            # On a Jetson the driver cannot follow: the bindings must go back to it.
            reason = f"{reason}\ninstall the bindings for it with: pip install 'cuda-bindings=={driver // 1000}.*'"
        return reason


class _PyCudaGpu(Gpu):
    def _take(self, held: ExitStack) -> int:
        try:
            import pycuda.driver as driver
        except ImportError as err:  # it links to the driver's own library, so it cannot load without one
            raise UserError(f"{NO_DRIVER}: {err}") from None
        try:
            driver.init()
            self._context = driver.Device(0).retain_primary_context()
            self._driver = driver
            with self._current():
                self._stream = driver.Stream()
        except driver.Error as err:
            raise UserError(f"the NVIDIA driver gives no GPU: {err}") from None
        held.callback(self._drop_stream)
        return int(self._stream.handle)

    def capability(self) -> tuple[int, int]:
        major, minor = self._driver.Device(0).compute_capability()
        return int(major), int(minor)

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        with self._current():
            host = self._driver.pagelocked_empty(shape, dtype)
            self._held.callback(self._free, host.base)
            device = self._driver.mem_alloc(host.nbytes)
            self._held.callback(self._free, device)
        return Buffer(host, int(device))

    def upload(self, buffer: Buffer, rows: int) -> None:
        with self._current():
            self._driver.memcpy_htod_async(buffer.device, buffer.host[:rows], self._stream)

    def download(self, buffer: Buffer, rows: int) -> None:
        with self._current():
            self._driver.memcpy_dtoh_async(buffer.host[:rows], buffer.device, self._stream)

    def wait(self) -> None:
        with self._current():
            self._stream.synchronize()

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Current on this thread while in use: pycuda, unlike CUDA's runtime, leaves other threads without."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def _free(self, memory: Any) -> None:
        with self._current():
            memory.free()

    def _drop_stream(self) -> None:
        with self._current():
            del self._stream  # pycuda destroys it with its last reference

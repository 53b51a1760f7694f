"""The CUDA seam on a real GPU, by each binding: what goes up comes down, from any thread, and is all given back."""

from importlib.util import find_spec
from threading import Thread

import numpy as np
import pytest

from runtime.engines import cuda
from runtime.engines.cuda import Gpu

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["cuda-python", "pycuda"])
def make_gpu(request: pytest.FixtureRequest) -> type[Gpu]:
    """The seam over one binding; skipped where that, or a GPU, is missing."""
    module, made = {"cuda-python": ("cuda", cuda._CudaPythonGpu), "pycuda": ("pycuda", cuda._PyCudaGpu)}[request.param]
    if not find_spec(module):
        pytest.skip(f"{request.param} is not installed")
    if reason := cuda.why_no_gpu():
        pytest.skip(f"needs an NVIDIA GPU: {reason}")
    return made


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_what_is_uploaded_comes_down_again_and_the_rows_past_it_stay(
    make_gpu: type[Gpu], dtype: type[np.generic]
) -> None:
    rng = np.random.default_rng(0)
    sent = rng.integers(0, 256, (5, 33, 7)).astype(dtype)
    with make_gpu() as gpu:
        buffer = gpu.buffer(sent.shape, np.dtype(dtype))
        buffer.host[:] = sent
        gpu.upload(buffer, 3)
        gpu.wait()
        buffer.host[:] = 1
        gpu.download(buffer, 3)
        gpu.wait()
        got = buffer.host.copy()
    assert (got[:3] == sent[:3]).all()
    assert (got[3:] == 1).all()


def test_buffers_are_each_their_own(make_gpu: type[Gpu]) -> None:
    with make_gpu() as gpu:
        buffers = [gpu.buffer((4, 1000), np.dtype(np.float32)) for _ in range(8)]
        for index, buffer in enumerate(buffers):
            buffer.host[:] = index
            gpu.upload(buffer, 4)
        gpu.wait()
        for buffer in buffers:
            buffer.host[:] = -1
            gpu.download(buffer, 4)
        gpu.wait()
        assert [set(buffer.host.ravel()) for buffer in buffers] == [{float(index)} for index in range(8)]


def test_another_thread_may_use_what_this_one_took(make_gpu: type[Gpu]) -> None:
    found: list[bool] = []

    def work(gpu: Gpu) -> None:
        buffer = gpu.buffer((2, 100), np.dtype(np.uint8))
        buffer.host[:] = 7
        gpu.upload(buffer, 2)
        gpu.wait()
        buffer.host[:] = 0
        gpu.download(buffer, 2)
        gpu.wait()
        found.append(bool((buffer.host == 7).all()))

    with make_gpu() as gpu:
        thread = Thread(target=work, args=(gpu,))
        thread.start()
        thread.join()
    assert found == [True]


def test_the_two_bindings_name_the_gpu_alike(make_gpu: type[Gpu]) -> None:
    with make_gpu() as gpu:
        major, minor = gpu.capability()
    assert cuda.gpu_here() == f"sm{major}{minor}"


def test_all_memory_is_given_back_and_leaving_twice_is_harmless(make_gpu: type[Gpu]) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="free memory is asked of cuda-bindings")

    def free() -> int:
        error, free, _ = runtime.cudaMemGetInfo()
        assert not int(error)
        return int(free)

    with make_gpu() as kept:  # holds the context itself, which stays once it is made
        kept.buffer((1,), np.dtype(np.uint8))
        before = free()
        for _ in range(3):
            with make_gpu() as gpu:
                gpu.buffer((64, 1 << 20), np.dtype(np.uint8))
                # The driver takes memory in blocks of 2 MB.
                assert before - free() >= 64 << 20
            gpu.__exit__(None, None, None)
            assert before - free() < 4 << 20

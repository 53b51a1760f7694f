"""What TensorRT needs of a machine is said plainly where it is missing; with a GPU, plans are run and compared."""

from importlib.util import find_spec

import numpy as np
import pytest

from export.plan import plan_from_onnx
from runtime.bundle import Profile
from runtime.engines import EngineOptions, open_engine
from runtime.engines.cuda import why_no_gpu
from runtime.errors import UserError
from runtime.plans import RTX_TARGETS

GRAPH = """
<ir_version: 10, opset_import: ["": 17]>
tiny (uint8[B, 16, 16, 3] images) => (float[B, 4] colour, float[B, 8] features) {
    pixels = Cast<to = 10>(images)
    nchw = Transpose<perm = [0, 3, 1, 2]>(pixels)
    conv = Conv<pads = [1, 1, 1, 1]>(nchw, kernel)
    pooled = ReduceMean<axes = [2, 3], keepdims = 0>(conv)
    logits = Gemm(pooled, head)
    wide = Cast<to = 1>(logits)
    colour = Softmax(wide)
    features = Cast<to = 1>(pooled)
}
"""


@pytest.fixture
def gpu():
    if reason := why_no_gpu():
        pytest.skip(f"needs an NVIDIA GPU: {reason}")


@pytest.mark.skipif(not find_spec("tensorrt_rtx"), reason="tensorrt-rtx is not installed")
def test_opening_a_plan_without_a_gpu_says_so_and_offers_the_cpu(tmp_path):
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    engine = open_engine("tensorrt-rtx", tmp_path / "tiny.plan", EngineOptions())
    with pytest.raises(UserError, match=r"(?s)no NVIDIA driver found.*--engine onnxruntime"), engine:
        pass
    engine.__exit__(None, None, None)  # leaving what was never entered is harmless


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("library", ["tensorrt-rtx", "tensorrt"])
def test_a_plan_agrees_with_onnxruntime_in_every_slot_of_every_batch(tmp_path, library):
    package = library.replace("-", "_")
    pytest.importorskip(package, reason=f"{library} is not installed")
    graph, plan = write_graph(tmp_path / "tiny.onnx"), tmp_path / "tiny.plan"
    target = own_target() if library == "tensorrt-rtx" else None
    # Min 2 and max 4, so that 1 is below the profile and 7 is one full piece and a rest.
    profile = Profile(min_batch=2, opt_batch=4, max_batch=4)
    plan_from_onnx(graph, plan, package=package, target=target, profile=profile)

    rng = np.random.default_rng(1)
    with (
        open_engine("onnxruntime", graph, EngineOptions()) as reference,
        open_engine(library, plan, EngineOptions()) as engine,
    ):
        assert set(engine.outputs) == {"colour", "features"}
        for batch in (1, 2, 4, 7, 3):
            # One colour an image: noise has the same mean in every slot, and slots mixed up would go unseen.
            colours_B11C = rng.integers(0, 256, (batch, 1, 1, 3), dtype=np.uint8)
            images_BHWC = np.tile(colours_B11C, (1, 16, 16, 1))
            expected, got = reference.infer(images_BHWC), engine.infer(images_BHWC)
            for name in ("colour", "features"):
                assert got[name].dtype == np.float32
                # fp16 keeps 11 bits: 1e-3 of these features, which are about 1, and accumulation order on top.
                difference = np.abs(got[name] - expected[name]).max()
                assert difference < 1e-2, f"{name} at batch {batch}: largest difference {difference}"


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_what_is_no_plan_of_this_library_is_answered_with_the_rebuild_line(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    plan = tmp_path / "tiny.plan"
    plan.write_bytes(b"some other library's plan" * 100)
    with (
        pytest.raises(UserError, match=r"(?s)another GPU or library version.*python -m export\.engine"),
        open_engine("tensorrt-rtx", plan, EngineOptions()),
    ):
        pass


def write_graph(path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    rng = np.random.default_rng(0)
    # Drawn so that features are about 1 and no probability is near 0 or 1, where a difference could not be seen.
    weights = {"kernel": rng.normal(scale=1 / 600, size=(8, 3, 3, 3)), "head": rng.normal(scale=0.5, size=(8, 4))}
    model = onnx.parser.parse_model(GRAPH)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array.astype(np.float16), name) for name, array in weights.items()
    )
    onnx.save(model, path)
    return path


def own_target():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="the GPU's kind is asked of cuda-bindings")
    attributes = runtime.cudaDeviceAttr
    kinds = (attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor)
    target = "sm{}{}".format(*(runtime.cudaDeviceGetAttribute(kind, 0)[1] for kind in kinds))
    if target not in RTX_TARGETS:
        pytest.skip(f"tensorrt-rtx builds for {', '.join(RTX_TARGETS)}; this GPU is {target}")
    return target

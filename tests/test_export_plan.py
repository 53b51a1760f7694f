"""Plans are built for real, with tensorrt-rtx, which needs no GPU for it, from a graph of a few pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from export.plan import Options, Plan, made_from, plan_from_onnx
from runtime.bundle import Profile
from runtime.engines.cuda import why_no_gpu
from runtime.errors import UserError

trt: ModuleType = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: no plan can be built")

PLAIN = Options()
GRAPH = """
<ir_version: 10, opset_import: ["": 17]>
tiny (uint8[{batch}, 16, 16, 3] images) => (float[{batch}, 4] colour) {{
    pixels = Cast<to = {type}>(images)
    nchw = Transpose<perm = [0, 3, 1, 2]>(pixels)
    {pairs}
    conv = Conv<pads = [1, 1, 1, 1]>({conv_inputs})
    pooled = ReduceMean<axes = [2, 3], keepdims = 0>(conv)
    logits = Gemm(pooled, head)
    wide = Cast<to = 1>(logits)
    colour = Softmax(wide)
}}
"""
PAIRS = """
    coded = QuantizeLinear(nchw, step, zero)
    decoded = DequantizeLinear(coded, step, zero)
    decoded_kernel = DequantizeLinear<axis = 0>(kernel, steps, zeros)
"""


def write_graph(path: Path, precision: str, *, batch: str = "B", zero: int = 0, external: bool = False) -> Path:
    dtype = np.float16 if precision == "fp16" else np.float32
    rng = np.random.default_rng(0)
    kernel = rng.normal(scale=0.02, size=(8, 3, 3, 3))
    weights: dict[str, np.ndarray] = {"kernel": kernel.astype(dtype), "head": rng.normal(size=(8, 4)).astype(dtype)}
    if precision == "int8":
        steps = (np.abs(kernel).max(axis=(1, 2, 3)) / 127).astype(np.float32)
        weights["kernel"] = np.rint(kernel / steps[:, None, None, None]).astype(np.int8)
        weights |= {"steps": steps, "zeros": np.zeros(8, np.int8)}
        weights |= {"step": np.array(2.0, np.float32), "zero": np.array(zero, np.int8)}
    text = GRAPH.format(
        batch=batch,
        type=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
        pairs=PAIRS if precision == "int8" else "",
        conv_inputs="decoded, decoded_kernel" if precision == "int8" else "nchw, kernel",
    )
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model)
    onnx.save(model, path, save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


def build(
    onnx_path: Path,
    plan_path: Path,
    *,
    package: str = "tensorrt_rtx",
    target: str | None = "sm89",
    options: Options = PLAIN,
    log_path: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Plan:
    return plan_from_onnx(
        onnx_path,
        plan_path,
        package=package,
        target=target,
        profile=Profile(),
        options=options,
        log_path=log_path,
        on_progress=on_progress,
    )


@pytest.mark.parametrize(
    ("precision", "present", "absent"),
    [("fp32", {"FLOAT"}, {"HALF", "INT8"}), ("fp16", {"HALF"}, {"INT8"}), ("int8", {"INT8"}, {"HALF"})],
)
def test_a_plan_is_written_and_its_tensors_have_the_types_of_the_graph(
    tmp_path: Path, precision: str, present: set[str], absent: set[str]
) -> None:
    plan = build(write_graph(tmp_path / "tiny.onnx", precision), tmp_path / "new" / "tiny.plan")

    assert plan.path.stat().st_size == plan.size_bytes > 0
    assert present <= plan.tensor_types.keys()
    assert not absent & plan.tensor_types.keys()
    assert plan.tensor_types["UINT8"] == 1  # the input alone
    assert (plan.library, plan.target, plan.profile) == ("tensorrt-rtx", "sm89", Profile())
    assert plan.version
    assert plan.build_s > 0
    assert any("Engine generation completed" in line for line in plan.log)


def test_two_targets_give_two_plans(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "tiny.onnx", "fp16")
    ada, turing = (build(graph, tmp_path / f"{target}.plan", target=target) for target in ("sm89", "sm75"))
    assert ada.path.read_bytes() != turing.path.read_bytes()


def test_weights_in_a_file_beside_the_graph_are_found(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "tiny.onnx", "fp16", external=True)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    assert build(graph, tmp_path / "tiny.plan").size_bytes > 0


def test_progress_never_goes_backwards_and_ends_at_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.plan.REPORT_EVERY_S", 0.001)  # this build takes a tenth of a second in all
    seen: list[float] = []
    build(write_graph(tmp_path / "tiny.onnx", "int8"), tmp_path / "tiny.plan", on_progress=seen.append)
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[0] >= 0.0
    assert seen[-1] == 1.0


def test_an_interrupted_build_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.plan.REPORT_EVERY_S", 0.001)

    def interrupt(fraction: float) -> None:
        raise KeyboardInterrupt

    graph = write_graph(tmp_path / "tiny.onnx", "fp16")
    with pytest.raises(KeyboardInterrupt):
        build(graph, tmp_path / "tiny.plan", log_path=tmp_path / "tiny.log", on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


@pytest.mark.parametrize("target", ["sm90", "ada", None])
def test_an_unknown_target_is_answered_with_the_known_ones(tmp_path: Path, target: str | None) -> None:
    with pytest.raises(UserError, match=rf"no target {target!r}.*sm75, sm80, sm86, sm89, sm120, sm121"):
        build(tmp_path / "tiny.onnx", tmp_path / "tiny.plan", target=target)


def test_a_corrupt_graph_leaves_the_earlier_plan_and_nothing_else(tmp_path: Path) -> None:
    graph, plan = tmp_path / "tiny.onnx", tmp_path / "tiny.plan"
    graph.write_bytes(b"no graph at all")
    with pytest.raises(UserError, match=r"tiny\.onnx does not parse: .*Failed to parse the ONNX model"):
        build(graph, plan)
    assert not plan.exists()
    plan.write_bytes(b"earlier")
    with pytest.raises(UserError, match="does not parse"):
        build(graph, plan)
    assert plan.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx", "tiny.plan"]


def test_a_node_that_cannot_be_built_is_named_with_its_reason(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "tiny.onnx", "int8", zero=3)
    with pytest.raises(UserError, match=r"node \d+ \(QuantizeLinear\): .*[Nn]on-zero zero point"):
        build(graph, tmp_path / "tiny.plan")


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "tiny.onnx", "fp16", batch="2")
    with pytest.raises(UserError, match=r"input 'images' has shape \(2, 16, 16, 3\).*batch dynamic"):
        build(graph, tmp_path / "tiny.plan")


@pytest.mark.parametrize("sizes", [(0, 8, 32), (4, 2, 32), (1, 64, 32), (1, 8, 10**12)])
def test_a_profile_whose_batches_do_not_rise_is_refused(sizes: tuple[int, int, int]) -> None:
    minimum, best, maximum = sizes
    with pytest.raises(ValueError, match=f"got min {minimum}, opt {best}, max {maximum}"):
        Profile(min_batch=minimum, opt_batch=best, max_batch=maximum)


def test_a_build_that_succeeds_keeps_its_log_where_it_is_asked_to(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "tiny.log"
    plan = build(write_graph(tmp_path / "tiny.onnx", "fp32"), tmp_path / "tiny.plan", log_path=log)
    assert log.read_text().splitlines()[0] == plan.log[0]
    assert "Engine generation completed" in log.read_text()


def test_a_build_that_fails_keeps_its_log_and_says_where(tmp_path: Path) -> None:
    log = tmp_path / "tiny.log"
    graph = write_graph(tmp_path / "tiny.onnx", "int8", zero=3)
    with pytest.raises(UserError, match=rf"(?s)zero point.*\nall that the library said: {log}$"):
        build(graph, tmp_path / "tiny.plan", log_path=log)
    assert "Non-zero zero point" in log.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(hardware_compatible=True), r"--hardware-compatible is TensorRT's alone\n.*--target sm75 sm80 sm86"),
        (Options(version_compatible=True), r"--version-compatible is TensorRT's alone\nleave it out"),
        (Options(timing_cache=Path("cache")), r"keeps no timing cache\nleave out: --timing-cache$"),
    ],
)
def test_what_tensorrt_rtx_would_ignore_is_refused(tmp_path: Path, options: Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(tmp_path / "tiny.onnx", tmp_path / "tiny.plan", options=options)


@pytest.fixture
def every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if tensorrt-rtx were asked no questions: its bindings take TensorRT's options, so the calls can be tried."""
    monkeypatch.setattr("export.plan.library_for", lambda package, target, options: trt)


@pytest.mark.usefixtures("every_option")
def test_both_compatibilities_reach_the_library(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "tiny.onnx", "fp32")
    plan = build(graph, tmp_path / "tiny.plan", options=Options(hardware_compatible=True))
    assert any("setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX" in line for line in plan.log)
    with pytest.raises(UserError, match=r"cannot build \S+tiny\.onnx: .*libnvinfer_lean"):
        build(graph, tmp_path / "tiny.plan", options=Options(version_compatible=True))
    assert tmp_path.joinpath("tiny.plan").stat().st_size == plan.size_bytes


@pytest.mark.usefixtures("every_option")
@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_timing_cache_is_used_and_written_back(tmp_path: Path) -> None:
    graph, cache = write_graph(tmp_path / "tiny.onnx", "fp32"), tmp_path / "caches" / "timing"
    for _ in range(2):
        plan = build(graph, tmp_path / "tiny.plan", options=Options(timing_cache=cache))
        assert any("Global timing cache in use" in line for line in plan.log)
        assert [path.name for path in cache.parent.iterdir()] == ["timing"]
        assert cache.stat().st_size > 0


@pytest.mark.usefixtures("every_option")
@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_damaged_timing_cache_is_noted_and_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph, cache = write_graph(tmp_path / "tiny.onnx", "fp32"), tmp_path / "timing"
    cache.write_bytes(b"no cache at all" * 20)
    build(graph, tmp_path / "tiny.plan", options=Options(timing_cache=cache))
    assert capsys.readouterr().err == (
        f"timing cache {cache} is damaged, or of another GPU or library version: not used, and written anew\n"
    )
    assert b"no cache at all" not in cache.read_bytes()


@pytest.mark.usefixtures("every_option")
@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_timing_cache_that_cannot_be_written_costs_no_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = write_graph(tmp_path / "tiny.onnx", "fp32")
    plan = build(graph, tmp_path / "tiny.plan", options=Options(timing_cache=graph / "timing"))
    assert plan.path.stat().st_size == plan.size_bytes
    assert "tiny.onnx/timing cannot be written: " in capsys.readouterr().err


def test_what_a_plan_is_made_from_tells_all_apart_but_the_timing_cache() -> None:
    def digest(
        *, graph: str = "0", version: str = "1", target: str = "sm89", most: int = 32, options: Options = PLAIN
    ) -> str:
        profile = Profile(max_batch=most)
        return made_from(
            graph, library="tensorrt-rtx", version=version, target=target, profile=profile, options=options
        )

    others = [
        digest(graph="1"),
        digest(version="2"),
        digest(target="sm86"),
        digest(most=16),
        digest(options=Options(hardware_compatible=True)),
        digest(options=Options(version_compatible=True)),
    ]
    assert len({digest(), *others}) == 7
    assert digest(options=Options(timing_cache=Path("cache"))) == digest()


@pytest.fixture
def tensorrt_found(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `tensorrt` were installed; it is looked for, never imported, before the checks asked for here."""
    site = tmp_path_factory.mktemp("site")
    (site / "tensorrt").mkdir()
    (site / "tensorrt" / "__init__.py").touch()
    monkeypatch.syspath_prepend(site)


@pytest.mark.usefixtures("tensorrt_found")
def test_tensorrt_does_not_build_without_a_gpu(tmp_path: Path) -> None:
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="beside the GPU that will run the plan: no NVIDIA driver found"):
        build(tmp_path / "tiny.onnx", tmp_path / "tiny.plan", package="tensorrt", target=None)


@pytest.mark.usefixtures("tensorrt_found")
def test_tensorrt_takes_no_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this machine's own GPU alone; got target 'sm89'"):
        build(tmp_path / "tiny.onnx", tmp_path / "tiny.plan", package="tensorrt")


def test_a_library_that_is_not_installed_is_named_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engines.EngineKind.installed", lambda kind: False)
    with pytest.raises(UserError, match=r"pip install tensorrt-rtx cuda-bindings"):
        build(tmp_path / "tiny.onnx", tmp_path / "tiny.plan")

"""The CPU's engines agree on one graph, keep its order of outputs, and are found without being imported."""

# B batch, H height, W width, C channels, K classes

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from runtime import machine
from runtime.engines import ENGINES, Engine, EngineOptions, open_engine, require
from runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# OpenVINO would take bfloat16 where the processor has it, which keeps 8 bits.
CPU = {"onnxruntime": "", "openvino": "f32"}
# Neither in the order of the alphabet nor backwards.
ATTRIBUTES = {
    "length": {"long": "G", "short": "B"},
    "colour": {"blue": "B", "green": "G", "red": "R"},
    "neck": {"round": "R", "v": "B"},
}
# A pair that rounds the photo's channels to steps of 32 of 255, before the same head as a float graph.
QUANTISED = """
<ir_version: 10, opset_import: ["": 18]>
tiny (uint8[B, 16, 16, 3] images) => (float[B, 3] colour, float[B, 3] features) {
    pixels = Cast<to = 1>(images)
    nchw = Transpose<perm = [0, 3, 1, 2]>(pixels)
    coded = QuantizeLinear(nchw, step, zero)
    decoded = DequantizeLinear(coded, step, zero)
    features = ReduceMean<keepdims = 0>(decoded, axes)
    weight = DequantizeLinear(coded_weight, weight_step, zero)
    logits = Gemm(features, weight)
    colour = Softmax(logits)
}
"""
STEP, WEIGHT_STEP = 32.0, 0.01


@pytest.fixture(scope="module")
def graph(make_graph: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_graph(tmp_path_factory.mktemp("graph") / "tiny.onnx", ATTRIBUTES)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import onnx

    model = onnx.parser.parse_model(QUANTISED)
    weights = {
        "step": np.array(STEP, np.float32),
        "weight_step": np.array(WEIGHT_STEP, np.float32),
        "zero": np.array(0, np.int8),
        "axes": np.array([2, 3]),
        "coded_weight": np.eye(3, dtype=np.int8),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model, full_check=True)
    path = tmp_path_factory.mktemp("graph") / "quantised.onnx"
    onnx.save(model, path)
    return path


def opened(engine: str, path: Path, *, threads: int | None = None, streams: int = 1, hint: str | None = None) -> Engine:
    options = EngineOptions(threads=threads, streams=streams, hint=CPU[engine] if hint is None else hint)
    return open_engine(engine, path, options)


def noise(batch: int) -> np.ndarray:
    """Photos of noise around a colour of their own."""
    rng = np.random.default_rng(batch)
    colours_B11C = rng.integers(0, 200, (batch, 1, 1, 3))
    return (colours_B11C + rng.integers(0, 56, (batch, 16, 16, 3))).astype(np.uint8)


def test_onnxruntime_and_openvino_agree_in_every_slot_of_every_batch(graph: Path) -> None:
    if not ENGINES["openvino"].installed():
        pytest.skip("openvino is not installed")
    with opened("onnxruntime", graph) as one, opened("openvino", graph) as other:
        for batch in (1, 2, 5, 16, 3):
            images_BHWC = noise(batch)
            found, expected = one.infer(images_BHWC), other.infer(images_BHWC)
            assert found.keys() == expected.keys()
            for name in found:
                assert found[name].shape == expected[name].shape
                # Float32 sums over 256 pixels in another order move the seventh digit; sharpness 8 makes it the sixth.
                difference = np.abs(found[name] - expected[name]).max()
                assert difference < 1e-5, f"{name} at batch {batch}: largest difference {difference}"


def test_outputs_are_named_in_the_order_of_the_graph(graph: Path, cpu_engine: str) -> None:
    with opened(cpu_engine, graph) as entered:
        assert entered.outputs == (*ATTRIBUTES, "features")
        answers = entered.infer(noise(4))
    assert list(answers) == [*ATTRIBUTES, "features"]
    assert {name: (answer.dtype, answer.shape) for name, answer in answers.items()} == {
        "length": (np.float32, (4, 2)),
        "colour": (np.float32, (4, 3)),
        "neck": (np.float32, (4, 2)),
        "features": (np.float32, (4, 3)),
    }


def test_an_answer_stays_as_it_was_when_the_next_batch_is_answered(graph: Path, cpu_engine: str) -> None:
    with opened(cpu_engine, graph) as entered:
        first = entered.infer(noise(2))
        kept = {name: answer.copy() for name, answer in first.items()}
        entered.infer(255 - noise(2))
    for name, answer in first.items():
        assert np.array_equal(answer, kept[name])


def test_leaving_is_safe_twice_and_where_nothing_was_entered(graph: Path, cpu_engine: str) -> None:
    entered = opened(cpu_engine, graph)
    entered.__exit__(None, None, None)
    for _ in range(2):
        with entered:
            assert entered.infer(noise(1))["features"].shape == (1, 3)
        entered.__exit__(None, None, None)


def test_an_engine_answers_only_while_it_is_entered(graph: Path, cpu_engine: str) -> None:
    left = opened(cpu_engine, graph)
    with left:
        pass
    with pytest.raises(AssertionError, match=r"infer\(\) outside `with`"):
        left.infer(noise(1))


def test_the_number_of_threads_changes_no_answer(graph: Path, cpu_engine: str) -> None:
    with opened(cpu_engine, graph, threads=1) as one, opened(cpu_engine, graph, threads=2) as two:
        for name, answer in one.infer(noise(3)).items():
            assert np.abs(answer - two.infer(noise(3))[name]).max() < 1e-5


def test_batches_answered_at_once_each_get_their_own_answers(graph: Path, cpu_engine: str) -> None:
    batches = [noise(1 + index % 5) + np.uint8(index) for index in range(60)]
    with opened(cpu_engine, graph) as alone:
        expected = [alone.infer(batch_BHWC) for batch_BHWC in batches]
    with opened(cpu_engine, graph, streams=3) as shared, ThreadPoolExecutor(3) as callers:
        for found, wanted in zip(callers.map(shared.infer, batches), expected, strict=True):
            assert found.keys() == wanted.keys()
            for name, answer in found.items():
                assert answer.shape == wanted[name].shape
                assert np.abs(answer - wanted[name]).max() < 1e-5


class Interrupting(np.ndarray):
    """Photos at the third of which somebody presses Ctrl-C."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int) and key == 2:
            raise KeyboardInterrupt
        return super().__getitem__(key)


@pytest.mark.parametrize("streams", [1, 2])
def test_a_call_that_was_interrupted_costs_the_next_one_nothing(graph: Path, streams: int) -> None:
    """OpenVINO's photos go one by one: those under way when a call was left were found busy by the next."""
    if not ENGINES["openvino"].installed():
        pytest.skip("openvino is not installed")
    with opened("openvino", graph, streams=streams) as entered:
        expected = entered.infer(noise(5))
        for _ in range(20):
            with pytest.raises(KeyboardInterrupt):
                entered.infer(noise(5).view(Interrupting))
            found = entered.infer(noise(5))
            assert all(np.array_equal(found[name], expected[name]) for name in expected)
    with opened("openvino", graph, streams=streams) as fresh:
        with pytest.raises(KeyboardInterrupt):
            fresh.infer(noise(5)[::-1].view(Interrupting))
        assert fresh.infer(noise(1))["features"].shape == (1, 3)


@pytest.mark.parametrize("streams", [1, 2])
def test_photos_of_another_size_or_type_are_no_input(graph: Path, cpu_engine: str, streams: int) -> None:
    with opened(cpu_engine, graph, streams=streams) as entered:
        for images_BHWC in (noise(2)[:, :1, :1], noise(2)[..., :1], noise(2).astype(np.float32)):
            with pytest.raises(Exception, match=r"(?i)invalid|unexpected|for uint8"):  # each engine's own words
                entered.infer(images_BHWC)
        assert entered.infer(noise(2))["features"].shape == (2, 3)


def test_the_float_hint_of_onnxruntime_leaves_activations_unrounded_and_weights_as_they_are(quantised: Path) -> None:
    images_BHWC = np.full((1, 16, 16, 3), (200, 100, 20), np.uint8)
    with (
        opened("onnxruntime", quantised, hint="") as rounding,
        opened("onnxruntime", quantised, hint="float") as floats,
    ):
        rounded, unrounded = rounding.infer(images_BHWC), floats.infer(images_BHWC)
    # 200, 100 and 20 lie at 6.25, 3.125 and 0.625 steps; these sums are exact in float32.
    assert rounded["features"].tolist() == [[6 * STEP, 3 * STEP, 1 * STEP]]
    assert unrounded["features"].tolist() == [[200.0, 100.0, 20.0]]
    odds = np.exp(WEIGHT_STEP * np.array([200.0, 100.0, 20.0]))
    assert np.abs(unrounded["colour"][0] - odds / odds.sum()).max() < 1e-6


BEHIND = """
<ir_version: 10, opset_import: ["": 20]>
tiny (uint8[B, 16, 16, 3] images) => (float[B, 16, 16, 3] colour)
<float middle = {100.0}, float low = {0.0}, float high = {90.0}, float step = {0.25}, uint8 zero = {0}> {
    pixels = Cast<to = 1>(images)
    shifted = Sub(pixels, middle)
    seen = %s
    coded = QuantizeLinear(seen, step, zero)
    colour = DequantizeLinear(coded, step, zero)
}
"""


@pytest.mark.parametrize("activation", ["Relu(shifted)", "Clip(shifted, low, high)"])
def test_the_float_hint_of_onnxruntime_keeps_the_activation_before_a_uint8_pair(
    tmp_path: Path, activation: str
) -> None:
    onnx.save(onnx.parser.parse_model(BEHIND % activation), tmp_path / "behind.onnx")
    with opened("onnxruntime", tmp_path / "behind.onnx", hint="float") as floats:
        answer = floats.infer(np.full((1, 16, 16, 3), (40, 100, 130), np.uint8))["colour"]
    assert answer[0, 0, 0].tolist() == [0.0, 0.0, 30.0]


def test_a_quantised_graph_is_computed_with_its_rounding_unless_told_otherwise(
    quantised: Path, cpu_engine: str
) -> None:
    images_BHWC = np.tile(np.array([[250, 90, 40]], np.uint8)[:, None, None], (2, 16, 16, 1))
    with opened(cpu_engine, quantised) as entered:
        features = entered.infer(images_BHWC)["features"]
    # 250 is 7.8 steps, 90 2.8 and 40 1.25: rounded to the nearest, not cut off.
    assert np.abs(features - np.array([8, 3, 1]) * STEP).max() < 1e-3


def test_openvino_computes_in_bfloat16_where_the_processor_has_it_and_else_says_so(graph: Path) -> None:
    if not ENGINES["openvino"].installed():
        pytest.skip("openvino is not installed")
    from runtime.engines import ov

    if not ov.computes_in("bf16"):
        with (
            pytest.raises(UserError, match="this processor does not compute in bf16"),
            opened("openvino", graph, hint="bf16"),
        ):
            pass
        return
    with opened("openvino", graph, hint="bf16") as short, opened("openvino", graph) as full:
        differences = [np.abs(short.infer(noise(8))[name] - full.infer(noise(8))[name]).max() for name in full.outputs]
    # Eight bits of a channel's mean, 1 at most, times the sharpness, through a softmax of slope 1/4: 2**-9 * 8 / 4.
    assert 0 < max(differences) < 1e-2


@pytest.mark.parametrize("streams", [1, 2])
def test_a_model_compiled_once_is_taken_from_the_cache_unless_it_was_changed(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: int
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    from runtime.engines import ov

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled: list[object] = []
    core = ov._core()

    class Counted:
        def compile_model(self, *arguments: object) -> object:
            compiled.append(arguments)
            return core.compile_model(*arguments)

        def __getattr__(self, name: str) -> object:
            return getattr(core, name)

    monkeypatch.setattr(ov, "_core", Counted)

    def answers() -> dict[str, np.ndarray]:
        options = EngineOptions(streams=streams, hint=CPU["openvino"], kept_as="5ha256")
        with open_engine("openvino", graph, options) as engine:
            return engine.infer(noise(3))

    first = answers()
    again = answers()
    assert len(compiled) == 1
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    content = kept.read_bytes()
    for changed in (content[:-1] + bytes([content[-1] ^ 1]), content[:1000], b""):
        kept.write_bytes(changed)
        before = len(compiled)
        spoilt = answers()
        assert len(compiled) == before + 1
        assert kept.read_bytes() != changed
        for name, expected in first.items():
            assert (again[name] == expected).all() and (spoilt[name] == expected).all()


def test_without_a_place_for_the_cache_a_model_is_compiled_each_time(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with open_engine("openvino", graph, EngineOptions(hint=CPU["openvino"], kept_as="5ha256")) as engine:
        engine.infer(noise(1))


def test_an_engine_that_is_not_installed_is_answered_with_its_install_line() -> None:
    missing = [name for name, kind in ENGINES.items() if not kind.installed()]
    if not missing:
        pytest.skip("every engine is installed here")
    for name in missing:
        install = rf"install it with: {ENGINES[name].install}$"
        with pytest.raises(UserError, match=rf"engine '{name}' is not installed\n{install}"):
            require(name)


def test_a_folder_that_happens_to_bear_an_engine_s_name_is_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ENGINES["tensorrt"].installed():
        pytest.skip("tensorrt is installed here")
    (tmp_path / "tensorrt" / "plans").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert not ENGINES["tensorrt"].installed()


ONE_CORE = """
import os, sys
core = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {core})  # before any library has started a thread

from pathlib import Path
import numpy as np
from runtime.engines import EngineOptions, open_engine

with open_engine("onnxruntime", Path(sys.argv[1]), EngineOptions()) as engine:
    engine.infer(np.zeros((1, 16, 16, 3), np.uint8))
    found = {int(each.name): os.sched_getaffinity(int(each.name)) for each in Path("/proc/self/task").iterdir()}
assert all(cores == {core} for cores in found.values()), found
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or machine.cores() < 2, reason="needs Linux and two cores")
def test_onnx_runtime_stays_on_the_cores_that_it_was_given(graph: Path) -> None:
    """Left to choose, it binds a thread to each of the machine's: a container of one core had its neighbour's too."""
    subprocess.run([sys.executable, "-c", ONE_CORE, graph], check=True, cwd=ROOT)

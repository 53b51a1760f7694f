"""What OpenVINO answers when int8 pairs are taken to uint8: in finer steps where none is negative, else the same."""

# H height, W width, C channels

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.engines import EngineOptions, open_engine, unsigned

STEP = 2.0
# The whole range of the pixels, moved so that what is negative and what is above the pair's range is there too.
PIXELS_HWC = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
SHIFTED_HWC = PIXELS_HWC.astype(np.float32) - 100
SIGNED = """
<ir_version: 10, opset_import: ["": 18]>
tiny (uint8[B, 16, 16, 3] images) => (float[B, 16, 16, 3] colour)
<float shift = {100.0}, float low = {%s}, float high = {90.0}, float step = {2.0}, %s zero = {0}> {
    pixels = Cast<to = 1>(images)
    shifted = Sub(pixels, shift)
    %s
    coded = QuantizeLinear(seen, step, zero)
    %s
}
"""
CLIP, RELU, NOTHING = "seen = Clip(shifted, low, high)", "seen = Relu(shifted)", "seen = Identity(shifted)"
ONE = "colour = DequantizeLinear(coded, step, zero)"
TWO = """
    one = DequantizeLinear(coded, step, zero)
    other = DequantizeLinear(coded, step, zero)
    sum = Add(one, other)
    half = Constant<value_float = 0.5>()
    colour = Mul(sum, half)
"""


def graph(folder: Path, seen: str, *, low: float = 0.0, kind: str = "int8", decoded: str = ONE) -> Path:
    import onnx

    path = folder / "tiny.onnx"
    onnx.save(onnx.parser.parse_model(SIGNED % (low, kind, seen, decoded)), path)
    return path


def answers(path: Path) -> np.ndarray:
    with open_engine("openvino", path, EngineOptions(hint="f32")) as engine:
        (found_1HWC,) = engine.infer(PIXELS_HWC[None]).values()
    return found_1HWC[0]


def widened(path: Path) -> int:
    import openvino

    return unsigned.widen(openvino.Core().read_model(path))


def coded(values: np.ndarray, step: float, least: int, most: int) -> np.ndarray:
    """Rounded and clipped as a pair does it, halves to even."""
    return np.clip(np.rint(values / np.float32(step)), least, most).astype(np.float32) * np.float32(step)


@pytest.mark.parametrize("decoded", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("seen", [CLIP, RELU], ids=["clip", "relu"])
def test_what_is_never_negative_has_all_256_steps_over_the_same_range(tmp_path: Path, seen: str, decoded: str) -> None:
    path = graph(tmp_path, seen, decoded=decoded)
    assert widened(path) == 1
    wanted = np.clip(SHIFTED_HWC, 0, 90 if seen is CLIP else None)
    assert np.allclose(answers(path), coded(wanted, STEP * 127 / 255, 0, 255), atol=1e-4)  # digits of float32 at 255
    # Of int8's own steps the answers would have half as many.
    assert len(np.unique(answers(path))) > 1.8 * len(np.unique(coded(wanted, STEP, -128, 127)))


@pytest.mark.parametrize(("seen", "low"), [(CLIP, -1.0), (NOTHING, 0.0)], ids=["clip-below-zero", "nothing"])
def test_what_may_be_negative_stays_as_the_graph_has_it(tmp_path: Path, seen: str, low: float) -> None:
    path = graph(tmp_path, seen, low=low)
    assert widened(path) == 0
    wanted = SHIFTED_HWC if seen is NOTHING else np.clip(SHIFTED_HWC, -1, 90)
    assert np.allclose(answers(path), coded(wanted, STEP, -128, 127), atol=1e-4)


def test_a_pair_that_is_unsigned_already_stays_as_it_is(tmp_path: Path) -> None:
    path = graph(tmp_path, RELU, kind="uint8")
    assert widened(path) == 0
    assert np.allclose(answers(path), coded(np.maximum(SHIFTED_HWC, 0), STEP, 0, 255), atol=1e-4)

"""Half and int8 graphs: what each node computes in, and how far the answers move."""

# N photos

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from export import parity, plan, precision
from export.evidence import reference
from runtime.bundle import Patch
from runtime.errors import UserError
from runtime.fidelity import LIMITS
from tests.train_parts import full_graph, network, photos

KINDS = {
    "convnext": {"backbone": "test_convnext"},
    "mobilenet": {"backbone": "test_efficientnet", "act_layer": "relu6"},
}
FLOAT, HALF, INT8, UINT8 = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "INT8", "UINT8"))


@functools.cache
def half_graph(kind: str) -> onnx.ModelProto:
    return precision.to_fp16(full_graph(**KINDS[kind]), photos(8, seed=2))


@functools.cache
def int8_graph(kind: str) -> onnx.ModelProto:
    full = full_graph(**KINDS[kind])
    before = full.SerializeToString()
    made = precision.to_int8(full, photos(24, seed=2))
    assert full.SerializeToString() == before, "the float graph is left as it was"
    return made


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


def test_biases_take_back_the_mean_error_that_layer_after_layer_hands_on() -> None:
    full = onnx.ModelProto.FromString(full_graph(**KINDS["mobilenet"]).SerializeToString())
    rng = np.random.default_rng(0)
    for tensor in full.graph.initializer:
        if tensor.name.endswith("_bias"):  # zero in random weights, and a bias of zero is not corrected
            drawn = rng.normal(0.3, 0.3, tensor.dims).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(drawn, tensor.name))
    others_NHWC = photos(32, seed=7)
    expected_NF = run(full, images=others_NHWC)["features"]

    def mean_error(**changes: Any) -> float:
        made = precision.to_int8(full, photos(24, seed=2), **changes)
        return float(np.abs((run(made, images=others_NHWC)["features"] - expected_NF).mean(0)).mean())

    uncorrected = mean_error(advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True))
    # On photos that no calibration saw: 0.54 of it, and each layer by itself 0.67.
    corrected = mean_error()
    assert corrected < 0.75 * uncorrected
    assert corrected < mean_error(fast_bias_correction=True)


def test_a_calibration_prints_no_results_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    onnx.save(full_graph(**KINDS["convnext"]), path)
    # In a process of its own: a library that was imported before has been silenced before.
    script = (
        "import sys, onnx; from export import precision; from tests.train_parts import photos; "
        "precision.to_int8(onnx.load(sys.argv[1]), photos(2))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert not done.stdout
    assert "INFO" not in done.stderr


def types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    infos = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    found = {info.name: info.type.tensor_type.elem_type for info in infos}
    return found | {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}


def farthest(model: onnx.ModelProto, kind: str) -> float:
    """The largest difference of a probability from PyTorch's, over photos that no calibration saw."""
    photos_NHWC = photos(32, seed=3)
    expected = reference(*network(**KINDS[kind]), photos_NHWC)
    found = run(model, images=photos_NHWC)
    return max(float(np.abs(found[name] - expected[name]).max()) for name in ("colour", "shade"))


def nodes_of(model: onnx.ModelProto, *kinds: str) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type in kinds)


# Half


def test_the_half_graph_stays_within_the_gates_limit_and_has_moved(kind: str) -> None:
    assert 1e-5 < farthest(half_graph(kind), kind) < LIMITS["fp16"].probability


def test_every_weight_of_the_half_graph_is_half(kind: str) -> None:
    model = half_graph(kind)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in nodes_of(model, "Conv", "Gemm", "MatMul"):
        assert {tensors[name].data_type for name in node.input if name in tensors} <= {HALF}
    # What stays: what is taken from the pixels, and the scale and shift of norms.
    kept = {name for node in nodes_of(model, "LayerNormalization", "Sub") for name in node.input}
    assert {name for name, tensor in tensors.items() if tensor.data_type == FLOAT} <= kept


def test_pixels_softmax_norms_and_averages_of_the_half_graph_are_float32_and_all_between_is_half(kind: str) -> None:
    model = half_graph(kind)
    made_of = types(model)
    transpose = next(nodes_of(model, "Transpose"))
    pixels = [node for node in model.graph.node if node.name in precision._pixel_nodes(model)]
    assert pixels[0].op_type == "Cast"
    assert pixels[-1] == transpose
    assert {made_of[name] for node in pixels for name in node.output} == {FLOAT}
    softmaxes = [node for node in nodes_of(model, "Softmax") if node.output[0] in ("colour", "shade")]
    assert len(softmaxes) == 2
    wide = list(nodes_of(model, "Softmax", "LayerNormalization", "ReduceMean"))
    floats = {made_of[name] for node in wide for name in (*node.input, *node.output)} - {onnx.TensorProto.INT64}
    assert floats == {FLOAT}
    assert {made_of[name] for node in nodes_of(model, "Conv", "Gemm", "MatMul") for name in node.output} == {HALF}
    assert {made_of[output.name] for output in model.graph.output} == {FLOAT}
    assert {made_of[name] for node in nodes_of(model, "Cast") for name in node.input} <= {FLOAT, HALF, UINT8}


def test_making_it_half_leaves_the_full_graph_as_it_was(kind: str) -> None:
    full = full_graph(**KINDS[kind])
    before = full.SerializeToString()
    precision.to_fp16(full, photos(8, seed=2))
    assert full.SerializeToString() == before
    assert [output.name for output in half_graph(kind).graph.output] == [output.name for output in full.graph.output]


def scaled(full: onnx.ModelProto, factors: dict[str, float]) -> onnx.ModelProto:
    """A copy in which each weight whose name ends so is multiplied."""
    made = onnx.ModelProto.FromString(full.SerializeToString())
    for ending, factor in factors.items():
        (tensor,) = (tensor for tensor in made.graph.initializer if tensor.name.endswith(ending))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    return made


BLOCK = "backbone.stages.0.blocks.0"
OUT_OF_RANGE = {
    # The depthwise layer's answer, which the norm behind it brings back to size, overflows on photos alone.
    "a value": {f"{BLOCK}.conv_dw.weight": 1e6},
    "a weight": {f"{BLOCK}.conv_dw.weight": 1e9},
    # As where a layer scale that has stayed near its start was folded into it.
    "a weight that fades": {f"{BLOCK}.mlp.fc1/MatMul/weight": 1e-8},
}


@pytest.mark.parametrize("case", list(OUT_OF_RANGE))
def test_what_half_precision_is_too_narrow_for_stays_float32(case: str) -> None:
    full = scaled(full_graph(**KINDS["convnext"]), OUT_OF_RANGE[case])
    made = precision.to_fp16(full, photos(8, seed=2))
    made_of = types(made)
    (layer,) = (ending.removesuffix(".weight").removesuffix("/MatMul/weight") for ending in OUT_OF_RANGE[case])
    (node,) = (node for node in nodes_of(made, "Conv", "MatMul") if node.name.startswith(layer))
    assert {made_of[name] for name in (*node.input, *node.output)} == {FLOAT}
    # And it alone: half precision is not given up.
    floats = [node for node in nodes_of(made, "Conv", "MatMul", "Gemm") if made_of[node.output[0]] == FLOAT]
    assert len(floats) <= 2
    found, expected = (run(model, images=photos(16, seed=3)) for model in (made, full))
    for name in ("colour", "shade"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=LIMITS["fp16"].probability)


def test_a_calibrated_network_passes_the_gate_at_every_precision(tmp_path: Path) -> None:
    temperatures = {"colour": 0.6, "shade": 1.8}
    model, page = network(**KINDS["convnext"])
    page = replace(page, temperatures=temperatures)
    full = full_graph(**KINDS["convnext"], temperatures=temperatures)
    # On photos that no calibration saw, and few of which lie between two labels, where int8 is a toss-up.
    photos_NHWC = photos(96, seed=7)
    expected = reference(model, page, photos_NHWC)
    evidence = parity.Evidence(
        categories=page.categories,
        photos_NHWC=photos_NHWC,
        labels_NL=np.stack([expected[name].argmax(1) for name in temperatures], 1),
        groups_N=np.arange(96),
        reference=expected,
    )
    made = {
        "fp32": full,
        "fp16": precision.to_fp16(full, photos(8, seed=2)),
        "int8": precision.to_int8(full, photos(24, seed=2)),
    }
    for name, graph in made.items():
        onnx.save(graph, tmp_path / name)
        verdict = parity.judge(tmp_path / name, name, "onnxruntime", "", evidence)
        assert verdict.state == "passed", f"{name}: {verdict.reason}"


# Int8


def test_the_int8_graph_stays_within_the_gates_limit_and_has_moved(kind: str) -> None:
    assert 1e-3 < farthest(int8_graph(kind), kind) < LIMITS["int8"].probability


def integers(model: onnx.ModelProto) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Type and zero point of every pair: of activations, and of weights."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found: tuple[set[tuple[int, int]], set[tuple[int, int]]] = set(), set()
    for node in nodes_of(model, "QuantizeLinear", "DequantizeLinear"):
        zero_point = tensors[node.input[2]]
        of_weight = node.input[0] in tensors
        found[of_weight].update((zero_point.data_type, int(zero)) for zero in numpy_helper.to_array(zero_point).ravel())
    return found


def test_convolutions_read_uint8_from_zero_or_from_halfway_and_products_between_layer_norms_int8(kind: str) -> None:
    activations, weights = integers(int8_graph(kind))
    assert activations == ({(UINT8, 0), (UINT8, 128)} if kind == "mobilenet" else {(INT8, 0)})
    assert weights == {(INT8, 0)}


def test_patched_the_bytes_are_those_of_a_graph_of_int8_alone_which_answers_alike(kind: str, tmp_path: Path) -> None:
    model = int8_graph(kind)
    content = model.SerializeToString()
    (tmp_path / "graph.onnx").write_bytes(content)
    patches = precision.signed_patches(content)
    assert bool(patches) == (kind == "mobilenet")
    with plan.patched(tmp_path / "graph.onnx", patches, beside=tmp_path / "made.plan") as path:
        signed = onnx.load(path)
    onnx.checker.check_model(signed, full_check=True)
    assert integers(signed) == ({(INT8, 0)}, {(INT8, 0)})
    assert [name for name, made_of in types(signed).items() if made_of == UINT8] == ["images"]
    assert (tmp_path / "graph.onnx").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]
    assert farthest(signed, kind) < LIMITS["int8"].probability


def test_a_patch_beyond_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"short")
    said = r"graph\.onnx has 5 bytes, and its page changes some up to 6: build it anew"
    with (
        pytest.raises(UserError, match=said),
        plan.patched(tmp_path / "graph.onnx", [Patch(at=4, bytes="0000")], beside=tmp_path / "made.plan"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_activations_have_one_scale_and_it_is_the_same_on_both_sides(kind: str) -> None:
    model = int8_graph(kind)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers = {name: node for node in nodes_of(model, "DequantizeLinear") for name in node.input[:1]}
    for node in nodes_of(model, "QuantizeLinear"):
        scale = tensors[node.input[1]]
        assert scale.ndim == 0, node.name
        assert scale > 0, node.name
        assert tensors[readers[node.output[0]].input[1]] == scale, node.name


def test_every_convolution_reads_int8_on_both_sides_its_weight_with_a_scale_for_each_channel() -> None:
    model = int8_graph("mobilenet")
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    # The quantiser leaves squeeze-and-excitation in float: single positions, a thousandth of the work.
    convolutions = [node for node in nodes_of(model, "Conv") if ".se." not in node.input[1]]
    assert len(convolutions) >= 8
    for node in convolutions:
        pixels, dequantise = (makers[name] for name in node.input[:2])
        if pixels.op_type == "Transpose":  # only turns what was quantised before it
            pixels = makers[pixels.input[0]]
        assert (pixels.op_type, dequantise.op_type) == ("DequantizeLinear", "DequantizeLinear"), node.name
        weight = tensors[dequantise.input[0]]
        assert weight.dtype == np.int8, node.name
        assert tensors[dequantise.input[1]].shape == (len(weight),), node.name


def test_in_a_network_of_layer_norms_matrix_products_alone_are_int8() -> None:
    model = int8_graph("convnext")
    pairs = {node.output[0] for node in nodes_of(model, "DequantizeLinear")}
    readers = [node for node in model.graph.node if pairs & set(node.input)]
    assert {node.op_type for node in readers} == {"MatMul"}
    products = [node for node in nodes_of(model, "MatMul") if ".mlp." in node.name]
    assert len(products) >= 8
    for node in products:
        assert set(node.input) <= pairs, node.name


def test_products_that_are_written_as_convolutions_of_single_positions_are_int8_too() -> None:
    full = full_graph(backbone="convnext_atto")  # as its smaller kinds are
    model = precision.to_int8(full, photos(2))
    pairs = {node.output[0] for node in nodes_of(model, "DequantizeLinear")}
    readers = {node.name for node in model.graph.node if pairs & set(node.input)}
    assert {node.name for node in nodes_of(model, "Conv") if ".mlp.fc" in node.name} <= readers
    assert not [name for name in readers if "conv_dw" in name or "downsample" in name or "stem" in name]


def test_where_no_layer_can_be_int8_it_is_said() -> None:
    full = full_graph(**KINDS["mobilenet"])
    nothing = nncf.IgnoredScope(names=[node.name for node in full.graph.node])
    with pytest.raises(UserError, match=r"int8 finds no layer of this network that it could take\nbuild it with: "):
        precision.to_int8(full, photos(2), ignored_scope=nothing)


def test_making_it_int8_leaves_the_full_graph_as_it_was_and_stdout_empty(capfd: pytest.CaptureFixture[str]) -> None:
    full = full_graph(**KINDS["mobilenet"])
    before = full.SerializeToString()
    precision.to_int8(full, photos(2))
    assert full.SerializeToString() == before
    assert capfd.readouterr().out == ""


# Unsigned pairs, by hand

AFTER_RELU6 = """
<ir_version: 10, opset_import: ["": 18]>
relu6 (float[N] x) => (float[N] y)
<float step = {{{scale}}}, uint8 zero = {{{zero}}}, float low = {{0.0}}, float high = {{6.0}}>
{{
    clipped = Clip(x, low, high)
    coded = QuantizeLinear(clipped, step, zero)
    y = DequantizeLinear(coded, step, zero)
}}
"""


def unsigned(*, zero: int = 0) -> onnx.ModelProto:
    """ReLU6 and a uint8 pair that spends all its levels on 0 to 6."""
    return onnx.parser.parse_model(AFTER_RELU6.format(scale=6 / 255, zero=zero))


def test_a_uint8_pair_after_relu6_becomes_the_int8_pair_of_the_same_range() -> None:
    model = unsigned()
    values = np.linspace(-1, 8, 1001, dtype=np.float32)
    before = run(model, x=values)["y"]
    precision.sign(model)
    onnx.checker.check_model(model, full_check=True)
    after = run(model, x=values)["y"]
    assert {tensor.data_type for tensor in model.graph.initializer if tensor.name == "zero"} == {INT8}
    # Half a step of each grid: 255 and 127 levels from 0 to 6.
    assert np.abs(after - before).max() <= 3 / 255 + 3 / 127 + 1e-6
    assert after.max() == pytest.approx(6.0)  # with the scale unchanged it would be 127 / 255 of that
    assert after.min() == 0


def test_a_signed_pair_is_left_alone() -> None:
    model = unsigned()
    precision.sign(model)
    before = model.SerializeToString()
    precision.sign(model)
    assert model.SerializeToString() == before


def test_an_int8_pair_in_uint8_answers_as_before_and_back_again_is_what_it_was() -> None:
    model = unsigned()
    precision.sign(model)
    signed = model.SerializeToString()
    values = np.linspace(-1, 8, 1001, dtype=np.float32)
    before = run(model, x=values)["y"]
    precision.unsign(model)
    assert integers(model)[0] == {(UINT8, 128)}
    assert np.array_equal(run(model, x=values)["y"], before)
    precision.sign(model)
    assert model.SerializeToString() == signed


def test_a_zero_point_elsewhere_is_refused_with_its_quantiser_named() -> None:
    model = unsigned(zero=3)
    model.graph.node[1].name = "after_relu6"
    with pytest.raises(UserError, match="quantiser 'after_relu6' has zero point 3, which TensorRT refuses"):
        precision.sign(model)


PER_CHANNEL = """
<ir_version: 10, opset_import: ["": 18]>
channels (float[N, 2] x) => (float[N, 2] y)
<float[2] steps = {0.01, 0.05}, int8[2] zeros = {0, 0}>
{
    coded = QuantizeLinear<axis = 1>(x, steps, zeros)
    y = DequantizeLinear<axis = 1>(coded, steps, zeros)
}
"""


def test_an_activation_with_a_scale_for_each_channel_gets_the_largest_for_all() -> None:
    model = onnx.parser.parse_model(PER_CHANNEL)
    precision.unite_scales(model)
    onnx.checker.check_model(model, full_check=True)
    values = np.stack([np.linspace(-1, 1, 101), np.linspace(-6, 6, 101)], 1).astype(np.float32)
    found = run(model, x=values)["y"]
    assert np.abs(found - values).max() <= 0.05 / 2 + 1e-6  # half a step of the one scale
    assert {tuple(tensor.dims) for tensor in model.graph.initializer} == {()}

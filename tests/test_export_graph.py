"""The exported graph against PyTorch, for a network of each kind of layer."""

# B batch, N photos

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from export import evidence, graph
from tests.train_parts import full_graph, network, photos
from train import calibrate
from train.checkpoint import Checkpoint
from train.network import FacetModel

# ConvNeXt: LayerNorm, GELU, LayerScale. MobileNet: BatchNorm, ReLU6, depthwise. The reference: grouped, sigmoid.
KINDS = {
    "convnext": {"backbone": "test_convnext"},
    "mobilenet": {"backbone": "test_efficientnet", "act_layer": "relu6"},
    "reference": {"backbone": "test_resnet", "heads": "reference"},
}


TEMPERATURES = {"colour": 0.6, "shade": 1.8}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def pair(kind: str) -> tuple[FacetModel, Checkpoint]:
    return network(**KINDS[kind])


@pytest.fixture
def made(kind: str) -> onnx.ModelProto:
    return full_graph(**KINDS[kind])


@functools.cache
def session(kind: str) -> onnxruntime.InferenceSession:
    content = full_graph(**KINDS[kind]).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_the_graph_answers_as_pytorch_does_at_any_batch(
    kind: str, pair: tuple[FacetModel, Checkpoint], batch: int
) -> None:
    photos_NHWC = photos(batch)
    expected = evidence.reference(*pair, photos_NHWC)
    found = dict(zip(expected, session(kind).run(None, {"images": photos_NHWC}), strict=True))
    for name in ("colour", "shade"):
        # float32 additions in another order: some 1e-6 of a logit.
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["features"], expected["features"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("hot", ["convnext", "reference"])  # a kind of heads each
def test_the_graphs_probabilities_are_the_calibrated_ones_and_its_labels_the_same(hot: str) -> None:
    model, page = network(**KINDS[hot])
    photos_NHWC = photos(16)
    raw = evidence.reference(model, page, photos_NHWC)
    calibrated = evidence.reference(model, replace(page, temperatures=TEMPERATURES), photos_NHWC)
    made = full_graph(**KINDS[hot], temperatures=TEMPERATURES)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(zip(raw, session.run(None, {"images": photos_NHWC}), strict=True))
    for name, temperature in TEMPERATURES.items():
        expected = calibrate.tempered(raw[name], temperature)
        assert np.abs(expected - raw[name]).max() > 0.05
        # As between graph and PyTorch, and a logit divided by 0.6 has its error divided too.
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=2e-5)
        np.testing.assert_allclose(calibrated[name], expected, rtol=0, atol=1e-5)
        assert np.array_equal(found[name].argmax(1), raw[name].argmax(1))
    assert np.array_equal(calibrated["features"], raw["features"])


@pytest.mark.parametrize("hot", ["convnext", "reference"])
def test_temperatures_are_in_the_weights_and_no_node(hot: str) -> None:
    both = [full_graph(**KINDS[hot]), full_graph(**KINDS[hot], temperatures=TEMPERATURES)]
    before, after = ([node.SerializeToString() for node in each.graph.node] for each in both)
    assert before == after
    before, after = ({t.name: t.SerializeToString() for t in each.graph.initializer} for each in both)
    assert before.keys() == after.keys()
    assert 0 < sum(before[name] != after[name] for name in before) <= 4  # weight and bias, of each head or of both


def test_the_graph_is_the_same_wherever_it_is_made_and_tells_of_no_folder(made: onnx.ModelProto) -> None:
    content = made.SerializeToString()
    assert b".py" not in content
    assert str(Path.cwd()).encode() not in content


def test_the_answers_differ_from_photo_to_photo(pair: tuple[FacetModel, Checkpoint]) -> None:
    """Without it every comparison here would be of constants."""
    answers = evidence.reference(*pair, photos(8))
    assert all(np.ptp(answers[name], axis=0).max() > 0.02 for name in ("colour", "shade"))


def test_probabilities_sum_to_one(pair: tuple[FacetModel, Checkpoint]) -> None:
    answers = evidence.reference(*pair, photos(4))
    for name in ("colour", "shade"):
        np.testing.assert_allclose(answers[name].sum(1), 1, rtol=0, atol=1e-6)


def test_names_types_and_shapes_are_the_contract(made: onnx.ModelProto) -> None:
    def described(info: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
        tensor = info.type.tensor_type
        return info.name, tensor.elem_type, [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]

    (images,) = map(described, made.graph.input)
    assert images == ("images", onnx.TensorProto.UINT8, ["batch", 64, 64, 3])
    *attributes, features = map(described, made.graph.output)
    assert attributes == [
        ("colour", onnx.TensorProto.FLOAT, ["batch", 3]),
        ("shade", onnx.TensorProto.FLOAT, ["batch", 2]),
    ]
    assert features[:2] == ("features", onnx.TensorProto.FLOAT)
    assert features[2][0] == "batch"
    assert isinstance(features[2][1], int)


def test_the_first_node_casts_the_pixels_and_nothing_else_reads_them(made: onnx.ModelProto) -> None:
    readers = [node for node in made.graph.node if "images" in node.input]
    assert [node.op_type for node in readers] == ["Cast"]
    assert readers[0] == made.graph.node[0]


def test_the_graph_passes_onnxs_full_check_and_is_of_a_version_that_python_3_10_reads(made: onnx.ModelProto) -> None:
    onnx.checker.check_model(made, full_check=True)
    # ONNX Runtime 1.23 reads opset 23 and IR 11 at most.
    assert made.ir_version <= 11
    assert [(opset.domain, opset.version <= 23) for opset in made.opset_import] == [("", True)]
    assert {node.domain for node in made.graph.node} == {""}


def test_every_weight_is_in_the_file_and_is_used(made: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(made, tmp_path / "graph.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]
    read = {name for node in made.graph.node for name in node.input}
    assert {tensor.name for tensor in made.graph.initializer} <= read


def test_checked_refuses_a_graph_whose_shapes_do_not_fit() -> None:
    broken = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> broken (float[2, 3] x) => (float[2, 5] y) { y = Identity(x) }'
    )
    with pytest.raises(onnx.shape_inference.InferenceError, match="differ"):
        graph.checked(broken)

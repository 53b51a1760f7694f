"""A graph's names lead back to the network's modules."""

from __future__ import annotations

import re

import onnx
import pytest

from tests.train_parts import full_graph, network

KINDS = {
    "convnext": {"backbone": "test_convnext"},
    "mobilenet": {"backbone": "test_efficientnet", "act_layer": "relu6"},
    "reference": {"backbone": "test_resnet", "heads": "reference"},
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def made(kind: str) -> onnx.ModelProto:
    return full_graph(**KINDS[kind])


def test_each_linear_layer_is_named_after_its_module(kind: str, made: onnx.ModelProto) -> None:
    modules = {name for name, _ in network(**KINDS[kind])[0].named_modules()}
    layers = [node for node in made.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(layers) > 10
    for node in layers:
        module, _, operation = node.name.rpartition("/")
        assert module in modules, node.name
        assert re.fullmatch(rf"{node.op_type}(\.\d+)?", operation)


def test_no_name_is_given_twice(made: onnx.ModelProto) -> None:
    nodes = [node.name for node in made.graph.node]
    tensors = [tensor for node in made.graph.node for tensor in node.output]
    weights = [tensor.name for tensor in made.graph.initializer]
    assert len(nodes) == len(set(nodes))
    assert len(tensors + weights) == len({*tensors, *weights})


def test_a_weight_keeps_its_name_in_the_network(kind: str, made: onnx.ModelProto) -> None:
    own = network(**KINDS[kind])[0].state_dict().keys()
    weights = {tensor.name for tensor in made.graph.initializer}
    assert len(weights & own) > 20
    # None is left with a number for a name.
    assert not [name for name in weights if name.startswith(("val_", "constant/"))]

"""Tensors of an int8 graph put back to float32, and what each of them costs."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
import pytest

from export import precision, sensitivity
from export.names import LINEAR
from tests.train_parts import full_graph, photos

KINDS = {
    "convnext": {"backbone": "test_convnext"},
    "mobilenet": {"backbone": "test_efficientnet", "act_layer": "relu6"},
}


@functools.cache
def pair(kind: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    full = full_graph(**KINDS[kind])
    return full, precision.to_int8(full, photos(24, seed=2))


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(["colour", "shade"], {"images": photos(16, seed=3)})
    return found


def gap(one: onnx.ModelProto, other: onnx.ModelProto) -> float:
    return float(np.mean([np.abs(a - b).mean() for a, b in zip(answers(one), answers(other), strict=True)]))


def test_with_every_tensor_put_back_it_is_the_float32_graph_again(kind: str) -> None:
    full, quantised = pair(kind)
    made = sensitivity.put_back(full, quantised, sensitivity.quantised_tensors(quantised))
    assert not [node for node in made.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert gap(made, full) == 0
    assert gap(quantised, full) > 1e-3


def test_with_none_put_back_nothing_changes(kind: str) -> None:
    full, quantised = pair(kind)
    assert gap(sensitivity.put_back(full, quantised, []), quantised) == 0


def test_the_graphs_that_are_put_together_are_left_as_they_were(kind: str) -> None:
    full, quantised = pair(kind)
    before = full.SerializeToString(), quantised.SerializeToString()
    sensitivity.put_back(full, quantised, sensitivity.quantised_tensors(quantised)[:3])
    assert (full.SerializeToString(), quantised.SerializeToString()) == before


def test_a_layer_whose_input_is_put_back_has_its_float32_weight_too(kind: str) -> None:
    full, quantised = pair(kind)
    tensors = sensitivity.quantised_tensors(quantised)
    before = {node.name for node in sensitivity.float_layers(quantised)}
    (layer, tensor) = next(
        (node.name, node.input[0]) for node in full.graph.node if node.op_type in LINEAR and node.input[0] in tensors
    )
    made = sensitivity.put_back(full, quantised, [tensor])
    after = {node.name for node in sensitivity.float_layers(made)}
    assert layer in after - before
    (node,) = (node for node in made.graph.node if node.name == layer)
    makers = {output: maker.op_type for maker in made.graph.node for output in maker.output}
    assert not [makers[name] for name in node.input if makers.get(name) == "DequantizeLinear"]


def test_costs_are_those_of_each_tensor_alone_the_dearest_first(kind: str) -> None:
    full, quantised = pair(kind)
    tensors = sensitivity.quantised_tensors(quantised)
    told: list[tuple[int, float]] = []
    found = sensitivity.costs(
        full, quantised, photos(6, seed=4), limit_s=120, advance=lambda done, left_s: told.append((done, left_s))
    )
    assert [done for done, _ in told] == list(range(1, len(tensors) + 1))
    assert all(0 <= left_s <= 120 for _, left_s in told)
    assert sorted(cost.tensor for cost in found) == sorted(tensors)
    differences = [cost.difference for cost in found]
    assert differences == sorted(differences, reverse=True)
    assert differences[0] > 10 * differences[-1]
    # Half of them in float32: the dearest half costs most of what all cost.
    half = len(found) // 2
    dearest, cheapest = (
        gap(sensitivity.put_back(full, quantised, [cost.tensor for cost in part]), full)
        for part in (found[:half], found[half:])
    )
    assert dearest < cheapest


def test_what_the_time_does_not_reach_is_left_out(kind: str) -> None:
    full, quantised = pair(kind)
    assert sensitivity.costs(full, quantised, photos(2), limit_s=0.0) == []

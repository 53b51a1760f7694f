"""Which quantised tensors cost an int8 graph most, and the same graph with some of them in float32 again."""

# N photos, K classes

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from export.graph import INPUT, checked
from export.names import LINEAR

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import onnx

# What hands values on as they are: a layer behind them reads what stands before them.
MOVING = ("Transpose", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Gather", "Flatten")


class Cost(NamedTuple):
    """What it costs to quantise one tensor, with the weights of the layers that read it, all else being float32."""

    tensor: str
    difference: float
    """The mean difference of a probability, over photos, classes and attributes."""


def quantised_tensors(quantised: onnx.ModelProto) -> list[str]:
    """The activations that are taken to int8, in the graph's order."""
    return list(dict.fromkeys(node.input[0] for node in quantised.graph.node if node.op_type == "QuantizeLinear"))


def costs(
    full: onnx.ModelProto,
    quantised: onnx.ModelProto,
    photos_NHWC: np.ndarray,
    *,
    limit_s: float,
    advance: Callable[[int, float], None] = lambda done, left_s: None,
) -> list[Cost]:
    """The tensors and their costs, the dearest first; those that the time did not reach are left out.

    Each is measured at the outputs, in a graph of its own in which it alone is quantised (the sensitivity of Wu et al.,
    2020, Integer Quantization for Deep Learning Inference).

    Args:
        advance: told after each how many are done, and how many seconds are left.
    """
    import numpy as np

    tensors = quantised_tensors(quantised)
    expected = _answers(full, photos_NHWC)
    found = []
    began = time.monotonic()
    ends = began + limit_s
    for tensor in tensors:
        if time.monotonic() > ends:
            break
        alone = put_back(full, quantised, [other for other in tensors if other != tensor])
        gaps = [np.abs(a - b).mean() for a, b in zip(_answers(alone, photos_NHWC), expected, strict=True)]
        found.append(Cost(tensor, float(np.mean(gaps))))
        pace_s = (time.monotonic() - began) / len(found)
        advance(len(found), min(ends - time.monotonic(), pace_s * (len(tensors) - len(found))))
    return sorted(found, key=lambda cost: -cost.difference)


def put_back(full: onnx.ModelProto, quantised: onnx.ModelProto, tensors: Collection[str]) -> onnx.ModelProto:
    """The quantised graph with these tensors in float32 again, and so the layers that read nothing quantised then."""
    import onnx

    made = onnx.ModelProto.FromString(quantised.SerializeToString())
    graph = made.graph
    makers = {tensor: node for node in graph.node for tensor in node.output}
    before = {
        node.output[0]: quantiser.input[0]
        for node in graph.node
        if (quantiser := _quantiser(node, makers)) and quantiser.input[0] in tensors
    }
    for node in graph.node:
        node.input[:] = [before.get(tensor, tensor) for tensor in node.input]
    originals = {node.name: node for node in full.graph.node}
    weights = {tensor.name: tensor for tensor in full.graph.initializer}
    for node in float_layers(made):
        original = originals[node.name]
        for place, tensor in enumerate(original.input):
            if tensor in weights:
                node.input[place] = _float_weight(graph, weights[tensor])
    _drop_unread(graph)
    return checked(made)


def float_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The linear layers of a quantised graph that read no quantised activation."""
    makers = {tensor: node for node in model.graph.node for tensor in node.output}

    def is_quantised(tensor: str) -> bool:
        node = makers.get(tensor)
        if node is None:
            return False
        return _quantiser(node, makers) is not None or (node.op_type in MOVING and is_quantised(node.input[0]))

    return [
        node for node in model.graph.node if node.op_type in LINEAR and not any(is_quantised(t) for t in node.input)
    ]


def _quantiser(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """The node that quantised what this one takes back; None where this is none or takes back a stored weight."""
    maker = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    return maker if maker is not None and maker.op_type == "QuantizeLinear" else None


def _float_weight(graph: onnx.GraphProto, weight: onnx.TensorProto) -> str:
    """The name of a float32 weight in the graph, where it is put if it is not there."""
    name = f"{weight.name}/float"
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.add().CopyFrom(weight)
        graph.initializer[-1].name = name
    return name


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Nodes whose every output nobody reads, and what then nobody reads, out of the graph."""
    outputs = {output.name for output in graph.output}
    while True:
        read = outputs | {tensor for node in graph.node for tensor in node.input}
        unread = [node for node in graph.node if not read & set(node.output)]
        if not unread:
            return
        for node in unread:
            graph.node.remove(node)


def _answers(model: onnx.ModelProto, photos_NHWC: np.ndarray) -> list[np.ndarray]:
    """Every attribute's probabilities, each pair rounding as it stands, whatever an int8 kernel would make of it."""
    import numpy as np
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()][:-1]  # the last are the features
    parts = [session.run(names, {INPUT: photos_NHWC[index : index + 1]}) for index in range(len(photos_NHWC))]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]

"""One more exact rewrite of the float32 graph: how the positions of a map are laid out between transposes."""

# B batch, C channels, H height, W width

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from export.rewrite import attribute

if TYPE_CHECKING:
    import onnx

CHANNELS_LAST, CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
# Each value for itself, whatever the shape; beside constants of one value, or of one for each channel.
ELEMENTWISE = ("Add", "Div", "Erf", "Gelu", "Mul", "Relu", "Sigmoid", "Sub", "Tanh")


def flatten_positions(model: onnx.ModelProto) -> int:
    """Maps that are channels-last between two transposes become sequences: [B, H, W, C] -> [B, H·W, C], and back.

    For norms and products H and W are nothing but rows. OpenVINO, given a graph for one photo, drops a transpose that
    stands beside a reshape, where it would reorder every map twice. Only where all that is between the transposes
    looks at one position at a time.

    Returns:
        How many transposes to channels-last were found so; the model is changed in place.
    """
    import onnx

    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {info.name: info.type.tensor_type.shape.dim for info in inferred.value_info}
    sizes = {name: [size.dim_value for size in dims] for name, dims in shapes.items()}
    constants = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    ends: dict[int, list[int]] = {}
    for place, node in enumerate(graph.node):
        sized = _transposes(node, CHANNELS_LAST) and all(sizes[node.output[0]][1:])
        if sized and (found := _closed_by(graph, place, constants)):
            ends[place] = found
    closing = {place for found in ends.values() for place in found}
    made: list[onnx.NodeProto] = []
    for place, node in enumerate(graph.node):
        if place in ends:
            (flat,) = node.output
            _, *sides, channels = sizes[flat]
            node.output[0] = f"{flat}/map"
            made += [node, _reshape(graph, node.output[0], flat, [0, math.prod(sides), channels])]
        elif place in closing:
            map_shape = [0, *sizes[node.input[0]][1:]]
            made.append(_reshape(graph, node.input[0], f"{node.name}/map", map_shape))
            node.input[0] = f"{node.name}/map"
            made.append(node)
        else:
            made.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]  # of the maps; they are inferred anew
    return len(ends)


def _closed_by(graph: onnx.GraphProto, start: int, constants: dict[str, int]) -> list[int]:
    """The transposes back behind a transpose to channels-last; none where anything else reads what is between."""
    between = {graph.node[start].output[0]}
    outputs = {output.name for output in graph.output}
    found = []
    for place in range(start + 1, len(graph.node)):
        node = graph.node[place]
        if not between & set(node.input):
            continue
        if _transposes(node, CHANNELS_FIRST):
            found.append(place)
        elif _by_position(node, between, constants):
            between.update(node.output)
        else:
            return []
    return [] if between & outputs else found


def _by_position(node: onnx.NodeProto, between: set[str], constants: dict[str, int]) -> bool:
    """Whether it gives a map of the same positions and looks at each position for itself."""
    first, *others = node.input
    if node.op_type == "LayerNormalization":
        return first in between and attribute(node, "axis", -1) == -1
    if node.op_type == "MatMul":
        return first in between and constants.get(others[0]) == 2
    return node.op_type in ELEMENTWISE and all(one in between or constants.get(one, 2) < 2 for one in node.input)


def _transposes(node: onnx.NodeProto, order: list[int]) -> bool:
    return node.op_type == "Transpose" and list(attribute(node, "perm")) == order


def _reshape(graph: onnx.GraphProto, source: str, target: str, shape: list[int]) -> onnx.NodeProto:
    """From one tensor to another; a 0 in the shape keeps the size that is there."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    name = "shape/" + "x".join(map(str, shape[1:]))
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    return onnx.helper.make_node("Reshape", [source, name], [target], name=f"{target}/Reshape")

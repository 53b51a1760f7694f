"""How much each layer of a graph computes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from export.names import LINEAR

if TYPE_CHECKING:
    import onnx


def multiplications(model: onnx.ModelProto) -> dict[str, int]:
    """Of each linear layer, by its name, for one photo; the model's shapes must have been inferred."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for info in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        # The batch, the one size that is not known, counts once.
        shapes[info.name] = [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
    found = {}
    for node in model.graph.node:
        if node.op_type not in LINEAR:
            continue
        given = math.prod(shapes[node.output[0]])
        source, weight = (shapes[tensor] for tensor in node.input[:2])
        # What each answer sums over: a convolution's weight beside its outputs, else the last axis of the input.
        found[node.name] = given * (math.prod(weight[1:]) if node.op_type == "Conv" else source[-1])
    return found

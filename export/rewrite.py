"""Exact rewrites of the float32 graph: what scales or shifts beside a linear layer moves into that layer's weights.

Each is a function that changes the model in place and gives how often it found its pattern. They compute in float64,
so that a weight is rounded once.
"""

# C channels

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from export.names import LINEAR

if TYPE_CHECKING:
    import numpy as np
    import onnx

MIDDLE = 128.0
"""Of the range of a pixel."""


def fold_layer_scales(model: onnx.ModelProto) -> int:
    """A multiplication by a constant for each channel goes into the linear layer before it.

    So a ConvNeXt block loses its layer scale. Transposes and an added bias may stand between.
    """
    return _until_none(model, _fold_layer_scale)


def fold_norms(model: onnx.ModelProto) -> int:
    """The scale and shift of a layer norm go into the linear layers behind it, which must not pad."""
    return _until_none(model, _fold_norm)


def fold_pixels(model: onnx.ModelProto) -> int:
    """The normalisation of pixels goes into the first convolutions, all but a shift.

    What is left takes 128 from each pixel: whole numbers of -128 to 127 lose nothing in half precision, and next to
    nothing as int8. A convolution that pads keeps the means for a shift, since the zeros at its edges stand for them.
    """
    return _until_none(model, _fold_pixels)


def _until_none(model: onnx.ModelProto, once: Callable[[_Graph], bool]) -> int:
    count = 0
    while once(_Graph(model)):
        count += 1
    return count


class _Graph:
    """A model's graph by its tensors, as they are before a change: make a new one after it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.proto = model.graph
        self.constants = {tensor.name: tensor for tensor in self.proto.initializer}
        self.makers = {tensor: node for node in self.proto.node for tensor in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.proto.node:
            for tensor in node.input:
                self.readers.setdefault(tensor, []).append(node)
        self.outputs = {output.name for output in self.proto.output}

    def of_type(self, op: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.proto.node if node.op_type == op)

    def private(self, tensor: str) -> bool:
        """Whether one node alone reads it."""
        return tensor not in self.outputs and len(self.readers.get(tensor, ())) == 1

    def value(self, tensor: str) -> np.ndarray:
        """A constant, as float64."""
        import numpy as np
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[tensor]).astype(np.float64)

    def split(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """The constant of a node of two inputs, and the tensor that it meets; None where not just one is constant."""
        constants = [tensor for tensor in node.input if tensor in self.constants]
        others = [tensor for tensor in node.input if tensor not in self.constants]
        return (constants[0], others[0]) if len(constants) == len(others) == 1 else None

    def give(self, node: onnx.NodeProto, position: int, value: np.ndarray, like: str) -> None:
        """A constant of its own as a node's input, of the type of `like`, a constant or weight of the same graph."""
        from onnx import numpy_helper

        dtype = numpy_helper.to_array(self.constants[like]).dtype
        before = node.input[position] if position < len(node.input) else ""
        kind = "bias" if position == 2 else "weight" if node.op_type in LINEAR else "constant"
        own = bool(before) and self.private(before)
        name = before if own else f"{node.name}/{kind}"
        while name in self.constants and not own:  # a weight that several share has the name of its first reader
            name += "/own"
        made = numpy_helper.from_array(value.astype(dtype), name)
        if name in self.constants:
            self.constants[name].CopyFrom(made)
        else:
            self.proto.initializer.append(made)
        if position == len(node.input):
            node.input.append(name)
        node.input[position] = name

    def bypass(self, node: onnx.NodeProto, source: str) -> None:
        """Whatever reads the node's output reads `source` instead."""
        for reader in self.readers[node.output[0]]:
            reader.input[:] = [source if tensor == node.output[0] else tensor for tensor in reader.input]
        self.proto.node.remove(node)

    def linear_readers(self, tensor: str, axis: int, *, padding: bool = False) -> list[onnx.NodeProto] | None:
        """The linear layers that contract this axis of a tensor, behind transposes too; None where others read it.

        Args:
            padding: whether layers that pad the tensor with zeros count.
        """
        found: list[onnx.NodeProto] = []
        if tensor in self.outputs:
            return None
        for node in self.readers.get(tensor, ()):
            if node.op_type == "Transpose":
                order = list(attribute(node, "perm"))
                behind = self.linear_readers(
                    node.output[0], order.index(axis + len(order)) - len(order), padding=padding
                )
                if behind is None:
                    return None
                found += behind
            elif self._contracts(node, tensor, axis, padding):
                found.append(node)
            else:
                return None
        return found

    def _contracts(self, node: onnx.NodeProto, tensor: str, axis: int, padding: bool) -> bool:
        if len(node.input) < 2 or node.input[0] != tensor or node.input[1] not in self.constants:
            return False
        dimensions = len(self.constants[node.input[1]].dims)
        if node.op_type == "Conv":
            padded = any(attribute(node, "pads", [])) or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
            return axis == 1 - dimensions and (padding or not padded)
        if node.op_type == "Gemm":
            return axis == -1 and not attribute(node, "transA", 0) and _is_plain(node)
        return node.op_type == "MatMul" and dimensions == 2 and axis == -1

    def absorb(self, node: onnx.NodeProto, scale_C: np.ndarray, shift_C: np.ndarray) -> None:
        """Change a linear layer so that it answers to x as it did to x * scale + shift."""
        import numpy as np

        weight = self.value(node.input[1])
        if node.op_type == "Conv":
            groups = attribute(node, "group", 1)
            # [groups, outputs of one, inputs of one, kernel]
            parts = weight.reshape(groups, -1, weight.shape[1], int(np.prod(weight.shape[2:])))
            changed = (parts * scale_C.reshape(groups, 1, -1, 1)).reshape(weight.shape)
            added = np.einsum("goik,gi->go", parts, shift_C.reshape(groups, -1)).reshape(-1)
        elif node.op_type == "Gemm" and attribute(node, "transB", 0):
            changed, added = weight * scale_C, weight @ shift_C
        else:
            changed, added = weight * scale_C[:, None], shift_C @ weight
        source = node.input[1]
        self.give(node, 1, changed, like=source)
        if node.op_type == "MatMul":
            self._shift(node, added, like=source)
        else:
            before = self.value(node.input[2]) if len(node.input) > 2 else 0.0
            self.give(node, 2, before + added, like=source)

    def _shift(self, node: onnx.NodeProto, added: np.ndarray, like: str) -> None:
        """Add to what a MatMul gives: in the bias behind it, or in one made here."""
        import onnx

        readers = self.readers[node.output[0]]
        behind = readers[0] if self.private(node.output[0]) and readers[0].op_type == "Add" else None
        parts = behind and self.split(behind)
        if behind and parts and self.value(parts[0]).ndim == 1:
            self.give(behind, list(behind.input).index(parts[0]), self.value(parts[0]) + added, like=like)
            return
        inner = f"{node.output[0]}/unshifted"
        add = onnx.helper.make_node("Add", [inner, ""], [node.output[0]], name=f"{node.name}/shift")
        node.output[0] = inner
        self.proto.node.insert(list(self.proto.node).index(node) + 1, add)
        add = self.proto.node[list(self.proto.node).index(node) + 1]
        self.give(add, 1, added, like=like)


def _fold_layer_scale(graph: _Graph) -> bool:
    for node in graph.of_type("Mul"):
        parts = graph.split(node)
        if parts is None or node.output[0] in graph.outputs:
            continue
        constant, tensor = parts
        shape = list(graph.constants[constant].dims)
        varying = [index - len(shape) for index, size in enumerate(shape) if size > 1]
        if len(varying) == 1 and _scale_maker(graph, tensor, varying[0], graph.value(constant).reshape(-1)):
            graph.bypass(node, tensor)
            return True
    return False


def _scale_maker(graph: _Graph, tensor: str, axis: int, scale_C: np.ndarray) -> bool:
    """Scale the linear layer that makes a tensor, and the biases on the way; False where none does."""
    biases: list[tuple[onnx.NodeProto, str]] = []
    while graph.private(tensor) and (node := graph.makers.get(tensor)):
        if node.op_type == "Transpose":
            order = list(attribute(node, "perm"))
            axis = order[axis] - len(order)
            tensor = node.input[0]
        elif node.op_type == "Add" and (parts := graph.split(node)) and _varies_along(graph, parts[0], axis):
            biases.append((node, parts[0]))
            tensor = parts[1]
        elif scaled := _scaled(graph, node, axis, scale_C):
            source = node.input[1]
            for position, value in scaled.items():
                graph.give(node, position, value, like=source)
            for add, bias in biases:
                value = graph.value(bias).reshape(-1) * scale_C
                shape = [-1] + [1] * (-1 - axis)
                graph.give(add, list(add.input).index(bias), value.reshape(shape), like=bias)
            return True
        else:
            return False
    return False


def _scaled(graph: _Graph, node: onnx.NodeProto, axis: int, scale_C: np.ndarray) -> dict[int, np.ndarray]:
    """The constants of a linear layer, by position, whose outputs come out scaled; empty where it is none."""
    if len(node.input) < 2 or node.input[1] not in graph.constants:
        return {}
    weight = graph.value(node.input[1])
    if node.op_type == "Conv" and axis == 1 - weight.ndim:
        scaled = {1: weight * scale_C.reshape(-1, *[1] * (weight.ndim - 1))}
    elif node.op_type == "Gemm" and axis == -1 and _is_plain(node):
        scaled = {1: weight * (scale_C[:, None] if attribute(node, "transB", 0) else scale_C)}
    elif node.op_type == "MatMul" and axis == -1 and weight.ndim == 2:
        return {1: weight * scale_C}
    else:
        return {}
    if len(node.input) > 2:
        scaled[2] = graph.value(node.input[2]) * scale_C
    return scaled


def _fold_norm(graph: _Graph) -> bool:
    import numpy as np

    for node in graph.of_type("LayerNormalization"):
        scale_C = graph.value(node.input[1])
        shift_C = graph.value(node.input[2]) if len(node.input) > 2 else np.zeros_like(scale_C)
        readers = graph.linear_readers(node.output[0], -1)
        if not readers or attribute(node, "axis", -1) != -1 or ((scale_C == 1).all() and len(node.input) == 2):
            continue
        for reader in readers:
            graph.absorb(reader, scale_C, shift_C)
        graph.give(node, 1, np.ones_like(scale_C), like=node.input[1])
        del node.input[2:]
        return True
    return False


def _fold_pixels(graph: _Graph) -> bool:
    import numpy as np

    sub, div = (next((node for node in graph.of_type(op) if graph.split(node)), None) for op in ("Sub", "Div"))
    if not sub or not div or div.input[0] != sub.output[0] or graph.makers[sub.input[0]].op_type != "Cast":
        return False
    mean_C, std_C = graph.value(sub.input[1]), graph.value(div.input[1])
    if readers := graph.linear_readers(div.output[0], -1):
        shift_C = np.full_like(mean_C, MIDDLE)
    else:
        readers, shift_C = graph.linear_readers(div.output[0], -1, padding=True), mean_C
    if not readers:
        return False
    for reader in readers:
        graph.absorb(reader, 1 / std_C, (shift_C - mean_C) / std_C)
    graph.give(sub, 1, shift_C, like=sub.input[1])
    graph.bypass(div, sub.output[0])
    return True


def _varies_along(graph: _Graph, constant: str, axis: int) -> bool:
    """Whether it has this axis, and one value along every other."""
    dims = list(graph.constants[constant].dims)
    return len(dims) >= -axis and all(size == 1 for index, size in enumerate(dims) if index - len(dims) != axis)


def _is_plain(gemm: onnx.NodeProto) -> bool:
    return all(attribute(gemm, factor, 1.0) == 1.0 for factor in ("alpha", "beta"))


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> Any:
    """An attribute's value, as onnx gives it; the default where the node has none of that name."""
    import onnx

    found = [one for one in node.attribute if one.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else default

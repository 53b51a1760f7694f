"""The same graph at another precision: half tensors for fp16, signed symmetric Q/DQ pairs for int8."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from export.graph import INPUT, checked
from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import onnx

FLOAT, HALF = 1, 10  # onnx.TensorProto's own numbers, written out so that --help need not import onnx
# Kept in float32 within the half graph: probabilities of 1e-5 and less have no digits left in half.
FLOAT_OPS = ("Softmax",)
LARGEST_HALF = 65504.0


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 graph with half-precision tensors; the normalisation of pixels and softmax stay float32."""
    import onnx

    half = onnx.ModelProto.FromString(model.SerializeToString())
    graph = half.graph
    full_nodes = _pixel_nodes(half)
    float_tensors = {
        info.name for info in [*graph.value_info, *graph.output] if info.type.tensor_type.elem_type == FLOAT
    }
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == FLOAT}
    is_half: dict[str, bool] = {}
    nodes: list[onnx.NodeProto] = []
    casts: set[str] = set()

    def at(tensor: str, wanted: bool) -> str:
        """The name of `tensor` at the wanted precision, cast if it is at the other one."""
        if tensor in weights:
            name = f"{tensor}.half" if wanted else tensor
            if wanted and name not in casts:
                graph.initializer.append(_halved(weights[tensor], name))
                casts.add(name)
            return name
        if tensor not in is_half or is_half[tensor] == wanted:
            return tensor
        name = f"{tensor}.{'half' if wanted else 'full'}"
        if name not in casts:
            nodes.append(
                onnx.helper.make_node("Cast", [tensor], [name], name=f"cast/{name}", to=HALF if wanted else FLOAT)
            )
            casts.add(name)
        return name

    for node in graph.node:
        goes_half = node.name not in full_nodes and node.op_type not in FLOAT_OPS
        for position, tensor in enumerate(node.input):
            node.input[position] = at(tensor, goes_half)
        nodes.append(node)
        is_half |= {tensor: goes_half for tensor in node.output if tensor in float_tensors}
    for output in graph.output:
        if is_half[output.name]:
            maker = next(node for node in nodes if output.name in node.output)
            inner = f"{output.name}.half"
            maker.output[list(maker.output).index(output.name)] = inner
            for node in nodes:
                node.input[:] = [inner if tensor == output.name else tensor for tensor in node.input]
            nodes.append(onnx.helper.make_node("Cast", [inner], [output.name], name=f"cast/{output.name}", to=FLOAT))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return checked(half)


def to_int8(model: onnx.ModelProto, photos_NHWC: np.ndarray) -> onnx.ModelProto:
    """The float32 graph with int8 Q/DQ pairs, symmetric, signed, calibrated on uint8 photos."""
    import onnx

    for name in ("nncf", "torch.utils.cpp_extension"):  # the latter looks for a CUDA compiler, and says so
        logging.getLogger(name).setLevel(logging.ERROR)
    import nncf

    copy = onnx.ModelProto.FromString(model.SerializeToString())
    dataset = nncf.Dataset([photos_NHWC[index : index + 1] for index in range(len(photos_NHWC))], _feed)
    # The library draws its progress on stdout, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        quantised = nncf.quantize(
            copy, dataset, preset=nncf.QuantizationPreset.PERFORMANCE, subset_size=len(photos_NHWC)
        )
    sign(quantised)
    unite_scales(quantised)
    return checked(quantised)


def sign(model: onnx.ModelProto) -> None:
    """Rewrite every uint8 Q/DQ pair, in place, to the int8 pair of the same range.

    After an activation that is never negative a quantiser may come out unsigned. TensorRT would read such a pair
    as int8 with the scale unchanged and clip its upper half, silently: so the scale grows by 255/127.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for _, zero_point, nodes in _unsigned_pairs(model):
        if numpy_helper.to_array(tensors[zero_point]).any():
            raise UserError(f"quantiser {nodes[0].name!r} has a non-zero zero point, which TensorRT refuses")
        for name, change in (
            (nodes[0].input[1], lambda scale: (scale * np.float32(255 / 127)).astype(np.float32)),
            (zero_point, lambda zero: zero.astype(np.int8)),
        ):
            shared = [n for n in model.graph.node if name in n.input and n not in nodes]
            assert not shared, f"{name} belongs to another quantiser too"
            tensors[name].CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensors[name])), name))
    assert not any(
        tensors[node.input[2]].data_type == onnx.TensorProto.UINT8
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    )


def unite_scales(model: onnx.ModelProto) -> None:
    """Give every activation one scale, in place, the largest of its channels'.

    Before a depthwise convolution each channel may come with its own. TensorRT takes one scale a tensor, and
    ONNX Runtime neither fuses nor removes the other kind.
    """
    import numpy as np
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero_point = node.input[1:3]
            values = numpy_helper.to_array(tensors[scale])
            if values.ndim:
                tensors[scale].CopyFrom(numpy_helper.from_array(np.array(values.max(), np.float32), scale))
                tensors[zero_point].CopyFrom(numpy_helper.from_array(np.array(0, np.int8), zero_point))


def _unsigned_pairs(model: onnx.ModelProto) -> Iterator[tuple[str, str, list[onnx.NodeProto]]]:
    """Scale, zero point and nodes of each uint8 pair."""
    import onnx

    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    pairs: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and types[node.input[2]] == onnx.TensorProto.UINT8:
            pairs.setdefault((node.input[1], node.input[2]), []).append(node)
    for (scale, zero_point), nodes in pairs.items():
        yield scale, zero_point, nodes


def _halved(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    import numpy as np
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0) > LARGEST_HALF:
        raise UserError(
            f"{tensor.name} holds {np.abs(values).max():.3g}, more than half precision can: build fp32 or int8"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)


def _pixel_nodes(model: onnx.ModelProto) -> list[str]:
    """The nodes that turn pixels into normalised channels: from the input up to the transpose, that included."""
    names, tensor = [], INPUT
    while True:
        node = next(node for node in model.graph.node if tensor in node.input)
        names.append(node.name)
        if node.op_type == "Transpose":
            return names
        tensor = node.output[0]


def _feed(photo_1HWC: np.ndarray) -> dict[str, np.ndarray]:
    return {INPUT: photo_1HWC}

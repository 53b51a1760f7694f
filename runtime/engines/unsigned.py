"""OpenVINO's int8 activations that are never negative in uint8, over the same range.

A bundle's int8 graphs have signed, symmetric pairs alone, since TensorRT reads no others. Behind a ReLU half of such a
pair's steps stand for numbers that never come. In uint8 all of them count, and x86 multiplies uint8 by int8 without the
correction that int8 by int8 takes (VPDPBUSD of AVX-512 VNNI): MobileNetV2 is 1.15 times as fast (benchmarks/NOTES.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import openvino

INT8 = (-128.0, 127.0)
STEPS = 256
DEQUANTISES = ("Convert", "Convert", "Subtract", "Multiply")
"""What the library reads a graph's DequantizeLinear as."""


def widen(model: openvino.Model) -> int:
    """Give each int8 pair behind a ReLU, or a clip at zero, the steps of uint8, in place; how many there were."""
    from openvino import opset13 as ops

    widened = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize" or not _never_negative(node.input_value(0).get_node()):
            continue
        _, highest, *integers = (_constant(node.input_value(index).get_node()) for index in range(1, 5))
        ends = _dequantised(node)
        if highest is None or tuple(integers) != INT8 or not ends:
            continue  # uint8 already, or of a form that is not a bundle's
        bounds = [ops.constant(bound) for bound in (0 * highest, highest) * 2]
        made = ops.fake_quantize(node.input_value(0), *bounds, STEPS)
        for end in ends:
            end.output(0).replace(made.output(0))
        widened += 1
    return widened


def _never_negative(node: openvino.Node) -> bool:
    kind = node.get_type_name()
    if kind in ("Maximum", "Minimum"):  # what a Clip is read as
        sources = [node.input_value(index).get_node() for index in range(2)]
        bounds = [bound for source in sources if (bound := _constant(source)) is not None]
        if not bounds or bounds[0] < 0:
            return False
        return kind == "Maximum" or any(_never_negative(source) for source in sources)
    return kind in ("Relu", "Sigmoid")


def _dequantised(node: openvino.Node) -> list[openvino.Node]:
    """The last node of each pair's second half; none where one of them has another form."""
    found = [node]
    for kind in DEQUANTISES:
        found = [user.get_node() for each in found for user in each.output(0).get_target_inputs()]
        if not found or any(each.get_type_name() != kind for each in found):
            return []
    return found


def _constant(node: openvino.Node) -> np.float32 | None:
    """The number that a node holds for all its elements; None where it is no constant, or of several numbers."""
    import numpy as np

    if node.get_type_name() != "Constant":
        return None
    return np.float32(node.data.ravel()[0]) if node.data.size == 1 else None

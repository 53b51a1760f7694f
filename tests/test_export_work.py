"""Multiplications, counted by hand."""

from __future__ import annotations

import math

import onnx
import pytest

from export.work import multiplications
from tests.train_parts import full_graph

LAYERS = """
<ir_version: 10, opset_import: ["": 18]>
layers (float[B, 6, 8, 10] images) => (float[B, 5] out)
<float[4, 3, 3, 3] kernel, float[4, 7] right, float[7, 5] last>
{
    conv = Conv<group = 2, pads = [1, 1, 1, 1], strides = [2, 2]>(images, kernel)
    map = Transpose<perm = [0, 2, 3, 1]>(conv)
    wide = MatMul(map, right)
    axes = Constant<value_ints = [1, 2]>()
    pooled = ReduceMean<keepdims = 0>(wide, axes)
    out = Gemm(pooled, last)
}
"""


def test_each_linear_layer_is_counted_for_one_photo() -> None:
    model = onnx.parser.parse_model(LAYERS)
    names = ("conv", "matmul", "gemm")
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    for node, name in zip(layers, names, strict=True):
        node.name = name
    for name, shape in (("kernel", (4, 3, 3, 3)), ("right", (4, 7)), ("last", (7, 5))):
        size = [0.0] * math.prod(shape)
        model.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, size))
    found = multiplications(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    # Maps of 4 x 5; a convolution of two groups sums over 3 of 6 channels.
    assert found == {"conv": 4 * 5 * 4 * 3 * 9, "matmul": 4 * 5 * 7 * 4, "gemm": 5 * 7}


@pytest.mark.parametrize("backbone", ["test_convnext", "test_efficientnet"])
def test_most_of_a_networks_work_is_its_backbones(backbone: str) -> None:
    found = multiplications(full_graph(backbone=backbone))
    heads = sum(work for name, work in found.items() if not name.startswith("backbone."))
    assert 0 < heads < 0.05 * sum(found.values())

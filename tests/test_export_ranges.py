"""How large a graph's values become, against values that are known."""

from __future__ import annotations

import numpy as np
import onnx

from export.ranges import largest
from tests.train_parts import full_graph, photos

GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
tiny (uint8[B, 4, 4, 3] images) => (float[B, 4, 4, 3] out, float[B, 4, 4, 3] features)
{
    pixels = Cast<to = 1>(images)
    below = Neg(pixels)
    scale = Constant<value_float = 2.0>()
    out = Mul(below, scale)
    features = Identity(pixels)
}
"""


def test_the_largest_value_of_each_tensor_over_all_photos_is_found_whatever_its_sign() -> None:
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(GRAPH), strict_mode=True)
    photos_NHWC = np.zeros((3, 4, 4, 3), np.uint8)
    photos_NHWC[1, 2, 3, 0] = 200
    found = largest(model, photos_NHWC)
    assert found["pixels"] == found["below"] == found["features"] == 200
    assert found["out"] == 400


def test_the_graph_is_left_as_it_was() -> None:
    model = full_graph(backbone="test_convnext")
    before = model.SerializeToString()
    found = largest(model, photos(2))
    assert model.SerializeToString() == before
    assert 1 / 3 <= found["colour"] <= 1  # the likeliest of three classes
    assert all(np.isfinite(value) for value in found.values())

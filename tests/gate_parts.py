"""A graph of a few nodes for the tests of the gate, honest or with a fault planted in it, and photos to judge it by."""

# N photos, K classes, C channels (RGB)

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from export.parity import Evidence
from runtime.bundle import Attribute, Category
from tests.train_parts import photos

CLASSES = ("blue", "green", "red")
CATEGORY = Category(
    name="Cap",
    attributes=tuple(Attribute(name=name, classes=CLASSES, output=name) for name in ("colour", "lining")),
)
MEAN = np.array([0.4, 0.5, 0.3], np.float32)
STD = np.array([0.5, 0.7, 0.6], np.float32)
# The three channels' means decide among three classes; no symmetry hides a swap.
COLOUR_CK = np.array([[6, 0.5, 1], [0, 7, 1], [0.5, 1, 5]], np.float32)
LINING_CK = np.array([[1, 4, 0], [0.5, 0, 5], [6, 1, 1]], np.float32)
GRAPH = """
<ir_version: 10, opset_import: ["": 18]>
tiny (uint8[B, 64, 64, 3] images) => (float[B, 3] colour, float[B, 3] lining, float[B, 3] features) {{
    pixels = Cast<to = 1>(images)
    nchw = Transpose<perm = [0, 3, 1, 2]>(pixels)
    scaled = Div(nchw, full)
    centred = Sub(scaled, mean)
    normal = Div(centred, std)
    means = ReduceMean<keepdims = 0>(normal, axes)
    {fault}
    colour_logits = Gemm(features, colour_weight)
    colour = Softmax(colour_logits)
    lining_logits = Gemm(features, lining_weight)
    lining = Softmax(lining_logits)
}}
"""
# Each photo's features become `leak` parts of the whole batch's.
LEAK = """
    together = ReduceMean<keepdims = 1>(means, batch_axis)
    own = Mul(means, kept)
    others = Mul(together, leak)
    features = Add(own, others)
"""
# From the ninth photo of a batch on, a half more on every channel.
LATE = """
    size = Shape<start = 0, end = 1>(means)
    count = Squeeze(size)
    slots = Range(first, count, step)
    late = GreaterOrEqual(slots, ninth)
    more = Cast<to = 1>(late)
    halves = Div(more, two)
    column = Unsqueeze(halves, last_axis)
    features = Add(means, column)
"""
NAN = """
    below = Neg(full)
    root = Sqrt(below)
    features = Add(means, root)
"""


def write(
    path: Path,
    *,
    colour_CK: np.ndarray = COLOUR_CK,
    lining_CK: np.ndarray = LINING_CK,
    mean: np.ndarray = MEAN,
    std: np.ndarray = STD,
    fault: str = "features = Identity(means)",
    leak: float = 0.5,
) -> Path:
    """The graph at `path`; without arguments the honest one."""
    model = parser.parse_model(GRAPH.format(fault=fault))
    weights = {"full": np.array(255, np.float32), "axes": np.array([2, 3])}
    weights |= {"mean": mean.reshape(3, 1, 1), "std": std.reshape(3, 1, 1)}
    weights |= {"colour_weight": colour_CK, "lining_weight": lining_CK}
    if fault == LATE:
        weights |= {"first": np.array(0), "step": np.array(1), "ninth": np.array(8)}
        weights |= {"two": np.array(2, np.float32), "last_axis": np.array([1])}
    if fault == LEAK:
        weights |= {"batch_axis": np.array([0])}
        weights |= {"kept": np.array(1 - leak, np.float32), "leak": np.array(leak, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def evidence(count: int) -> Evidence:
    """So many photos of a colour each, the honest answers to them, and those as their labels."""
    tint_NC = np.random.default_rng(0).uniform(0.1, 1.0, (count, 3))
    photos_NHWC = (photos(count) * tint_NC[:, None, None]).astype(np.uint8)
    means_NC = (photos_NHWC.mean((1, 2)) / 255 - MEAN) / STD
    reference = {"colour": softmax(means_NC @ COLOUR_CK), "lining": softmax(means_NC @ LINING_CK)}
    return Evidence(
        categories=(CATEGORY,),
        photos_NHWC=photos_NHWC,
        labels_NL=np.stack([answers_NK.argmax(1) for answers_NK in reference.values()], 1),
        groups_N=np.arange(count),
        reference=reference | {"features": means_NC.astype(np.float32)},
    )


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    raised_NK = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
    return np.asarray(raised_NK / raised_NK.sum(1, keepdims=True), np.float32)

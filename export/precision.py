"""The same graph at another precision: half tensors for fp16, symmetric Q/DQ pairs for int8."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.graph import INPUT, checked
from export.ranges import PhotoSet, largest
from export.rewrite import attribute
from export.work import multiplications
from runtime.bundle import Patch
from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import onnx

FLOAT, HALF = 1, 10  # onnx.TensorProto's own numbers, written out so that --help need not import onnx
# Kept in float32 within the half graph: probabilities of 1e-5 and less have no digits left in half, and sums over a
# map or over channels may leave its range, the squares in a norm's variance first.
FLOAT_OPS = ("Softmax", "LayerNormalization", "ReduceMean", "ReduceSum")
LARGEST_HALF = 65504.0
# Photos to come may give larger values than those that were tried.
HEADROOM = 4.0
# Of a weight's own power, what rounding to half may take: ten times what it takes of weights of ordinary size. Smaller
# than 6e-5 a half has ever fewer digits, and weights into which a tiny scale was folded end there.
ROUNDING = 1e-6
# The share of a network's multiplications that a layer must have for int8 to be tried on it and on what leads to it.
WORTH_IT = 0.001
PRODUCTS = ("MatMul", "Gemm")
# Of uint8: the zero point of a range that is as wide below zero as above.
HALFWAY = 128


def to_fp16(model: onnx.ModelProto, photos: PhotoSet) -> onnx.ModelProto:
    """The float32 graph with half-precision tensors.

    In float32 stay the pixels up to their transpose, softmax, norms and averages, and every node that half precision
    is too narrow for: by its weights, or by what it reads and gives on these photos.
    """
    import onnx

    half = onnx.ModelProto.FromString(model.SerializeToString())
    graph = half.graph
    full_nodes = {*_pixel_nodes(half), *_too_wide(half, photos)}
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
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return checked(half)


def to_int8(
    model: onnx.ModelProto, photos: PhotoSet, *, advance: Callable[[], None] = lambda: None, **changes: Any
) -> onnx.ModelProto:
    """The float32 graph with int8 Q/DQ pairs, symmetric, calibrated on these photos, one after the other.

    Activations are uint8 where convolutions hand integers on from one to the next, and int8 between layer norms, where
    OpenVINO is slower with a zero point and ONNX Runtime is not faster; weights are int8. TensorRT reads int8 alone:
    see `signed_patches`.

    In float32 stay the heads, and in a network of layer norms, which compute in float, all but its matrix products,
    be they written as such or as convolutions of single positions: every block comes back to float anyway, so that a
    depthwise convolution or a sum would be quantised for itself alone; its few other convolutions are a fiftieth of
    the work, and OpenVINO 2026.4 answers wrongly where they are int8 and the sums beside them are not.

    Convolutions with their batch norms folded in hand int8 on from one to the next, and with it their errors: there
    each layer's bias is corrected by what is left of the error after those before it (Nagel et al., 2019), which
    halves it, and not by its own alone.

    Args:
        advance: called before each photo that goes through the network: how many that will be only the library knows.
        changes: arguments of nncf.quantize in the place of those that a build gives it, for comparing.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # looks for a CUDA compiler, and says so
    os.environ.setdefault("NNCF_CI", "1")  # else it tells its makers of each graph; it is asked for nothing else
    import nncf

    # On import the library sets its level, at which it lists on stdout every operation that it leaves as it is.
    nncf.set_log_level(logging.ERROR)

    def feed(photo_HWC: np.ndarray) -> dict[str, np.ndarray]:
        advance()
        return {INPUT: photo_HWC[None]}

    behind = _behind(model)
    layer_norms = any(node.op_type == "LayerNormalization" and node.name not in behind for node in model.graph.node)
    products = _products(model)
    others = [node.name for node in model.graph.node if layer_norms and node.name not in products]
    arguments = {
        "preset": nncf.QuantizationPreset.PERFORMANCE,
        "subset_size": len(photos),
        "ignored_scope": nncf.IgnoredScope(names=list(dict.fromkeys([*behind, *others]))),
        "fast_bias_correction": layer_norms,
    }
    # The library draws bars of its own on stdout, which is for results.
    with contextlib.redirect_stdout(io.StringIO()):
        # It copies the graph before it changes it.
        quantised = nncf.quantize(model, nncf.Dataset(photos, feed), **(arguments | changes))
    unite_scales(quantised)
    if layer_norms:
        sign(quantised)
    else:
        unsign(quantised)
    if not any(node.op_type == "QuantizeLinear" for node in quantised.graph.node):
        raise UserError("int8 finds no layer of this network that it could take\nbuild it with: --precision fp16")
    return checked(quantised)


def unsign(model: onnx.ModelProto) -> None:
    """Rewrite every activation's int8 pair, in place, to uint8 of the same steps, zero point 128.

    ONNX Runtime's kernels for x86 multiply uint8 by int8, and beside an int8 pair leave a ReLU and a sum in float:
    MobileNetV2 takes 0.57 of the time (benchmarks/NOTES.md).
    """
    import onnx

    for pair in _pairs(model):
        if pair.is_activation and pair.type == onnx.TensorProto.INT8:
            pair.rewrite(model, onnx.TensorProto.UINT8, zero=HALFWAY, stretch=1.0)


def sign(model: onnx.ModelProto) -> None:
    """Rewrite every uint8 pair, in place, to the int8 pair of the same range with zero point 0.

    TensorRT refuses other zero points. A pair of uint8 from 0 on it would read as int8 with the scale unchanged and
    clip its upper half, silently: so the scale grows by 255/127.
    """
    import onnx

    for pair in _pairs(model):
        if pair.type != onnx.TensorProto.UINT8:
            continue
        if pair.zero not in (0, HALFWAY):
            raise UserError(f"quantiser {pair.nodes[0].name!r} has zero point {pair.zero}, which TensorRT refuses")
        pair.rewrite(model, onnx.TensorProto.INT8, zero=0, stretch=1.0 if pair.zero else 255 / 127)


def signed_patches(content: bytes) -> tuple[Patch, ...]:
    """What makes of a serialised graph's bytes those of the graph that `sign` makes of it: nowhere longer or shorter,
    so that a device without the onnx library can do it; none where they are the same."""
    import numpy as np
    import onnx

    model = onnx.ModelProto.FromString(content)
    sign(model)
    signed = model.SerializeToString()
    before_N, after_N = (np.frombuffer(each, np.uint8) for each in (content, signed))
    assert len(before_N) == len(after_N), "the signed graph has another length"
    places = np.flatnonzero(before_N != after_N)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
    return tuple(Patch(at=int(run[0]), bytes=signed[run[0] : run[-1] + 1].hex()) for run in runs)


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
                zero = numpy_helper.to_array(tensors[zero_point]).max()
                tensors[zero_point].CopyFrom(numpy_helper.from_array(np.array(zero), zero_point))


def _products(model: onnx.ModelProto) -> set[str]:
    """The nodes that multiply each position's channels by one matrix."""
    kernels = {tensor.name: list(tensor.dims)[2:] for tensor in model.graph.initializer}

    def multiplies(node: onnx.NodeProto) -> bool:
        pointwise = node.op_type == "Conv" and set(kernels.get(node.input[1], ())) == {1}
        return node.op_type in PRODUCTS or (pointwise and attribute(node, "group", 1) == 1)

    return {node.name for node in model.graph.node if multiplies(node)}


def _behind(model: onnx.ModelProto) -> list[str]:
    """The nodes that lead to no layer of some weight, the heads: int8 would cost accuracy there and save nothing."""
    work = multiplications(model)
    least = WORTH_IT * sum(work.values())
    leading: set[str] = set()
    behind = []
    for node in reversed(model.graph.node):
        if work.get(node.name, 0) > least or leading & set(node.output):
            leading.update(node.input)
        else:
            behind.append(node.name)
    return behind


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The nodes that share one scale and one zero point."""

    scale: str
    zero_point: str
    zero: int
    type: int
    nodes: list[onnx.NodeProto]
    is_activation: bool
    """Not a weight, which is quantised already."""

    def rewrite(self, model: onnx.ModelProto, to: int, *, zero: int, stretch: float) -> None:
        """Give it another integer type and zero point, and the scale times `stretch`, in place."""
        import numpy as np
        import onnx
        from onnx import numpy_helper

        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for name in (self.scale, self.zero_point):
            shared = [node for node in model.graph.node if name in node.input and node not in self.nodes]
            assert not shared, f"{name} belongs to another quantiser too"
        step = numpy_helper.to_array(tensors[self.scale]) * np.float32(stretch)
        tensors[self.scale].CopyFrom(numpy_helper.from_array(step.astype(np.float32), self.scale))
        dims = tuple(tensors[self.zero_point].dims)
        integers = np.full(dims, zero, onnx.helper.tensor_dtype_to_np_dtype(to))
        tensors[self.zero_point].CopyFrom(numpy_helper.from_array(integers, self.zero_point))
        coded = {node.output[0] for node in self.nodes if node.op_type == "QuantizeLinear"}
        for info in model.graph.value_info:
            if info.name in coded:
                info.type.tensor_type.elem_type = to


def _pairs(model: onnx.ModelProto) -> list[_Pair]:
    """Every pair, of activations and of weights."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    sharing: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            sharing.setdefault((node.input[1], node.input[2]), []).append(node)
    return [
        _Pair(
            scale=scale,
            zero_point=zero_point,
            zero=int(numpy_helper.to_array(tensors[zero_point]).max(initial=0)),
            type=tensors[zero_point].data_type,
            nodes=nodes,
            is_activation=any(node.op_type == "QuantizeLinear" for node in nodes),
        )
        for (scale, zero_point), nodes in sharing.items()
    ]


def _halved(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _too_wide(model: onnx.ModelProto, photos: PhotoSet) -> list[str]:
    """The nodes whose tensors overflow half precision on the photos, or whose weights overflow or fade in it."""
    import numpy as np
    from onnx import numpy_helper

    def fits(values: np.ndarray) -> bool:
        if values.ndim < 2:  # a bias that fades takes nothing with it
            return bool(np.abs(values).max(initial=0) <= LARGEST_HALF)
        with np.errstate(over="ignore"):  # what overflows is lost whole
            lost = values - values.astype(np.float16).astype(np.float64)
        return bool(np.square(lost).sum() <= ROUNDING * np.square(values, dtype=np.float64).sum())

    sizes = largest(model, photos)
    wide = {tensor for tensor, size in sizes.items() if not HEADROOM * size <= LARGEST_HALF}
    wide |= {
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == FLOAT and not fits(numpy_helper.to_array(tensor))
    }
    return [node.name for node in model.graph.node if wide & {*node.input, *node.output}]


def _pixel_nodes(model: onnx.ModelProto) -> list[str]:
    """The nodes that turn pixels into normalised channels: from the input up to the transpose, that included."""
    names, tensor = [], INPUT
    while True:
        node = next(node for node in model.graph.node if tensor in node.input)
        names.append(node.name)
        if node.op_type == "Transpose":
            return names
        tensor = node.output[0]

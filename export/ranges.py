"""How large the values of a graph become on real photos."""

# N photos, H height, W width, C channels

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from export.graph import INPUT

if TYPE_CHECKING:
    import numpy as np
    import onnx


class PhotoSet(Protocol):
    """Uint8 RGB photos [H, W, C], as often as they are asked for; an array [N, H, W, C] is one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


FLOAT = 1  # onnx.TensorProto.FLOAT


def largest(model: onnx.ModelProto, photos: PhotoSet) -> dict[str, float]:
    """Of each float tensor that a node gives, by name, the largest absolute value on these photos."""
    import numpy as np
    import onnx
    import onnxruntime

    watched = onnx.ModelProto.FromString(model.SerializeToString())
    graph = watched.graph
    typed = {info.name: info.type.tensor_type.elem_type for info in (*graph.value_info, *graph.output)}
    made = [tensor for node in graph.node for tensor in node.output if typed.get(tensor) == FLOAT]
    # Reduced inside the graph: all tensors of one photo together would fill the memory of a small machine.
    for tensor in made:
        size = f"{tensor}/size"
        graph.node.append(onnx.helper.make_node("Abs", [tensor], [size], name=size))
        graph.node.append(onnx.helper.make_node("ReduceMax", [size], [f"{size}/max"], name=f"{size}/max", keepdims=0))
        graph.output.append(onnx.helper.make_tensor_value_info(f"{size}/max", FLOAT, []))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [f"{tensor}/size/max" for tensor in made]
    found = np.zeros(len(made))
    for photo_HWC in photos:
        values = session.run(names, {INPUT: photo_HWC[None]})
        found = np.maximum(found, [float(value) for value in values])
    return dict(zip(made, found.tolist(), strict=True))

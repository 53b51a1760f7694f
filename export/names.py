"""Names that a person can follow in a graph viewer: those of the network's own modules."""

from __future__ import annotations

import ast
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

SCOPES = "pkg.torch.onnx.name_scopes"
"""The exporter's note of the modules that a node stands in, outermost first, the operation last."""
LINEAR = ("Conv", "Gemm", "MatMul")


def readable(model: onnx.ModelProto, prefix: str) -> None:
    """Name each node after its module and its operation, and each tensor after its node, in place.

    Args:
        prefix: of every module's name, left out.
    """
    graph = model.graph
    kept = {tensor.name for tensor in (*graph.input, *graph.output)}
    tensors: dict[str, str] = {}
    weights = {tensor.name: tensor.name.removeprefix(prefix) for tensor in graph.initializer}
    for tensor, name in weights.items():
        tensors[tensor] = name if name != tensor else f"constant/{name}"
    used: Counter[str] = Counter(tensors.values())
    for node in graph.node:
        module = _module(node).removeprefix(prefix.removesuffix("."))
        node.name = _unique("/".join(filter(None, (module.removeprefix("."), node.op_type))), used)
        for index, tensor in enumerate(node.output):
            if tensor not in kept:
                tensors[tensor] = node.name if len(node.output) == 1 else f"{node.name}/{index}"
        for place, tensor in enumerate(node.input):
            # A weight that the exporter turned round or folded has lost its name: its first reader gives it one.
            if tensors.get(tensor, "").startswith("constant/") and tensor in weights:
                kind = "weight" if place == 1 and node.op_type in LINEAR else "constant"
                tensors[tensor] = _unique(f"{node.name}/{kind}", used)
    for node in graph.node:
        node.input[:] = [tensors.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [tensors.get(tensor, tensor) for tensor in node.output]
    for initializer in graph.initializer:
        initializer.name = tensors[initializer.name]
    del graph.value_info[:]  # of the old names; they are inferred anew


def _module(node: onnx.NodeProto) -> str:
    scopes = next((noted.value for noted in node.metadata_props if noted.key == SCOPES), "[]")
    *modules, _ = ast.literal_eval(scopes) or [""]
    return str(modules[-1]) if modules else ""


def _unique(name: str, used: Counter[str]) -> str:
    used[name] += 1
    return name if used[name] == 1 else f"{name}.{used[name]}"

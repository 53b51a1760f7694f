"""The float32 graph: uint8 photos in, a probability output for each attribute, pooled features last."""

# B batch, H height, W width, C channels

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from export import names
from train.checkpoint import Checkpoint
from train.network import FacetModel, normalise, tempered

if TYPE_CHECKING:
    import onnx
    import torch

# Read by ONNX Runtime 1.23, the newest for Python 3.10; its limits are opset 23 and IR 11. From 20 on a GELU is one
# node, which ONNX Runtime joins with the bias before it: of five nodes it makes five passes over the widest maps.
OPSET, IR = 20, 10
INPUT = "images"
FEATURES = "features"


def served(model: FacetModel, page: Checkpoint) -> torch.nn.Module:
    """The network as it is served: uint8 RGB [B, H, W, 3] -> a tuple of probabilities [B, K] and features [B, F].

    The temperatures are in its weights: a division of its own would cost every photo a pass over every logit.
    """
    import torch

    network = tempered(model, page.head_temperatures)

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            output = self.network(normalise(images, network.config))
            return (*(logits_BK.softmax(1) for logits_BK in output.logits), output.features)

    return Served().eval()


def outputs(page: Checkpoint) -> list[str]:
    """The names of the graph's outputs, in its order."""
    return [*(attribute.output for attribute in page.attributes), FEATURES]


def graph(model: FacetModel, page: Checkpoint) -> onnx.ModelProto:
    """The ONNX graph of the served network, batch dynamic, rewritten to fewer operations, checked in full.

    It says itself what it is of: the categories with their classes and the preprocessing, as JSON in its metadata.
    """
    import onnx

    from runtime import __version__

    made = plain(model, page)
    for rewrite in rewrites():
        rewrite(made)
    made.producer_name, made.producer_version = "facet-edge", __version__
    said = {
        "categories": [
            {"name": category.name, "attributes": {one.name: list(one.classes) for one in category.attributes}}
            for category in page.categories
        ],
        "preprocess": {name: getattr(page.preprocess, name) for name in page.preprocess.__struct_fields__},
    }
    onnx.helper.set_model_props(made, {name: json.dumps(value) for name, value in said.items()})
    return checked(made)


def rewrites() -> tuple[Callable[[onnx.ModelProto], int], ...]:
    """All of them, in order: what changes a graph in place and gives how often it found its pattern."""
    from export import rewrite
    from export.positions import flatten_positions

    return rewrite.fold_layer_scales, rewrite.fold_norms, rewrite.fold_pixels, flatten_positions


def plain(model: FacetModel, page: Checkpoint) -> onnx.ModelProto:
    """The graph as PyTorch's exporter gives it, with names that can be followed."""
    import torch

    size = page.preprocess
    # Two photos: from a sample of one, torch.export would take the batch for a constant.
    sample = torch.zeros(2, size.height, size.width, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # The exporter warns of its own internals; whether the graph is right is for the gate to say.
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            served(model, page),
            (sample,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=outputs(page),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
        )
    assert program is not None
    made = program.model_proto
    names.readable(made, "network.")
    # The exporter's notes, down to the source lines and folders of the machine: they would travel with the bundle,
    # weigh up to half as much as a small network, and give one network another sha256 in another folder.
    graph = made.graph
    for noted in (made, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del noted.metadata_props[:]
    return checked(made)


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its shapes inferred afresh, through onnx's full check."""
    import onnx

    model.ir_version = IR
    # Shapes as recorded on the way may be wrong (the exporter's) or of another type (before a change of precision).
    del model.graph.value_info[:]
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    return inferred

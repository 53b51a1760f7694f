"""The graphs that are timed beside each other, and the turns in which they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import graphs
from tests.train_parts import network, photos


def test_each_rewrite_stands_alone_beside_the_graph_as_exported_and_all_of_them_together() -> None:
    made = graphs.variants(*network(backbone="test_convnext"))
    # The sixteen channels of its stem are padded by nothing, so that the pixels are folded too.
    assert list(made) == [
        graphs.PLAIN,
        "fold_layer_scales",
        "fold_norms",
        "fold_pixels",
        "flatten_positions",
        graphs.FOLDED,
    ]
    computing = {name: sum(node.op_type != "Reshape" for node in model.graph.node) for name, model in made.items()}
    assert computing[graphs.FOLDED] < computing["fold_layer_scales"] < computing[graphs.PLAIN]


def test_a_ratio_is_to_the_graph_as_exported_and_of_int8_to_the_rewritten_one(tmp_path: Path) -> None:
    model, page = network(backbone="test_convnext")
    paths = graphs.written(graphs.variants(model, page), tmp_path)
    ways = [graphs.Way(name, paths[name], "onnxruntime", "") for name in (graphs.PLAIN, graphs.FOLDED)]
    ways.append(graphs.Way(graphs.INT8, paths[graphs.FOLDED], "onnxruntime", ""))
    found = graphs.timed(ways, photos(2), rounds=3)
    assert [(row["what"], row["beside"]) for row in found] == [
        (graphs.PLAIN, graphs.PLAIN),
        (graphs.FOLDED, graphs.PLAIN),
        (graphs.INT8, graphs.FOLDED),
    ]
    assert found[0]["ratio"] == 1.0
    assert all(np.isfinite(float(str(row["images_per_s"]))) for row in found)

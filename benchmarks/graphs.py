"""Command: what each rewrite of the graph gives on each engine, and what int8 gives beside float32.

python -m benchmarks.graphs

Two networks: the reference system's, ConvNeXt-Base at 512 px with random weights, and the shipped Garment model,
MobileNetV2 at 224 px. Everything of one network and engine takes turns in one run, round by round, so that a machine
which slows down slows all; a ratio is that of two neighbours in time.
"""

# N photos, H height, W width, C channels

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import busy, record
from benchmarks.cache import ROOT
from benchmarks.networks import CONVNEXT_BASE
from runtime import bundle, images, inputs
from runtime.engines import ENGINES, EngineOptions, open_engine
from runtime.errors import DONE, UserError
from runtime.terminal import note

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from runtime.engines import Engine
    from train.checkpoint import Checkpoint
    from train.network import FacetModel

PLAIN, FOLDED, INT8 = "as exported", "all rewrites", "int8"
FLOAT = {"onnxruntime": "", "openvino": "f32"}
"""The hint with which each engine computes in float32."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A checkpoint, its bundle with int8, and how it is timed."""

    checkpoint: Path
    bundle: Path
    batch: int
    rounds: int


class Way(NamedTuple):
    """A graph on an engine."""

    graph: str
    path: Path
    engine: str
    hint: str


def parser() -> argparse.ArgumentParser:
    return record.parser(
        "graphs", "Time the graph as exported, with each rewrite, with all, and int8, in turns on every engine here."
    )


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def networks() -> dict[str, Network]:
    exported = CONVNEXT_BASE.exported
    if not (exported / bundle.PAGE).exists():
        raise UserError(
            "the reference network is not exported yet\nexport it with: python -m benchmarks.reference_export"
        )
    examples = ROOT / "examples"
    return {
        "convnext_base": Network(checkpoint=CONVNEXT_BASE.checkpoint, bundle=exported, batch=1, rounds=12),
        "garment": Network(
            checkpoint=examples / "checkpoints" / "garment", bundle=examples / "bundles" / "garment", batch=8, rounds=40
        ),
    }


def measure(into: Path) -> int:
    """Time every network's graphs and keep what was found."""
    from train import checkpoint

    load_before = busy.before()
    found = {}
    for name, network in networks().items():
        model, page = checkpoint.load(network.checkpoint)
        with tempfile.TemporaryDirectory() as scratch:
            graphs = written(variants(model, page), Path(scratch))
            photos_NHWC = _photos(page, network.batch)
            layers = {graph: rtx_layers(path) for graph, path in graphs.items()}
            rates = [
                row
                for engine in FLOAT
                if ENGINES[engine].installed()
                for row in timed(ways(graphs, network.bundle, engine), photos_NHWC, network.rounds)
            ]
        found[name] = {"batch": network.batch, "rounds": network.rounds, "rtx_layers": layers, "ways": rates}
        for row in rates:
            note(f"{name}: {row['what']} on {row['engine']} {row['hint']}: {row['ratio']:.2f} times {row['beside']}")
    path = record.keep({"model": "graphs"}, {"networks": found}, full=True, load_before=load_before, into=into)
    note(f"kept in {path}")
    return DONE


def variants(model: FacetModel, page: Checkpoint) -> dict[str, onnx.ModelProto]:
    """The graph as PyTorch's exporter gives it, with each rewrite that finds its pattern there, and with all."""
    import onnx

    from export import graph

    plain = graph.plain(model, page)
    made = {PLAIN: plain}
    for rewrite in graph.rewrites():
        alone = onnx.ModelProto.FromString(plain.SerializeToString())
        if rewrite(alone):
            made[rewrite.__name__] = graph.checked(alone)
    return {**made, FOLDED: graph.graph(model, page)}


def written(graphs: Mapping[str, onnx.ModelProto], folder: Path) -> dict[str, Path]:
    """Each graph in a file of its own."""
    import onnx

    paths = {name: folder / f"{index}.onnx" for index, name in enumerate(graphs)}
    for name, path in paths.items():
        onnx.save(graphs[name], path)
    return paths


def ways(graphs: Mapping[str, Path], folder: Path, engine: str) -> list[Way]:
    """The float graphs on one engine, then int8 as the gate let it through there, in each way in which it did."""
    found = [Way(name, path, engine, FLOAT[engine]) for name, path in graphs.items()]
    for artifact in bundle.load(folder).artifacts:
        if artifact.precision == "int8" and artifact.file.endswith(".onnx"):
            passed = [one for one in artifact.verdicts if one.engine == engine and one.state == "passed"]
            found += [Way(INT8, folder / artifact.file, engine, one.hint) for one in passed]
    return found


def timed(tried: Sequence[Way], photos_NHWC: np.ndarray, rounds: int) -> list[dict[str, object]]:
    """How fast each way is, and how many times as fast: int8 as the rewritten float graph, that as it was exported."""
    by_graph = {way.graph: way for way in tried}
    found: list[dict[str, object]] = []
    for way in tried:
        beside = by_graph[FOLDED if way.graph == INT8 else PLAIN]
        ours, theirs = in_turns(way, beside, photos_NHWC, rounds)
        ratios = [of_theirs / of_ours for of_theirs, of_ours in zip(theirs, ours, strict=True)]
        found.append(
            {
                "what": way.graph,
                "engine": way.engine,
                "hint": way.hint,
                "images_per_s": round(len(photos_NHWC) / statistics.median(ours), 3),
                "beside": beside.graph,
                "ratio": round(statistics.median(ratios), 3),
                "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
            }
        )
    return found


def in_turns(way: Way, beside: Way, photos_NHWC: np.ndarray, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each of two ways, round by round, each first in every other; no more engines are open than the two,
    since the memory and the threads of others slow both down."""
    if way == beside:
        with open_engine(way.engine, way.path, EngineOptions(hint=way.hint)) as engine:
            seconds = [_seconds(engine, photos_NHWC) for _ in range(rounds)]
        return seconds, seconds
    found: dict[Way, list[float]] = {way: [], beside: []}
    with ExitStack() as held:
        engines = {
            each: held.enter_context(open_engine(each.engine, each.path, EngineOptions(hint=each.hint)))
            for each in (way, beside)
        }
        for number in range(rounds):
            for each in (way, beside) if number % 2 else (beside, way):
                found[each].append(_seconds(engines[each], photos_NHWC))
    return found[way], found[beside]


def _seconds(engine: Engine, photos_NHWC: np.ndarray) -> float:
    # Once untimed: the other's threads go on looking for work for a while, on the same cores.
    engine.infer(photos_NHWC)
    started = time.perf_counter()
    engine.infer(photos_NHWC)
    return time.perf_counter() - started


def rtx_layers(path: Path) -> int | None:
    """Layers of the network as TensorRT-RTX parses it; None where it is not installed."""
    if not ENGINES["tensorrt-rtx"].installed():
        return None
    from export.plan import library_for, parsed
    from runtime.engines.trt import kept_log
    from runtime.plans import RTX_TARGETS

    trt = library_for(ENGINES["tensorrt-rtx"].package, RTX_TARGETS[-1])
    logger = kept_log(trt, [])
    return int(parsed(trt, trt.Builder(logger), logger, path).num_layers)


def _photos(page: Checkpoint, count: int) -> np.ndarray:
    import numpy as np

    paths = inputs.find([ROOT / "examples" / "photos"])[:count]
    return np.stack([images.fit(images.decode(path), page.preprocess) for path in paths])


if __name__ == "__main__":
    raise SystemExit(main())

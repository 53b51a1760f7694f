"""The artifacts of one checkpoint: each made, named by its content, and judged."""

# N photos, L attributes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from export import engine, graph, parity, precision
from runtime import images
from runtime.bundle import Artifact, sha256_of
from runtime.engines import ENGINES
from runtime.engines.cuda import why_no_gpu
from train import data

if TYPE_CHECKING:
    import onnx

    from train.checkpoint import Checkpoint
    from train.network import FacetModel
    from train.table import Table

Precision = Literal["fp32", "fp16", "int8"]
TOOLS: dict[Precision, tuple[str, ...]] = {
    "fp32": ("torch", "onnx"),
    "fp16": ("torch", "onnx"),
    "int8": ("torch", "onnx", "nncf"),
}
GRAPH_ENGINES = ("onnxruntime", "openvino")
TORCH_BATCH = 16


class Job(NamedTuple):
    """One artifact to make: a graph where `library` is empty, else a plan."""

    precision: Precision
    library: str = ""
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Photos:
    """What an export needs of the data."""

    table: Table
    calibration_NHWC: np.ndarray
    evidence: parity.Evidence
    gate_rows: np.ndarray
    """Of the table, one for each photo of the evidence."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An artifact and where its file lies until it is committed to the bundle."""

    artifact: Artifact
    path: Path

    @property
    def refused(self) -> bool:
        """No engine may serve it: it stays out of the bundle."""
        states = {verdict.state for verdict in self.artifact.verdicts}
        return "refused" in states and "passed" not in states


def gather(model: FacetModel, page: Checkpoint, folder: Path, *, calibration: int, gate: int) -> Photos:
    """Photos of the training split to calibrate on, and of the validation split to judge by, of every category."""
    table = data.read_for(folder, page.categories, trained=page.splits, seed=int(page.provenance.get("seed", 0)))

    def load(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept, pixels = [], []
        for row in rows:
            try:
                pixels.append(images.fit(images.decode(table.paths[row]), page.preprocess))
                kept.append(row)
            except images.PhotoError:
                continue
        data.refuse_unreadable([table.paths[row] for row in set(rows) - set(kept)], len(rows))
        return np.array(kept), np.stack(pixels)

    gate_rows, photos_NHWC = load(_spread(table.rows("val"), table.kinds_N, gate))
    return Photos(
        table=table,
        calibration_NHWC=load(_spread(table.rows("train"), table.kinds_N, calibration))[1],
        evidence=parity.Evidence(
            categories=page.categories,
            photos_NHWC=photos_NHWC,
            labels_NL=table.labels_NL[gate_rows],
            reference=reference(model, page, photos_NHWC),
        ),
        gate_rows=gate_rows,
    )


def reference(model: FacetModel, page: Checkpoint, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
    """PyTorch's own answers to uint8 RGB photos, by output name; calibrated, as the graph's are."""
    import torch

    network = graph.served(model, page)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(photos_NHWC), TORCH_BATCH):
            batch = torch.from_numpy(photos_NHWC[start : start + TORCH_BATCH])
            parts.append([output.numpy() for output in network(batch)])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return dict(zip(graph.outputs(page), columns, strict=True))


def jobs(precisions: Sequence[Precision], targets: Sequence[str]) -> list[Job]:
    """The graphs asked for, then the plans: from the half graph where there is one, which is where GPUs are fast."""
    graphs = [Job(name) for name in dict.fromkeys(precisions)]
    sources = [name for name in dict.fromkeys(precisions) if name == "fp16" or "fp16" not in precisions]
    plans = [Job(name, "tensorrt-rtx", target) for name in sources for target in dict.fromkeys(targets)]
    if ENGINES["tensorrt"].installed() and not why_no_gpu():
        plans += [Job(name, "tensorrt") for name in sources]
    return graphs + plans


def make(model: FacetModel, page: Checkpoint, photos: Photos, wanted: Sequence[Job], scratch: Path) -> Iterator[Made]:
    """Make and judge each artifact, its file in `scratch`."""
    import onnx

    full = graph.graph(model, page)
    graphs: dict[str, Path] = {}
    refused: set[str] = set()
    for job in wanted:
        if job.library and job.precision in refused:
            continue  # what no engine here may serve is no source for a plan, which nothing here could judge
        stem = scratch / "-".join(filter(None, job))
        if job.library:
            path = stem.with_suffix(".plan")
            plan = engine.plan_from_onnx(
                graphs[job.precision],
                path,
                package=ENGINES[job.library].package,
                target=job.target or None,
                profile=engine.Profile(),
            )
            engines: tuple[str, ...] = (job.library,)
            built_with = {plan.library: plan.version}
        else:
            path = graphs[job.precision] = stem.with_suffix(".onnx")
            onnx.save(_at(job.precision, full, photos.calibration_NHWC), path)
            engines, built_with = GRAPH_ENGINES, {name: version(name) for name in TOOLS[job.precision]}
        sha256 = sha256_of(path)
        artifact = Artifact(
            file=".".join(filter(None, ("model", job.precision, job.target, sha256[:8], path.suffix[1:]))),
            sha256=sha256,
            bytes=path.stat().st_size,
            precision=job.precision,
            target=job.target,
            engines=engines,
            built_with=built_with,
            verdicts=tuple(
                parity.judge(path, job.precision, name, hint, photos.evidence)
                for name in engines
                for hint in parity.hints(name, job.precision)
            ),
        )
        made = Made(artifact=artifact, path=path)
        if made.refused:
            refused.add(job.precision)
        yield made


def _at(precision_: Precision, full: onnx.ModelProto, calibration_NHWC: np.ndarray) -> onnx.ModelProto:
    if precision_ == "fp16":
        return precision.to_fp16(full)
    if precision_ == "int8":
        return precision.to_int8(full, calibration_NHWC)
    return full


def _spread(rows: np.ndarray, kinds_N: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, as many of each category where it has them, and those evenly spaced."""
    groups = sorted((rows[kinds_N[rows] == kind] for kind in np.unique(kinds_N[rows])), key=len)
    chosen: list[np.ndarray] = []
    # The smallest first: what it lacks, the larger ones make up for.
    for index, group in enumerate(groups):
        share = min(len(group), (count - sum(map(len, chosen))) // (len(groups) - index))
        chosen.append(group[np.linspace(0, len(group) - 1, share).astype(int)])
    return np.sort(np.concatenate(chosen))

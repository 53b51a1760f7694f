"""The photos of an export: those that int8 is calibrated on, those that the gate judges by, PyTorch's own answers."""

# N photos, L attributes, H height, W width, C channels

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export import graph
from export.parity import Evidence
from export.ranges import PhotoSet
from runtime import images, inputs
from runtime.errors import UserError
from runtime.fidelity import batch_of
from runtime.headers import PhotoError
from runtime.terminal import note
from train import data
from train.config import MISSING

if TYPE_CHECKING:
    from runtime.bundle import Preprocess
    from train.checkpoint import Checkpoint
    from train.network import FacetModel
    from train.table import Table


@dataclass(frozen=True, kw_only=True)
class Photos:
    """What an export needs of the data."""

    table: Table
    calibration: PhotoSet
    evidence: Evidence
    gate_rows: np.ndarray
    """Of the table, one for each photo of the evidence."""


@dataclass(frozen=True)
class OnDisk:
    """Photos that are read each time they are asked for: any number of them takes the memory of one."""

    paths: Sequence[Path]
    spec: Preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (images.load(path, self.spec) for path in self.paths)


def gather(
    model: FacetModel, page: Checkpoint, folder: Path, *, calibration: int, gate: int, elsewhere: Path | None = None
) -> Photos:
    """Photos of the training split to calibrate on, and of the validation split to judge by, of every category.

    Args:
        elsewhere: a folder whose photos to calibrate on instead.
    """
    labelled = table(page, folder)

    def readable(rows: np.ndarray) -> np.ndarray:
        kept = np.array([row for row in rows if _is_readable(labelled.paths[row])], np.int64)
        data.refuse_unreadable([labelled.paths[row] for row in set(rows) - set(kept)], len(rows))
        return kept

    if elsewhere:
        to_calibrate = _photos_of(elsewhere, calibration)
    else:
        # In the order in which they were chosen: what takes only the first of them sees every category and class.
        to_calibrate = [labelled.paths[row] for row in readable(covering(labelled, "train", calibration))]
    gate_rows = np.sort(readable(covering(labelled, "val", gate)))
    photos_NHWC = np.stack(list(OnDisk([labelled.paths[row] for row in gate_rows], page.preprocess)))
    return Photos(
        table=labelled,
        calibration=OnDisk(to_calibrate, page.preprocess),
        evidence=Evidence(
            categories=page.categories,
            photos_NHWC=photos_NHWC,
            labels_NL=labelled.labels_NL[gate_rows],
            groups_N=labelled.groups[gate_rows],
            reference=reference(model, page, photos_NHWC),
        ),
        gate_rows=gate_rows,
    )


def table(page: Checkpoint, folder: Path) -> Table:
    """The labelled photos in `folder`, split as for the checkpoint's own training."""
    return data.read_for(folder, page.categories, trained=page.splits, seed=data.seed_of(page.provenance))


def reference(model: FacetModel, page: Checkpoint, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
    """PyTorch's own answers to uint8 RGB photos, by output name; calibrated, as the graph's are."""
    import torch

    network = graph.served(model, page)
    parts = []
    with torch.inference_mode():
        size = batch_of(*photos_NHWC.shape[1:3])
        for start in range(0, len(photos_NHWC), size):
            batch = torch.from_numpy(photos_NHWC[start : start + size])
            parts.append([output.numpy() for output in network(batch)])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return dict(zip(graph.outputs(page), columns, strict=True))


def covering(table: Table, split: str, count: int) -> np.ndarray:
    """At most `count` rows of a split that show every class that so many can show, and the first of them most.

    The classes take turns, the rarest first, each with its next row that is not taken; and each category's classes
    among those of the others, so that none is left without.
    """
    rows = table.rows(split)
    labels_NL = table.labels_NL[rows]
    members = [
        rows[labels_NL[:, attribute] == label]
        for attribute in range(labels_NL.shape[1])
        for label in np.unique(labels_NL[:, attribute])
        if label != MISSING
    ]
    taken: dict[int, None] = {}
    # Evenly spaced over a class: neighbours in a file are often alike.
    turns = [_apart(of_class) for of_class in sorted(members, key=len)]
    while turns and len(taken) < min(count, len(rows)):
        left = []
        for turn in turns:
            row = next((row for row in turn if row not in taken), None)
            if row is not None and len(taken) < count:
                taken[row] = None
                left.append(turn)
        turns = left
    return np.array(list(taken), dtype=np.int64)


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the paths, evenly spaced: neighbours are often alike."""
    count = min(count, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def _photos_of(folder: Path, count: int) -> list[Path]:
    """At most `count` photos of a folder, without those of them that cannot be read."""
    try:
        found = inputs.find([folder])
    except UserError as err:
        raise UserError(f"{str(err).splitlines()[0]}\nname a folder of photos with: --calibration DIR") from None
    whole = [path for path in found if images.has_header(path)]
    kept = [path for path in spread(whole, count) if _is_readable(path)]
    if not kept:
        raise UserError(f"no photo in {folder} can be read\nname a folder of photos with: --calibration DIR")
    if lost := len(found) - len(whole) + min(count, len(whole)) - len(kept):
        note(f"{lost} of {len(found)} files in {folder} cannot be read, and do not calibrate")
    return kept


def _is_readable(path: Path) -> bool:
    try:
        images.decode(path)
    except PhotoError:
        return False
    return True


def _apart(rows: np.ndarray) -> Iterator[int]:
    """All of them, each far from those before: the order of a bisection."""
    waiting = [(0, len(rows))]
    while waiting:
        start, end = waiting.pop(0)
        if start < end:
            middle = (start + end) // 2
            yield int(rows[middle])
            waiting += [(start, middle), (middle + 1, end)]

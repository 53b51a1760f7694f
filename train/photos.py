"""Rows of a table as batches of photos, decoded by workers on the runtime's own pixel path."""

# B batch, H height, W width, L attributes

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runtime import images
from runtime.bundle import Preprocess
from runtime.headers import PhotoError
from train.augment import augment
from train.config import MISSING, AugmentConfig
from train.table import Table

# Below this many photos a pass, starting worker processes costs more than they save.
WORTH_WORKERS = 64


class Item(NamedTuple):
    """One photo asked for."""

    row: int
    """Of the table, or an index into its target photos."""
    draw: int
    """Which random change it gets; the same draw of the same row is the same picture."""
    target: bool = False
    """Unlabelled on purpose: a photo of the target domain."""


class Batch(NamedTuple):
    """Photos together, those that could not be read left out."""

    images_BHWC: Tensor
    """uint8 RGB."""
    labels_BL: Tensor
    """int64, MISSING where there is none."""
    is_target_B: Tensor
    rows_B: Tensor
    unreadable: list[Path]


class Sample(NamedTuple):
    """One photo, before it is part of a batch; no image where it could not be read."""

    image_HWC: np.ndarray | None
    labels_L: np.ndarray
    item: Item
    path: Path


class Photos(Dataset[Sample]):
    """A table's photos at the model's size, changed at random where `config` says how."""

    def __init__(self, table: Table, spec: Preprocess, config: AugmentConfig | None, seed: int) -> None:
        # Not the table's paths: each worker would come to own a copy of all of them, since Python counts references
        # inside the objects that it shares with the trainer.
        self._paths = _packed(table.paths)
        self._targets = _packed(table.targets)
        self._labels_NL = table.labels_NL
        self._spec = spec
        self._config = config
        self._seed = seed

    def __getitem__(self, item: Item) -> Sample:
        if item.target:
            packed, labels_L = self._targets[item.row], np.full(self._labels_NL.shape[1], MISSING)
        else:
            packed, labels_L = self._paths[item.row], self._labels_NL[item.row]
        path = Path(os.fsdecode(packed))
        try:
            image_HWC = images.load(path, self._spec)
        except PhotoError:
            return Sample(None, labels_L, item, path)
        if self._config:
            rng = np.random.default_rng((self._seed, item.row, item.draw, item.target))
            image_HWC = augment(image_HWC, self._config, rng)
        return Sample(image_HWC, labels_L, item, path)


def batches(photos: Photos, groups: Iterable[list[Item]], *, total: int) -> Iterator[Batch]:
    """A batch for each group of items, in order; `total` photos decide whether workers are started."""
    # The processes of a training share the cores.
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    workers = max(1, min(8, cores)) if total >= WORTH_WORKERS else 0
    yield from loaded(photos, groups, workers)


def loaded(photos: Photos, groups: Iterable[list[Item]], workers: int) -> Iterator[Batch]:
    """A batch for each group of items, in order, from so many workers; from this process itself where it is 0."""
    loader = DataLoader(
        photos,
        batch_sampler=list(groups),
        collate_fn=_collate,
        num_workers=workers,
        worker_init_fn=_single_threaded,
        pin_memory=torch.cuda.is_available(),
    )
    # A collector writes into all that it looks at, and so ends the sharing with the workers, 120 MB at once where there
    # are 70,000 photos. What is there before they start, it leaves alone in all of them.
    gc.freeze()
    try:
        for images_BHWC, labels_BL, is_target_B, rows_B, unreadable in loader:
            labels, targets, rows = map(torch.from_numpy, (labels_BL, is_target_B, rows_B))
            yield Batch(images_BHWC, labels, targets, rows, unreadable)
    finally:
        gc.unfreeze()


def in_order(rows: np.ndarray, batch: int) -> list[list[Item]]:
    """Groups that go through the rows once, as they stand."""
    return [[Item(int(row), 0) for row in rows[start : start + batch]] for start in range(0, len(rows), batch)]


def blank(spec: Preprocess, attributes: int) -> Batch:
    """One black photo that counts nowhere, for a process whose share of a batch has none: all must take the step."""
    return Batch(
        torch.zeros(1, spec.height, spec.width, 3, dtype=torch.uint8),
        torch.full((1, attributes), MISSING),
        torch.tensor([False]),
        torch.tensor([-1]),
        [],
    )


def _packed(paths: Sequence[Path]) -> np.ndarray:
    """The paths as an array of bytes."""
    return np.array([os.fsencode(path) for path in paths], np.bytes_)


def _collate(samples: list[Sample]) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray, list[Path]]:
    """The fields of a Batch. Of a worker's tensors each is fetched over a connection of its own, which the worker
    answers between two photos: the small ones come as arrays, within the message itself."""
    readable = [(sample.image_HWC, sample) for sample in samples if sample.image_HWC is not None]
    unreadable = [sample.path for sample in samples if sample.image_HWC is None]
    if not readable:
        return torch.empty(0), np.empty(0), np.empty(0), np.empty(0), unreadable
    return (
        torch.from_numpy(np.stack([image_HWC for image_HWC, _ in readable])),
        np.stack([sample.labels_L for _, sample in readable]),
        np.array([sample.item.target for _, sample in readable]),
        np.array([sample.item.row for _, sample in readable]),
        unreadable,
    )


def _single_threaded(worker: int) -> None:
    # A worker is one thread among the trainer's: OpenCV's own pool in each would only contend.
    cv2.setNumThreads(0)

"""Rows of a table as batches of photos, decoded by workers on the runtime's own pixel path."""

# B batch, H height, W width, L attributes

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runtime import images
from runtime.bundle import Preprocess
from train.augment import augment
from train.config import MISSING, AugmentConfig
from train.data import Table

# Below this many photos a pass, starting worker processes costs more than they save.
WORTH_WORKERS = 64


class Item(NamedTuple):
    """One photo asked for."""

    row: int
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
    unreadable: list[Path]


class Photos(Dataset[tuple[np.ndarray | None, np.ndarray, bool, Path]]):
    """A table's photos at the model's size, changed at random where `config` says how."""

    def __init__(self, table: Table, spec: Preprocess, config: AugmentConfig | None, seed: int) -> None:
        self._table = table
        self._spec = spec
        self._config = config
        self._seed = seed

    def __getitem__(self, item: Item) -> tuple[np.ndarray | None, np.ndarray, bool, Path]:
        path = self._table.paths[item.row]
        labels = self._table.labels_NL[item.row]
        if item.target:
            labels = np.full_like(labels, MISSING)
        try:
            image = images.fit(images.decode(path), self._spec)
        except images.PhotoError:
            return None, labels, item.target, path
        if self._config:
            rng = np.random.default_rng((self._seed, item.row, item.draw, item.target))
            image = augment(image, self._config, rng)
        return image, labels, item.target, path


def batches(photos: Photos, groups: Iterable[list[Item]], *, total: int) -> Iterator[Batch]:
    """A batch for each group of items, in order; `total` photos decide whether workers are started."""
    workers = min(8, os.cpu_count() or 1) if total >= WORTH_WORKERS else 0
    loader = DataLoader(
        photos,
        batch_sampler=list(groups),
        collate_fn=_collate,
        num_workers=workers,
        worker_init_fn=_single_threaded,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader


def in_order(rows: np.ndarray, batch: int) -> list[list[Item]]:
    """Groups that go through the rows once, as they stand."""
    return [[Item(int(row), 0) for row in rows[start : start + batch]] for start in range(0, len(rows), batch)]


def _collate(samples: list[tuple[np.ndarray | None, np.ndarray, bool, Path]]) -> Batch:
    readable = [(image, labels, target) for image, labels, target, _ in samples if image is not None]
    unreadable = [path for image, _, _, path in samples if image is None]
    if not readable:
        return Batch(torch.empty(0), torch.empty(0), torch.empty(0), unreadable)
    photos, labels, targets = zip(*readable, strict=True)
    return Batch(
        torch.from_numpy(np.stack(photos)), torch.from_numpy(np.stack(labels)), torch.tensor(targets), unreadable
    )


def _single_threaded(worker: int) -> None:
    # A worker is one thread among the trainer's: OpenCV's own pool in each would only contend.
    cv2.setNumThreads(0)

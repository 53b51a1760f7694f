"""One training in the making: its model, its photos by the batch, and how good it is so far."""

# B batch, N rows, K classes, L attributes

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from runtime import images
from runtime.bundle import Preprocess
from runtime.errors import UserError
from runtime.terminal import Bar
from train import data, metrics, processes
from train.config import MISSING, PHASES, PhaseConfig, Preset
from train.curves import Epoch
from train.metrics import Score
from train.network import FacetModel, normalise
from train.photos import Batch, Item, Photos, batches, in_order
from train.table import Table

VALIDATION_BATCH = 32


@dataclass(kw_only=True)
class Run:
    """What both phases share."""

    model: FacetModel
    table: Table
    spec: Preprocess
    preset: Preset
    seed: int
    max_steps: int | None
    """Of each phase."""
    phase: int | None = None
    """The one phase that is trained; None for both."""
    device: torch.device
    compiled: bool = False
    """Forward and backward passes of phase 1 through torch.compile."""
    bar: Bar = field(default_factory=Bar)
    """Shows the steps taken, and what goes on between them."""
    unreadable: set[Path] = field(default_factory=set)
    history: list[Epoch] = field(default_factory=list)
    resumed_s: float = 0.0
    """Spent before an interruption."""
    done_before: bool = False
    """This very training was finished when it was asked for."""
    untrained: bool = False
    """The time did not hold one step, and nothing was written."""

    def rows(self, phase: PhaseConfig) -> np.ndarray:
        """The rows that a phase trains on."""
        return training_rows(self.table, phase)

    def epochs(self, phase: PhaseConfig) -> int:
        """How often the training rows are gone through."""
        return math.ceil(self.steps(phase) / self.steps_per_epoch(phase))

    def steps(self, phase: PhaseConfig) -> int:
        """How many optimiser steps that makes."""
        epochs = max(phase.epochs, math.ceil(phase.min_steps / self.steps_per_epoch(phase)))
        steps = epochs * self.steps_per_epoch(phase)
        return min(steps, self.max_steps or steps)

    def steps_per_epoch(self, phase: PhaseConfig) -> int:
        """How many of them go through the training rows once."""
        return math.ceil(len(self.rows(phase)) / phase.batch)

    def training_steps(self, phase: PhaseConfig, epoch: int, *, number: int = 1) -> Iterator[list[Batch]]:
        """One epoch of the phase of that number: for each optimiser step this process's passes, shuffled training
        photos among the phase's share of unlabelled photos of the target domain."""
        # Neither the order nor the random changes of one phase come again in the other.
        draw = len(PHASES) * epoch + number - 1
        rng = np.random.default_rng((self.seed, draw))
        rows = rng.permutation(self.rows(phase))
        targets = len(self.table.targets) if phase.mmd_weight else 0
        parts = phase.passes * processes.world()
        groups: list[list[Item]] = []
        left = self.steps(phase) - epoch * self.steps_per_epoch(phase)
        for start in range(0, len(rows), phase.batch)[:left]:
            items = [Item(int(row), draw) for row in rows[start : start + phase.batch]]
            drawn = rng.choice(targets, min(phase.target_batch, targets), replace=False)
            unlabelled = [Item(int(index), draw, target=True) for index in drawn]
            # Both kinds are dealt out alike: each pass compares the two domains. And a pass holds the same photos in
            # several processes together as in one alone.
            begin = processes.rank() * phase.passes
            mine = range(begin, begin + phase.passes)
            groups += [items[part::parts] + unlabelled[part::parts] for part in mine]
        photos = Photos(self.table, self.spec, self.preset.augment, self.seed)
        found = self._watched(batches(photos, groups, total=len(rows)))
        for first in found:
            yield [first, *(next(found) for _ in range(phase.passes - 1))]

    def plain_batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """Batches of unchanged photos, in the order of the rows."""
        photos = Photos(self.table, self.spec, None, self.seed)
        yield from self._watched(batches(photos, in_order(rows, VALIDATION_BATCH), total=len(rows)))

    def inputs(self, batch: Batch) -> Tensor:
        """The network's input for a batch, on its device, [B, 3, H, W]."""
        return normalise(batch.images_BHWC.to(self.device, non_blocking=True), self.preset.model)

    @property
    def half(self) -> torch.dtype | None:
        """The type of the forward pass on a GPU: bfloat16, float16 before Ampere; None on a CPU, where it is slower."""
        if self.device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16

    def autocast(self) -> AbstractContextManager[object]:
        """Around a forward pass."""
        return torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None)

    def answers(
        self, model: FacetModel, split: str = "val", *, most: int | None = None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The model's probabilities, an [N, K] an attribute, for the readable photos of a split, and their rows.

        Args:
            most: answer for no more photos than that, which the seed draws.
        """
        rows = self.table.rows(split)
        if most is not None and most < len(rows):
            rows = np.sort(np.random.default_rng(self.seed).choice(rows, most, replace=False))
        rows = rows[processes.rank() :: processes.world()]
        model.eval()
        answers, seen = [], []
        with torch.inference_mode(), self.autocast():
            for batch in self.plain_batches(rows):
                if len(batch.images_BHWC):
                    logits = model(self.inputs(batch)).logits
                    answers.append([logits_BK.float().softmax(1).cpu().numpy() for logits_BK in logits])
                    seen.append(batch.rows_B.numpy())
        shares = processes.everyone((answers, seen, self.unreadable))
        self._lose(*(paths for _, _, paths in shares))
        parts = [part for answers, _, _ in shares for part in answers]
        if not parts:
            raise UserError(f"no photo of {self.table.name!r} in split {split!r} can be read\nmove rows to that split")
        rows = np.concatenate([part for _, seen, _ in shares for part in seen])
        order = rows.argsort()
        return [np.concatenate(column)[order] for column in zip(*parts, strict=True)], rows[order]

    def evaluate(self, model: FacetModel, *, most: int | None = None) -> list[Score]:
        """The model's scores on the validation photos, or on so many of them."""
        probabilities, rows = self.answers(model, most=most)
        return metrics.scores(self.table.categories, probabilities, self.table.labels_NL[rows], self.table.commonest())

    def class_counts(self, phase: PhaseConfig) -> list[Tensor]:
        """For each attribute, how many labels of each class the phase trains on, float [K]."""
        labels_NL = self.table.labels_NL[self.rows(phase)]
        return [
            torch.from_numpy(np.bincount(column[column != MISSING], minlength=len(attribute.classes))).float()
            for attribute, column in zip(self.table.attributes, labels_NL.T, strict=True)
        ]

    def _watched(self, found: Iterator[Batch]) -> Iterator[Batch]:
        for batch in found:
            self._lose(batch.unreadable)
            yield batch

    def _lose(self, *unreadable: Iterable[Path]) -> None:
        known = len(self.unreadable)
        self.unreadable.update(*unreadable)
        if len(self.unreadable) > known:
            # One that is both, as all target photos are by default, counts among the labelled alone.
            if len(self.unreadable) > data.MAX_LOST * len(self.table.paths):
                # Enough to stop: all that show it by their headers are named at once, not a few a time.
                self.unreadable.update(path for path in self.table.paths if not images.has_header(path))
            targets = self.unreadable.difference(self.table.paths)
            data.refuse_unreadable(sorted(self.unreadable - targets), len(self.table.paths))
            data.refuse_lost_targets(sorted(targets), len(self.table.targets), "unreadable")


def training_rows(table: Table, phase: PhaseConfig) -> np.ndarray:
    """The rows that a phase trains on; UserError where there are none."""
    rows = table.rows("train", complete=phase.complete_rows)
    if not len(rows):
        raise UserError(
            f"no training row of {table.name!r} has every label, and the preset trains on no others\n"
            "take one that masks missing labels: --preset default"
        )
    return rows

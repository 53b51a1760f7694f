"""How a training went, epoch by epoch: in a checkpoint's page, and as TensorBoard's event files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from train.metrics import Score, mean_hm

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
    from typing_extensions import Self

FOLDER = "tensorboard"
"""Beside a checkpoint's page; `tensorboard --logdir checkpoints` shows every training in there."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch of a phase gave."""

    phase: int
    epoch: int
    """Counted from 1; 0 is the state a phase starts from."""
    steps: int
    """Optimiser steps taken in this phase so far."""
    seconds: float
    """Spent in this phase so far, evaluation included."""
    loss: float
    """Mean of the training loss over the epoch's steps; NaN is never written, 0.0 stands where no step was taken."""
    mmd: float
    """Mean of the MMD term over the epoch's steps, unweighted; 0.0 where there is none."""
    rate: float
    """Learning rate of the heads at the end of the epoch."""
    scores: tuple[Score, ...]
    """On the validation split."""


class EventFiles:
    """Event files under `folder`, a run for each phase; enter it with `with`, then `add` every epoch as it ends.

    A phase that starts anew takes the place of the one whose curves are there; one that goes on from a later epoch
    is appended to them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, SummaryWriter] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def add(self, epoch: Epoch) -> None:
        """Append an epoch's scalars, its number as their step; they can be seen at once."""
        writer = self._writer(epoch)
        scalars = {"mean HM": mean_hm(epoch.scores)} if epoch.scores else {}
        if epoch.steps:
            scalars |= {"loss": epoch.loss, "rate": epoch.rate} | ({"mmd": epoch.mmd} if epoch.mmd else {})
        several = len({score.category for score in epoch.scores}) > 1
        for score in epoch.scores:
            name = f"{score.category}/{score.attribute}" if several else score.attribute
            scalars |= {f"HM/{name}": score.hm, f"accuracy/{name}": score.accuracy, f"val loss/{name}": score.loss}
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, epoch.epoch)
        writer.flush()

    def _writer(self, epoch: Epoch) -> SummaryWriter:
        if epoch.phase not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            run = self._folder / f"phase{epoch.phase}"
            if epoch.epoch <= 1:
                shutil.rmtree(run, ignore_errors=True)
            self._writers[epoch.phase] = SummaryWriter(str(run))
        return self._writers[epoch.phase]

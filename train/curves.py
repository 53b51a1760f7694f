"""How a training went, epoch by epoch: in a checkpoint's page, and as TensorBoard's event files."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

from runtime.errors import UserError
from train.metrics import Score, mean_hm

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
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
    """The largest learning rate of any parameter, at the end of the epoch."""
    scores: tuple[Score, ...]
    """On the validation split."""


class EventFiles:
    """Event files under `folder`, a run for each phase; enter it with `with`, then `add` every epoch as it ends.

    A phase that starts anew takes the place of the one whose curves are there; one that goes on from a later epoch
    is appended to them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, IO[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with suppress(OSError):  # `add` told what could not be written
                file.close()
        self._files.clear()

    def add(self, epoch: Epoch) -> None:
        """Append an epoch's scalars, its number as their step; they can be seen at once."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = {"mean HM": mean_hm(epoch.scores)} if epoch.scores else {}
        if epoch.steps:
            scalars |= {"loss": epoch.loss, "rate": epoch.rate} | ({"mmd": epoch.mmd} if epoch.mmd else {})
        several = len({score.category for score in epoch.scores}) > 1
        for score in epoch.scores:
            name = f"{score.category}/{score.attribute}" if several else score.attribute
            scalars |= {f"HM/{name}": score.hm, f"accuracy/{name}": score.accuracy, f"val loss/{name}": score.loss}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        try:
            if epoch.phase not in self._files:
                self._files[epoch.phase] = self._begun(epoch)
                _append(self._files[epoch.phase], Event(wall_time=time.time(), file_version="brain.Event:2"))
            _append(
                self._files[epoch.phase],
                Event(wall_time=time.time(), step=epoch.epoch, summary=Summary(value=values)),
            )
        except OSError as err:
            raise UserError(
                f"cannot write the learning curves in {self._folder}: {err.strerror}\n"
                "put that right, then go on with: --resume"
            ) from err

    def _begun(self, epoch: Epoch) -> IO[bytes]:
        run = self._folder / f"phase{epoch.phase}"
        if epoch.epoch <= 1:
            shutil.rmtree(run, ignore_errors=True)
        run.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a run's files in the order of their names.
        return (run / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}").open("xb")


def _append(file: IO[bytes], event: Event) -> None:
    # Not by torch's SummaryWriter: on a full disk its thread prints a traceback, and its end raises a second error.
    from tensorboard.summary.writer.record_writer import RecordWriter

    RecordWriter(file).write(event.SerializeToString())
    file.flush()

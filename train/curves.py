"""How a training went, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from train.metrics import Score


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

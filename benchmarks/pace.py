"""How fast a recipe trains on this machine when it is idle, and how much of its plan fits into a given time.

A study is to give every recipe the same time, on a machine that may be busy with other work while the study runs. So
each recipe's pace is measured once, on an idle machine, and turned into a number of epochs: these then take what they
take, and their result is the one of an idle machine.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass, replace

import torch

from runtime.bundle import Preprocess
from runtime.terminal import Bar
from train import memory, network, phases
from train.config import PhaseConfig, Preset
from train.run import Run
from train.table import Table

# Steps taken for a measurement, and how many of them warm up first.
STEPS, WARMUP = 16, 4
# Phase 2 may take so much of the time, where its whole plan would take more.
PHASE_2_AT_MOST = 0.3


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds a photo, on an idle machine."""

    phase1_s: float
    """In a step of phase 1, with its share of what a step costs beside."""
    phase2_s: float
    evaluation_s: float


def measure(table: Table, preset: Preset) -> Pace:
    """The pace of a recipe on a table; takes about two minutes of an idle machine."""
    # As training has it: else the first recipe measured in a process would pay for what the next ones get free.
    memory.keep_freed()

    def step_s(number: int, phase: PhaseConfig) -> float:
        moments: list[float] = []
        run = _run(table, preset)
        run.bar = Bar(lambda amount, state: moments.append(time.monotonic()) if amount else None)
        phases.train(run, number)
        steps = [after - before for before, after in itertools.pairwise(moments[WARMUP:])]
        return statistics.median(steps) / phase.batch

    run = _run(table, preset)
    # The first also reads the photos from the disk and starts what a process starts once.
    evaluations_s = []
    for _ in range(2):
        started = time.monotonic()
        run.evaluate(run.model)
        evaluations_s.append(time.monotonic() - started)
    return Pace(
        phase1_s=step_s(1, preset.phase1),
        phase2_s=step_s(2, preset.phase2),
        evaluation_s=min(evaluations_s) / len(table.rows("val")),
    )


def fitted(
    table: Table, preset: Preset, pace: Pace, seconds: float, *, alone: int | None = None
) -> tuple[Preset, float]:
    """The preset with as many whole epochs of its plan as the time holds, and the seconds they take.

    Args:
        alone: the one phase to run; both by default.
    """
    evaluation_s = pace.evaluation_s * len(table.rows("val"))

    def photos(phase: PhaseConfig) -> int:
        return len(table.rows("train", complete=phase.complete_rows))

    def epoch_s(phase: PhaseConfig, photo_s: float) -> float:
        return photo_s * photos(phase) + evaluation_s

    def planned(phase: PhaseConfig) -> int:
        return max(phase.epochs, -(-phase.min_steps * phase.batch // photos(phase)))

    # Each phase evaluates its start, phase 1 after counting the photos' statistics; calibration evaluates the end.
    looked_at = min(phases.BATCHNORM_PHOTOS, photos(preset.phase1))
    fixed_s = (3 if alone is None else 2) * evaluation_s + pace.evaluation_s * looked_at
    second_s = epoch_s(preset.phase2, pace.phase2_s)
    second = max(1, min(planned(preset.phase2), int(PHASE_2_AT_MOST * (seconds - fixed_s) / second_s)))
    if alone == 1:
        second = 0
    first_s = epoch_s(preset.phase1, pace.phase1_s)
    left_s = seconds - fixed_s - second * second_s
    first = max(1, min(planned(preset.phase1), int(left_s / first_s)))
    made = replace(
        preset,
        phase1=replace(preset.phase1, epochs=first, min_steps=0),
        phase2=replace(preset.phase2, epochs=max(1, second), min_steps=0),
    )
    return made, fixed_s + first * first_s + second * second_s


def _run(table: Table, preset: Preset) -> Run:
    config = preset.model
    torch.manual_seed(0)
    model = network.create(config, [len(attribute.classes) for attribute in table.attributes], preset.weights)
    return Run(
        model=model.to(memory_format=torch.channels_last),
        table=table,
        spec=Preprocess(height=config.size, width=config.size, mean=config.mean, std=config.std),
        preset=preset,
        seed=0,
        max_steps=STEPS,
        device=torch.device("cpu"),
    )

"""One training from its table to its checkpoint: phase after phase, interrupted and gone on with, calibrated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from runtime.bundle import Category, Preprocess
from runtime.errors import UserError
from runtime.terminal import note, progress
from train import calibrate, checkpoint, metrics, network, phases, processes, resume
from train.calibrate import Calibration
from train.clock import Clock
from train.config import PhaseConfig, Preset
from train.curves import FOLDER, EventFiles
from train.metrics import Score
from train.network import FacetModel
from train.phases import State
from train.run import Run
from train.table import Table

# What a photo of phase 2 costs beside one of phase 1, which goes backward through the backbone too.
PHASE_2_COST = 0.35
# For writing the last files.
WRITING_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a training is run, which is no part of what it computes."""

    folder: Path
    data: str
    phase: int | None = None
    """The one phase to run; both by default."""
    max_steps: int | None = None
    seed: int = 0
    resume: bool = False
    compiled: bool = False
    quiet: bool = False


def train(
    table: Table,
    preset: Preset,
    options: Options,
    device: torch.device,
    *,
    limit_s: float | None = None,
) -> Run:
    """Train on the table, or go on with it, and leave its checkpoint in the folder.

    Args:
        limit_s: for all of it, evaluation and writing included; None for no limit.
    """
    torch.manual_seed(options.seed)
    run = Run(
        model=_start(table, preset, options).to(device).to(memory_format=torch.channels_last),
        table=table,
        spec=Preprocess(
            height=preset.model.size, width=preset.model.size, mean=preset.model.mean, std=preset.model.std
        ),
        preset=preset,
        seed=options.seed,
        max_steps=options.max_steps,
        device=device,
        compiled=options.compiled,
    )
    saved = resume.read(options.folder, run) if options.resume else None
    if options.resume and not saved and _is_finished(options.folder, run):
        note(f"{table.name} is trained already: {options.folder}", quiet=options.quiet)
        return run
    ends = None if limit_s is None else time.monotonic() + limit_s - WRITING_S
    numbers = [options.phase] if options.phase else [1, 2]
    found: list[Score] = []
    with EventFiles(options.folder / FOLDER) as files:
        for number in numbers:
            if saved and number < saved.progress.phase:
                continue
            later = [work(run.table, preset, other, options.max_steps) for other in numbers if other >= number]
            clock = Clock(None if ends is None else (ends - time.monotonic()) * later[0] / sum(later))
            with progress(
                f"{table.name}, phase {number}", run.steps(phase_of(preset, number)), quiet=options.quiet
            ) as bar:
                run.advance = bar
                found = phases.train(
                    run, number, clock=clock, saved=saved, keep=lambda state: _keep(state, options, files)
                )
            saved = None
    _finish(run, found, options)
    return run


def phase_of(preset: Preset, number: int) -> PhaseConfig:
    """The configuration of a phase."""
    return preset.phase1 if number == 1 else preset.phase2


def work(table: Table, preset: Preset, number: int, max_steps: int | None) -> float:
    """What a phase costs, in photos of phase 1: time is shared out by it."""
    phase = phase_of(preset, number)
    rows = len(table.rows("train", complete=phase.complete_rows))
    photos = min(max(phase.epochs * rows, phase.min_steps * phase.batch), (max_steps or 1 << 40) * phase.batch)
    return photos * (1.0 if number == 1 else PHASE_2_COST)


def _start(table: Table, preset: Preset, options: Options) -> FacetModel:
    if options.phase != 2 or (options.resume and (options.folder / resume.FILE).exists()):
        return network.create(preset.model, [len(attribute.classes) for attribute in table.attributes], preset.weights)
    model, page = checkpoint.load(options.folder)
    if calibrate.with_offsets(page.categories, {}) != table.categories:
        raise UserError(
            f"the checkpoint in {options.folder} was trained on another taxonomy\ntrain it anew without --phase 2"
        )
    if page.preset.model != preset.model:
        raise UserError(f"the checkpoint in {options.folder} is another model\nname its preset with: --preset")
    return model


def _is_finished(folder: Path, run: Run) -> bool:
    if not (folder / checkpoint.PAGE).is_file():
        return False
    return checkpoint.read(folder).provenance.get("training") == resume.digest(run)


def _keep(state: State, options: Options, files: EventFiles) -> None:
    """After an epoch: the best so far as a checkpoint, and all that is needed to go on."""
    if processes.rank():
        return
    try:
        resume.write(options.folder, state.saved())
    except OSError as err:
        raise checkpoint.unwritable(options.folder, err) from err
    page = _page(state.run, state.run.table.categories, state.best.scores, options)
    checkpoint.save(options.folder, state.best.state(), page)
    files.add(state.run.history[-1])


def _finish(run: Run, found: Sequence[Score], options: Options) -> None:
    """Calibrate on validation what the phases left, and write the checkpoint that is served."""
    probabilities, rows = run.answers(run.model)
    labels_NL = run.table.labels_NL[rows]
    fitted = calibrate.fit(run.table.categories, probabilities, labels_NL, run.table.groups[rows], seed=options.seed)
    categories = calibrate.with_offsets(run.table.categories, fitted.offsets)
    tempered = [
        calibrate.tempered(probabilities_NK, fitted.temperatures.get(attribute.output, 1.0))
        for probabilities_NK, attribute in zip(probabilities, run.table.attributes, strict=True)
    ]
    scores = metrics.scores(categories, tempered, labels_NL, run.table.commonest())
    if processes.rank() == 0:
        page = _page(run, categories, scores, options, fitted)
        checkpoint.save(options.folder, run.model.state_dict(), page)
        resume.remove(options.folder)


def _page(
    run: Run,
    categories: Sequence[Category],
    scores: Sequence[Score],
    options: Options,
    fitted: Calibration | None = None,
) -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(
        slug=options.folder.name,
        categories=tuple(categories),
        preprocess=run.spec,
        routes=run.table.routes,
        preset=run.preset,
        metrics=tuple(scores),
        temperatures=fitted.temperatures if fitted else {},
        gains=fitted.gains if fitted else (),
        history=tuple(run.history),
        splits=run.table.split_ids(),
        provenance={
            "data": options.data,
            "photos": str(len(run.table.rows("train"))),
            "seed": str(options.seed),
            "training": resume.digest(run),
            **{package: version(package) for package in ("torch", "timm")},
        },
    )

"""One training from its table to its checkpoint: phase after phase, interrupted and gone on with, calibrated."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from runtime.bundle import Category, Preprocess, Resize
from runtime.errors import UserError
from runtime.terminal import note, progress
from train import calibrate, checkpoint, metrics, network, phases, processes, resume
from train.calibrate import Calibration
from train.checkpoint import Checkpoint
from train.clock import Clock
from train.config import MISSING, PHASES, PhaseConfig, Preset
from train.curves import FOLDER, Epoch, EventFiles
from train.metrics import Score
from train.network import FacetModel
from train.optimise import NoNumberError
from train.phases import State
from train.resume import Saved
from train.run import Run
from train.table import Table

# What a photo of phase 2 costs beside one of phase 1, which goes backward through the backbone too.
PHASE_2_COST = 0.35
# What comes after the last evaluation: fitting the calibration, 1e-4 s a label here, and writing the last files.
CALIBRATING_S_PER_LABEL = 2e-4
WRITING_S = 2.0
# In a page's provenance, where time ran out.
CUT = "cut short"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a training is run, which is no part of what it computes."""

    folder: Path
    data: str
    phase: int | None = None
    """The one phase to run; both by default."""
    max_steps: int | None = None
    seed: int = 0
    resize: Resize = "squash"
    """How photos get the network's size, in training and ever after."""
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
        limit_s: for all of it: evaluation, writing, and what was spent before an interruption. None for no limit.
    """
    with checkpoint.held(options.folder) if processes.rank() == 0 else nullcontext():
        ends = None if limit_s is None else time.monotonic() + limit_s - ending_s(table)
        run = _begun(table, preset, options, device)
        saved = resume.read(options.folder, run) if options.resume else None
        page = _finished(options.folder, run, limited=ends is not None) if options.resume and not saved else None
        before = saved.progress.history if saved else page.history if page else ()
        run.resumed_s = sum(
            {epoch.phase: epoch.seconds for epoch in before if epoch.phase in phases_of(options.phase)}.values()
        )
        if page:
            run.done_before = True
            note(f"{table.name} is trained already: {options.folder}", quiet=options.quiet)
            return run
        if options.resume and not saved:
            note(f"nothing to go on from in {options.folder}: from the beginning", quiet=processes.rank() > 0)
        try:
            _go_through_phases(run, options, saved, None if ends is None else ends - run.resumed_s)
            if not any(epoch.steps for epoch in run.history if epoch.phase in phases_of(options.phase)):
                run.untrained = True
                return run
            with progress(f"{table.name}, calibration", 1, quiet=options.quiet) as bar:
                _finish(run, options)
                bar(1)
        except KeyboardInterrupt:
            if (options.folder / resume.FILE).exists():
                note(f"{options.folder} holds the last whole epoch: go on with --resume", quiet=options.quiet)
            else:
                note(
                    f"no epoch of {table.name} was done yet: nothing of it is kept; --resume leaves what is finished",
                    quiet=options.quiet,
                )
            raise
        except NoNumberError as err:
            if not (options.folder / resume.FILE).exists():
                raise
            said, *advice = str(err).splitlines()
            begin = f"begin anew: rm {shlex.quote(str(options.folder / resume.FILE))}"
            raise UserError("\n".join([said, begin, *advice])) from err
        except RuntimeError as err:
            if why := _too_little(err):
                raise UserError(why) from None
            raise
        return run


def _too_little(err: RuntimeError) -> str:
    """What to type where a training ended for want of memory; empty where it did for another reason."""
    said = str(err).splitlines()[0]
    if isinstance(err, torch.OutOfMemoryError) or "not enough memory" in said or "can't allocate memory" in said:
        return f"out of memory: {said}\ntake less with: --passes 2 (gradient accumulation), a smaller --batch or --size"
    if "DataLoader worker" in said:
        return f"a process that reads photos was ended: {said}\nit needs shared memory: in a container, --shm-size 1g"
    return ""


def phases_of(alone: int | None) -> Sequence[int]:
    """The numbers of the phases to run: the one that is named, or both."""
    return PHASES if alone is None else [alone]


def phase_of(preset: Preset, number: int) -> PhaseConfig:
    """The configuration of a phase."""
    return preset.phase1 if number == 1 else preset.phase2


def work(table: Table, preset: Preset, number: int, max_steps: int | None) -> float:
    """What a phase costs, in photos of phase 1: time is shared out by it."""
    phase = phase_of(preset, number)
    rows = len(table.rows("train", complete=phase.complete_rows))
    photos = min(max(phase.epochs * rows, phase.min_steps * phase.batch), (max_steps or 1 << 40) * phase.batch)
    return photos * (1.0 if number == 1 else PHASE_2_COST)


def ending_s(table: Table) -> float:
    """What comes after the last evaluation, in seconds."""
    return WRITING_S + CALIBRATING_S_PER_LABEL * int((table.labels_NL[table.rows("val")] != MISSING).sum())


def _begun(table: Table, preset: Preset, options: Options, device: torch.device) -> Run:
    torch.manual_seed(options.seed)
    model, history = _start(table, preset, options)
    return Run(
        model=model.to(device).to(memory_format=torch.channels_last),
        history=history,
        table=table,
        spec=Preprocess(
            height=preset.model.size,
            width=preset.model.size,
            resize=options.resize,
            mean=preset.model.mean,
            std=preset.model.std,
        ),
        preset=preset,
        seed=options.seed,
        max_steps=options.max_steps,
        phase=options.phase,
        device=device,
        compiled=options.compiled,
    )


def _go_through_phases(run: Run, options: Options, saved: Saved | None, ends: float | None) -> None:
    """Each phase in turn from where it was left, its share of the time that is left by the work that is left."""
    numbers = phases_of(options.phase)
    with EventFiles(options.folder / FOLDER) as files:
        # Anew: what was interrupted may have kept an epoch's state and not its point.
        for epoch in saved.progress.history if saved and processes.rank() == 0 else ():
            if epoch.epoch:
                files.add(epoch)
        for number in numbers:
            if saved and number < saved.progress.phase:
                continue
            phase = phase_of(run.preset, number)
            few = len(run.table.targets)
            if phase.mmd_weight and few < 2 * phase.passes:
                note(f"photos of the target domain: {few}, too few for an MMD term", quiet=options.quiet)
            to_do = [work(run.table, run.preset, other, options.max_steps) for other in numbers if other >= number]
            begun_s = saved.progress.history[-1].seconds if saved else 0.0
            clock = Clock()
            if ends is not None:
                left_s = ends - time.monotonic() + begun_s
                limit_s = left_s * to_do[0] / sum(to_do)
                clock = Clock(limit_s, after_s=left_s - limit_s)
            is_last = number == numbers[-1]
            # How many steps a limited time holds is not known.
            total = run.steps(phase) if ends is None else None
            with progress(f"{run.table.name}, phase {number}", total, quiet=options.quiet) as run.bar:
                phases.train(
                    run,
                    number,
                    clock=clock,
                    saved=saved,
                    keep=lambda state: _keep(state, options, files),
                    # The last one leaves time for the evaluation of what it leaves.
                    evaluations=2 if is_last else 1,
                    # Of the next phase the first look, its last, and that of what it leaves.
                    later=0 if is_last else 3,
                )
            if not run.history[-1].steps:
                note(
                    f"{run.table.name}, phase {number}: no time for one step, and nothing of it is written\n"
                    "give it more with: --max-hours",
                    quiet=processes.rank() > 0,
                )
            saved = None


def _start(table: Table, preset: Preset, options: Options) -> tuple[FacetModel, list[Epoch]]:
    """The model that training starts from, and how it was trained so far."""
    goes_on = options.resume and (options.folder / resume.FILE).exists()
    if options.phase != 2 or goes_on:
        classes = [len(attribute.classes) for attribute in table.attributes]
        return network.create(preset.model, classes, "none" if goes_on else preset.weights), []
    model, page = checkpoint.load(options.folder)
    if calibrate.with_offsets(page.categories, {}) != table.categories:
        raise UserError(
            f"the checkpoint in {options.folder} was trained on another taxonomy\ntrain it anew without --phase 2"
        )
    if page.preset.model != preset.model:
        raise UserError(
            f"the checkpoint in {options.folder} is another model\n"
            "name its preset with: --preset, and its --backbone and --size where they were given"
        )
    if page.preprocess.resize != options.resize:
        raise UserError(
            f"the checkpoint in {options.folder} takes photos by {page.preprocess.resize}\n"
            f"train on with: --resize {page.preprocess.resize}"
        )
    # Their scores would be of photos that phase 1 has learnt by heart. A page keeps ids alone, so that other photos
    # with the same ones look no different.
    if leaked := sorted({*page.splits.get("train", ())} & {*table.split_ids()["val"]}):
        raise UserError(
            f"{len(leaked)} validation rows, such as id {leaked[0]}, have ids that trained the checkpoint in "
            f"{options.folder}\n"
            f"if they are the same photos, take its split: --seed {page.provenance.get('seed', 'N')}, "
            "and the split column as it was, where train.csv has one\n"
            "if they are other photos, give them other ids and file names in train.csv and train_images/, "
            "or train anew without --phase 2"
        )
    return model, [epoch for epoch in page.history if epoch.phase == 1]


def _finished(folder: Path, run: Run, *, limited: bool) -> Checkpoint | None:
    """The page of this very training, if it is done; what a time limit cut short is not, where there is none now."""
    if not (folder / checkpoint.PAGE).is_file():
        return None
    page = checkpoint.read(folder)
    found = page.provenance.get("training")
    if found == resume.digest(run):
        return None if CUT in page.provenance and not limited else page
    # Phase 2 alone begins with what another training left there.
    if found and run.phase != 2:
        raise UserError(
            f"the training that is finished in {folder} was of other data or settings\n"
            "train it anew without --resume, or leave it and name the others with: --category"
        )
    return None


def _keep(state: State, options: Options, files: EventFiles) -> None:
    """After an epoch: the best so far as a checkpoint, and all that is needed to go on."""
    if processes.rank():
        return
    resume.write(options.folder, state.saved())
    page = _page(state.run, state.run.table.categories, state.best.scores, options)
    checkpoint.save(options.folder, state.best.state(), page)
    files.add(state.run.history[-1])


def _finish(run: Run, options: Options) -> None:
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


def _is_cut(run: Run) -> bool:
    """Whether a phase took fewer steps than it was to take."""
    taken = {epoch.phase: epoch.steps for epoch in run.history}
    return any(taken.get(number, 0) < run.steps(phase_of(run.preset, number)) for number in phases_of(run.phase))


def _page(
    run: Run,
    categories: Sequence[Category],
    scores: Sequence[Score],
    options: Options,
    fitted: Calibration | None = None,
) -> Checkpoint:
    return Checkpoint(
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
            **({"training": resume.digest(run)} if fitted else {}),
            **({CUT: "by --max-hours"} if fitted and _is_cut(run) else {}),
            **{package: version(package) for package in ("torch", "timm")},
        },
    )

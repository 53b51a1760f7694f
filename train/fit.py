"""Command: train a model for each category of a data folder, in two phases.

python -m train.fit --data examples/clothing
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from runtime import locks
from runtime.bundle import Resize, slug_of
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.terminal import note, positive, print_table
from train.config import PRESETS, Balance, PhaseConfig, Preset, preset

if TYPE_CHECKING:
    from train.run import Run
    from train.table import Table
    from train.training import Options


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.fit",
        description="Train a model for each category of a data folder: everything first, then the heads alone. "
        "On several GPUs: torchrun --nproc-per-node N -m train.fit …",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds train.csv and train_images/")
    parser.add_argument("--category", nargs="+", default=[], metavar="NAME", help="default: every one")
    together = parser.add_mutually_exclusive_group()
    together.add_argument("--joint", action="store_true", help="one backbone with the heads of every category")
    together.add_argument("--router", action="store_true", help="a model that tells the category itself")
    parser.add_argument("--preset", choices=list(PRESETS), default="default", help="default: %(default)s")
    parser.add_argument("--backbone", metavar="NAME", help="any timm model with a feature map (default: the preset's)")
    parser.add_argument("--weights", metavar="hub|none|FILE", help="where the backbone starts (default: the preset's)")
    parser.add_argument("--size", type=positive, metavar="PX", help="input height and width (default: the preset's)")
    parser.add_argument(
        "--resize",
        choices=get_args(Resize),
        default="squash",
        help="how photos get that size, here and when the model is served (default: %(default)s)",
    )
    parser.add_argument("--phase", type=int, choices=[1, 2], help="run one phase alone (default: both)")
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help="of phase 1 (default: the preset's, more where photos are few)"
    )
    parser.add_argument("--batch", type=positive, metavar="N", help="photos a step (default: the preset's)")
    parser.add_argument(
        "--passes",
        type=positive,
        metavar="N",
        help="gradient accumulation, a step in N parts: less memory, the same gradients but for the MMD term's, which "
        "compares the photos of one part",
    )
    parser.add_argument(
        "--rate",
        type=_above_0,
        default=1.0,
        metavar="FACTOR",
        help="multiplies every learning rate of the preset (default: %(default)s)",
    )
    parser.add_argument(
        "--balance",
        choices=get_args(Balance),
        help="for rare classes: weigh their labels more, or shift the loss's logits by each class's share "
        "(default: the preset's)",
    )
    parser.add_argument("--max-steps", type=positive, metavar="N", help="end each phase after N steps")
    parser.add_argument("--max-hours", type=_above_0, metavar="H", help="be done, evaluated and written, in that time")
    parser.add_argument(
        "--target-photos",
        type=Path,
        metavar="DIR|CSV",
        help="unlabelled photos like those to come: a folder, or a listing like the challenge's test.csv (id, "
        "Category), each category's own, in test_images/ beside it (default: those of the validation split)",
    )
    parser.add_argument("--compile", action="store_true", help="phase 1 through torch.compile: meant for GPUs")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted training stopped")
    parser.add_argument("--seed", type=_seed, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    args = parser().parse_args(argv)
    return exit_code(lambda: fit(args, started))


def fit(args: argparse.Namespace, started: float) -> int:
    from train import processes, training

    chosen = _chosen(args)
    tables = _tables(args, chosen)
    phases = training.phases_of(args.phase)
    work = [sum(training.work(each, chosen, number, args.max_steps) for number in phases) for each in tables]
    lost, resumed_s = 0, 0.0
    with processes.joined() as device:
        speaks = processes.rank() == 0
        for index, table in enumerate(tables):
            limit_s = None
            if args.max_hours is not None:
                left_s = 3600 * args.max_hours - (time.monotonic() - started) - resumed_s
                limit_s = left_s * work[index] / sum(work[index:])
            options = training.Options(
                folder=args.out / slug_of(table.name),
                # A folder's name need not be UTF-8, as a checkpoint's page is.
                data=os.fsencode(args.data).decode(errors="backslashreplace"),
                phase=args.phase,
                max_steps=args.max_steps,
                seed=args.seed,
                resize=args.resize,
                resume=args.resume,
                compiled=args.compile,
                quiet=args.quiet or not speaks,
            )
            run = training.train(table, chosen, options, device, limit_s=limit_s)
            resumed_s += run.resumed_s
            lost += len(table.absent) + len(run.unreadable) + run.untrained
            if speaks and not run.done_before and not run.untrained:
                _report(run, options)
    there = "" if args.out == Path("checkpoints") else f" --checkpoints {shlex.quote(str(args.out))}"
    note(f"make bundles of it with: python -m export.build{there}", quiet=args.quiet or not speaks)
    return PARTLY_DONE if lost else DONE


def _tables(args: argparse.Namespace, chosen: Preset) -> list[Table]:
    """What to train on, one after the other; whatever would stop one of them is found before the first begins."""
    from train import checkpoint, data, resume, table, targets, training
    from train.run import training_rows

    tables = data.read(args.data, names=args.category, seed=args.seed)
    if args.joint or args.router:
        tables = [table.joint(tables) if args.joint else table.router(tables)]
    if args.target_photos:
        tables = targets.given(tables, args.target_photos)
    for each in tables:
        folder = args.out / slug_of(each.name)
        checkpoint.check_writable(folder)
        unfinished = folder / resume.FILE
        if unfinished.exists() and not args.resume and not locks.is_held(folder):
            raise UserError(
                f"an unfinished training is in {folder}\ngo on with it: --resume, or start anew: rm {unfinished}"
            )
        for number in training.phases_of(args.phase):
            training_rows(each, training.phase_of(chosen, number))
    return tables


def _report(run: Run, options: Options) -> None:
    """Print what came of a training, and what was lost to it."""
    from train import calibrate, checkpoint, metrics

    table, page = run.table, checkpoint.read(options.folder)
    print_table(
        f"{table.name}: {len(table.rows('val'))} validation photos",
        metrics.COLUMNS,
        metrics.table(page.metrics),
        below=[metrics.LEGEND],
    )
    shifted = [attribute.output for attribute in page.attributes if any(attribute.offsets)]
    print_table(
        "calibration, measured on photos that it was not fitted to",
        calibrate.COLUMNS,
        calibrate.table(page.gains),
        below=[
            calibrate.LEGEND,
            f"temperatures kept, from {calibrate.MIN_LABELS} labels on: {len(page.temperatures)} of "
            f"{len(page.attributes)}; decision offsets kept, where they gain more than one standard error: "
            f"{', '.join(shifted) or 'none'}",
        ],
    )
    if metrics.mean_hm(page.metrics) <= metrics.mean_baseline_hm(page.metrics):
        note(f"{table.name} does no better than always the commonest class: train it longer, or on more photos")
    scored = {(score.category, score.attribute) for score in page.metrics}
    for category, attribute in (key for key in table.keys if key not in scored):
        note(f"{attribute} of {category} has no label in split val: it was trained, and is scored nowhere")
    left_out = dict.fromkeys(run.unreadable, "unreadable") | dict.fromkeys(table.absent, "not there")
    if left_out:
        photos = len({*table.paths, *table.targets, *table.absent})
        note(f"{len(left_out)} of {photos} photos were left out")
    for path, why in sorted(left_out.items()):
        note(f"left out, {why}: {path}")
    note(f"checkpoint: {options.folder}", quiet=options.quiet)


def _chosen(args: argparse.Namespace) -> Preset:
    """The preset, with what the options change of it."""
    from train.network import with_backbone

    chosen = preset(args.preset)
    if args.backbone:
        chosen = with_backbone(chosen, args.backbone)
    elif args.weights == "hub":
        # The hub's weights of the same network want the pixels that they were trained on, and its own padding.
        chosen = with_backbone(chosen, chosen.model.backbone)
    if args.weights:
        chosen = replace(chosen, weights=args.weights)
    try:
        model = replace(chosen.model, size=args.size or chosen.model.size)
        first, second = (_phase(phase, args) for phase in (chosen.phase1, chosen.phase2))
    except ValueError as err:
        raise UserError(f"{err}\ncheck --size, --batch, --passes and --rate") from None
    if args.epochs:
        # Exactly: a preset's least number of steps is for those who name no number.
        first = replace(first, epochs=args.epochs, min_steps=0)
    return replace(chosen, model=model, phase1=first, phase2=second)


def _phase(phase: PhaseConfig, args: argparse.Namespace) -> PhaseConfig:
    """A phase, with what the options change of it; ValueError where they do not go together."""
    # What an MMD term needs of target photos for so many passes: no option says it.
    needed = 2 * args.passes if args.passes and phase.mmd_weight else 0
    return replace(
        phase,
        batch=args.batch or phase.batch,
        passes=args.passes or phase.passes,
        balance=args.balance or phase.balance,
        target_batch=max(phase.target_batch, needed),
        backbone_lr=args.rate * phase.backbone_lr,
        heads_lr=args.rate * phase.heads_lr,
    )


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {(1 << 32) - 1}, got {text!r}")
    return int(text)


def _above_0(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


if __name__ == "__main__":
    raise SystemExit(main())

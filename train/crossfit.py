"""Command: let networks that did not learn from a training photo answer for it, so that audits may promise more.

What an audit promises rests on labelled photos that its network did not learn from: those of validation, which small
categories have a few dozen of. With this the training photos join them. They are dealt into folds, none of which
divides a group; for each a network is trained as the checkpoint was, on the other folds, and answers for it (Vovk:
Cross-conformal predictors, Annals of Mathematics and Artificial Intelligence 2015; Barber, Candès, Ramdas, Tibshirani:
Predictive inference with the jackknife+, Annals of Statistics 2021). Each learnt from fewer photos than the network
that serves, and finds right labels odd the more often: what is promised by them errs on the careful side.

python -m train.crossfit --data examples/clothing
"""

# N rows, L attributes, K classes

from __future__ import annotations

import argparse
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.terminal import count, note, print_table

if TYPE_CHECKING:
    import numpy as np
    import torch

    from train.checkpoint import Checkpoint
    from train.table import Table

FOLDER = "folds"
"""In the checkpoint's: a checkpoint for each fold, until all have answered."""
MOST_FOLDS = 20
NOWHERE = ""
"""The split of rows that are neither trained on nor asked for."""


class Answered(NamedTuple):
    """Of one fold."""

    rows_N: np.ndarray
    """Of the table, those whose photos could be read."""
    probabilities: dict[str, np.ndarray]
    """By output, [N, K]."""
    unreadable: set[Path]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.crossfit",
        description="For each checkpoint, answer every training photo by a network that learnt from the others alone: "
        "audits may then promise more, and of small categories anything at all. Takes as many trainings as folds.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what the checkpoints were trained on")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=Path("checkpoints"),
        metavar="DIR",
        help="a folder of them, or one (default: %(default)s)",
    )
    parser.add_argument("--folds", type=_folds, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: crossfit(args))


def crossfit(args: argparse.Namespace) -> int:
    from train import checkpoint, out_of_fold, processes

    work = []
    for folder in checkpoint.find(args.checkpoints).values():
        page = checkpoint.read(folder)
        if args.resume and out_of_fold.read(folder, page):
            note(f"{page.name} is done already: {folder / out_of_fold.FILE}", quiet=args.quiet)
        else:
            work.append((folder, page, _table(folder, page, args)))
    lost = 0
    with processes.joined() as device:
        for folder, page, table in work:
            lost += _answer(folder, page, table, device, args)
        speaks = processes.rank() == 0
    there = "" if args.checkpoints == Path("checkpoints") else f" --checkpoints {shlex.quote(str(args.checkpoints))}"
    note(f"keep it in bundles with: python -m export.build{there}", quiet=args.quiet or not speaks)
    return PARTLY_DONE if lost else DONE


def _table(folder: Path, page: Checkpoint, args: argparse.Namespace) -> Table:
    """What the checkpoint was trained on; whatever would stop its folds is found before the first training begins."""
    from train import calibrate, checkpoint, data

    checkpoint.check_writable(folder)
    folds = folder / FOLDER
    if folds.exists() and not args.resume:
        anew = f"rm -r {shlex.quote(str(folds))}"
        raise UserError(f"an unfinished run is in {folds}\ngo on with it: --resume, or start anew: {anew}")
    plain = calibrate.with_offsets(page.categories, {})
    table = data.read_for(args.data, plain, trained=page.splits, seed=data.seed_of(page.provenance))
    if len(set(table.groups[table.rows("train")].tolist())) < 2:
        raise UserError(f"the training photos of {page.name!r} are of one group: there is nothing to train without it")
    return table


def folded(table: Table, count: int, seed: int) -> Iterator[Table]:
    """For each fold of the training rows, the table that trains on the others; its test split is the fold."""
    from train import splits

    rows = table.rows("train")
    folds_N = splits.folds(table.labels_NL[rows], table.groups[rows], count=count, seed=seed)
    for fold in range(folds_N.max() + 1):
        homes = table.splits.astype(object)
        homes[homes == "test"] = NOWHERE
        homes[rows[folds_N == fold]] = "test"
        yield replace(table, splits=homes)


def _answer(folder: Path, page: Checkpoint, table: Table, device: torch.device, args: argparse.Namespace) -> int:
    """Train without each fold and let the network answer for it; gives how many photos could not be read."""
    import numpy as np

    from train import data, metrics, out_of_fold, processes

    speaks = processes.rank() == 0
    tables = list(folded(table, args.folds, seed=data.seed_of(page.provenance)))
    minutes = sum({epoch.phase: epoch.seconds for epoch in page.history}.values()) / 60
    its_own = f" of {math.ceil(minutes)} min" if minutes else ""
    parts = []
    for fold, part in enumerate(tables, start=1):
        note(
            f"{page.name}: training {fold} of {len(tables)}, each about as long as its own{its_own}",
            quiet=args.quiet or not speaks,
        )
        parts.append(_one(part, folder / FOLDER / str(fold), page, device, args))
    rows = np.concatenate([found.rows_N for found in parts])
    probabilities = {
        attribute.output: np.concatenate([found.probabilities[attribute.output] for found in parts])
        for attribute in page.attributes
    }
    if speaks:
        out_of_fold.write(folder, page, table.labels_NL[rows], probabilities)
        shutil.rmtree(folder / FOLDER)
        scores = metrics.scores(page.categories, list(probabilities.values()), table.labels_NL[rows], table.commonest())
        print_table(
            f"{page.name}: {count(len(rows), 'training photo')}, each answered by a network that did not learn from it",
            metrics.COLUMNS,
            metrics.table(scores),
            below=[metrics.LEGEND],
        )
    lost = sorted(path for found in parts for path in found.unreadable)
    for path in lost:
        note(f"left out, unreadable: {path}", quiet=not speaks)
    return len(lost)


def _one(table: Table, folder: Path, page: Checkpoint, device: torch.device, args: argparse.Namespace) -> Answered:
    """One fold's answers, by a network that is trained unless it was before; tempered as the checkpoint's own are, of
    which its odd answers are to tell."""
    import torch

    from train import calibrate, checkpoint, data, processes, training
    from train.run import Run

    its_phases = {epoch.phase for epoch in page.history}
    options = training.Options(
        folder=folder,
        data=page.provenance.get("data", ""),
        phase=1 if its_phases == {1} else None,
        # No more than the checkpoint's own phases took, where its time or its steps were limited.
        max_steps=max((epoch.steps for epoch in page.history), default=None),
        seed=data.seed_of(page.provenance),
        resize=page.preprocess.resize,
        resume=args.resume and processes.everyone(folder.exists())[0],
        quiet=args.quiet or processes.rank() > 0,
    )
    training.train(table, page.preset, options, device)
    processes.everyone(None)  # the checkpoint is one process's to write
    model, _ = checkpoint.load(folder)
    model.to(device).to(memory_format=torch.channels_last)
    run = Run(model=model, table=table, spec=page.preprocess, preset=page.preset, seed=0, max_steps=None, device=device)
    probabilities, rows = run.answers(model, "test")
    return Answered(
        rows,
        {
            attribute.output: calibrate.tempered(raw_NK, page.temperatures.get(attribute.output, 1.0))
            for attribute, raw_NK in zip(page.attributes, probabilities, strict=True)
        },
        run.unreadable,
    )


def _folds(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= MOST_FOLDS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 2 to {MOST_FOLDS}, got {text!r}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())

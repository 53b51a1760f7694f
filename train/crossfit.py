"""Command: let networks that did not learn from a training photo answer for it, so that audits may promise more.

What an audit promises rests on labelled photos that its network did not learn from: those of validation, which small
categories have a few dozen of. With this the training photos join them. They are dealt into folds, none of which
divides a group; for each a network is trained as the checkpoint was, with validation's photos for unlabelled ones, on
the other folds, and answers for it: cross-conformal prediction (Vovk, Annals of Mathematics and Artificial Intelligence
2015). What it tells holds as far as these networks err as the one that serves does, which no bound says; they learnt
from fewer photos, and so find rather more right labels odd.

python -m train.crossfit --data examples/clothing
"""

# N rows, L attributes, K classes

from __future__ import annotations

import argparse
import hashlib
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.terminal import count, note, print_table

if TYPE_CHECKING:
    import numpy as np
    import torch

    from train.checkpoint import Checkpoint
    from train.table import Table

MADE_OF = "made_of"
"""Beside the folds' networks: a digest of what they are made of."""
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
        description="For each checkpoint, let every training photo be answered by a network that did not learn from "
        "it, so that audits may promise more, and for small categories anything at all. After train.fit, before "
        "export.build; takes as many trainings as there are folds.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what the checkpoints were trained on")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=Path("checkpoints"),
        metavar="DIR",
        help="a folder of them, or one (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        type=_folds,
        default=5,
        metavar="N",
        help="parts of the training photos, each answered by a network trained on the others (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: crossfit(args))


def crossfit(args: argparse.Namespace) -> int:
    from train import checkpoint, out_of_fold, processes

    asked = [_asked(folder, args) for folder in checkpoint.find(args.checkpoints).values()]
    lost = 0
    with processes.joined() as device:
        speaks = processes.rank() == 0
        for each in asked:
            if each.done:
                path = each.folder / out_of_fold.FILE
                note(f"{each.page.name} is done already: {path}", quiet=args.quiet or not speaks)
                if speaks:
                    shutil.rmtree(each.folds, ignore_errors=True)  # what a kill after the last step left
                continue
            try:
                lost += _answer(each, device, args)
            except KeyboardInterrupt:
                note(
                    f"{each.folds} holds what was trained\ngo on with the same command and: --resume", quiet=not speaks
                )
                raise
    there = "" if args.checkpoints == Path("checkpoints") else f" --checkpoints {shlex.quote(str(args.checkpoints))}"
    note(f"keep it in bundles with: python -m export.build{there}", quiet=args.quiet or not speaks)
    return PARTLY_DONE if lost else DONE


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A checkpoint whose training photos are to be answered."""

    folder: Path
    page: Checkpoint
    table: Table
    """What it was trained on."""
    parts: Sequence[Table]
    """As `folded` has them."""
    made_of: str
    done: bool

    @property
    def folds(self) -> Path:
        """Where the networks of its folds are, until all have answered."""
        return self.folder / "folds"


def _asked(folder: Path, args: argparse.Namespace) -> Asked:
    """What is there of it; what would stop a fold is found before the first training begins."""
    from train import calibrate, checkpoint, data, out_of_fold, training
    from train.run import training_rows

    page = checkpoint.read(folder)
    if (folder / checkpoint.UNFINISHED).exists():
        raise UserError(f"an unfinished training is in {folder}\nend it first: python -m train.fit … --resume")
    checkpoint.check_writable(folder)
    plain = calibrate.with_offsets(page.categories, {})
    table = data.read_for(args.data, plain, trained=page.splits, seed=data.seed_of(page.provenance))
    _refuse_strangers(folder, page, table)
    if len(set(table.groups[table.rows("train")].tolist())) < 2:
        raise UserError(f"the training photos of {page.name!r} are of one group: there is nothing to train without it")
    made_of = _digest(page, table, args.folds)
    try:
        found = out_of_fold.read(folder, page)
    except UserError:
        found = None  # it is written over
    done = found is not None and found.made_of == made_of
    parts = list(folded(table, args.folds, seed=data.seed_of(page.provenance)))
    asked = Asked(folder=folder, page=page, table=table, parts=parts, made_of=made_of, done=done)
    if asked.folds.exists() and not done:
        anew = f"rm -r {shlex.quote(str(asked.folds))}"
        if not args.resume:
            raise UserError(f"an unfinished run is in {asked.folds}\ngo on with it: --resume, or start anew: {anew}")
        begun = asked.folds / MADE_OF
        if not begun.is_file() or begun.read_text(errors="replace") != made_of:
            raise UserError(
                f"the run in {asked.folds} was begun with other data, weights or --folds\n"
                f"go on with the same, or start anew: {anew}"
            )
    for part in parts:
        for number in training.phases_of(_phase(page)):
            training_rows(part, training.phase_of(page.preset, number))
    return asked


def _refuse_strangers(folder: Path, page: Checkpoint, table: Table) -> None:
    """UserError where the checkpoint was trained on other photos than these, as far as it says."""
    rows = table.rows("train")
    trained = {*page.splits.get("train", ())}
    strangers = [table.ids[row] for row in rows if table.ids[row] not in trained] if trained else []
    told = page.provenance.get("photos", "")
    if strangers or (not trained and told not in ("", str(len(rows)))):
        which = f"such as id {strangers[0]}" if strangers else f"{len(rows)} of them where it was {told}"
        raise UserError(
            f"the checkpoint in {folder} did not learn from these training photos, {which}\n"
            "name the data that it was trained on: --data DIR"
        )


def _digest(page: Checkpoint, table: Table, folds: int) -> str:
    """What makes two runs the same one."""
    told = [page.identity, folds, table.ids, table.splits.tolist(), list(map(str, table.groups))]
    return hashlib.sha256(msgspec.json.encode(told) + table.labels_NL.tobytes()).hexdigest()


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


def _answer(asked: Asked, device: torch.device, args: argparse.Namespace) -> int:
    """Train without each fold and let the network answer for it; gives how many photos could not be read."""
    import numpy as np

    from train import metrics, out_of_fold, processes

    page, table, parts = asked.page, asked.table, asked.parts
    speaks = processes.rank() == 0
    minutes = _seconds(page) / 60
    if speaks:
        asked.folds.mkdir(exist_ok=True)
        (asked.folds / MADE_OF).write_text(asked.made_of)
    answered = []
    for index, part in enumerate(parts):
        left = f", some {math.ceil((len(parts) - index) * minutes)} min left" if minutes else ""
        note(f"{page.name}: training {index + 1} of {len(parts)}{left}", quiet=args.quiet or not speaks)
        answered.append(_one(part, asked.folds / str(index + 1), page, device, args))
    rows = np.concatenate([found.rows_N for found in answered])
    probabilities = {
        attribute.output: np.concatenate([found.probabilities[attribute.output] for found in answered])
        for attribute in page.attributes
    }
    absent = [path for path, home in zip(table.absent, table.absent_splits, strict=True) if home == "train"]
    lost = dict.fromkeys(absent, "not there") | dict.fromkeys(
        (path for found in answered for path in found.unreadable), "unreadable"
    )
    if speaks:
        # Of a class that its fold's network never saw there is nothing to learn from what it says.
        labels_NL = np.concatenate([_known(part, found.rows_N) for part, found in zip(parts, answered, strict=True)])
        out_of_fold.write(asked.folder, page, labels_NL, probabilities, made_of=asked.made_of)
        shutil.rmtree(asked.folds)
        scores = metrics.scores(page.categories, list(probabilities.values()), labels_NL, table.commonest())
        print_table(
            f"{page.name}: {count(len(rows), 'training photo')}, each answered by a network that did not learn from it",
            metrics.COLUMNS,
            metrics.table(scores),
            below=[metrics.LEGEND],
        )
        for path, why in sorted(lost.items()):
            note(f"left out, {why}: {path}")
    return len(lost)


def _known(part: Table, rows_N: np.ndarray) -> np.ndarray:
    """The labels of these rows, MISSING where no row that the part trains on has the class: int64 [N, L]."""
    import numpy as np

    from train.config import MISSING

    columns = []
    for labels_N in part.labels_NL.T:
        seen = np.unique(labels_N[part.rows("train")])
        columns.append(np.where(np.isin(labels_N[rows_N], seen), labels_N[rows_N], MISSING))
    return np.stack(columns, 1)


def _one(table: Table, folder: Path, page: Checkpoint, device: torch.device, args: argparse.Namespace) -> Answered:
    """One fold's answers, by a network that is trained unless it was before; tempered as the checkpoint's own are, of
    which its odd answers are to tell."""
    import torch

    from train import calibrate, checkpoint, data, processes, training
    from train.run import Run

    options = training.Options(
        folder=folder,
        data=page.provenance.get("data", ""),
        phase=_phase(page),
        # Of a training with fewer steps than its preset has, by --max-steps; the same for both phases.
        max_steps=max((epoch.steps for epoch in page.history), default=None),
        seed=data.seed_of(page.provenance),
        resize=page.preprocess.resize,
        resume=args.resume and processes.everyone(folder.exists())[0],
        quiet=args.quiet or processes.rank() > 0,
    )
    # One that time cut short had its seconds for two phases, and what comes after the last evaluation besides.
    limit_s = _seconds(page) + training.ending_s(table) if training.CUT in page.provenance else None
    if training.train(table, page.preset, options, device, limit_s=limit_s).untrained:
        raise UserError(
            f"the {_seconds(page):.1f} s that {page.name!r} was trained for are too few for one fold\n"
            "train it longer, without --max-hours or with more, and crossfit it then"
        )
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


def _phase(page: Checkpoint) -> int | None:
    """The one phase that the checkpoint was trained by; None for both."""
    return 1 if {epoch.phase for epoch in page.history} == {1} else None


def _seconds(page: Checkpoint) -> float:
    """What its training took, as far as it says."""
    return sum({epoch.phase: epoch.seconds for epoch in page.history}.values())


def _folds(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= MOST_FOLDS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 2 to {MOST_FOLDS}, got {text!r}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())

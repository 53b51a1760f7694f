"""Command: train a model for each category of a data folder, in two phases.

python -m train.fit --data examples/clothing
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle import Preprocess, slug_of
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.terminal import note, positive, print_table, progress
from train.config import PRESETS, Preset, preset

if TYPE_CHECKING:
    from train.data import Table
    from train.metrics import Score
    from train.network import FacetModel
    from train.phases import Run


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.fit",
        description="Train a model for each category of a data folder: everything first, then the heads alone.",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds train.csv and train_images/")
    parser.add_argument("--category", nargs="+", default=[], metavar="NAME", help="default: every one")
    parser.add_argument("--preset", choices=list(PRESETS), default="default", help="default: %(default)s")
    parser.add_argument("--weights", metavar="hub|none|FILE", help="where the backbone starts (default: the preset's)")
    parser.add_argument("--phase", type=int, choices=[1, 2], help="run one phase alone (default: both)")
    parser.add_argument("--epochs", type=positive, metavar="N", help="of phase 1 (default: the preset's)")
    parser.add_argument("--max-steps", type=positive, metavar="N", help="end each phase after N steps")
    parser.add_argument("--seed", type=_seed, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: fit(args))


def fit(args: argparse.Namespace) -> int:
    from train import checkpoint, data

    chosen = preset(args.preset)
    if args.weights:
        chosen = replace(chosen, weights=args.weights)
    if args.epochs:
        chosen = replace(chosen, phase1=replace(chosen.phase1, epochs=args.epochs))
    tables = data.read(args.data, names=args.category, seed=args.seed)
    for table in tables:
        checkpoint.check_writable(args.out / slug_of(table.name))
    lost = 0
    for table in tables:
        lost += train_category(table, chosen, args)
    return PARTLY_DONE if lost else DONE


def train_category(table: Table, chosen: Preset, args: argparse.Namespace) -> int:
    """Train, save and report one category; gives the number of photos that were absent or unreadable."""
    import torch

    from train import metrics, phases

    name = table.name
    folder = args.out / slug_of(name)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = phases.Run(
        model=_start(table, chosen, folder, args.phase).to(device).to(memory_format=torch.channels_last),
        table=table,
        spec=Preprocess(
            height=chosen.model.size, width=chosen.model.size, mean=chosen.model.mean, std=chosen.model.std
        ),
        preset=chosen,
        seed=args.seed,
        max_steps=args.max_steps,
        device=device,
        advance=lambda amount: None,
    )
    stages = {1: (chosen.phase1, phases.phase1), 2: (chosen.phase2, phases.phase2)}
    for number, (config, phase) in stages.items():
        if args.phase in (None, number):
            with progress(f"{name}, phase {number}", run.steps(config), quiet=args.quiet) as run.advance:
                found = phase(run)
            _save(run, found, folder, args)
    print_table(f"{name}: {len(table.rows('val'))} validation photos", metrics.COLUMNS, metrics.table(found))
    for path in sorted([*table.absent, *run.unreadable]):
        note(f"left out, {'not there' if path in table.absent else 'unreadable'}: {path}")
    note(f"checkpoint: {folder}", quiet=args.quiet)
    return len(table.absent) + len(run.unreadable)


def _start(table: Table, chosen: Preset, folder: Path, phase: int | None) -> FacetModel:
    from train import checkpoint, network

    if phase != 2:
        classes = [len(attribute.classes) for attribute in table.attributes]
        return network.create(chosen.model, classes, chosen.weights)
    model, page = checkpoint.load(folder)
    if page.categories != table.categories:
        raise UserError(f"the checkpoint in {folder} was trained on another taxonomy\ntrain it anew without --phase 2")
    if page.preset.model != chosen.model:
        raise UserError(f"the checkpoint in {folder} is another model\nname its preset with: --preset")
    return model


def _save(run: Run, found: list[Score], folder: Path, args: argparse.Namespace) -> None:
    from train import checkpoint

    page = checkpoint.Checkpoint(
        slug=folder.name,
        categories=run.table.categories,
        preprocess=run.spec,
        routes=run.table.routes,
        preset=run.preset,
        metrics=tuple(found),
        provenance={
            "data": os.fspath(args.data),
            "photos": str(len(run.table.rows("train"))),
            "seed": str(args.seed),
            **{package: version(package) for package in ("torch", "timm")},
        },
    )
    checkpoint.save(folder, run.model, page)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {(1 << 32) - 1}, got {text!r}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())

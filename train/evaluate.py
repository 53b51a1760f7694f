"""Command: how good a checkpoint or a bundle is on labelled photos, as a table and as a report to look at.

python -m train.evaluate examples/bundles/garment --data examples/clothing
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import DONE, PARTLY_DONE, exit_code
from runtime.terminal import note, print_table

if TYPE_CHECKING:
    from train.answers import Answers

REPORTS = Path("reports")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Score a checkpoint or a bundle, attribute by attribute, on the labelled photos of a split.",
    )
    parser.add_argument("model", type=Path, metavar="CHECKPOINT|BUNDLE", help="a folder with its page in it")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds train.csv and train_images/")
    parser.add_argument("--split", choices=["train", "val", "test"], default="val", help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="of report.html and metrics.json (default: reports/SLUG)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: evaluate(args))


def evaluate(args: argparse.Namespace) -> int:
    from train import answers, metrics, report

    left_out = 0
    with answers.opened(args.model) as model:
        out = args.out or REPORTS / model.slug
        report.check_writable(out)
        answered: list[Answers] = []
        for found in answers.answers(model, args.data, args.split, quiet=args.quiet):
            scores = found.scores()
            if found.doubt and not answered:  # it is of the file, not of the category
                note(found.doubt)
            print_table(
                f"{found.category.name}, split {args.split}",
                metrics.COLUMNS,
                metrics.table(scores),
                below=[metrics.LEGEND],
            )
            for path, reason, _ in found.lost:
                note(f"left out, {reason}: {path}")
            left_out += len(found.lost)
            answered.append(found)
        report.write(out, model, answered)
    note(f"report: {out / report.PAGE}", quiet=args.quiet)
    return PARTLY_DONE if left_out else DONE


if __name__ == "__main__":
    raise SystemExit(main())

"""Command: a folder of photos in, a table of attributes out.

python -m runtime.predict examples/photos/
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from runtime import bundle, images, table
from runtime.engines import ENGINES
from runtime.errors import DONE, INTERRUPTED, PARTLY_DONE, UserError, exit_code
from runtime.fleet import Fleet, Row
from runtime.pipeline import rows
from runtime.terminal import note, positive, progress

# Photos a batch: on a CPU more adds latency and memory, not speed.
BATCH = 16
SHOWN_ROWS = 40


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.predict",
        description="Read every attribute off each photo and write one row a file to a CSV table.",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="PHOTOS", help="folders or files")
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="default: bundles/, else the shipped ones")
    parser.add_argument("--category", metavar="NAME", help="what every photo shows (default: a router decides)")
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto", help="default: %(default)s")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="default: the engine's fastest")
    parser.add_argument("--batch", type=positive, default=BATCH, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("predictions.csv"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no table on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: predict(args))


def predict(args: argparse.Namespace) -> int:
    if args.out.suffix.lower() in images.PHOTO_SUFFIXES:
        raise UserError(f"--out {args.out} is named like a photo\nwrite a table with: --out {args.out.stem}.csv")
    photos = images.find(args.inputs)
    root, shipped = (args.bundles, False) if args.bundles else bundle.default_root()
    if shipped:
        note(f"no bundles/ folder here: using the example bundles in {root}", quiet=args.quiet)
    fleet = Fleet.open(bundle.find(root).values(), category=args.category, engine=args.engine, precision=args.precision)
    shown: list[Row] = []
    done = failed = 0
    interrupted = False
    started = time.perf_counter()
    with (
        table.csv_file(args.out, fleet.attributes) as write,
        fleet,
        progress("photos", len(photos), quiet=args.quiet) as advance,
    ):
        try:
            for row in rows(photos, fleet, batch=args.batch, workers=os.cpu_count() or 1):
                write(row)
                done += 1
                failed += row.status == "error"
                if len(shown) < SHOWN_ROWS:
                    shown.append(row)
                advance(1)
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - started
    if not args.quiet:
        table.show(shown)
        more = f", the first {len(shown)} shown" if done > len(shown) else ""
        note(
            f"{done} of {len(photos)} photos in {seconds:.1f} s ({done / seconds:.1f} images/s), "
            f"{failed} unreadable{more}; table: {args.out}"
        )
    if interrupted:
        note(f"interrupted: {args.out} holds the rows that were done")
        return INTERRUPTED
    return PARTLY_DONE if failed else DONE


if __name__ == "__main__":
    raise SystemExit(main())

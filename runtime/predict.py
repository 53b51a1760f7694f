"""Command: photos in, a table of attributes out; or a listing and its photos in, the challenge's submission out.

python -m runtime.predict examples/photos/
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from runtime import bundle, challenge, images, listing, table
from runtime.engines import ENGINES
from runtime.errors import DONE, INTERRUPTED, PARTLY_DONE, UserError, exit_code
from runtime.fidelity import BATCH, batch_of
from runtime.fleet import Fleet, Row
from runtime.pipeline import answered
from runtime.terminal import note, positive, progress

SHOWN_ROWS = 40
# Ids without an answer that are named with their reason.
TOLD_ROWS = 10
FORMATS = ("table", "challenge")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.predict",
        description="Read every attribute off each photo and write one row a file to a CSV table.",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="PHOTOS", help="folders or files")
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="default: bundles/, else the shipped ones")
    parser.add_argument("--category", metavar="NAME", help="what every photo shows (default: a router decides)")
    parser.add_argument(
        "--listing", type=Path, metavar="FILE", help="CSV with columns id, Category: the photos to read, and of what"
    )
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto", help="default: %(default)s")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="default: the engine's fastest")
    parser.add_argument(
        "--batch", type=positive, metavar="N", help=f"photos at a time (default: {BATCH}, of large ones fewer)"
    )
    parser.add_argument(
        "--max-megapixels",
        type=positive,
        default=images.MAX_PIXELS // 1_000_000,
        metavar="N",
        help="refuse larger photos, before they are decoded (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("predictions.csv"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="challenge: its submission file (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no table on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: predict(args))


@dataclass(kw_only=True)
class Tally:
    """What a run has done so far; of its rows only the first few are kept."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    shown: list[Row] = field(default_factory=list)
    unanswered: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.done += 1
        self.failed += row.status == "error"
        self.skipped += row.status == "skipped"
        if len(self.shown) < SHOWN_ROWS:
            self.shown.append(row)
        if row.status != "ok" and len(self.unanswered) < TOLD_ROWS:
            self.unanswered.append(row)


def predict(args: argparse.Namespace) -> int:
    check(args)
    fleet, unanswered, total = work(args)
    tally = Tally()
    interrupted = False
    batch = args.batch or min(batch_of(spec.height, spec.width) for spec in fleet.specs)
    started = time.perf_counter()
    with (
        writer(args, fleet) as write,
        fleet,
        progress("photos", total, quiet=args.quiet) as advance,
    ):
        try:
            for row in answered(
                unanswered,
                fleet,
                batch=batch,
                workers=os.cpu_count() or 1,
                max_pixels=1_000_000 * args.max_megapixels,
            ):
                write(row)
                tally.add(row)
                advance(1)
        except KeyboardInterrupt:
            interrupted = True
    if not args.quiet:
        report(tally, total, time.perf_counter() - started, f"{args.format}: {args.out}")
    # A submission has no column for reasons. In a table a skipped photo says why, and is no failure.
    blank = tally.failed + tally.skipped if args.format == "challenge" else 0
    if blank:
        tell(tally, blank)
    if interrupted:
        note(f"interrupted: {args.out} holds the rows that were done")
        return INTERRUPTED
    return PARTLY_DONE if blank or tally.failed else DONE


def check(args: argparse.Namespace) -> None:
    """UserError for options that do not go together."""
    if args.out.suffix.lower() in images.PHOTO_SUFFIXES:
        raise UserError(f"--out {args.out} is named like a photo\nwrite a table with: --out {args.out.stem}.csv")
    if args.listing and args.category:
        raise UserError("--listing gives every photo its category already\nleave out: --category")
    if args.listing and os.path.realpath(args.listing) == os.path.realpath(args.out):
        raise UserError(f"--out {args.out} is the listing itself\nchoose another file with: --out FILE")
    if args.format == "challenge" and not args.listing:
        raise UserError("--format challenge needs to know the ids and their categories\nadd: --listing test.csv")


def work(args: argparse.Namespace) -> tuple[Fleet, Iterable[Row], int]:
    """Who answers, the rows to be answered, and how many they are."""
    if args.listing:
        entries = listing.read(args.listing)
        photos = listing.photos(entries, args.inputs)
        categories = (entry.category for entry in entries)
        fleet = Fleet.listed(folders(args), categories, engine=args.engine, precision=args.precision)
        return fleet, listing.rows(entries, photos, fleet.categories), len(entries)
    paths = images.find(args.inputs)
    fleet = Fleet.open(folders(args), category=args.category, engine=args.engine, precision=args.precision)
    return fleet, (Row(image=path) for path in paths), len(paths)


def folders(args: argparse.Namespace) -> Iterable[Path]:
    """The bundles to choose from."""
    if args.bundles:
        return bundle.find(args.bundles).values()
    root, shipped = bundle.default_root()
    told = (
        f"no bundles/ folder here: using the example bundles in {root}" if shipped else f"using the bundles in {root}/"
    )
    note(told, quiet=args.quiet)
    return bundle.find(root).values()


def writer(args: argparse.Namespace, fleet: Fleet) -> AbstractContextManager[Callable[[Row], None]]:
    """What writes a row in the format asked for."""
    if args.format == "challenge":
        return challenge.csv_file(args.out, fleet.categories)
    return table.csv_file(args.out, fleet.attributes)


def report(tally: Tally, total: int, seconds: float, written: str) -> None:
    """The first rows on the terminal, and one line on all of them."""
    table.show(tally.shown)
    skipped = f", {tally.skipped} skipped" if tally.skipped else ""
    more = f", the first {len(tally.shown)} shown" if tally.done > len(tally.shown) else ""
    note(
        f"{tally.done} of {total} photos in {seconds:.1f} s ({tally.done / seconds:.1f} images/s), "
        f"{tally.failed} unreadable{skipped}{more}; {written}"
    )


def tell(tally: Tally, blank: int) -> None:
    """How many ids of a submission have no answer, and why the first of them have none."""
    note(f"{blank} of {tally.done} ids have no answer, and {challenge.DUMMY} in every column:")
    for row in tally.unanswered:
        note(f"  {row.id!r}: {row.error}")
    if more := blank - len(tally.unanswered):
        note(f"  and {more} more; every reason is in the table of: --format table")


if __name__ == "__main__":
    raise SystemExit(main())

"""Command: photos in, a table of attributes out; or a listing and its photos in, the challenge's submission out.

python -m runtime.predict examples/photos/
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from runtime import bundle, challenge, images, inputs, listing, machine, output, page, table
from runtime.engines import ENGINES
from runtime.errors import DONE, INTERRUPTED, PARTLY_DONE, UserError, exit_code
from runtime.files import sha256_of
from runtime.fleet import Fleet, Row, home_of
from runtime.output import PARQUET, Sheet
from runtime.pipeline import answered, workers
from runtime.predictor import BATCH
from runtime.terminal import note, positive, progress

SHOWN_ROWS = 40
# Of a run: what finds the fastest engine takes minutes itself.
LONG_S = 20
# Ids without an answer that are named with their reason.
TOLD_ROWS = 10
FORMATS = ("table", "challenge")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.predict",
        description="Read every attribute off each photo and write a table with a row for each file.",
    )
    parser.add_argument(
        "inputs", nargs="+", type=_named, metavar="PHOTOS", help="folders, files, patterns, or .txt lists of files"
    )
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="default: bundles/, else the shipped ones")
    parser.add_argument(
        "--category",
        metavar="NAME",
        help="what every photo shows (default: what its folder is named after, else what a router says)",
    )
    parser.add_argument(
        "--listing", type=Path, metavar="FILE", help="CSV with columns id, Category: the photos to read, and of what"
    )
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto", help="default: %(default)s")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8"], help="default: the engine's fastest")
    parser.add_argument(
        "--batch",
        type=positive,
        metavar="N",
        help=f"photos at a time: more take more memory, seldom less time (default: {BATCH}, or what tune found)",
    )
    parser.add_argument(
        "--max-megapixels",
        type=positive,
        default=images.MAX_PIXELS // 1_000_000,
        metavar="N",
        help="refuse larger photos, before they are decoded (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("predictions.csv"),
        metavar="FILE",
        help="a .csv, .jsonl or .parquet file (default: %(default)s)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="table", help="challenge: its submission file (default: %(default)s)"
    )
    parser.add_argument(
        "--top-k",
        type=positive,
        default=1,
        metavar="K",
        help="labels of each attribute in the file, the likeliest first (default: 1)",
    )
    parser.add_argument(
        "--min-confidence",
        type=_share,
        default=0.0,
        metavar="P",
        help="leave a label of less confidence blank, 0 to 1 (default: %(default)g)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="also a page to look through: report.html, photos small in it"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped or killed")
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

    def count(self, status: str) -> None:
        self.done += 1
        self.failed += status == "error"
        self.skipped += status == "skipped"

    def add(self, row: Row) -> None:
        self.count(row.status)
        if len(self.shown) < SHOWN_ROWS:
            self.shown.append(row)
        if row.status != "ok" and len(self.unanswered) < TOLD_ROWS:
            self.unanswered.append(row)


def predict(args: argparse.Namespace) -> int:
    check(args)
    fleet, unanswered, total = work(args)
    fleet.top = min(args.top_k, fleet.most_classes)
    tally, before = Tally(), 0
    out: output.Unfinished | None = None
    interrupted = False
    # No more than there are: there is memory for a whole batch.
    batch = min(args.batch or min(predictor.batch for predictor in fleet.predictors), max(1, total))
    started = time.perf_counter()
    try:
        with (
            output.opened(args.out, sheet(args, fleet), made_of(args, fleet, batch), resume=args.resume) as out,
            fleet,
            progress("photos", total, quiet=args.quiet) as advance,
        ):
            if args.resume:
                for status in out.go_on(batch, unanswered):
                    tally.count(status)
                    advance(1)
                before = tally.done
            # Closed before the fleet is: workers answer with it.
            with closing(
                answered(unanswered, fleet, batch=batch, workers=workers(fleet.engines), max_pixels=most_pixels(args))
            ) as rows:
                for row in rows:
                    out.write(row)
                    tally.add(row)
                    advance(1)
            if args.report:
                write_page(args, fleet, out)
    except KeyboardInterrupt:
        interrupted = True
    except UserError as err:
        if tally.done and "--resume" not in str(err):
            raise UserError(f"{err}\nthe rows before it are kept; go on with the same command and: --resume") from err
        raise
    if not args.quiet:
        if not interrupted:
            table.show(tally.shown, least=args.min_confidence)
        report(args, fleet, tally, total, before, time.perf_counter() - started)
    # A submission has no column for reasons. In a table a skipped photo says why, and is no failure.
    blank = tally.failed + tally.skipped if args.format == "challenge" else 0
    if blank:
        tell(tally, blank)
    if interrupted:
        kept = f"{args.out} is as it was before, and the rows that were done are kept beside it"
        done = f"{args.out} holds the rows that were done" if out and out.left else kept
        note(f"interrupted: {done if tally.done else 'no row was done'}\ngo on with the same command and: --resume")
        return INTERRUPTED
    return PARTLY_DONE if blank or tally.failed else DONE


def check(args: argparse.Namespace) -> None:
    """UserError for options that do not go together."""
    if args.out.suffix.lower() not in output.ENDINGS:
        raise UserError(
            f"--out {args.out} is named like no table: {' '.join(output.ENDINGS)}\n"
            f"name it so: --out {args.out.stem or 'predictions'}.csv"
        )
    if args.listing and args.category:
        raise UserError("--listing gives every photo its category already\nleave out: --category")
    if args.format == "challenge" and not args.listing:
        raise UserError("--format challenge needs to know the ids and their categories\nadd: --listing test.csv")
    if args.format == "challenge" and args.out.suffix.lower() in (".jsonl", ".ndjson", PARQUET):
        raise UserError(f"the challenge's file is a CSV table\nname it so: --out {args.out.stem}.csv")
    if args.format == "challenge" and args.report:
        raise UserError(
            "a report shows photos and confidences, which the challenge's file has not\nleave out: --report"
        )
    if args.report and args.report.suffix.lower() not in (".html", ".htm"):
        # Written in one step over whatever has the name: not over a photo, a listing, or a device.
        raise UserError(f"--report {args.report} is a page\nname it so: --report {args.report.stem or 'report'}.html")
    keep_inputs(args, [*map(os.fspath, args.inputs), *([os.fspath(args.listing)] if args.listing else [])])
    if args.report and os.path.realpath(args.report) == os.path.realpath(args.out):
        raise UserError(f"--report {args.report} is the table itself\nchoose another file with: --report FILE")
    if args.report:
        page.check_writable(args.report)
    if args.format == "challenge" and args.top_k > 1:
        raise UserError("the challenge's file has one label an attribute\nleave out: --top-k")


def keep_inputs(args: argparse.Namespace, names: Iterable[str]) -> None:
    """UserError where one of these files would be written over; links have other names than what they lead to."""
    for option, path in (("--out", args.out), ("--report", args.report)):
        if path is None or not path.exists():
            continue
        same = (name for name in names if name.lower().endswith(path.suffix.lower()) or os.path.islink(name))  # noqa: PTH114
        if any(os.path.realpath(name) == os.path.realpath(path) for name in same):
            raise UserError(f"{option} {path} is one of the inputs\nchoose another file with: {option} FILE")


def work(args: argparse.Namespace) -> tuple[Fleet, Iterator[Row], int]:
    """Who answers, the rows to be answered, and how many they are."""
    if args.listing:
        entries = listing.read(args.listing)
        photos = listing.photos(entries, args.inputs)
        keep_inputs(args, map(os.fspath, photos.values()))
        categories = (entry.category for entry in entries)
        fleet = Fleet.listed(
            folders(args),
            categories,
            engine=args.engine,
            precision=args.precision,
            streams=streams(len(entries), args.batch),
        )
        return fleet, listing.rows(entries, photos, fleet.categories), len(entries)
    left_out: Counter[str] = Counter()
    names = inputs.find_names(args.inputs, leave_out=lambda name: left_out.update([inputs.ending_of(name)]))
    if left_out:
        kinds = ", ".join(
            f"{count} {ending or 'without an ending'}" for ending, count in left_out.most_common(TOLD_ROWS)
        )
        note(f"files not named like photos are left out unless given one by one: {kinds}", quiet=args.quiet)
    keep_inputs(args, names)
    homes = {home_of(folder) for folder in {os.path.dirname(name) for name in names}}  # noqa: PTH120
    fleet = Fleet.open(
        folders(args),
        category=args.category,
        engine=args.engine,
        precision=args.precision,
        homes=homes,
        streams=streams(len(names), args.batch),
    )
    if named := [home for home in sorted(homes) if fleet.home(Path(home, "photo"))]:
        note(f"photos in folders named after a category are taken for it: {', '.join(named)}", quiet=args.quiet)
    paths = map(Path, names)
    return fleet, (Row(image=path, category=fleet.home(path)) for path in paths), len(names)


def streams(photos: int, batch: int | None = None) -> int:
    """How many batches at once: one a core, but no more than there are, and one photo alone has all cores."""
    return max(1, min(machine.cores(), photos // (batch or BATCH)))


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


def write_page(args: argparse.Namespace, fleet: Fleet, out: output.Unfinished) -> None:
    """The report, of every row so far."""
    from runtime.report import write

    title = f"{out.rows} photos, {', '.join(fleet.categories)}"
    columns = sheet(args, fleet).columns
    with progress("report", out.rows, quiet=args.quiet) as bar:
        write(args.report, title, columns, out.texts(), max_pixels=most_pixels(args), advance=lambda: bar(1))


def most_pixels(args: argparse.Namespace) -> int:
    """Of a photo that is read."""
    return 1_000_000 * int(args.max_megapixels)


def sheet(args: argparse.Namespace, fleet: Fleet) -> Sheet:
    """What the file says of a row, in the format asked for."""
    if args.format == "challenge":
        return challenge.sheet(fleet.categories, least=args.min_confidence, max_pixels=most_pixels(args))
    return table.sheet(fleet.attributes, top=fleet.top, least=args.min_confidence)


def made_of(args: argparse.Namespace, fleet: Fleet, batch: int) -> list[object]:
    """All that the answers hang on: a run goes on only with rows that it would have made itself."""
    served = [(each.bundle.digest, *each.choice.identity) for each in fleet.predictors]
    listed = sha256_of(args.listing) if args.listing else ""
    options = (args.category, args.format, fleet.top, args.min_confidence, args.max_megapixels)
    return [served, listed, options, batch]


def report(args: argparse.Namespace, fleet: Fleet, tally: Tally, total: int, before: int, seconds: float) -> None:
    """A line on all rows, and who answered them."""
    made = tally.done - before
    skipped = f", {tally.skipped} skipped" if tally.skipped else ""
    more = f", the first {len(tally.shown)} shown" if made > len(tally.shown) else ""
    there = f", {before} of them before," if before else ""
    where = f"; {args.format}: {args.out}" if args.out.exists() else ""
    note(
        f"{tally.done} of {total} photos{there} in {seconds:.1f} s ({made / seconds:.1f} images/s), "
        f"{tally.failed} unreadable{skipped}{more}{where}"
    )
    note(f"answered by: {'; '.join(dict.fromkeys(str(predictor.choice) for predictor in fleet.predictors))}")
    if args.engine == "auto" and args.precision is None and seconds > LONG_S and fleet.has_others:
        note("another engine here may be faster; find out, once, with: python -m runtime.tune")


def tell(tally: Tally, blank: int) -> None:
    """How many ids of a submission have no answer, and why the first of them have none."""
    note(f"{blank} of {tally.done} ids have no answer, and {challenge.DUMMY} in every column:")
    for row in tally.unanswered:
        note(f"  {row.id!r}: {row.error}")
    if more := blank - len(tally.unanswered):
        note(f"  and {more} more; every reason is in the table of: --format table")


def _named(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("an empty name is no folder: the one here is called .")
    return Path(text)


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text!r}")
    return number


if __name__ == "__main__":
    raise SystemExit(main())

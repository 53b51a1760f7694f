"""Command: a listing and its photos in; out come the cells that contradict the photo, and values for the empty ones.

python -m runtime.audit listing.csv photos/
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from runtime import (
    bundle,
    declared,
    drift,
    findings,
    fixes,
    images,
    output,
    page,
    predict,
    review,
    validation,
    vocabulary,
)
from runtime.cells import FIXED, Questions
from runtime.declared import Listing
from runtime.drift import Drift
from runtime.errors import DONE, INTERRUPTED, PARTLY_DONE, UserError, exit_code
from runtime.files import sha256_of
from runtime.findings import Finding
from runtime.fixes import Change
from runtime.fleet import Fleet
from runtime.output import Unfinished
from runtime.pipeline import answered, workers
from runtime.predictor import Predictor
from runtime.spreadsheet import bare
from runtime.summary import COLUMNS, Summary
from runtime.terminal import count, note, positive, progress
from runtime.validation import Validation
from runtime.verdicts import Verdicts
from runtime.vocabulary import folded

Kept = Mapping[Predictor, Validation | None]
"""What each bundle keeps of its validation photos."""
LEAST_PRECISION, MOST_PRECISION = 0.5, 0.999


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.audit",
        description="Compare what a listing declares with what its photos show, and say what needs a look.",
    )
    parser.add_argument(
        "listing", type=Path, metavar="LISTING", help="CSV: id, Category, attr_1 … as train.csv, or any"
    )
    parser.add_argument("photos", nargs="*", type=Path, metavar="PHOTOS", help="folders that hold its photos")
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="default: bundles/, else the shipped ones")
    parser.add_argument(
        "--category", metavar="NAME", help="of every photo, where no column says it (default: a router)"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        type=_pair,
        default=[],
        metavar="NAME=COLUMN",
        help="what is called otherwise there: image, id, category or an attribute",
    )
    parser.add_argument(
        "--aliases", nargs="+", type=Path, default=[], metavar="FILE", help="CSV: attribute, value, class"
    )
    parser.add_argument(
        "--precision",
        type=_precision,
        default=0.9,
        metavar="P",
        help="the share of what contradicts or fills that must be right (default: %(default)s)",
    )
    parser.add_argument(
        "--max-megapixels",
        type=positive,
        default=images.MAX_PIXELS // 1_000_000,
        metavar="N",
        help="refuse larger photos, before they are decoded (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("audit.csv"), metavar="FILE", help="a .csv file (default: %(default)s)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="also a page to decide on the findings: audit.html")
    parser.add_argument(
        "--fix", type=Path, metavar="FILE", help="also the listing with what the promise covers, or with --decisions"
    )
    parser.add_argument(
        "--decisions", type=Path, metavar="FILE", help="what was decided on the page: for --fix, without the photos"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped or killed")
    parser.add_argument("--quiet", action="store_true", help="no progress, no table on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)
    return exit_code(lambda: audit(args))


def audit(args: argparse.Namespace) -> int:
    check(args)
    if args.decisions:
        names_photos = [column for name, column in args.columns if folded(name) in (declared.IMAGE, declared.ID)]
        digest = declared.digest_of(args.listing)
        return fix(args, digest, fixes.decided(args.decisions, args.listing, names_photos))
    folders = list(predict.folders(args))
    pages = [bundle.load(folder) for folder in folders]
    known = [one.name for page in pages for category in page.categories for one in category.attributes]
    categories = [category.name for page in pages for category in page.products]
    listing = declared.read(args.listing, list(dict.fromkeys(known)), args.columns, categories)
    photos = declared.photos(listing, args.photos)
    fleet = fleet_for(args, listing, folders)
    questions = Questions(listing, fleet.categories, vocabulary.read(args.aliases), fleet.check)
    questions.check_any()
    for line in vocabulary.idle(args.aliases, [one for each in fleet.categories.values() for one in each.attributes]):
        note(line)
    kept = {predictor: validation.read(predictor.folder, predictor.bundle) for predictor in fleet.predictors}
    batch = min(min(predictor.batch for predictor in fleet.predictors), len(listing.records))
    try:
        # The answers are in their place last of all: whatever ends this before, a run that goes on has them.
        with output.opened(
            beside(args.out, "answers"), questions.sheet(), made_of(args, listing, fleet, batch), resume=args.resume
        ) as answers:
            drifts = answer(args, fleet, questions, photos, kept, batch, answers)
            try:
                found, summary = judge(args, fleet, questions, kept, drifts, answers)
                done = told(args, listing, found, summary)
                more_labels(fleet, summary, quiet=args.quiet)
                return done
            except fixes.ChangedError:
                raise
            except UserError as err:
                raise UserError(f"{err}\nno photo is answered again with this --out and: --resume") from err
    except KeyboardInterrupt:
        note("interrupted: the photos that were answered are kept\nadd to the same command: --resume")
        return INTERRUPTED


def told(args: argparse.Namespace, listing: Listing, found: Sequence[Finding], summary: Summary) -> int:
    """Write and show what was found, and change what is asked to be changed; the exit code."""
    findings.write(args.out, findings.COLUMNS, (finding.texts() for finding in found))
    findings.write(beside(args.out, "summary"), COLUMNS, summary.rows())
    if not args.quiet:
        summary.show()
    note(f"{count(len(found), 'finding')}, those first where a look mends most: {args.out}", quiet=args.quiet)
    if summary.failed:
        note(f"{summary.failed} of {count(summary.photos, 'photo')} not answered, such as: {summary.failure}")
    for line in summary.drifted():
        note(line, quiet=not args.quiet)  # else they stand below the table
    if args.fix:
        fix(args, listing.digest, fixes.promised(found, args.precision))
    if args.report:
        write_page(args, listing, found)
    return PARTLY_DONE if summary.failed else DONE


def more_labels(fleet: Fleet, summary: Summary, *, quiet: bool) -> None:
    """Say what would let more be promised, where that was not done yet; the checkpoints of shipped bundles stayed with
    who made them."""
    kept = {one.folder: one.bundle.validation for one in fleet.predictors if not bundle.is_shipped(one.folder)}
    without = [str(folder) for folder, validation in kept.items() if validation and not validation.out_of_fold]
    if without and any(summary.unpromised()):
        note(
            f"training photos can count among the labels of {', '.join(without)}\n"
            "where their checkpoints are: python -m train.crossfit --data DIR, then python -m export.build",
            quiet=quiet,
        )


def write_page(args: argparse.Namespace, listing: Listing, found: Sequence[Finding]) -> None:
    """The findings to decide on; a photo that was not answered leaves nothing to decide."""
    cells = [finding for finding in found if finding.verdict != "error"]
    shown = min(len(cells), review.MOST)
    with progress("report", shown, quiet=args.quiet) as bar:
        review.write(
            args.report,
            f"{args.listing.name}: {count(len(cells), 'finding')}"
            + (f", the first {shown}" if shown < len(cells) else ""),
            cells,
            listing=listing.digest,
            precision=args.precision,
            max_pixels=predict.most_pixels(args),
            advance=lambda: bar(1),
        )
    note(f"to decide on them, open {args.report} in a browser", quiet=args.quiet)


def fix(args: argparse.Namespace, digest: str, changes: Sequence[Change]) -> int:
    """Write the listing with these changes, beside what they are."""
    fixes.apply(args.listing, changes, args.fix, digest=digest)
    note(f"{count(len(changes), 'change')}: {args.fix}, each in {fixes.traces(args.fix)}", quiet=args.quiet)
    return DONE


def check(args: argparse.Namespace) -> None:
    """UserError for options that do not go together, and for what cannot be written where it was asked for."""
    if args.decisions and not args.fix:
        raise UserError("--decisions are written into a new listing\nname it with: --fix FILE")
    if args.decisions and (args.photos or args.report):
        raise UserError("--decisions are of an audit that was made\nleave out: PHOTOS, --report")
    if not args.decisions and not args.photos:
        raise UserError(f"the photos of {args.listing} are needed\nname their folder behind it: {args.listing} PHOTOS")
    if args.out.suffix.lower() != ".csv":
        raise UserError(f"--out {args.out} is a CSV table\nname it so: --out {args.out.stem or 'audit'}.csv")
    if args.report:
        if args.report.suffix.lower() not in (".html", ".htm"):
            # Written in one step over whatever has the name: not over a photo, a listing, or a device.
            raise UserError(
                f"--report {args.report} is a page\nname it so: --report {args.report.stem or 'audit'}.html"
            )
        page.check_writable(args.report)
    if args.fix and args.fix.suffix.lower() != args.listing.suffix.lower():
        # As for a page: not over a photo.
        raise UserError(
            f"--fix {args.fix} is a table as {args.listing} is\nname it so: --fix fixed{args.listing.suffix}"
        )
    read = {os.path.realpath(path) for path in (args.listing, args.decisions, *args.aliases) if path}
    written = [args.out, beside(args.out, "answers"), beside(args.out, "summary"), args.report]
    written = [] if args.decisions else written
    written += [args.fix, fixes.traces(args.fix)] if args.fix else []
    taken: set[str] = set()
    for path in filter(None, written):
        where = os.path.realpath(path)
        if where in read or where in taken:
            what = "is read" if where in read else "is written already"
            raise UserError(f"{path} {what}, and would be written over\nchoose another file")
        taken.add(where)
        if path != args.report:
            page.check_writable(
                path, option="--fix" if args.fix and path in (args.fix, fixes.traces(args.fix)) else "--out"
            )


def beside(out: Path, what: str) -> Path:
    """Where the answers, or the sums, of an audit go."""
    return out.with_name(f"{out.stem}.{what}{out.suffix}")


def fleet_for(args: argparse.Namespace, listing: Listing, folders: Sequence[Path]) -> Fleet:
    """Who answers: the bundles of the categories that the listing names, else those that a router leads to."""
    streams = predict.streams(len(listing.records))
    if listing.columns.category is None:
        fleet = Fleet.open(folders, category=args.category, engine="auto", precision=None, streams=streams)
    elif args.category:
        raise UserError("the listing gives every photo its category already\nleave out: --category")
    else:
        categories = map(listing.category, listing.records)
        fleet = Fleet.listed(folders, categories, engine="auto", precision=None, streams=streams, checks=True)
    fleet.top = fleet.most_classes  # the declared one is among them
    return fleet


def answer(
    args: argparse.Namespace,
    fleet: Fleet,
    questions: Questions,
    photos: Mapping[str, Sequence[Path]],
    kept: Kept,
    batch: int,
    out: Unfinished,
) -> dict[str, Drift]:
    """Let the fleet answer every photo of the listing, into a table of what it says of each cell; gives how far each
    category's photos are from those of validation."""
    listing = questions.listing
    total = len(listing.records)
    rows = declared.rows(listing, photos, fleet.categories if listing.columns.category is not None else None)
    started = time.perf_counter()
    with fleet, progress("photos", total, quiet=args.quiet) as advance:
        if args.resume:
            for _ in out.go_on(batch, rows):
                advance(1)
        before = out.rows
        found = answered(rows, fleet, batch=batch, workers=workers(fleet.engines), max_pixels=predict.most_pixels(args))
        with closing(found):
            for row in found:
                out.write(row)
                advance(1)
        drifts = drift.of_categories(fleet, kept, _answered(out.texts()), predict.most_pixels(args))
    seconds = time.perf_counter() - started
    note(f"{count(total, 'photo')} in {seconds:.1f} s ({(total - before) / seconds:.1f} images/s)", quiet=args.quiet)
    return drifts


def _answered(rows: Iterable[Sequence[str]]) -> Iterator[tuple[Path, str, str]]:
    """Of the table of answers, each photo that was, its category and its router."""
    for row in rows:
        image, _, category, _, router, status, _ = map(bare, row[: len(FIXED)])
        if status == "ok":
            yield Path(image), category, router


def judge(
    args: argparse.Namespace,
    fleet: Fleet,
    questions: Questions,
    kept: Kept,
    drifts: Mapping[str, Drift],
    answers: Unfinished,
) -> tuple[list[Finding], Summary]:
    """The verdicts: the answers are read twice, since what is improbable hangs on the whole listing."""
    verdicts = Verdicts()
    for name, (predictor, category) in fleet.served.items():
        verdicts.learn(name, category, kept[predictor])
    for predictor in (one for one, what in kept.items() if what is None):
        note(
            f"{predictor.folder} keeps nothing of its validation photos, so that nothing can be promised\n"
            f"{bundle.rebuild(predictor.folder)}"
        )
    for photo in questions.photos(answers.texts()):
        verdicts.see(photo.cells)
    verdicts.promise(args.precision)
    summary, found = Summary(verdicts.promises, args.precision, drifts), []
    for photo in questions.photos(answers.texts()):
        summary.photos += 1
        if photo.error:
            summary.failed += 1
            summary.failure = summary.failure or f"{photo.image}: {photo.error}"
            found.append(findings.of_photo(photo))
        else:
            summary.unasked.update(questions.unasked(photo))
        for cell in photo.cells:
            judged = verdicts.judge(cell)
            summary.add(cell, judged)
            if judged.verdict != "agrees":
                found.append(findings.of_cell(photo, cell, judged, questions))
    found.sort(key=lambda finding: -finding.worth)
    return found, summary


def made_of(args: argparse.Namespace, listing: Listing, fleet: Fleet, batch: int) -> list[object]:
    """All that the answers hang on: a run goes on only with rows that it would have made itself."""
    served = [(each.bundle.digest, *each.choice.identity) for each in fleet.predictors]
    files = [listing.digest, *map(sha256_of, args.aliases)]
    return [served, files, args.columns, args.category, args.max_megapixels, batch]


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not name or not equals or not column:
        raise argparse.ArgumentTypeError(f"must be NAME=COLUMN, got {text!r}")
    return name, column


def _precision(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not LEAST_PRECISION <= number <= MOST_PRECISION:
        raise argparse.ArgumentTypeError(f"must be a share, {LEAST_PRECISION:g} to {MOST_PRECISION:g}, got {text!r}")
    return number


if __name__ == "__main__":
    raise SystemExit(main())

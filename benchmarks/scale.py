"""Command: the challenge at its full size, from a synthetic data folder to a checked submission, measured on the way.

python -m benchmarks.scale
"""

from __future__ import annotations

import argparse
import csv
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import busy, loader, record, synthetic, watch
from benchmarks.loader import Rate
from runtime.challenge import COLUMNS, DUMMY
from runtime.errors import DONE, PARTLY_DONE, UserError
from runtime.terminal import note, positive

WORK = Path("/tmp/facet-scale")
STAMP = "size.txt"
SIDE = synthetic.SIDE
# The network that costs least: what is left is what the data costs.
NETWORK = ("--backbone", "test_efficientnet", "--weights", "none", "--size", str(SIDE))
BATCH = 64
# Of which some 60 % are for training where there are so few: two steps.
LEAST_PHOTOS = 2 * BATCH
PRECISION = "fp32"
# What is asked of the full size: seconds from the command to the first step, and memory that stays as it is. Pages
# that the trainer and its workers shared and wrote to since are some MB in an epoch; the rows' paths would be 30.
FIRST_STEP_S = 10.0
GROWTH_MB = 16.0


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one run found."""

    photos: int
    joint: bool
    write_s: float | None
    """None where the data folder was there already."""
    first_step_s: float
    """From the command, Python's own start included."""
    steps: int
    batch: int
    step_photos_per_s: float
    """From the first step to the last one; where a model is trained for each category, with all between."""
    train_s: float
    resident_mb: float
    """Of the trainer and its workers at their largest; a page that several share counts for each."""
    own_mb: float
    """The same without libraries and other mapped files, shared pages counted once."""
    growth_mb: float
    """Of the latter from the first tenth of the steps to the last step, along a straight line."""
    page_bytes: int
    """Of the largest checkpoint.json."""
    hm: float
    """On validation photos, averaged over the categories: the mosaics can be learnt."""
    baseline_hm: float
    """Of a constant."""
    export_s: float
    test_photos: int
    predict_s: float
    rates: tuple[Rate, ...]

    def complaints(self) -> list[str]:
        """What of it is not as it should be at the full size."""
        found = []
        if self.first_step_s > FIRST_STEP_S:
            found.append(f"the first step came after {self.first_step_s:.1f} s: {FIRST_STEP_S:.0f} at most")
        if self.growth_mb > GROWTH_MB:
            found.append(f"memory grew by {self.growth_mb:.0f} MB: {GROWTH_MB:.0f} at most")
        if self.hm <= self.baseline_hm:
            found.append(f"HM is {self.hm:.3f}: a constant has {self.baseline_hm:.3f}")
        return found


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description="Write a data folder of the challenge's size, train an epoch on it, export, predict a submission "
        "and check it. Times, rates and memory are kept with the other results.",
    )
    parser.add_argument(
        "--photos", type=_at_least(LEAST_PHOTOS), default=synthetic.PHOTOS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--test-photos", type=positive, default=synthetic.TEST_PHOTOS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--apart", action="store_true", help="a model for each category (default: one for all)")
    parser.add_argument(
        "--max-steps", type=_at_least(2), metavar="N", help="end each training after N steps: a rehearsal"
    )
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="default: %(default)s")
    record.add_out(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return record.run(lambda: scale(args), into=args.out)


def scale(args: argparse.Namespace) -> int:
    load_before = busy.before()
    found = measured(args)
    path = record.keep(
        {"model": "scale"},
        {name: record.rounded(value) for name, value in asdict(found).items()},
        full=(args.photos, args.test_photos, args.max_steps) == (synthetic.PHOTOS, synthetic.TEST_PHOTOS, None),
        load_before=load_before,
        into=args.out,
    )
    note(f"first step after {found.first_step_s:.1f} s, then {found.step_photos_per_s:.0f} photos/s")
    note(f"memory {found.own_mb:.0f} MB at most, {found.growth_mb:+.1f} MB from the first steps to the last")
    note(f"kept in {path}")
    complaints = found.complaints()
    for complaint in complaints:
        note(f"not as it should be: {complaint} (load before: {load_before:.1f})")
    return PARTLY_DONE if complaints else DONE


def measured(args: argparse.Namespace) -> Found:
    """All that the command does, one after the other."""
    from train import checkpoint, data, metrics

    folder, checkpoints, bundles = (args.work / name for name in ("data", "checkpoints", "bundles"))
    write_s = write(args.work, folder, args.photos, args.test_photos)
    (table, *_) = sorted(data.read(folder), key=lambda table: -len(table.paths))
    rates = []
    for rate in loader.rates(table, SIDE):
        note(rate.line())
        rates.append(rate)
    options = ["--data", str(folder), "--out", str(checkpoints), *NETWORK, "--batch", str(BATCH)]
    options += ["--phase", "1", "--epochs", "1", *["--joint"] * (not args.apart)]
    options += ["--max-steps", str(args.max_steps)] if args.max_steps else []
    watched = watch.training(options, args.work / "steps.json")
    _require_done("train.fit", watched.code)
    pages = {path: checkpoint.read(path) for path in checkpoint.find(checkpoints).values()}
    scores = [score for page in pages.values() for score in page.metrics]
    export_s = timed(lambda: export(folder, checkpoints, bundles))
    predict_s = timed(lambda: predict(folder, bundles, args.work / "submission.csv"))
    check(args.work / "submission.csv", folder / "sample_submission.csv")
    return Found(
        photos=args.photos,
        joint=not args.apart,
        write_s=write_s,
        first_step_s=watched.first_step_s,
        steps=watched.steps,
        batch=BATCH,
        step_photos_per_s=BATCH * (watched.steps - 1) / (watched.last_step_s - watched.first_step_s),
        train_s=watched.done_s,
        resident_mb=max(sample.resident for sample in watched.samples),
        own_mb=max(sample.own for sample in watched.samples),
        growth_mb=watched.growth,
        page_bytes=max((path / checkpoint.PAGE).stat().st_size for path in pages),
        hm=metrics.mean_hm(scores),
        baseline_hm=metrics.mean_baseline_hm(scores),
        export_s=export_s,
        test_photos=args.test_photos,
        predict_s=predict_s,
        rates=tuple(rates),
    )


def write(work: Path, folder: Path, photos: int, test_photos: int) -> float | None:
    """Write the data folder, unless it is there already, and clear the rest; gives the seconds that writing took."""
    size = f"{photos} {test_photos}\n"
    stamp = work / STAMP
    if work.exists() and any(work.iterdir()) and not stamp.is_file():
        raise UserError(f"{work} holds other things than this command's\nchoose another folder with: --work DIR")
    kept = folder.name if stamp.is_file() and stamp.read_text() == size else STAMP
    for path in work.iterdir() if work.exists() else ():
        if path.name not in (kept, STAMP):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if folder.exists():
        return None
    work.mkdir(parents=True, exist_ok=True)
    stamp.write_text("being written\n")
    taken = timed(lambda: synthetic.write(folder, photos=photos, test_photos=test_photos))
    stamp.write_text(size)
    return taken


def export(folder: Path, checkpoints: Path, bundles: Path) -> None:
    """Make the bundles."""
    from export import build

    options = ["--data", str(folder), "--checkpoints", str(checkpoints), "--out", str(bundles)]
    _require_done("export.build", build.main([*options, "--precision", PRECISION]))


def predict(folder: Path, bundles: Path, submission: Path) -> None:
    """Answer test.csv."""
    from runtime import predict

    options = ["--listing", str(folder / "test.csv"), "--format", "challenge", "--out", str(submission)]
    _require_done("runtime.predict", predict.main([str(folder / "test_images"), "--bundles", str(bundles), *options]))


def check(submission: Path, sample: Path, *, unanswered: Collection[str] = ()) -> None:
    """AssertionError unless the submission has the sample's columns, ids, categories and lengths, and a class of its
    attribute in every other cell, or the dummy where the sample has it.

    Args:
        unanswered: ids whose photo cannot be read, which have the dummy everywhere.
    """
    found, expected = ([*csv.reader(path.read_text().splitlines())] for path in (submission, sample))
    assert found[0] == expected[0] == list(COLUMNS), f"columns: {found[0]}"
    assert len(found) == len(expected), f"{len(found)} lines, expected {len(expected)}"
    head = COLUMNS.index("attr_1")
    classes = {category.name: [set(a.classes) for a in category.attributes] for category in synthetic.categories()}
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert ours[:head] == theirs[:head], f"{ours} where the sample has {theirs}"
        asked = classes[ours[1]]
        assert int(ours[2]) == len(asked), f"len of {ours}"
        if ours[0] in unanswered:
            assert set(ours[head:]) == {DUMMY}, f"an answer without a photo: {ours}"
            continue
        for label, allowed in zip(ours[head:], [*asked, *[{DUMMY}] * (len(COLUMNS) - head - len(asked))], strict=True):
            assert label in allowed, f"{label!r} in {ours}"


def timed(work: Callable[[], object]) -> float:
    """The seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _at_least(least: int) -> Callable[[str], int]:
    """An option's whole number; argparse shows what is raised."""

    def parsed(text: str) -> int:
        if (number := positive(text)) < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, for a pace between two steps, got {number}")
        return number

    return parsed


def _require_done(what: str, code: int) -> None:
    assert code == DONE, f"{what} ended with {code}"


if __name__ == "__main__":
    raise SystemExit(main())

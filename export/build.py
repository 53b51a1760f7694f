"""Command: every checkpoint found becomes a bundle: a graph per precision, plans, golden photos, verdicts.

A joint checkpoint becomes one bundle that answers for all its categories, or with --split one for each.

python -m export.build --precision fp16
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runtime.engines import ENGINES
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.terminal import note, positive, print_table, progress

if TYPE_CHECKING:
    from export.artifacts import Job, Made
    from runtime.bundle import Artifact
    from train.checkpoint import Checkpoint
    from train.network import FacetModel

EXAMPLE_CHECKPOINTS = Path(__file__).resolve().parent.parent / "examples" / "checkpoints"
EXAMPLE_DATA = Path(__file__).resolve().parent.parent / "examples" / "clothing"
# Ada: the generation of the RTX and L4 cards that are commonest at the edge today.
DEFAULT_TARGET = "sm89"
COLUMNS = ("artifact", "engine", "MB", "max difference", "agreement", "HM", "images/s", "verdict")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.build",
        description="Turn checkpoints into bundles: ONNX graphs, TensorRT plans, golden photos, the gate's verdicts.",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=["fp32", "fp16", "int8"],
        default=["fp16"],
        metavar="P",
        help="fp32, fp16, int8 (default: fp16)",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        metavar="SM",
        help=f"GPUs to build TensorRT-RTX plans for (default: {DEFAULT_TARGET} where tensorrt-rtx is installed)",
    )
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="default: checkpoints/, else the shipped one")
    parser.add_argument("--category", nargs="+", default=[], metavar="NAME", help="default: every one")
    parser.add_argument(
        "--split", action="store_true", help="a bundle for each category of a joint checkpoint (default: one for all)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="photos for calibration and gate (default: those trained on)"
    )
    parser.add_argument("--calibration-photos", type=positive, default=128, metavar="N", help="default: %(default)s")
    parser.add_argument("--gate-photos", type=positive, default=256, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--allow-drop",
        type=_points,
        metavar="POINTS",
        help="of the mean HM that an artifact may lose, where labels are enough to tell (default: 0.5)",
    )
    parser.add_argument("--out", type=Path, default=Path("bundles"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: build(args))


def build(args: argparse.Namespace) -> int:
    from train import checkpoint

    targets = plan_targets(args.target, args.precision)
    root = args.checkpoints or default_checkpoints(args.quiet)
    refused = 0
    for folder, slugs in asked(root, args.category, split=args.split).items():
        page = checkpoint.read(folder)
        pages = checkpoint.pages(page) if args.split else [page]
        orders = [order(folder, each, targets, args) for each in pages if each.slug in slugs]
        if not all(each.done for each in orders):
            model, page = checkpoint.load(folder)
            models = checkpoint.split(model, page) if args.split else [(model, page)]
            by_slug = {piece.slug: model for model, piece in models}
        for each in orders:
            if each.done:
                show(each.page, each.standing.values())
                note(f"unchanged: {each.into}", quiet=args.quiet)
            else:
                refused += build_one(by_slug[each.page.slug], each, args)
    return PARTLY_DONE if refused else DONE


class Order(NamedTuple):
    """A bundle to build."""

    page: Checkpoint
    into: Path
    data: Path
    digests: dict[Job, str]
    """Every artifact asked for, and a digest of what a graph is made from."""
    standing: dict[Job, Artifact]
    """Those that are there and would come out the same."""

    @property
    def done(self) -> bool:
        return self.standing.keys() == self.digests.keys()


def order(folder: Path, page: Checkpoint, targets: Sequence[str], args: argparse.Namespace) -> Order:
    """What is asked for of one checkpoint, found without opening the network."""
    from export import artifacts, unchanged
    from train import checkpoint

    data = data_folder(args.data, page.provenance, quiet=args.quiet)
    options = {name: getattr(args, name) for name in ("calibration_photos", "gate_photos", "allow_drop")}
    jobs = artifacts.jobs(args.precision, targets)
    digests = unchanged.digests(page, folder / checkpoint.WEIGHTS, data, jobs, options)
    into = args.out / page.slug
    return Order(page, into, data, digests, unchanged.standing(into, digests))


class Offer(NamedTuple):
    """A bundle that could be built."""

    called: str
    """What `--category` names it by."""
    slug: str
    folder: Path
    """The checkpoint that it would be built from."""


def asked(root: Path, names: Sequence[str], *, split: bool) -> dict[Path, list[str]]:
    """The checkpoints to build from, and the slugs of the bundles that each of them is to give."""
    from runtime.bundle import slug_of
    from train import checkpoint

    found = checkpoint.find(root)
    wanted = [slug_of(name) for name in names]
    # What a checkpoint offers when it is split is in its page; else a page that nobody asked for need not be whole.
    opened = found if split or not wanted else {slug: found[slug] for slug in wanted if slug in found}
    offers = [offer for called, folder in opened.items() for offer in _offers(called, folder, split=split)]
    have = [offer.called for offer in offers] if split else list(found)
    for slug in wanted:
        if slug not in have:
            if joint := next((folder for folder in found.values() if _is_joint_with(folder, slug)), None):
                raise UserError(
                    f"{slug!r} is one of the categories of {joint}, a joint checkpoint: one bundle for all\n"
                    "build a bundle for each with: --split"
                )
            raise UserError(f"no checkpoint of {slug!r} in {root}; have: {', '.join(have)}")
    made: dict[Path, list[str]] = {}
    by_slug: dict[str, Path] = {}
    for offer in offers:
        if wanted and offer.called not in wanted:
            continue
        if (other := by_slug.setdefault(offer.slug, offer.folder)) != offer.folder:
            raise UserError(
                f"{other} and {offer.folder} are checkpoints of one category\nname one: --checkpoints {offer.folder}"
            )
        made.setdefault(offer.folder, []).append(offer.slug)
    return made


def build_one(model: FacetModel, asked: Order, args: argparse.Namespace) -> int:
    """Build one bundle and print its table; gives the number of refused artifacts."""
    from export import artifacts, commit, evidence
    from export.parity import ACCURACY

    page = asked.page
    photos = evidence.gather(model, page, asked.data, calibration=args.calibration_photos, gate=args.gate_photos)
    jobs = [job for job in asked.digests if job not in asked.standing]
    accuracy = ACCURACY if args.allow_drop is None else ACCURACY.raised(args.allow_drop / 100)
    made: list[Made] = []
    with (
        commit.scratch(asked.into) as scratch,
        progress(f"{page.name}, export", len(jobs), quiet=args.quiet) as advance,
    ):
        for job, result in artifacts.make(model, page, photos, jobs, scratch, accuracy=accuracy, tell=advance.tell):
            made.append(result if job.library else result.marked(asked.digests[job]))
            advance(1)
        kept = [result for result in made if not result.refused]
        commit.commit(asked.into, model, page, photos, kept)
    show(page, [*asked.standing.values(), *(result.artifact for result in made)], len(photos.evidence.photos_NHWC))
    if kept:
        note(f"bundle: {asked.into}", quiet=args.quiet)
    else:
        note(f"nothing passed the gate: {asked.into} is as it was")
    return len(made) - len(kept)


def show(page: Checkpoint, artifacts: Iterable[Artifact], photos: int | None = None) -> None:
    """Print the table of a bundle's artifacts."""
    judged = "" if photos is None else f": {photos} photos at the gate"
    print_table(f"{page.name}{judged}", COLUMNS, rows(artifacts))


def rows(artifacts: Iterable[Artifact]) -> list[list[str]]:
    """The table: a row for each artifact on each engine."""
    lines = []
    for artifact in artifacts:
        for verdict in artifact.verdicts:
            figures = verdict.figures
            lines.append(
                [
                    " ".join(filter(None, (artifact.precision, artifact.target))),
                    " ".join(filter(None, (verdict.engine, verdict.hint))),
                    f"{artifact.bytes / 1e6:.2f}",
                    f"{figures['probability_difference']:.1e}" if figures else "",
                    f"{figures['agreement']:.3f}" if figures else "",
                    f"{figures['hm']:.3f}" if "hm" in figures else "",
                    f"{verdict.images_per_s:.1f}" if verdict.images_per_s else "",
                    f"{verdict.state}: {verdict.reason}" if verdict.reason else verdict.state,
                ]
            )
    return lines


def plan_targets(asked: Sequence[str] | None, precisions: Sequence[str]) -> list[str]:
    """The GPUs to build TensorRT-RTX plans for."""
    from export.engine import RTX_TARGETS

    if asked is None:
        return [DEFAULT_TARGET] if "fp16" in precisions and ENGINES["tensorrt-rtx"].installed() else []
    if unknown := [target for target in asked if target not in RTX_TARGETS]:
        raise UserError(f"no target {unknown[0]!r}; choose from: {', '.join(RTX_TARGETS)}")
    if not ENGINES["tensorrt-rtx"].installed():
        raise UserError("plans for --target need tensorrt-rtx\ninstall it with: pip install 'facet-edge[tensorrt-rtx]'")
    return list(asked)


def default_checkpoints(quiet: bool) -> Path:
    """`checkpoints/`, else the shipped example, saying so."""
    if Path("checkpoints").is_dir():
        return Path("checkpoints")
    if not EXAMPLE_CHECKPOINTS.is_dir():
        raise UserError("no checkpoints/ folder here\ntrain one with: python -m train.fit --data DIR")
    note(f"no checkpoints/ folder here: using the example in {EXAMPLE_CHECKPOINTS}", quiet=quiet)
    return EXAMPLE_CHECKPOINTS


def data_folder(asked: Path | None, provenance: dict[str, str], *, quiet: bool) -> Path:
    """Where photos for calibration and gate come from: as asked, else what was trained on, else the example."""
    if asked:
        return asked
    trained_on = provenance.get("data")
    for folder in (*([Path(trained_on)] if trained_on else []), EXAMPLE_DATA):
        if (folder / "train.csv").is_file():
            note(f"photos for calibration and gate: {folder}", quiet=quiet)
            return folder
    raise UserError("the photos that this checkpoint was trained on are not here\nname a data folder with: --data DIR")


def _offers(called: str, folder: Path, *, split: bool) -> list[Offer]:
    from runtime.bundle import slug_of
    from train import checkpoint

    page = checkpoint.read(folder)
    if split and len(page.categories) > 1:
        slugs = [slug_of(category.name) for category in page.categories]
        return [Offer(slug, slug, folder) for slug in slugs]
    return [Offer(called, page.slug, folder)]


def _is_joint_with(folder: Path, slug: str) -> bool:
    from train import checkpoint

    categories = checkpoint.read(folder).categories
    return len(categories) > 1 and any(category.called(slug) for category in categories)


def _points(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"must be a number of points, 0 to 100, got {text!r}")
    return number


if __name__ == "__main__":
    raise SystemExit(main())

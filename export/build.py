"""Command: every checkpoint found becomes a bundle: a graph per precision, plans, golden photos, verdicts.

A joint checkpoint becomes one bundle that answers for all its categories, or with --split one for each.

python -m export.build --precision fp16
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from export import table
from export.engine import add_batch, profile_of
from runtime import bundle
from runtime.engines import ENGINES, require
from runtime.engines.cuda import why_no_gpu
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.plans import RTX_TARGETS
from runtime.terminal import note, positive, progress

if TYPE_CHECKING:
    from export.artifacts import Job, Made, Terms
    from runtime.bundle import Artifact
    from train.checkpoint import Checkpoint
    from train.network import FacetModel
    from train.out_of_fold import OutOfFold
    from train.table import Table

EXAMPLE_CHECKPOINTS = Path(__file__).resolve().parent.parent / "examples" / "checkpoints"
EXAMPLE_DATA = Path(__file__).resolve().parent.parent / "examples" / "clothing"
OUT = Path("bundles")
# Ada: the generation of the RTX and L4 cards that are commonest at the edge today.
DEFAULT_TARGET = "sm89"
# What answers more as PyTorch does, where the gate refuses a precision.
CLOSER = {"int8": "fp16", "fp16": "fp32"}


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
        "--engine",
        nargs="+",
        choices=list(ENGINES),
        metavar="NAME",
        help=f"engines to build for and judge on: {', '.join(ENGINES)} (default: those installed)",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        metavar="SM",
        help=f"GPUs to build TensorRT-RTX plans for (default: {DEFAULT_TARGET} for fp16, where that library is)",
    )
    add_batch(parser)
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="default: checkpoints/, else the shipped one")
    parser.add_argument("--category", nargs="+", default=[], metavar="NAME", help="default: every one")
    parser.add_argument(
        "--split", action="store_true", help="a bundle for each category of a joint checkpoint (default: one for all)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="photos for calibration and gate (default: those trained on)"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="photos for calibration alone, which need no labels (default: of --data)",
    )
    parser.add_argument("--calibration-photos", type=positive, default=128, metavar="N", help="default: %(default)s")
    parser.add_argument("--gate-photos", type=positive, default=256, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--allow-drop",
        type=_points,
        metavar="POINTS",
        help="of the mean HM that an artifact may lose, where labels are enough to tell (default: 0.5)",
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: build(args), extra="export")


def build(args: argparse.Namespace) -> int:
    from export import commit, evidence, offers, validation
    from train import checkpoint, memory

    memory.give_back_freed()
    wanted = serving(args)
    root = args.checkpoints or default_checkpoints(args.quiet)
    refused: dict[str, list[str]] = {}
    for folder, slugs in offers.asked(root, args.category, split=args.split).items():
        page = checkpoint.read(folder)
        pages = checkpoint.pages(page) if args.split else [page]
        orders = [order(folder, each, wanted, args) for each in pages if each.slug in slugs]
        for data in {each.data for each in orders} - {args.data}:
            note(f"photos for calibration and gate: {data}", quiet=args.quiet)
        if not all(each.done for each in orders):
            model, page = checkpoint.load(folder)
            models = checkpoint.split(model, page) if args.split else [(model, page)]
            by_slug = {piece.slug: model for model, piece in models}
        for each in orders:
            if each.done:
                commit.tidy(each.into)
                lacks = validation.lacks(each.into, each.out_of_fold)
                if lacks:
                    keep_validation(each, evidence.table(each.page, each.data), args)
                table.show(each.page.name, each.standing.values())
                note(f"{'graphs ' if lacks else ''}unchanged: {each.into}", quiet=args.quiet)
            else:
                for artifact in build_one(by_slug[each.page.slug], each, wanted.terms, args):
                    refused.setdefault(table.called(artifact), []).append(each.page.slug)
    for what, slugs in refused.items():
        named = list(dict.fromkeys(slugs))
        note(f"{what} was refused by the gate for: {', '.join(named)}")
        if closer := CLOSER.get(what):
            note(f"closer to the network is: {again(args, closer, named)}")
    return PARTLY_DONE if refused else DONE


def again(args: argparse.Namespace, precision: str, slugs: Sequence[str]) -> str:
    """The command that builds these bundles of the same checkpoints at another precision."""
    words = ["python", "-m", "export.build", "--precision", precision, "--category", *slugs]
    words += ["--split"] if args.split else []
    for option, given in (("--checkpoints", args.checkpoints), ("--data", args.data)):
        words += [option, str(given)] if given else []
    words += [] if args.out == OUT else ["--out", str(args.out)]
    return shlex.join(words)


class Serving(NamedTuple):
    """What bundles are built for."""

    terms: Terms
    plans: list[tuple[str, str]]
    """Library and target of each, made from one graph."""


class Order(NamedTuple):
    """A bundle to build."""

    page: Checkpoint
    into: Path
    data: Path
    digests: dict[Job, str]
    """Every artifact asked for, and a digest of what a graph is made from."""
    standing: dict[Job, Artifact]
    """Those that are there and would come out the same."""
    out_of_fold: OutOfFold | None
    """What the checkpoint has of it."""

    @property
    def done(self) -> bool:
        return self.standing.keys() == self.digests.keys()


def serving(args: argparse.Namespace) -> Serving:
    """The engines and GPUs asked for, or those that are here; UserError where one of them cannot be had."""
    from export.artifacts import GRAPH_ENGINES, Terms
    from export.parity import ACCURACY

    targets = plan_targets(args.target, args.precision, args.engine)
    for name in args.engine or ():
        require(name)
    no_gpu = why_no_gpu()
    if args.engine and "tensorrt" in args.engine and no_gpu:
        raise UserError(
            f"tensorrt builds only beside the GPU that will run the plan: {no_gpu}\n"
            "build it there, from the bundle, with: python -m export.engine BUNDLE"
        )
    has_tensorrt = ENGINES["tensorrt"].installed() and not no_gpu
    engines = args.engine or [name for name in ENGINES if name != "tensorrt" or has_tensorrt]
    plans = [("tensorrt-rtx", target) for target in targets] + [("tensorrt", "")] * ("tensorrt" in engines)
    # A plan's graph must have passed somewhere: this one is installed wherever the rest is.
    judging = tuple(name for name in GRAPH_ENGINES if name in engines) or ("onnxruntime",)
    accuracy = ACCURACY if args.allow_drop is None else ACCURACY.raised(args.allow_drop / 100)
    return Serving(Terms(engines=judging, profile=profile_of(args), accuracy=accuracy), plans)


def order(folder: Path, page: Checkpoint, wanted: Serving, args: argparse.Namespace) -> Order:
    """What is asked for of one checkpoint, found without opening the network."""
    from export import artifacts, unchanged
    from train import checkpoint, out_of_fold

    if (args.out / page.slug / checkpoint.PAGE).exists():
        raise UserError(f"{args.out / page.slug} is a checkpoint: bundles go elsewhere\nname a folder with: --out DIR")
    data = data_folder(args.data, folder, page.provenance)
    options = {name: getattr(args, name) for name in ("calibration_photos", "gate_photos", "allow_drop")}
    options["engines"] = wanted.terms.engines
    jobs = artifacts.jobs(args.precision, wanted.plans)
    digests = unchanged.digests(page, folder / checkpoint.WEIGHTS, data, jobs, options, calibration=args.calibration)
    into = args.out / page.slug
    standing = unchanged.standing(into, digests, wanted.terms.profile)
    beside = out_of_fold.read(folder, page)
    if not beside and (folder / out_of_fold.FILE).exists():
        note(
            f"{folder / out_of_fold.FILE} is of the weights before these, and is left out\n{out_of_fold.again(folder)}"
        )
    return Order(page, into, data, digests, standing, beside)


def build_one(model: FacetModel, asked: Order, terms: Terms, args: argparse.Namespace) -> list[Artifact]:
    """Build one bundle and print its table; gives the refused artifacts."""
    from export import artifacts, commit, evidence

    page = asked.page
    photos = evidence.gather(
        model,
        page,
        asked.data,
        calibration=args.calibration_photos,
        gate=args.gate_photos,
        elsewhere=args.calibration,
    )
    jobs = [job for job in asked.digests if job not in asked.standing]
    made: list[Made] = []
    with (
        commit.scratch(asked.into) as scratch,
        progress(f"{page.name}, export", len(jobs), quiet=args.quiet) as advance,
    ):
        for job, result in artifacts.make(model, page, photos, jobs, scratch, terms=terms, tell=advance.tell):
            made.append(result if job.library else result.marked(asked.digests[job]))
            advance(1)
        advance.tell("")
        kept = [result for result in made if not result.artifact.refused]
        commit.commit(asked.into, page, photos, kept)
    table.show(
        page.name, [*asked.standing.values(), *(result.artifact for result in made)], len(photos.evidence.photos_NHWC)
    )
    if kept:
        keep_validation(asked, photos.table, args)
        note(f"bundle: {asked.into}", quiet=args.quiet)
    else:
        stands = (asked.into / bundle.PAGE).exists()
        note(f"nothing passed the gate: {f'{asked.into} is as it was' if stands else f'no bundle in {asked.into}'}")
    refused = [result.artifact for result in made if result.artifact.refused]
    earlier = bundle.load(asked.into).artifacts if refused and (asked.into / bundle.PAGE).exists() else ()
    for artifact in refused:
        if any(commit.kind(artifact) == commit.kind(one) for one in earlier):
            note(f"{asked.into} keeps the {table.called(artifact)} of an earlier build, which passed")
    return refused


def keep_validation(asked: Order, table: Table, args: argparse.Namespace) -> None:
    """Let the bundle answer validation photos as it will serve, and keep that: what an audit promises rests on it."""
    from export import validation

    with progress(f"{asked.page.name}, validation photos", len(validation.drawn(table)), quiet=args.quiet) as advance:
        kept = validation.add(asked.into, table, out_of_fold=asked.out_of_fold, advance=advance)
    if asked.out_of_fold:
        note(f"training photos kept for audits: {kept.photos_out_of_fold}", quiet=args.quiet)


def plan_targets(asked: Sequence[str] | None, precisions: Sequence[str], engines: Sequence[str] | None) -> list[str]:
    """The GPUs to build TensorRT-RTX plans for."""
    if asked is None:
        if engines is not None:
            return [DEFAULT_TARGET] if "tensorrt-rtx" in engines else []
        return [DEFAULT_TARGET] if "fp16" in precisions and ENGINES["tensorrt-rtx"].installed() else []
    if engines is not None and "tensorrt-rtx" not in engines:
        raise UserError(
            f"plans for --target are those of tensorrt-rtx\nadd it: --engine {' '.join(engines)} tensorrt-rtx"
        )
    if unknown := [target for target in asked if target not in RTX_TARGETS]:
        raise UserError(f"no target {unknown[0]!r}; choose from: {', '.join(RTX_TARGETS)}")
    if not ENGINES["tensorrt-rtx"].installed():
        raise UserError(f"plans for --target need tensorrt-rtx\ninstall it with: {ENGINES['tensorrt-rtx'].install}")
    return list(asked)


def default_checkpoints(quiet: bool) -> Path:
    """`checkpoints/`, else the shipped example, saying so."""
    if Path("checkpoints").is_dir():
        return Path("checkpoints")
    if not EXAMPLE_CHECKPOINTS.is_dir():
        raise UserError("no checkpoints/ folder here\ntrain one with: python -m train.fit --data DIR")
    note(f"no checkpoints/ folder here: using the example in {EXAMPLE_CHECKPOINTS}", quiet=quiet)
    return EXAMPLE_CHECKPOINTS


def data_folder(asked: Path | None, folder: Path, provenance: dict[str, str]) -> Path:
    """Where photos for calibration and gate of the checkpoint in `folder` come from: as asked, else what it was trained
    on, else, for the shipped one, the example."""
    if asked:
        return asked
    trained_on = provenance.get("data", "")
    if trained_on and (Path(trained_on) / "train.csv").is_file():
        return Path(trained_on)
    # What the shipped checkpoint was trained on has the example data in it.
    if folder.resolve().parent == EXAMPLE_CHECKPOINTS and (EXAMPLE_DATA / "train.csv").is_file():
        return EXAMPLE_DATA
    where = f"are not in {trained_on}" if trained_on else "are not known"
    raise UserError(
        f"the photos that the checkpoint in {folder} was trained on {where}\nname their folder with: --data DIR"
    )


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

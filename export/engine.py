"""Command: plans for bundles, from their own graphs, on the device that will run them or for one that is named.

python -m export.engine bundles/t-shirt --precision fp16
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from export.plan import Options, Plan, library_for, made_from, plan_from_onnx
from runtime import golden, plans
from runtime.bundle import Artifact, Bundle, Profile, Verdict, checked_file, find, load, save
from runtime.engines import ENGINES
from runtime.engines.cuda import gpu_here, why_no_gpu
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.files import sha256_of
from runtime.locks import locked
from runtime.terminal import note, positive, print_table, progress

COLUMNS = ("plan", "MB", "seconds", "tensors of the parsed network", "verdict")
TITLE = "Tensor types are the parsed network's, which are the graph's; those of a plan's own layers show on a GPU alone"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.engine",
        description="Build TensorRT plans from the graphs in bundles, and make them part of those bundles.",
    )
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="a bundle, or a folder of them")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=["fp32", "fp16", "int8"],
        default=["fp16"],
        metavar="P",
        help="of the graph: fp32, fp16, int8 (default: fp16)",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        metavar="SM",
        help=f"build with TensorRT-RTX for GPUs that need not be here: {', '.join(plans.RTX_TARGETS)} "
        "(default: for the GPU here, with TensorRT where it is installed)",
    )
    add_batch(parser)
    parser.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="TensorRT's measurements, kept for the next build"
    )
    parser.add_argument(
        "--hardware-compatible", action="store_true", help="TensorRT: for every GPU from Ampere on; slower"
    )
    parser.add_argument(
        "--version-compatible", action="store_true", help="TensorRT: for later versions of it too; slower"
    )
    parser.add_argument("--rebuild", action="store_true", help="make anew what is there and unchanged")
    parser.add_argument(
        "--log", type=Path, metavar="DIR", help="keep all that the library says (default: of failed builds, beside it)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def add_batch(parser: argparse.ArgumentParser) -> None:
    """The option that plans have for their optimisation profile; `profile_of` reads it."""
    shape = Profile()
    parser.add_argument(
        "--batch",
        nargs=3,
        type=positive,
        default=[shape.min_batch, shape.opt_batch, shape.max_batch],
        metavar=("MIN", "OPT", "MAX"),
        help="photos at a time for plans: the fewest, those that kernels are chosen for, the most "
        f"(default: {shape.min_batch} {shape.opt_batch} {shape.max_batch})",
    )


def profile_of(args: argparse.Namespace) -> Profile:
    """The profile asked for; UserError where the three are not in order."""
    minimum, best, maximum = args.batch
    try:
        return Profile(min_batch=minimum, opt_batch=best, max_batch=maximum)
    except ValueError as err:
        raise UserError(f"{err}\ngive them in that order with: --batch 1 8 32") from None


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: build(args))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One plan to make."""

    folder: Path
    slug: str
    graph: Artifact
    library: str
    version: str
    target: str
    """Empty for the GPU here."""
    profile: Profile
    options: Options

    @property
    def stem(self) -> str:
        return ".".join(filter(None, ("model", self.graph.precision, self.target)))

    @property
    def made_from(self) -> str:
        return made_from(
            self.graph.sha256,
            library=self.library,
            version=self.version,
            target=self.target,
            profile=self.profile,
            options=self.options,
        )

    def replaces(self, artifact: Artifact) -> bool:
        """Whether the bundle's artifact is an earlier plan of the same kind."""
        kind = (artifact.precision, artifact.target, artifact.engines)
        return kind == (self.graph.precision, self.target, (self.library,))


def build(args: argparse.Namespace) -> int:
    rows: list[list[str]] = []
    refused: list[Job] = []
    try:
        for job in jobs(args):
            if not args.rebuild and (kept := unchanged(job)):
                note(
                    f"kept, as nothing it is made from has changed: {job.folder / kept.file} (make it anew: --rebuild)"
                )
                continue
            plan, artifact = build_one(job, log_folder=args.log, quiet=args.quiet)
            rows.append(row(job, plan, artifact))
            if artifact.verdicts[0].state == "refused":
                refused.append(job)
    finally:
        # Also where a later one failed: these are in their bundles.
        if rows:
            print_table(TITLE, COLUMNS, rows, below=[remedy(job) for job in refused])
    return PARTLY_DONE if refused else DONE


def jobs(args: argparse.Namespace) -> list[Job]:
    """The plans asked for, all that a build needs checked before the first, which may take minutes."""
    profile = profile_of(args)
    options = Options(
        hardware_compatible=args.hardware_compatible,
        version_compatible=args.version_compatible,
        timing_cache=args.timing_cache,
    )
    graphs = [
        (folder, page.slug, source(folder, page, precision))
        for root in args.bundles
        for folder in find(root).values()
        for page in [checked_page(folder)]
        for precision in dict.fromkeys(args.precision)
    ]
    library, targets = library_here(args.target)
    for target in targets:
        version = library_for(ENGINES[library].package, target or None, options).__version__
    return [
        Job(
            folder=folder,
            slug=slug,
            graph=graph,
            library=library,
            version=version,
            target=target,
            profile=profile,
            options=options,
        )
        for folder, slug, graph in graphs
        for target in targets
    ]


def library_here(targets: Sequence[str] | None) -> tuple[str, list[str]]:
    """The library to build with and its targets: those asked for, else the GPU here, where TensorRT needs no name."""
    if targets:
        return "tensorrt-rtx", list(dict.fromkeys(targets))
    gpu = gpu_here()
    if ENGINES["tensorrt-rtx"].installed() and not (gpu and ENGINES["tensorrt"].installed()):
        if gpu in plans.RTX_TARGETS:
            return "tensorrt-rtx", [gpu]
        if gpu:
            raise UserError(plans.unknown(gpu))
        raise UserError(
            f"no GPU to build for: {why_no_gpu()}\n"
            f"tensorrt-rtx builds for one that is elsewhere, of these: --target {' '.join(plans.RTX_TARGETS)}"
        )
    return "tensorrt", [""]


def checked_page(folder: Path) -> Bundle:
    """The bundle's page, the golden photos that will judge the plans checked with it."""
    page = load(folder)
    for photo in page.golden.photos:
        checked_file(folder, photo.file, photo.sha256)
    return page


def source(folder: Path, page: Bundle, precision: str) -> Artifact:
    """The bundle's graph of that precision, its file checked; UserError where there is none to be trusted."""
    graphs = {artifact.precision: artifact for artifact in page.artifacts if artifact.file.endswith(".onnx")}
    command = shlex.join(
        ["python", "-m", "export.build", "--category", page.slug, "--precision", precision, "--out", str(folder.parent)]
    )
    if precision not in graphs:
        raise UserError(
            f"{folder} has no {precision} graph to build a plan from; it has: {', '.join(graphs) or 'none'}\n"
            f"name one that it has with --precision, or build it where the checkpoint is: {command}"
        )
    graph = graphs[precision]
    if all(verdict.state != "passed" for verdict in graph.verdicts):
        said = "; ".join(f"{v.engine} {v.state}: {v.reason}" for v in graph.verdicts) or "none has tried"
        raise UserError(f"no engine passed the {precision} graph of {folder} ({said})\nbuild it anew with: {command}")
    checked_file(folder, graph.file, graph.sha256)
    return graph


def unchanged(job: Job) -> Artifact | None:
    """The plan that is there, where it is whole and a build would only make it again."""
    page = load(job.folder)
    kept = next((one for one in page.artifacts if job.replaces(one) and one.made_from == job.made_from), None)
    if kept is None:
        return None
    try:
        checked_file(job.folder, kept.file, kept.sha256)
    except UserError:
        return None
    # A plan for "the GPU here" may have come from a machine with another: only running it tells.
    if not job.target and judged(job, page, kept).state == "unrun":
        return None
    return kept


def build_one(job: Job, *, log_folder: Path | None, quiet: bool) -> tuple[Plan, Artifact]:
    """Build a plan and make it part of its bundle, unless it is refused.

    What lies in the folder meanwhile is what the next save sweeps. The log is among it, so that it is there where it is
    needed, after a failure or a kill, and gone with the next plan; elsewhere it stays.
    """
    log_path = job.folder / f"{job.stem}.log"
    if log_folder:
        log_path = log_folder / log_path.name.replace("model", job.slug)
    try:
        with progress(
            f"{job.slug}, {job.graph.precision} plan for {job.target or 'this GPU'}", 100, quiet=quiet
        ) as bar:
            done = 0.0

            def advance(fraction: float) -> None:
                nonlocal done
                bar(100 * fraction - done)
                done = 100 * fraction

            plan = plan_from_onnx(
                job.folder / job.graph.file,
                job.folder / f"{job.stem}.plan",
                package=ENGINES[job.library].package,
                target=job.target or None,
                profile=job.profile,
                options=job.options,
                patches=job.graph.signed,
                log_path=log_path,
                on_progress=advance,
            )
        with locked(job.folder, "build"):
            return plan, committed(job, plan)
    except OSError as err:
        raise UserError(
            f"cannot write {err.filename or job.folder}: {err.strerror}; {job.folder} is as it was\n"
            "mend that, then type the same command again"
        ) from err


def committed(job: Job, plan: Plan) -> Artifact:
    """The plan as an artifact, in the bundle's page in place of an earlier one; a refused one is swept instead."""
    page = load(job.folder)  # again: a build takes minutes
    if not plan.path.exists() or job.graph.sha256 not in {one.sha256 for one in page.artifacts}:
        raise UserError(f"{job.folder} was built anew meanwhile, so this plan is not kept\ntype the same command again")
    sha256 = sha256_of(plan.path)
    artifact = Artifact(
        file=f"{job.stem}.{sha256[:8]}.plan",
        sha256=sha256,
        bytes=plan.size_bytes,
        precision=job.graph.precision,
        target=job.target,
        engines=(job.library,),
        built_with={plan.library: plan.version},
        profile=plan.profile,
        made_from=job.made_from,
    )
    os.replace(plan.path, job.folder / artifact.file)
    artifact = replace(artifact, verdicts=(judged(job, page, artifact),))
    if artifact.verdicts[0].state != "refused":
        others = [one for one in page.artifacts if not job.replaces(one)]
        page = replace(page, artifacts=(*others, artifact))
    try:
        save(job.folder, page)  # the one step, and the sweep
    except OSError:
        if artifact.file not in {one.file for one in load(job.folder).artifacts}:
            (job.folder / artifact.file).unlink()  # the largest thing there, on a disk that may be full
        raise
    return artifact


def row(job: Job, plan: Plan, artifact: Artifact) -> list[str]:
    types = Counter(plan.tensor_types).most_common()
    (verdict,) = artifact.verdicts
    return [
        " ".join(filter(None, (job.slug, artifact.precision, artifact.target))),
        f"{plan.size_bytes / 1e6:.2f}",
        f"{plan.build_s:.1f}",
        ", ".join(f"{name} {count}" for name, count in types),
        f"{verdict.state}: {verdict.reason}" if verdict.reason else verdict.state,
    ]


def remedy(job: Job) -> str:
    """What is left where a plan was refused, and what to type for one of another graph of the bundle."""
    graphs = {one.precision for one in load(job.folder).artifacts if one.file.endswith(".onnx")}
    said = f"{job.folder} keeps what it had, and its {job.graph.precision} graph serves without a plan"
    if not (others := sorted(graphs - {job.graph.precision})):
        return said
    target = f" --target {job.target}" if job.target else ""
    return f"{said}; try: python -m export.engine {shlex.quote(str(job.folder))} --precision {others[0]}{target}"


def judged(job: Job, page: Bundle, plan: Artifact) -> Verdict:
    """What the golden photos say of the plan, where its GPU is here."""
    return golden.check(job.folder, page, plan, job.library)


if __name__ == "__main__":
    raise SystemExit(main())

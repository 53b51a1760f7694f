"""Command: what this machine can run, and for the rest the one command that would enable it.

python -m runtime.doctor
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import runtime
from runtime import bundle, machine, plans
from runtime.engines import ENGINES
from runtime.engines.cuda import gpu_here, why_no_gpu
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.predictor import choose, fastest, without_gpu
from runtime.terminal import print_table

READY = "ready"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.doctor",
        description="Say what this machine can run, and what would enable the rest.",
    )
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="default: bundles/, else the shipped ones")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: doctor(args))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a machine may have."""

    what: str
    version: str
    state: str
    """READY, or what is missing."""
    remedy: str = ""
    """What to type for it; empty where there is nothing to be done, here or at all."""

    @property
    def row(self) -> tuple[str, str, str, str]:
        return self.what, self.version, self.state, self.remedy


def doctor(args: argparse.Namespace) -> int:
    found = machine.processor()
    gpu = gpu_here()
    system = f"{platform.system()} {platform.machine()}"
    print(f"facet-edge {runtime.__version__}, Python {platform.python_version()} on {system}")
    known = f" ({', '.join(found.instructions)})" if found.instructions else ""
    print(f"{found.name}, {found.cores} cores{known}, {machine.memory_gb():.0f} GB; GPU: {gpu or why_no_gpu()}")
    print_table("", ("what", "version", "state", "to enable it"), [finding.row for finding in (*engines(), *extras())])
    root, shipped = (args.bundles, False) if args.bundles else bundle.default_root()
    served = [bundle_here(slug, folder) for slug, folder in bundle.find(root).items()]
    print_table(
        "the example bundles" if shipped else f"bundles in {root}",
        ("bundle", "serves", "state", "to mend it"),
        [finding.row for finding in served],
    )
    return DONE if all(finding.state == READY for finding in served) else PARTLY_DONE


def engines() -> list[Finding]:
    """A finding for each engine."""
    return [_engine(name) for name in ENGINES]


def _engine(name: str) -> Finding:
    kind = ENGINES[name]
    if not kind.installed():
        return Finding(what=name, version="", state="not installed", remedy=kind.install)
    known = plans.version_here(name).partition("-")[0]
    if not known:
        remedy = f"pip install --force-reinstall {kind.distribution}"
        return Finding(what=name, version="", state="cannot be loaded", remedy=remedy)
    if kind.suffix == ".plan" and (missing := why_no_gpu()):
        return Finding(what=name, version=known, state=missing)
    return Finding(what=name, version=known, state=READY)


def extras() -> list[Finding]:
    """A finding for what is not an engine: pixels, Parquet, and the two other rooms."""
    import cv2

    opencv = Finding(what="photos, by OpenCV", version=cv2.__version__, state=READY)
    optional = [
        ("Parquet files, by pyarrow", "pyarrow", "pip install pyarrow"),
        ("training, by torch", "torch", "in the clone: pip install '.[train]'"),
        ("export, by onnx", "onnx", "in the clone: pip install '.[export]'"),
    ]
    return [opencv] + [
        Finding(what=what, version=machine.version_of(package), state=READY)
        if find_spec(package)
        else Finding(what=what, version="", state="not installed", remedy=remedy)
        for what, package, remedy in optional
    ]


def bundle_here(slug: str, folder: Path) -> Finding:
    """Whether this machine serves the bundle unasked, and with what."""
    try:
        page = bundle.load(folder)
        choice = fastest(page) or choose(page, engine="auto", precision=None, folder=folder)
        if misfit := plans.misfit(choice.artifact, choice.engine):
            raise UserError(f"{choice.artifact.file} was {misfit}\n{plans.rebuild_here(folder, choice.artifact)}")
        if missing := without_gpu(choice.engine):
            raise UserError(f"{choice.artifact.file}: {missing}\n{bundle.rebuild(folder)}")
        path = bundle.checked_file(folder, choice.artifact.file, choice.artifact.sha256)
    except UserError as err:
        state, _, remedy = str(err).partition("\n")
        return Finding(what=slug, version="", state=state, remedy=remedy.partition(": ")[2] or remedy)
    return Finding(what=slug, version=f"{choice}, {path.stat().st_size / 1e6:.1f} MB", state=READY)


if __name__ == "__main__":
    raise SystemExit(main())

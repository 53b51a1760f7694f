"""Command: bundles checked on this machine: every file by its hash, every artifact by the golden photos.

python -m export.verify bundles/
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from export.table import called, way
from runtime import golden, plans
from runtime.bundle import PAGE, Artifact, Bundle, Verdict, default_root, find, is_lost, load, rebuild, save, verify
from runtime.engines import ENGINES
from runtime.errors import DONE, PARTLY_DONE, UserError, exit_code
from runtime.fidelity import LIMITS, hints
from runtime.locks import locked
from runtime.terminal import note, print_table, progress

COLUMNS = ("artifact", "engine", "max difference", "labels that agree", "verdict before", "now")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.verify",
        description="Check every file of bundles, and on every engine here the answers to their golden photos; "
        "what could not be run where it was built passes or is refused.",
    )
    parser.add_argument(
        "bundles",
        type=Path,
        nargs="*",
        metavar="BUNDLE",
        help="a bundle, or a folder of them (default: bundles/, else the shipped ones)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: verify_all(args))


def verify_all(args: argparse.Namespace) -> int:
    amiss, checked = [], folders(args)
    for folder in checked:
        try:
            if not verify_one(folder, quiet=args.quiet):
                amiss.append(folder)
        except UserError as err:  # of this bundle: the others are looked at all the same
            note(f"error: {err}")
            amiss.append(folder)
    if amiss and len(checked) > 1:
        note(f"{len(amiss)} of {len(checked)} bundles are not as they should be: {', '.join(map(str, amiss))}")
    elif not amiss:
        note(f"{len(checked)} {'bundle is' if len(checked) == 1 else 'bundles are'} as built", quiet=args.quiet)
    return PARTLY_DONE if amiss else DONE


def folders(args: argparse.Namespace) -> list[Path]:
    """The bundles to check, each once."""
    roots: list[Path] = args.bundles
    if not roots:
        root, shipped = default_root()
        roots = [root]
        if shipped:
            note(f"no bundles/ folder here: checking the example bundles in {root}", quiet=args.quiet)
    found = [folder for root in roots for folder in _bundles(root)]
    return list({folder.resolve(): folder for folder in found}.values())


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An artifact on an engine: what was known of the two, and what the golden photos say here."""

    artifact: Artifact
    before: Verdict
    seen: Verdict | None
    """None where the engine is not installed."""

    @property
    def untried(self) -> str:
        """Why it could not be tried here; empty where it was."""
        if self.seen is None:
            return "not installed"
        return self.seen.reason if self.seen.state == "unrun" else ""

    @property
    def after(self) -> Verdict:
        """What is known now. The gate saw more photos: what it measured is kept, and what it refused by it stays so."""
        if self.seen is None or self.untried or self.before.state == self.seen.state:
            return self.before
        by_the_gate = self.before.figures and "golden_photos" not in self.before.figures
        return self.before if self.before.state == "refused" and by_the_gate else self.seen

    @property
    def told(self) -> str:
        """The state now, and why."""
        state, reason = self.after.state, self.after.reason
        if self.untried and state == "passed":
            return f"passed, not tried here: {self.untried}"
        reason = self.untried if self.untried and state == "unrun" else reason
        return f"{state}: {reason}" if reason else state


def verify_one(folder: Path, *, quiet: bool) -> bool:
    """Check one bundle, print its table and keep its new verdicts; gives whether all is well with it."""
    page = verify(folder)
    if not page.artifacts:
        raise UserError(f"{folder} holds no graph and no plan\n{rebuild(folder)}")
    trials = list(tried(folder, page, quiet=quiet))
    print_table(f"{folder}: {len(page.golden.photos)} golden photos", COLUMNS, [row(trial) for trial in trials])
    amiss = remedies(folder, page, trials)
    for line in amiss:
        note(line)
    keep(folder, page, trials)
    newly = any(trial.after.state == "refused" != trial.before.state for trial in trials)
    # What no engine may serve a build would have left out.
    return not newly and not amiss


def tried(folder: Path, page: Bundle, *, quiet: bool) -> Iterator[Trial]:
    """Every artifact on every engine, tried again where that is installed."""
    verdicts = [(artifact, verdict) for artifact in page.artifacts for verdict in known(artifact)]
    with progress(f"{page.slug}, golden photos", len(verdicts), quiet=quiet) as advance:
        for artifact, before in verdicts:
            if there := ENGINES[before.engine].installed():
                advance.tell(f"{called(artifact)} on {before.engine}")
            seen = golden.check(folder, page, artifact, before.engine, before.hint) if there else None
            yield Trial(artifact=artifact, before=before, seen=seen)
            advance(1)
        advance.tell("")


def known(artifact: Artifact) -> list[Verdict]:
    """What is known of it, and for a graph of the engines here that never tried it, that they did not."""
    is_graph = artifact.file.endswith(".onnx")
    names = [name for name, kind in ENGINES.items() if is_graph and kind.suffix == ".onnx" and kind.installed()]
    ways = [(name, hint) for name in names for hint in hints(name, artifact.precision)]
    tried = {(verdict.engine, verdict.hint) for verdict in artifact.verdicts}
    new = [Verdict(engine=name, hint=hint, state="unrun") for name, hint in ways if (name, hint) not in tried]
    return [*artifact.verdicts, *new]


def row(trial: Trial) -> list[str]:
    figures = trial.seen.figures if trial.seen else {}
    limits = LIMITS[trial.artifact.precision]
    return [
        called(trial.artifact),
        way(trial.before),
        f"{figures['probability_difference']:.1e}, limit {limits.probability:g}" if figures else "",
        f"{figures['agreement']:.1%}" if figures else "",
        trial.before.state,
        trial.told,
    ]


def remedies(folder: Path, page: Bundle, trials: Sequence[Trial]) -> list[str]:
    """What to type for each artifact that is refused, and for each plan that does not fit the library or the GPU here,
    where no other of its kind does."""
    lines = [rebuild(folder, artifact.file) for artifact in judged(page, trials) if artifact.refused]
    misfits = [
        (trial.artifact, trial.before.engine, plans.misfit(trial.artifact, trial.before.engine))
        for trial in trials
        if trial.seen and ENGINES[trial.before.engine].suffix == ".plan"
    ]
    fitting = {(artifact.precision, engine) for artifact, engine, misfit in misfits if not misfit}
    return lines + [
        f"{folder / artifact.file} was {misfit}\n{plans.rebuild_here(folder, artifact)}"
        for artifact, engine, misfit in misfits
        if misfit and (artifact.precision, engine) not in fitting
    ]


def keep(folder: Path, page: Bundle, trials: Sequence[Trial]) -> None:
    """Write the new verdicts into the bundle's page, in one step, where there are any."""
    artifacts = judged(page, trials)
    if artifacts == page.artifacts:
        return
    try:
        with locked(folder, "build"):
            if load(folder).digest != page.digest:
                raise UserError(
                    f"{folder} was built anew meanwhile, so these verdicts are not kept\ntype the same command again"
                )
            save(folder, replace(page, artifacts=artifacts))
    except OSError as err:
        note(f"the new verdicts cannot be kept in {folder}: {err.strerror}")


def judged(page: Bundle, trials: Sequence[Trial]) -> tuple[Artifact, ...]:
    """The bundle's artifacts with what is known of them now."""
    return tuple(
        replace(artifact, verdicts=tuple(trial.after for trial in trials if trial.artifact is artifact))
        for artifact in page.artifacts
    )


def _bundles(root: Path) -> list[Path]:
    """The bundles of `root`, or it itself, and those whose page is lost, which nothing else would miss."""
    lost = [folder for folder in root.iterdir() if is_lost(folder)] if root.is_dir() else []
    whole = find(root).values() if not lost or any(root.glob(f"*/{PAGE}")) else ()
    return sorted([*lost, *whole])


if __name__ == "__main__":
    raise SystemExit(main())

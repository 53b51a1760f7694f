"""What a build prints: a row for each artifact on each engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from runtime.fidelity import ENOUGH_LABELS
from runtime.terminal import print_table

if TYPE_CHECKING:
    from runtime.bundle import Artifact, Verdict

COLUMNS = ("artifact", "engine", "MB", "max difference", "agreement", "HM", "points lost", "images/s", "verdict")


def show(name: str, artifacts: Iterable[Artifact], photos: int | None = None) -> None:
    """Print the table of the artifacts of a bundle of that name."""
    judged = "" if photos is None else f": {photos} photos at the gate"
    artifacts = list(artifacts)
    print_table(f"{name}{judged}", COLUMNS, rows(artifacts), below=reasons(artifacts))


def rows(artifacts: Iterable[Artifact]) -> list[list[str]]:
    """The table: a row for each artifact on each engine."""
    lines = []
    for artifact in artifacts:
        for verdict in artifact.verdicts:
            figures = verdict.figures
            lines.append(
                [
                    called(artifact),
                    way(verdict),
                    f"{artifact.bytes / 1e6:.2f}",
                    f"{figures['probability_difference']:.1e}" if figures else "",
                    f"{figures['agreement']:.3f}" if figures else "",
                    f"{figures['hm']:.3f}" if "hm" in figures else "",
                    lost(figures),
                    f"{verdict.images_per_s:.1f}" if verdict.images_per_s else "",
                    verdict.state,
                ]
            )
    return lines


def reasons(artifacts: Iterable[Artifact]) -> list[str]:
    """A line for each verdict that has one to give."""
    return [
        f"{called(artifact)} on {way(verdict)} {verdict.state}: {verdict.reason}"
        for artifact in artifacts
        for verdict in artifact.verdicts
        if verdict.reason
    ]


def called(artifact: Artifact) -> str:
    """What tells an artifact from the others of its bundle: its precision, and the GPU of a plan."""
    return " ".join(filter(None, (artifact.precision, artifact.target)))


def way(verdict: Verdict) -> str:
    """The engine, and how it computes."""
    return " ".join(filter(None, (verdict.engine, verdict.hint)))


def lost(figures: Mapping[str, float]) -> str:
    """Points of the mean HM that went, and the 95 % bound; `not judged` where labels are too few to tell."""
    if "hm_lost" not in figures:
        return ""
    if figures["labels"] < ENOUGH_LABELS:
        return "not judged"
    return f"{100 * figures['hm_lost']:.2f} (< {100 * figures['hm_lost_bound']:.2f})"

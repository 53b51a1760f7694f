"""The README's tables and the picture of what an audit finds, from the files in benchmarks/results/."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from figures import RESULTS, figures, latest, table
from plots import Panel, Point, curves

COMMAND = "python -m benchmarks.{} --source DIR"
WAYS = ("facet", "cleanlab self_confidence", "cleanlab find_label_issues")


def promises() -> str:
    """What was found of mistakes put into listings, beside what was promised."""
    lines = []
    with figures(path := latest("audit", command=COMMAND)) as found:
        for mistakes, name, one in _attributes(found):
            for asked, tally in one["precisions"].items():
                if not (tally["contradicts"] or tally["fills"]):
                    continue  # all of it is unsure
                # What is said to be false at most is the bound that was stated on each listing.
                bound = _share(tally["contradicts"] - tally["false_at_most"], tally["contradicts"])
                lines.append(
                    f"| {mistakes} | {name} | {asked} | {_told(tally['precision'], tally['contradicts'])} | {bound} "
                    f"| {_told(tally['replacement_right'], tally['contradicts'])} "
                    f"| {_told(tally['recall'], tally['wrong'])} | {_told(tally['fills_precision'], tally['fills'])} "
                    f"| {_told(tally['fills_recall'], tally['empty'])} |"
                )
    header = (
        "mistakes",
        "attribute",
        "promised",
        "contradicts: right",
        "at least, as stated",
        "what replaces it: right",
        "of the wrong",
        "fills: right",
        "of the empty",
    )
    return table(header, lines, path)


def redraws() -> str:
    """What of a promise is kept when the photos are dealt anew."""
    lines = []
    with figures(path := latest("audit", command=COMMAND)) as found:
        dealt = found["redraws"]
        for name, by_precision in dealt["attributes"].items():
            for asked, one in by_precision.items():
                within = f"{one['within']} of {one['with_findings']}" if one["with_findings"] else "none"
                lines.append(
                    f"| {name} | {asked} | {one['mean_share_false']:.3f} of {1 - float(asked):.2f} "
                    f"| {one['with_findings']} of {dealt['draws']} | {_told(one['precision'], one['contradicts'])} "
                    f"| {within} | {one['recall']:.3f} |"
                )
    shares = ("false, on average", "with findings", "contradicts: right", "within what was stated", "of the wrong")
    return table(("attribute", "promised", *shares), lines, path)


def ranking() -> str:
    """How well the wrong values come first, beside cleanlab on the same probabilities."""
    lines = []
    with figures(path := latest("audit", command=COMMAND)) as found:
        for mistakes, name, one in _attributes(found):
            if not one["ranking"]:
                continue  # a category is no declared value with a probability of its own
            cells = (f"{one['ranking'][way]:.3f}" if way in one["ranking"] else "not installed" for way in WAYS)
            lines.append(f"| {mistakes} | {name} | {' | '.join(cells)} |")
    return table(("mistakes", "attribute", *WAYS), lines, path)


def pictures() -> dict[Path, str]:
    """How often photos are called drifted, over how many of them are seen."""
    with figures(latest("drift", command=COMMAND)) as found:
        panels = [
            Panel(
                title=name,
                unit=f"of {found['draws']} samples",
                points=tuple(
                    Point(place, str(one["photos"]), float(one["alarms"])) for place, one in enumerate(alarms)
                ),
                most=found["draws"],
            )
            for name, alarms in found["alarms"].items()
        ]
    return {RESULTS / "drift.svg": curves("Samples called drifted, over photos in a sample", panels)}


def _attributes(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The mistakes, the attribute, and what was found of them."""
    for group, kinds in found["groups"].items():
        for mistakes, attributes in kinds.items():
            for name, one in attributes.items():
                yield mistakes, name if group == "garment" else f"{group}: {name}", one


def _told(share: float | None, of: int) -> str:
    return "none" if share is None else f"{share:.3f} of {of}"


def _share(part: int, of: int) -> str:
    return f"{part / of:.3f}" if of else ""

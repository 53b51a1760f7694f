"""The README's tables and pictures of how fast predict is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Beside this file: readme.py is run by its name.
from figures import RESULTS, by_date, figures, latest, table
from plots import Bar, Panel, Part, Point, chart, curves

OURS = "facet"
FACET = (OURS, "facet as installed")
# OpenVINO's words for layers, and ours.
LAYERS = {
    "FullyConnectedQuantizedLegacy": "int8 products",
    "GroupConvolution": "depthwise convolutions",
    "MVN": "norms",
    "Convolution": "other convolutions",
    "Transpose": "transposes",
    "Reorder": "reorders",
}
# Of a network's time: smaller kinds of layers are in the file.
SHOWN_SHARE = 0.02
STAGES = ("the networks", "what is lost", "decoding and fitting")


def speed() -> str:
    """Every way beside ours, for each model: the network alone, from folder to table, and how far off it answers."""
    lines = []
    machines: dict[str, list[str]] = {}
    absent: dict[str, str] = {}
    for path in _speeds():
        with figures(path) as found:
            machines.setdefault(_machine(found["hardware"]), []).append(found["model"])
            alone, whole = ({way["way"]: way for way in found["contests"][kind]["ways"]} for kind in ("alone", "whole"))
            for name, way in alone.items():
                model = f"[{found['model']}](benchmarks/results/{path.name})" if name == OURS else ""
                ways = [each for each in (way, whole.get(name)) if each]
                hows = list(dict.fromkeys(each["how"] for each in ways if each.get("how")))
                told = ", ".join(filter(None, [way["what"], "; ".join(hows)]))
                called = f"**{name}**: {told}" if name in FACET else told
                off = way["answers"]["mean_difference"]
                rates = [_rate(each) for each in ways] + [""] * (2 - len(ways))
                lines.append(f"| {model} | {called} | {' | '.join(rates)} | {'' if off is None else f'{off:.0e}'} |")
            absent |= found["contests"]["alone"]["missing"]
    header = ("model", "way", "network alone, images/s", "folder to table, images/s", "off by")
    measured = (f"{', '.join(models)}: measured on {machine}\n" for machine, models in machines.items())
    reasons = dict.fromkeys(absent.values())
    left_out = [f"{', '.join(name for name in absent if absent[name] == why)}: {why}\n" for why in reasons]
    return "\n".join([table(header, lines), *measured, *left_out])


def limits() -> str:
    """ConvNeXt-Base in int8 beside the challenge's rule and the machine's own rate, and where its time goes."""
    lines = []
    with figures(path := latest("latency")) as single:
        lines.append(
            f"| a photo at a time, decoding included, p95 of {single['photos']} | {single['p95_ms']:.0f} ms, of "
            f"{single['limit_ms']} that the challenge allows | [file](benchmarks/results/{path.name}) |"
        )
    with figures(path := latest("convnext_base", command="make bench")) as base:
        shares = [base["contests"][kind]["share_of_limit"].get("int8") for kind in ("alone", "whole")]
        alone, whole = ("not measured" if share is None else f"{100 * share:.0f} %" for share in shares)
        lines.append(
            f"| of the machine's int8 rate for large products | {alone} alone, {whole} from folder to table | "
            f"[file](benchmarks/results/{path.name}) |"
        )
    with figures(path := latest("layers")) as layers:
        kinds = [kind for kind in layers["kinds"] if kind["share"] >= SHOWN_SHARE]
        spent = ", ".join(f"{LAYERS[kind['kind']]} {100 * kind['share']:.0f} %" for kind in kinds)
        lines.append(f"| where the network's time goes | {spent} | [file](benchmarks/results/{path.name}) |")
    return table(("ConvNeXt-Base at 512 px, int8", "", ""), lines)


def stages() -> str:
    """What decoding and the networks take of a photo's time, and how near the whole comes to the two alone."""
    parts = ("decode_ms", "networks_ms", "whole_ms")
    with figures(path := latest("stages")) as found:
        lines = [
            f"| {name}: {work['what']} | {_figure(work['images_per_s'])} | "
            + " | ".join(f"{work[part]:.3g}" for part in parts)
            + f" | {work['efficiency']:.2f} |"
            for name, work in found["works"].items()
        ]
    return table(("model", "images/s", "decoding, ms", "networks, ms", "the whole, ms", "efficiency"), lines, path)


def pictures() -> dict[Path, str]:
    """The README's plots by their file."""
    return {
        RESULTS / "throughput.svg": chart("Images a second, the network alone", rates()),
        RESULTS / "growth.svg": curves("How predict grows", growth()),
        RESULTS / "stages.svg": chart("Where predict's time goes", times(), STAGES),
    }


def rates() -> list[Bar]:
    """Each way's network alone, by model."""
    bars = []
    for path in _speeds():
        with figures(path) as found:
            bars.append(Bar(found["model"]))
            for way in found["contests"]["alone"]["ways"]:
                ours = way["way"] in FACET
                label = f"{way['way']}, {way['what']}" if ours else str(way["way"])
                parts = (Part(way["images_per_s"], 0 if ours else 1),)
                bars.append(Bar(label, parts, _figure(way["images_per_s"])))
    return bars


def times() -> list[Bar]:
    """What of a photo's time goes where, by model."""
    bars = []
    with figures(latest("stages")) as found:
        for name, work in found["works"].items():
            whole = 1000 / work["images_per_s"]
            cores = [work["decode_ms"], work["networks_ms"], max(0.0, whole - work["decode_ms"] - work["networks_ms"])]
            bars.append(Bar(f"{name}: {work['what']}"))
            parts = tuple(Part(value, shade) for value, shade in zip(cores, (2, 0, 1), strict=True))
            bars.append(Bar("a photo", parts, f"{whole:.3g} ms"))
    return bars


def growth() -> list[Panel]:
    """How time and memory grow, a panel for each thing that grows."""

    def panel(
        title: str, unit: str, sweep: str, key: str, value: str, scale: Callable[[float], float] = float
    ) -> Panel:
        with figures(latest("growth")) as found:
            points = (
                Point(scale(one[key]), f"{one[key]:,}".replace(",", " "), one[value]) for one in found["sweeps"][sweep]
            )
            return Panel(title, unit, tuple(points))

    return [
        panel("photos", "images/s", "files", "files", "images_per_s", math.log),
        panel("photos", "MB", "files", "files", "resident_mb", math.log),
        panel("photos at a time", "images/s", "batch", "batch", "images_per_s", math.log),
        panel("photos at a time", "MB", "batch", "batch", "resident_mb"),
        panel("cores", "images/s", "cores", "cores", "images_per_s"),
        panel("cores", "MB", "cores", "cores", "resident_mb"),
        panel("attributes", "ms a photo", "attributes", "attributes", "ms"),
        panel("pixels of a photo, by its side", "ms a photo", "pixels", "size", "ms", lambda side: side**2),
    ]


def _speeds() -> list[Path]:
    """The newest file of each model that was timed beside others."""
    newest: dict[str, Path] = {}
    for path in by_date("*"):
        with figures(path) as found:
            if "contests" in found:
                newest[found["model"]] = path
    return [newest[name] for name in sorted(newest)]


def _machine(hardware: Mapping[str, Any]) -> str:
    return f"{hardware['cpu']}, {hardware['cores']} cores ({', '.join(hardware['instructions'])})"


def _rate(way: Mapping[str, Any]) -> str:
    """Images a second; beside it, of another way, how many times as fast ours is."""
    if way["way"] == OURS:
        return f"**{_figure(way['images_per_s'])}**"
    times = way["ours_is_times_as_fast"]
    return f"{_figure(way['images_per_s'])} ({'answers otherwise' if times is None else f'{times:.2f}x'})"


def _figure(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"

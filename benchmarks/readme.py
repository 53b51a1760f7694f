"""Command: write the README's tables from the files in benchmarks/results/; `--check` only says whether they differ.

python benchmarks/readme.py
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Beside this file, which is run by its name.
from plots import Bar, Panel, Part, Point, chart, curves

ROOT = Path(__file__).resolve().parent.parent
OURS = "facet"
RESULTS = ROOT / "benchmarks" / "results"
FIXED = ("image", "category", "category_confidence", "routed_from", "status", "error")
SHOWN_PHOTOS = 6
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
WAYS = ("as exported", "all rewrites", "int8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/readme.py", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where the README differs")
    args = parser.parse_args(argv)
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = rendered(before)
    drawn = pictures()
    if args.check:
        differs = [path for path, svg in drawn.items() if not path.exists() or path.read_text() != svg]
        if before != after:
            differs.append(readme)
        for path in differs:
            print(f"{path.relative_to(ROOT)} differs from the figures; write it with: python benchmarks/readme.py")
        return int(bool(differs))
    readme.write_text(after, encoding="utf-8")
    for path, svg in drawn.items():
        path.write_text(svg)
    return 0


def rendered(readme: str) -> str:
    """The README's text with each marked table made anew from its file."""
    tables = {
        "predictions": predictions,
        "models": models,
        "recipes": recipes,
        "ablation": ablation,
        "speed": speed,
        "stages": stages,
        "limits": limits,
        "graphs": graphs,
        "int8": int8,
        "gpu": gpu,
        "memory": memory,
    }
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(readme):
            raise SystemExit(f"README.md has no <!-- {name} --> table")
        readme = marked.sub(lambda found, table=table: f"{found[1]}\n{table()}\n{found[2]}", readme)
    return readme


def predictions() -> str:
    """The first photos of the shipped models' answers, each with its confidence."""
    with (RESULTS / "example_predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:SHOWN_PHOTOS]
    lines = []
    for row in rows:
        names = [name for name in row if name not in FIXED and not name.endswith("_confidence") and row[name]]
        answers = " · ".join(f"{name} {row[name]} {float(row[f'{name}_confidence']):.2f}" for name in names)
        lines.append(f"| {Path(row['image']).name} | {row['category']} | {answers} |")
    return _table(("photo", "category", "attributes, with confidence"), lines)


def models() -> str:
    """How good the shipped bundles are, attribute by attribute."""
    lines = [
        f"| {model['category']} | {score['attribute']} | {model['split']} | {score['labels']} "
        f"| {score['accuracy']:.3f} | {score['hm']:.3f} | {score['baseline_hm']:.3f} |"
        for model in json.loads((RESULTS / "shipped_models.json").read_text())
        for score in model["scores"]
    ]
    return _table(("model", "attribute", "split", "labels", "accuracy", "HM", "HM of the commonest class"), lines)


def recipes() -> str:
    """Each recipe's mean HM on photos left out, and what sets two apart."""
    study = _study()
    groups = [name for name in study["standings"][0] if name != "recipe"]
    scores = [[one["recipe"], *(_score(one[group]) for group in groups)] for one in study["standings"]]
    gains = [[one["between"], *(_gain(one[group]["gain"]) for group in groups)] for one in study["differences"]]
    return _table(("mean HM", *groups), ["| " + " | ".join(cells) + " |" for cells in scores + gains])


def ablation() -> str:
    """What each part of the recipe gave."""
    lines = [
        f"| {row['part']} | {row['on']} | {_score(row['without'])} | {_score(row['with'])} | {_gain(row['gain'])} |"
        for row in _study()["ablation"]
    ]
    return _table(("without → with", "on", "without", "with", "gain"), lines)


def speed() -> str:
    """Every way beside ours, for each model: the network alone, from folder to table, and how far off it answers."""
    lines = []
    for record in _speeds():
        alone, whole = ({way["way"]: way for way in record["contests"][kind]["ways"]} for kind in ("alone", "whole"))
        for name, way in alone.items():
            model = f"[{record['model']}](benchmarks/results/{record['file']})" if name == OURS else ""
            called = f"**facet**: {way['what']}" if name == OURS else way["what"]
            rates = [_rate(way), _rate(whole[name]) if name in whole else ""]
            lines.append(f"| {model} | {called} | {' | '.join(rates)} | {way['answers']['mean_difference']:.0e} |")
    header = ("model", "way", "network alone, images/s", "folder to table, images/s", "off by")
    return _table(header, lines)


def limits() -> str:
    """ConvNeXt-Base in int8 beside the challenge's rule and the machine's own rate, and where its time goes."""
    late, layers = _latest("latency"), _latest("layers")
    single, kinds = json.loads(late.read_text()), json.loads(layers.read_text())["kinds"]
    base = next(record for record in _speeds() if record["model"] == "convnext_base")
    shares = {kind: base["contests"][kind]["share_of_limit"]["int8"] for kind in ("alone", "whole")}
    spent = ", ".join(
        f"{LAYERS[kind['kind']]} {100 * kind['share']:.0f} %" for kind in kinds if kind["share"] >= SHOWN_SHARE
    )
    lines = [
        f"| a photo at a time, decoding included, p95 of {single['photos']} | {single['p95_ms']:.0f} ms, of "
        f"{single['limit_ms']} that the challenge allows | [file](benchmarks/results/{late.name}) |",
        f"| of the machine's int8 rate for large products | {100 * shares['alone']:.0f} % alone, "
        f"{100 * shares['whole']:.0f} % from folder to table | [file](benchmarks/results/{base['file']}) |",
        f"| where the network's time goes | {spent} | [file](benchmarks/results/{layers.name}) |",
    ]
    return _table(("ConvNeXt-Base at 512 px, int8", "", ""), lines)


def stages() -> str:
    """What decoding and the networks take of a photo's time, and how near the whole comes to the two alone."""
    path = _latest("stages")
    parts = ("decode_ms", "networks_ms", "whole_ms")
    lines = [
        f"| {name}: {work['what']} | {_figure(work['images_per_s'])} | "
        + " | ".join(f"{work[part]:.3g}" for part in parts)
        + f" | {work['efficiency']:.2f} |"
        for name, work in json.loads(path.read_text())["works"].items()
    ]
    header = ("model", "images/s", "decoding, ms", "networks, ms", "the whole, ms", "efficiency")
    return _table(header, lines) + f"\n[file](benchmarks/results/{path.name})\n"


def pictures() -> dict[Path, str]:
    """The README's plots by their file."""
    rates: list[Bar] = []
    for record in _speeds():
        rates.append(Bar(record["model"]))
        for way in record["contests"]["alone"]["ways"]:
            parts = (Part(way["images_per_s"], 0 if way["way"] == OURS else 1),)
            rates.append(Bar(_short(way), parts, _figure(way["images_per_s"])))
    times: list[Bar] = []
    for name, work in json.loads(_latest("stages").read_text())["works"].items():
        whole = 1000 / work["images_per_s"]
        cores = [work["decode_ms"], work["networks_ms"], max(0.0, whole - work["decode_ms"] - work["networks_ms"])]
        times.append(Bar(f"{name}: {work['what']}"))
        parts = tuple(Part(value, shade) for value, shade in zip(cores, (2, 0, 1), strict=True))
        times.append(Bar("a photo", parts, f"{whole:.3g} ms"))
    return {
        RESULTS / "throughput.svg": chart("Images a second, the network alone", rates),
        RESULTS / "growth.svg": curves("How predict grows", growth()),
        RESULTS / "stages.svg": chart("Where predict's time goes", times, STAGES),
    }


def growth() -> list[Panel]:
    """How time and memory grow, a panel for each thing that grows."""
    sweeps = json.loads(_latest("growth").read_text())["sweeps"]

    def panel(
        title: str, unit: str, sweep: str, key: str, value: str, scale: Callable[[float], float] = float
    ) -> Panel:
        points = (Point(scale(one[key]), f"{one[key]:,}".replace(",", " "), one[value]) for one in sweeps[sweep])
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


def _speeds() -> list[dict[str, Any]]:
    """The latest figures of each model."""
    latest: dict[str, dict[str, Any]] = {}
    for path in sorted(RESULTS.glob("*_*_????-??-??.json")):
        record = json.loads(path.read_text()) | {"file": path.name}
        if "contests" in record:
            latest[record["model"]] = record
    return [latest[name] for name in sorted(latest)]


def _latest(name: str) -> Path:
    return sorted(RESULTS.glob(f"{name}_*_????-??-??.json"))[-1]


def _rate(way: Mapping[str, Any]) -> str:
    """Images a second; beside it, of another way, how many times as fast ours is."""
    if way["way"] == OURS:
        return f"**{_figure(way['images_per_s'])}**"
    return f"{_figure(way['images_per_s'])} ({way['ours_is_times_as_fast']:.2f}x)"


def _figure(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def _short(way: Mapping[str, Any]) -> str:
    return f"facet, {way['what']}" if way["way"] == OURS else str(way["way"])


def graphs() -> str:
    """What the exact rewrites give, and what int8 gives beside them, by the latest run of benchmarks.graphs."""
    path = sorted(RESULTS.glob("graphs_*_????-??-??.json"))[-1]
    lines = []
    for name, network in json.loads(path.read_text())["networks"].items():
        for way in network["ways"]:
            if way["what"] not in WAYS:
                continue
            low, high = way["ratio_range"]
            ratio = f"**{way['ratio']:.2f}x** [{low:.2f}, {high:.2f}] {way['beside']}" if low < high else ""
            called = " ".join(filter(None, (way["engine"], way["hint"])))
            lines.append(f"| {name} | {called} | {way['what']} | {way['images_per_s']:.1f} | {ratio} |")
    return _table(("network", "engine", "graph", "images/s", "times as fast as"), lines) + (
        f"\n[file](benchmarks/results/{path.name})\n"
    )


def int8() -> str:
    """What int8 costs networks that were really trained, by the gate, on photos of no training."""
    path = sorted(RESULTS.glob("trained_int8_*_????-??-??.json"))[-1]
    found = json.loads(path.read_text())
    lines = []
    for name, network in found["networks"].items():
        for artifact in network["artifacts"]:
            for verdict in artifact["verdicts"]:
                called = " ".join(filter(None, (verdict["engine"], verdict["hint"])))
                lost = f"{100 * verdict['hm_lost']:.2f} (< {100 * verdict['hm_lost_bound']:.2f})"
                lines.append(
                    f"| {name} | {artifact['precision']} | {called} | {100 * verdict['hm']:.1f} | {lost} "
                    f"| {100 * verdict['agreement']:.1f} % | {verdict['state']} |"
                )
    header = ("network", "precision", "engine", "mean HM", "points lost (95 % bound)", "labels that stay", "gate")
    return _table(header, lines) + f"\n[file](benchmarks/results/{path.name})\n"


def gpu() -> str:
    """The reference system's network in PyTorch on a GPU: answering and training."""
    path = sorted(RESULTS.glob("gpu_*_????-??-??.json"))[-1]
    found = json.loads(path.read_text())
    limits = {name: found["limits"][f"{name}_tflops"] for name in ("float32", "float16", "bfloat16")}
    whole = found["end_to_end"]
    lines = [f"| {whole['what']}, decoding too | 1 | {whole['images_per_s']:.0f} | |"]
    for way in found["answering"]["ways"]:
        limit = next(rate for name, rate in limits.items() if name in way["what"])
        share = f"{100 * way['tflops'] / limit:.0f} %"
        lines.append(f"| answer, {way['what']} | {way['batch']} | {way['images_per_s']:.0f} | {share} |")
    for way in found["training"]:
        lines.append(f"| train, phase {way['phase']}, {way['what']} | {way['batch']} | {way['photos_per_s']:.0f} | |")
    header = (found["card"], "batch", "photos/s", "of the card's rate")
    return _table(header, lines) + f"\n[file](benchmarks/results/{path.name})\n"


def memory() -> str:
    """What predict holds in memory, for one and for five categories."""
    path = sorted(RESULTS.glob("memory_*_????-??-??.json"))[-1]
    found = json.loads(path.read_text())["found"]
    engines = list(dict.fromkeys(one["engine"] for one in found))
    held = {(one["categories"], one["engine"]): one for one in found}
    lines = [
        f"| {what} | {held[what, engines[0]]['graphs_mb']} | "
        + " | ".join(str(held[what, engine]["resident_mb"]) for engine in engines)
        + " |"
        for what in dict.fromkeys(one["categories"] for one in found)
    ]
    header = ("categories", "graphs, MB", *(f"{engine}, MB" for engine in engines))
    return _table(header, lines) + f"\n[file](benchmarks/results/{path.name})\n"


def _study() -> dict[str, Any]:
    """The recipe study, of the one machine that ran it."""
    (path,) = RESULTS.glob("recipes_*.json")
    return json.loads(path.read_text())


def _score(spread: Mapping[str, Any]) -> str:
    """The mean over the seeds of training in points, ± their standard deviation, and how many they are."""
    if not spread["seeds"]:
        return "not run"
    if spread["deviation"] is None:
        return f"{100 * spread['mean']:.1f} (1 seed)"
    return f"{100 * spread['mean']:.1f} ± {100 * spread['deviation']:.1f} ({len(spread['seeds'])} seeds)"


def _gain(spread: Mapping[str, Any]) -> str:
    """The mean gain in points, and its 95 % interval over other photos."""
    if not spread["seeds"]:
        return "not run"
    low, high = spread["interval"]
    return f"**{100 * spread['mean']:+.1f}** [{100 * low:+.1f}, {100 * high:+.1f}]"


def _table(header: Sequence[str], lines: Sequence[str]) -> str:
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *lines, ""])


if __name__ == "__main__":
    sys.exit(main())

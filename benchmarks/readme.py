"""Command: write the README's tables from the files in benchmarks/results/; `--check` only says whether they differ.

python benchmarks/readme.py
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Beside this file, which is run by its name.
import audit_tables
import speed_tables
from figures import RESULTS, ROOT, figures, latest, table
from speed_tables import limits, speed, stages

FIXED = ("image", "category", "category_confidence", "routed_from", "status", "error")
SHOWN_PHOTOS = 6
WAYS = ("as exported", "all rewrites", "int8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/readme.py", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where the README differs")
    args = parser.parse_args(argv)
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = rendered(before)
    drawn = speed_tables.pictures() | audit_tables.pictures()
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
    for name, made in TABLES.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(readme):
            raise SystemExit(f"README.md has no <!-- {name} --> table")
        readme = marked.sub(lambda found, made=made: f"{found[1]}\n{made()}\n{found[2]}", readme)
    return readme


def predictions() -> str:
    """The first photos of the shipped models' answers, each with its confidence."""
    lines = []
    with figures(RESULTS / "example_predictions.csv") as text:
        for row in list(csv.DictReader(text.splitlines()))[:SHOWN_PHOTOS]:
            names = [name for name in row if name not in FIXED and not name.endswith("_confidence") and row[name]]
            answers = " · ".join(f"{name} {row[name]} {float(row[f'{name}_confidence']):.2f}" for name in names)
            lines.append(f"| {Path(row['image']).name} | {row['category']} | {answers} |")
    return table(("photo", "category", "attributes, with confidence"), lines)


def models() -> str:
    """How good the shipped bundles are, attribute by attribute."""
    with figures(RESULTS / "shipped_models.json") as found:
        lines = [
            f"| {model['category']} | {score['attribute']} | {model['split']} | {score['labels']} "
            f"| {score['accuracy']:.3f} | {score['hm']:.3f} | {score['baseline_hm']:.3f} |"
            for model in found
            for score in model["scores"]
        ]
    return table(("model", "attribute", "split", "labels", "accuracy", "HM", "HM of the commonest class"), lines)


def recipes() -> str:
    """Each recipe's mean HM on photos left out, and what sets two apart."""
    with figures(_study()) as study:
        groups = [name for name in study["standings"][0] if name != "recipe"]
        scores = [[one["recipe"], *(_score(one[group]) for group in groups)] for one in study["standings"]]
        gains = [[one["between"], *(_gain(one[group]["gain"]) for group in groups)] for one in study["differences"]]
    return table(("mean HM", *groups), ["| " + " | ".join(cells) + " |" for cells in scores + gains])


def ablation() -> str:
    """What each part of the recipe gave."""
    with figures(_study()) as study:
        lines = [
            f"| {row['part']} | {row['on']} | {_score(row['without'])} | {_score(row['with'])} | {_gain(row['gain'])} |"
            for row in study["ablation"]
        ]
    return table(("without → with", "on", "without", "with", "gain"), lines)


def graphs() -> str:
    """What the exact rewrites give, and what int8 gives beside them."""
    lines = []
    with figures(path := latest("graphs")) as found:
        for name, network in found["networks"].items():
            for way in network["ways"]:
                if way["what"] in WAYS:
                    called = " ".join(filter(None, (way["engine"], way["hint"])))
                    lines.append(f"| {name} | {called} | {way['what']} | {way['images_per_s']:.1f} | {_ratio(way)} |")
    return table(("network", "engine", "graph", "images/s", "times as fast as"), lines, path)


def int8() -> str:
    """What int8 costs networks that were really trained, by the gate, on photos of no training."""
    lines = []
    with figures(path := latest("trained_int8", command="python -m benchmarks.{} --source DIR")) as found:
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
    return table(header, lines, path)


def gpu() -> str:
    """The reference system's network in PyTorch on a GPU: answering and training."""
    with figures(path := latest("gpu")) as found:
        limits = {name: found["limits"][f"{name}_tflops"] for name in ("float32", "float16", "bfloat16")}
        whole = found["end_to_end"]
        lines = [f"| {whole['what']}, decoding too | 1 | {whole['images_per_s']:.0f} | |"]
        for way in found["answering"]["ways"]:
            (limit,) = (rate for name, rate in limits.items() if name in re.findall(r"\w+", way["what"]))
            share = f"{100 * way['tflops'] / limit:.0f} %"
            lines.append(f"| answer, {way['what']} | {way['batch']} | {way['images_per_s']:.0f} | {share} |")
        for way in found["training"]:
            lines.append(
                f"| train, phase {way['phase']}, {way['what']} | {way['batch']} | {way['photos_per_s']:.0f} | |"
            )
        header = (found["card"], "batch", "photos/s", "of the card's rate")
    return table(header, lines, path)


def memory() -> str:
    """What predict holds in memory, for one and for five categories."""
    with figures(path := latest("memory")) as content:
        found = content["found"]
        engines = list(dict.fromkeys(one["engine"] for one in found))
        held = {(one["categories"], one["engine"]): one for one in found}
        lines = [
            f"| {what} | {held[what, engines[0]]['graphs_mb']} | "
            + " | ".join(str(held[what, engine]["resident_mb"]) for engine in engines)
            + " |"
            for what in dict.fromkeys(one["categories"] for one in found)
        ]
    return table(("categories", "graphs, MB", *(f"{engine}, MB" for engine in engines)), lines, path)


def _study() -> Path:
    """The recipe study, of the one machine that ran it."""
    return next(RESULTS.glob("recipes_*.json"), RESULTS / "recipes_*.json")


def _ratio(way: Mapping[str, Any]) -> str:
    """How many times as fast as its neighbour; bold where the slowest neighbours and the fastest agree on who is."""
    low, high = way["ratio_range"]
    if low == high:  # it is its own neighbour
        return ""
    beside = f"[{low:.2f}, {high:.2f}] {way['beside']}"
    if low <= 1 <= high:
        return f"{way['ratio']:.2f}x {beside}: no difference that this run can tell"
    return f"**{way['ratio']:.2f}x** {beside}"


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


TABLES = {
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
    "audit": audit_tables.promises,
    "redraws": audit_tables.redraws,
    "ranking": audit_tables.ranking,
}

if __name__ == "__main__":
    sys.exit(main())

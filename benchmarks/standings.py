"""What the lines of the recipe study add up to: each recipe's score, its spread over seeds, and what each part gave."""

# N photos

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.tasks import BY_EYE, GARMENT

Line = Mapping[str, Any]
Lines = Mapping[tuple[str, str, int], Line]
GROUPS = {GARMENT: (GARMENT,), "by eye": BY_EYE}
REFERENCE = "reference"

# What each row of the ablation compares: without a part and with it, as recipes and as the answers that count.
ABLATION = (
    ("rows with every label alone → every row, masked", "by eye", ("complete rows", "offset"), ("default", "offset")),
    ("without the MMD term → with it", GARMENT, ("no MMD", "offset"), ("default", "offset")),
    ("without the MMD term → with it", "by eye", ("no MMD", "offset"), ("default", "offset")),
    ("phase 1 → phases 1 and 2", GARMENT, ("phase 1 alone", "offset"), ("default", "offset")),
    ("phase 1 → phases 1 and 2", "by eye", ("phase 1 alone", "offset"), ("default", "offset")),
    ("without decision offsets → with them", GARMENT, ("default", "plain"), ("default", "offset")),
    ("without decision offsets → with them", "by eye", ("default", "plain"), ("default", "offset")),
    ("a model a category → one joint model", "by eye", ("default", "offset"), ("joint", "offset")),
)


def summary(lines: Iterable[Line], rates: Sequence[float]) -> dict[str, Any]:
    """The standings and the ablation, for as many seeds as are complete."""
    by_key = {(line["recipe"], line["task"], line["seed"]): line for line in lines}
    names = [name for name in dict.fromkeys(recipe for recipe, _, _ in by_key) if not name.startswith(REFERENCE)]
    standings = [_standing(by_key, name, name, "plain" if name == "probe" else "offset") for name in names]
    chosen = {group: best_rate(by_key, rates, tasks) for group, tasks in GROUPS.items()}
    named = {group: f"{REFERENCE} {rate:g}" for group, rate in chosen.items() if rate is not None}
    if named:
        standings.append(_standing(by_key, REFERENCE, named, "plain"))
    return {
        "rates_chosen": chosen,
        "standings": standings,
        "ablation": [
            {"part": part, "on": group, **_difference(by_key, group, without, including)}
            for part, group, without, including in ABLATION
        ],
    }


def best_rate(lines: Lines, rates: Sequence[float], tasks: Sequence[str]) -> float | None:
    """The reference's rate of the highest mean HM on validation, over these tasks with seed 0; None before all ran."""
    found = {}
    for rate in rates:
        mine = [lines.get((f"{REFERENCE} {rate:g}", task, 0)) for task in tasks]
        if None in mine:
            return None
        found[rate] = statistics.mean(line["validation_hm"] for line in mine if line)
    return max(found, key=lambda rate: found[rate])


def _standing(lines: Lines, name: str, recipe: str | Mapping[str, str], answers: str) -> dict[str, Any]:
    groups = {}
    for group in GROUPS:
        of_group = recipe if isinstance(recipe, str) else recipe.get(group, "")
        groups[group] = _over_seeds(lines, of_group, group, answers)
    return {"recipe": name, **{group: _spread(found) for group, found in groups.items()}}


def _difference(lines: Lines, group: str, without: tuple[str, str], including: tuple[str, str]) -> dict[str, Any]:
    before, after = (_over_seeds(lines, recipe, group, answers) for recipe, answers in (without, including))
    both = sorted(before.keys() & after.keys())
    return {
        "without": _spread({seed: before[seed] for seed in both}),
        "with": _spread({seed: after[seed] for seed in both}),
        "gain": _spread({seed: after[seed] - before[seed] for seed in both}),
    }


def _over_seeds(lines: Lines, recipe: str, group: str, answers: str) -> dict[int, float]:
    """By seed, the mean HM over the group's categories, of the seeds whose every task is there."""
    found = {}
    for seed in sorted({seed for name, _, seed in lines if name == recipe}):
        mine = [lines.get((recipe, task, seed)) for task in GROUPS[group]]
        if None not in mine:
            found[seed] = _mean_hm([line for line in mine if line], answers)
    return found


def _mean_hm(lines: Sequence[Line], answers: str) -> float:
    """Of each attribute over the photos of all lines together; its mean over a category, and of those the mean."""
    import numpy as np

    from train.metrics import hm_of

    pooled: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
    for line in lines:
        for one in line["attributes"]:
            truth, given = pooled.setdefault((one["category"], one["attribute"]), ([], []))
            truth += one["truth"]
            given += one[answers]
    by_category: dict[str, list[float]] = {}
    for (category, _), (truth, given) in pooled.items():
        by_category.setdefault(category, []).append(hm_of(np.array(truth), np.array(given)))
    return statistics.mean(statistics.mean(hms) for hms in by_category.values())


def _spread(by_seed: Mapping[int, float]) -> dict[str, Any]:
    values = [round(value, 4) for value in by_seed.values()]
    return {
        "seeds": list(by_seed),
        "values": values,
        "mean": round(statistics.mean(values), 4) if values else None,
        "deviation": round(statistics.stdev(values), 4) if len(values) > 1 else None,
    }

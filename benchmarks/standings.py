"""What the lines of the recipe study add up to: each recipe's score, what sets two apart, and what each part gave."""

# N labels, S resamples

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.tasks import BY_EYE, GARMENT

if TYPE_CHECKING:
    import numpy as np

Key = tuple[str, str, int]
"""Recipe, task, seed."""
Line = Mapping[str, Any]
Lines = Mapping[Key, Line]
GROUPS = {GARMENT: (GARMENT,), "by eye": BY_EYE}
SCORED = {**GROUPS, "every category": (GARMENT, *BY_EYE)}
SEARCHED = {GARMENT: (GARMENT,), "by eye": BY_EYE[:2]}
"""The tasks, with seed 0, on whose validation photos the reference's rate is chosen."""
REFERENCE = "reference"


class Answers(NamedTuple):
    """Whose answers count, and which: the likeliest classes (`plain`), or those that decision offsets choose."""

    recipe: str
    kind: str


DEFAULT, PLAIN = Answers("default", "offset"), Answers("default", "plain")
THEIRS, THEIRS_OFFSET = Answers(REFERENCE, "plain"), Answers(REFERENCE, "offset")
PROBE = Answers("probe", "plain")
STANDINGS = {
    "default": DEFAULT,
    "default, without decision offsets": PLAIN,
    "reference": THEIRS,
    "reference, with decision offsets": THEIRS_OFFSET,
    "probe": PROBE,
}
DIFFERENCES = {
    "default - reference": (THEIRS, DEFAULT),
    "default - reference, both without decision offsets": (THEIRS, PLAIN),
    "default - probe": (PROBE, DEFAULT),
}
# Each row of the ablation: on what, without the part and with it.
ABLATION = (
    ("rows with every label alone → every row, masked", "by eye", Answers("complete rows", "offset"), DEFAULT),
    ("without the MMD term → with it", GARMENT, Answers("no MMD", "offset"), DEFAULT),
    ("phase 1 → phases 1 and 2", GARMENT, Answers("phase 1 alone", "offset"), DEFAULT),
    ("without decision offsets → with them", GARMENT, PLAIN, DEFAULT),
    ("without decision offsets → with them", "by eye", PLAIN, DEFAULT),
    ("a model a category → one joint model", "by eye", DEFAULT, Answers("joint", "offset")),
)


def summary(lines: Lines, rates: Sequence[float]) -> dict[str, Any]:
    """The standings, what sets recipes apart, and the ablation, for as many seeds as are complete."""
    chosen = {group: best_rate(lines, rates, group) for group in GROUPS}
    return {
        "rates_chosen": chosen,
        "validation_hm_by_rate": {group: _by_rate(lines, rates, group) for group in GROUPS},
        "standings": [
            {"recipe": name, **{group: _spread(_by_seed(lines, answers, group, chosen)) for group in SCORED}}
            for name, answers in STANDINGS.items()
        ],
        "differences": [
            {"between": name, **{group: _difference(lines, pair, group, chosen) for group in SCORED}}
            for name, pair in DIFFERENCES.items()
        ],
        "ablation": [
            {"part": part, "on": group, **_difference(lines, (without, including), group, chosen)}
            for part, group, without, including in ABLATION
        ],
    }


def best_rate(lines: Lines, rates: Sequence[float], group: str) -> float | None:
    """The reference's rate of the highest mean HM on validation, in the group's search; None before that is over."""
    found = _by_rate(lines, rates, group)
    return max(found, key=lambda rate: found[rate]) if len(found) == len(rates) else None


def _by_rate(lines: Lines, rates: Sequence[float], group: str) -> dict[float, float]:
    mine = {rate: [lines.get((f"{REFERENCE} {rate:g}", task, 0)) for task in SEARCHED[group]] for rate in rates}
    return {
        rate: round(statistics.mean(line["validation_hm"] for line in of if line), 4)
        for rate, of in mine.items()
        if None not in of
    }


def _difference(
    lines: Lines, pair: tuple[Answers, Answers], group: str, chosen: Mapping[str, float | None]
) -> dict[str, Any]:
    """Each side's score, and the gain of the second over the first where both have the seed.

    The interval of 95 % is over other photos: senders are drawn anew, the same for both, each seed's models as they
    are. The probe knows no seed and stands beside every one.
    """
    import numpy as np

    from train.intervals import interval

    before, after = (_by_seed(lines, answers, group, chosen) for answers in pair)
    if pair[0] == PROBE and before:
        before = {seed: next(iter(before.values())) for seed in after}
    both = sorted(before.keys() & after.keys())
    found: dict[str, Any] = {
        "without": _spread({seed: before[seed] for seed in both}),
        "with": _spread({seed: after[seed] for seed in both}),
        "gain": _spread({seed: after[seed] - before[seed] for seed in both}),
    }
    if both:
        gains_S = np.mean(
            [
                _resampled(lines, pair[1], group, seed, chosen)
                - _resampled(lines, pair[0], group, 0 if pair[0] == PROBE else seed, chosen)
                for seed in both
            ],
            axis=0,
        )
        found["gain"]["interval"] = [round(edge, 4) for edge in interval(gains_S)]
    return found


def _of(lines: Lines, answers: Answers, group: str, seed: int, chosen: Mapping[str, float | None]) -> list[Line] | None:
    """The group's lines of one recipe and seed, the reference's at the rate chosen; None unless all are there."""
    mine = []
    for task in SCORED[group]:
        rate = next(chosen[home] for home, tasks in GROUPS.items() if task in tasks)
        recipe = f"{REFERENCE} {rate:g}" if answers.recipe == REFERENCE and rate else answers.recipe
        mine.append(lines.get((recipe, task, seed)))
    return None if None in mine else [line for line in mine if line]


def _by_seed(lines: Lines, answers: Answers, group: str, chosen: Mapping[str, float | None]) -> dict[int, float]:
    """By seed, the mean HM over the group's categories, of the seeds whose every task is there."""
    seeds = sorted({seed for _, _, seed in lines})
    found = {seed: _of(lines, answers, group, seed, chosen) for seed in seeds}
    return {seed: _mean_hm(mine, answers.kind) for seed, mine in found.items() if mine}


Pooled = dict[str, dict[str, tuple[list[int], list[int], list[str]]]]


def _pooled(mine: Sequence[Line], kind: str) -> Pooled:
    """By category and attribute, over all lines together: the truth, the answers, and whose photos they are of."""
    pooled: Pooled = {}
    for line in mine:
        for one in line["attributes"]:
            of_category = pooled.setdefault(one["category"], {})
            parts = of_category.setdefault(one["attribute"], ([], [], []))
            for part, name in zip(parts, ("truth", kind, "senders"), strict=True):
                part += one[name]
    return pooled


def _mean_hm(mine: Sequence[Line], kind: str) -> float:
    """Of each attribute over the photos of all lines together; its mean over a category, and of those the mean."""
    import numpy as np

    from train.metrics import hm_of

    return statistics.mean(
        statistics.mean(hm_of(np.array(truth), np.array(given)) for truth, given, _ in attributes.values())
        for attributes in _pooled(mine, kind).values()
    )


def _resampled(lines: Lines, answers: Answers, group: str, seed: int, chosen: Mapping[str, float | None]) -> np.ndarray:
    """The same with senders drawn anew, [S]; the same draws for every recipe and seed."""
    import numpy as np

    from train.config import MISSING
    from train.intervals import resampled_hm

    mine = _of(lines, answers, group, seed, chosen)
    assert mine, "asked for seeds that are there alone"
    categories_S = []
    for attributes in _pooled(mine, answers.kind).values():
        # A row a label: a sender's labels of every attribute are drawn together, as its photos are.
        parts = list(attributes.values())
        places = np.repeat(np.arange(len(parts)), [len(truth) for truth, _, _ in parts])
        labels_NL = np.full((len(places), len(parts)), MISSING)
        answers_NL = np.zeros_like(labels_NL)
        rows = np.arange(len(places))
        labels_NL[rows, places] = np.concatenate([truth for truth, _, _ in parts])
        answers_NL[rows, places] = np.concatenate([given for _, given, _ in parts])
        classes = [max(max(truth), max(given)) + 1 for truth, given, _ in parts]
        senders = np.concatenate([senders for _, _, senders in parts])
        # Sorted, so that a draw means the same senders whichever attribute of whichever recipe came first.
        order = np.argsort(senders, kind="stable")
        hms_SL = resampled_hm(labels_NL[order], answers_NL[order], classes, groups_N=senders[order])
        categories_S.append(np.nanmean(hms_SL, axis=1))
    mean_S: np.ndarray = np.mean(categories_S, axis=0)
    return mean_S


def _spread(by_seed: Mapping[int, float]) -> dict[str, Any]:
    values = [round(value, 4) for value in by_seed.values()]
    return {
        "seeds": list(by_seed),
        "values": values,
        "mean": round(statistics.mean(values), 4) if values else None,
        "deviation": round(statistics.stdev(values), 4) if len(values) > 1 else None,
    }

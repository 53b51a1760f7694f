"""What of a promise is kept when chance deals the photos anew: which of them it rests on, and which are a listing."""

# N photos, K classes

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks import mistakes
from benchmarks.mistakes import Task
from runtime import bundle, validation
from runtime.summary import COLUMNS, Summary
from runtime.terminal import progress
from runtime.validation import Answers, Validation
from runtime.verdicts import Verdicts

DRAWS = 200


@dataclass(kw_only=True)
class Kept:
    """Of one attribute at one precision, over all draws."""

    with_findings: int = 0
    within: int = 0
    """Of those, in how many no more were false than the audit said."""
    findings: int = 0
    false: int = 0
    wrong: int = 0
    shares_false: float = 0.0
    """The sum, over the draws, of the share of the findings that was false; 0 of none."""


def measured(test: Task, val: Task, precisions: Sequence[float]) -> dict[str, Any]:
    """By attribute and precision, what contradicts where half of the senders of both tasks stand for validation, beside
    the training photos that the bundle keeps, and the listing is of the others' photos, a tenth of its values made any
    other class."""
    answers = {key: np.concatenate([val.probabilities[key], own_NK]) for key, own_NK in test.probabilities.items()}
    whole = replace(test, shown=[*val.shown, *test.shown], probabilities=answers)
    senders = sorted({one.sender for one in whole.shown})
    found: dict[tuple[str, float], Kept] = defaultdict(Kept)
    others = out_of_fold(test)
    with progress("redraws", DRAWS) as advance:
        for draw in range(DRAWS):
            rng = np.random.default_rng(draw)
            half = set(rng.permutation(senders)[: len(senders) // 2].tolist())
            validates_N = np.array([one.sender in half for one in whole.shown])
            count(part(whole, validates_N), others, part(whole, ~validates_N), rng, precisions, found)
            advance(1)
    return {"draws": DRAWS, "attributes": figures(found)}


def part(task: Task, chosen_N: np.ndarray) -> Task:
    """The task with these photos alone."""
    return replace(
        task,
        shown=[one for one, mine in zip(task.shown, chosen_N, strict=True) if mine],
        probabilities={key: own_NK[chosen_N] for key, own_NK in task.probabilities.items()},
    )


def out_of_fold(task: Task) -> dict[str, Answers]:
    """By output, what the bundle keeps of training photos; of tasks whose photos have every label."""
    page = bundle.load(task.bundles)
    kept = validation.read(task.bundles, page)
    if not kept or not page.validation:
        return {}
    first = page.validation.photos
    return {
        output: Answers(labels_N=one.labels_N[first:], probabilities_NK=one.probabilities_NK[first:])
        for output, one in kept.answers.items()
    }


def count(
    validates: Task,
    others: dict[str, Answers],
    listed: Task,
    rng: np.random.Generator,
    precisions: Sequence[float],
    into: dict[tuple[str, float], Kept],
) -> None:
    """Judge one listing as an audit does, and count what contradicts."""
    verdicts = Verdicts()
    for name, category in listed.categories.items():
        verdicts.learn(name, category, as_validation(validates, others, name))
    declared = list(mistakes.cells(listed, mistakes.flipped(listed, rng)))
    verdicts.see(cell for cell, _ in declared)
    for precision in precisions:
        verdicts.promise(precision)
        flagged: dict[str, list[bool]] = {}
        summary = Summary(verdicts.promises, precision, {})
        for cell, wrong in declared:
            judged = verdicts.judge(cell)
            summary.add(cell, judged)
            of_attribute = flagged.setdefault(cell.attribute, [])
            into[cell.attribute, precision].wrong += wrong
            if judged.verdict == "contradicts":
                of_attribute.append(wrong)
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in summary.rows()]
        bounds = {row["attribute"]: int(row["false_at_most"]) for row in rows}
        for name, right in flagged.items():
            kept, false = into[name, precision], right.count(False)
            kept.findings += len(right)
            kept.false += false
            kept.with_findings += bool(right)
            kept.within += bool(right) and false <= bounds[name]
            kept.shares_false += false / max(len(right), 1)


def as_validation(task: Task, others: dict[str, Answers], category: str) -> Validation:
    """What a bundle would keep of these photos, and of those others."""
    answers = {}
    for attribute in task.categories[category].attributes:
        labels = [one.labels.get(attribute.name) for one in task.shown]
        known_N = np.array([bool(label) for label in labels])
        labels_N = np.array([attribute.classes.index(label) for label in labels if label], np.int16)
        own_NK = task.probabilities[category, attribute.name][known_N]
        parts = [Answers(labels_N=labels_N, probabilities_NK=own_NK)]
        parts += [others[attribute.output]] if others else []
        answers[attribute.output] = Answers(
            labels_N=np.concatenate([one.labels_N for one in parts]),
            probabilities_NK=np.concatenate([one.probabilities_NK for one in parts]),
        )
    return Validation(answers=answers, features_NF=np.zeros((0, 1)), kinds_N=np.zeros(0, int))


def figures(found: dict[tuple[str, float], Kept]) -> dict[str, dict[str, Any]]:
    """What is kept: shares are rounded, and None of nothing."""
    told: dict[str, dict[str, Any]] = {}
    for (name, precision), kept in found.items():
        told.setdefault(name, {})[str(precision)] = {
            "with_findings": kept.with_findings,
            "within": kept.within,
            "contradicts": kept.findings,
            "precision": round(1 - kept.false / kept.findings, 4) if kept.findings else None,
            "mean_share_false": round(kept.shares_false / DRAWS, 4),
            "recall": round((kept.findings - kept.false) / kept.wrong, 4),
        }
    return told

"""Command: what an audit finds of mistakes that were put into listings of photos which no training saw.

    python -m benchmarks.audit --source DIR

DIR is what examples/make_examples.py reads. Two models: the shipped Garment (kind, kids) on the 722 photos of the test
split; and by eye, Dress, Shoes and T-Shirt on one backbone, in five folds by sender, each trained here on the others.
A fold that stands in build/audit is used as it is. Into each listing go mistakes of one kind at a time, five times by
other seeds, and a fifth of the values is taken out. `runtime.audit` is run on each; and the same declared values and
probabilities are ranked by cleanlab, where that is installed.
"""

# N photos, K classes

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import busy, mistakes, record, redraws, tasks
from benchmarks.mistakes import Declared, Spoil, Task
from runtime import audit, bundle, validation
from runtime.bundle import ROUTED_BY
from runtime.errors import DONE, UserError
from runtime.terminal import note
from runtime.verdicts import Verdicts

SEEDS = 5
PRECISIONS = (0.9, 0.95)
CATEGORY = "the category"


@dataclass(kw_only=True)
class Tally:
    """Of one attribute, or of all by-eye ones, over seeds and folds."""

    runs: int = 0
    wrong: int = 0
    flagged: int = 0
    false: int = 0
    bound: int = 0
    """The sum of what each run said to be false at most."""
    within: int = 0
    """Runs that kept to it."""
    replaced: int = 0
    """Of those flagged, where what is predicted is right."""
    empty: int = 0
    filled: int = 0
    filled_wrongly: int = 0


def parser() -> argparse.ArgumentParser:
    return tasks.parser(
        "audit", "Put mistakes into listings, and see how many of them an audit finds, and how many it makes."
    )


def main(argv: Sequence[str] | None = None) -> int:
    return tasks.main(parser(), measure, argv)


def measure(source: Path, into: Path) -> int:
    """Train what is not there, audit every listing, keep what was found."""
    load_before = busy.before()
    tasks.prepare(source)
    groups = {"garment": [mistakes.garment()], "by eye": [mistakes.by_eye(name) for name in tasks.BY_EYE]}
    found: dict[str, Any] = {}
    for group, members in groups.items():
        for kind, spoil in mistakes.KINDS.items():
            found.setdefault(group, {})[kind] = measured(group, members, spoil)
    path = record.keep(
        {
            "model": "audit",
            "seeds": SEEDS,
            "wrong": mistakes.WRONG,
            "empty": mistakes.EMPTY,
            "training": list(mistakes.TRAINING),
        },
        {
            "groups": found,
            "redraws": redraws.measured(groups["garment"][0], mistakes.garment("val"), PRECISIONS),
            "missing": [] if find_spec("cleanlab") else ["cleanlab"],
        },
        full=True,
        load_before=load_before,
        into=into,
    )
    note(f"kept in {path}")
    return DONE


def measured(group: str, members: Sequence[Task], spoil: Spoil) -> dict[str, Any]:
    """By attribute, what was found at each precision; of small attributes all together."""
    tallies: dict[tuple[str, float], Tally] = defaultdict(Tally)
    ranked: dict[str, dict[str, Any]] = {}
    for task in members:
        for seed in range(SEEDS):
            declared = spoil(task, np.random.default_rng(seed))
            for precision in PRECISIONS:
                audited(group, task, declared, precision, tallies)
            rank(group, task, declared, ranked)
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for name, _ in tallies):
        ways = {way: scores for way, scores in ranked.get(name, {}).items() if way != "wrong"}
        found[name] = {
            "precisions": {str(precision): figures(tallies[name, precision]) for precision in PRECISIONS},
            "ranking": {way: auroc(ranked[name]["wrong"], scores) for way, scores in ways.items()},
        }
    return found


def audited(
    group: str, task: Task, declared: Sequence[Declared], precision: float, tallies: dict[tuple[str, float], Tally]
) -> None:
    """Run the command on the listing, and count what it found."""
    with tempfile.TemporaryDirectory() as made:
        listing, out = Path(made, "listing.csv"), Path(made, "audit.csv")
        write(listing, task, declared)
        options = ["--bundles", str(task.bundles), "--out", str(out), "--precision", str(precision), "--quiet"]
        if audit.main([str(listing), str(task.photos), *options]) != DONE:
            raise UserError(f"the audit of {task.name} did not end well")
        with out.open(newline="") as file:
            findings = list(csv.DictReader(file))
        with audit.beside(out, "summary").open(newline="") as file:
            summary = list(csv.DictReader(file))
    by_name: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in findings:
        by_name[named(group, row["attribute"])].append(row)
    for name in dict.fromkeys(named(group, row["attribute"]) for row in summary):
        tally = tallies[name, precision]
        own = [row for row in summary if named(group, row["attribute"]) == name]
        flagged = [row for row in by_name[name] if row["verdict"] == "contradicts"]
        # The listing's first line names its columns.
        false = sum(row["attribute"] not in declared[int(row["line"]) - 2].wrong for row in flagged)
        # Attributes that are judged together have one bound, which then counts for each: too much, if anything.
        bound = sum(int(row["false_at_most"]) for row in own)
        fills = [row for row in by_name[name] if row["verdict"] == "fills"]
        known = [row for row in fills if truth(task, row)]
        tally.runs += 1
        tally.flagged += len(flagged)
        tally.false += false
        tally.bound += bound
        tally.within += false <= bound
        tally.replaced += sum(row["predicted"] == truth(task, row) for row in flagged)
        tally.filled += len(known)
        tally.filled_wrongly += sum(row["predicted"] != truth(task, row) for row in known)
        for one, row in zip(task.shown, declared, strict=True):
            tally.wrong += name == CATEGORY and ROUTED_BY in row.wrong
            for attribute, label in row.labels.items():
                if named(group, attribute) == name:
                    tally.wrong += bool(label) and attribute in row.wrong
                    tally.empty += not label and bool(one.labels.get(attribute))


def truth(task: Task, row: Mapping[str, str]) -> str | None:
    """What a finding's cell should hold."""
    one = task.shown[int(row["line"]) - 2]
    return one.category if row["attribute"] == ROUTED_BY else one.labels.get(row["attribute"])


def named(group: str, attribute: str) -> str:
    """What an attribute is counted as: those by eye have a few dozen values each, and are counted together."""
    if attribute == ROUTED_BY:
        return CATEGORY
    return attribute if group == "garment" else "all nine"


def write(path: Path, task: Task, declared: Sequence[Declared]) -> None:
    """The listing, in the challenge's own layout."""
    most = max(len(category.attributes) for category in task.categories.values())
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "Category", *(f"attr_{index}" for index in range(1, most + 1))])
        for one, row in zip(task.shown, declared, strict=True):
            names = [attribute.name for attribute in task.categories[row.category].attributes]
            writer.writerow([one.id, row.category, *(row.labels[name] for name in names)])


def rank(group: str, task: Task, declared: Sequence[Declared], into: dict[str, dict[str, Any]]) -> None:
    """How each way orders the declared values, the likeliest mistakes first, on the same probabilities."""
    page = bundle.load(task.bundles)
    verdicts, kept = Verdicts(), validation.read(task.bundles, page)
    for name, category in task.categories.items():
        verdicts.learn(name, category, kept)
    for cell, wrong in mistakes.cells(task, declared):
        found = into.setdefault(named(group, cell.attribute), defaultdict(list))
        found["wrong"].append(wrong)
        found["facet"].append(verdicts.odd(cell))
    for (category_name, attribute), probabilities_NK in task.probabilities.items():
        held = next(one for one in task.categories[category_name].attributes if one.name == attribute)
        rows = [index for index, row in enumerate(declared) if row.category == category_name]
        rows = [index for index in rows if declared[index].labels.get(attribute)]
        labels_N = np.array([held.classes.index(declared[index].labels[attribute]) for index in rows])
        for way, scores_N in cleanlab(labels_N, probabilities_NK[rows]) if rows else ():
            into[named(group, attribute)][way] += scores_N.tolist()


def cleanlab(labels_N: np.ndarray, probabilities_NK: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Northcutt, Jiang, Chuang: Confident Learning (JAIR 2021), as its makers document it: higher scores are odder."""
    if not find_spec("cleanlab"):
        return
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality_N = get_label_quality_scores(labels_N, probabilities_NK, method="self_confidence")
    yield "cleanlab self_confidence", 1 - quality_N
    # One process: its others are forked, from one that has threads.
    issues = find_label_issues(labels_N, probabilities_NK, return_indices_ranked_by="self_confidence", n_jobs=1)
    scores_N = np.zeros(len(labels_N))
    scores_N[issues] = np.arange(len(issues), 0, -1)
    yield "cleanlab find_label_issues", scores_N


def figures(tally: Tally) -> dict[str, Any]:
    """What is kept of an attribute at one precision."""

    def share(part: int, of: int) -> float | None:
        return round(part / of, 6) if of else None

    return {
        "runs": tally.runs,
        "wrong": tally.wrong,
        "contradicts": tally.flagged,
        "false": tally.false,
        "false_at_most": tally.bound,
        "runs_within": tally.within,
        "precision": share(tally.flagged - tally.false, tally.flagged),
        "replacement_right": share(tally.replaced, tally.flagged),
        "recall": share(tally.flagged - tally.false, tally.wrong),
        "empty": tally.empty,
        "fills": tally.filled,
        "fills_precision": share(tally.filled - tally.filled_wrongly, tally.filled),
        "fills_recall": share(tally.filled - tally.filled_wrongly, tally.empty),
    }


def auroc(wrong: Sequence[bool], scores: Sequence[float]) -> float:
    from sklearn.metrics import roc_auc_score

    return round(float(roc_auc_score(wrong, scores)), 4)


if __name__ == "__main__":
    raise SystemExit(main())

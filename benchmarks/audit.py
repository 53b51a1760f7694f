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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import busy, record, tasks
from benchmarks.cache import ROOT
from export import build
from runtime import audit, bundle, images
from runtime.bundle import ROUTED_BY, Category
from runtime.errors import DONE, UserError
from runtime.listing import photo_of
from runtime.predictor import Predictor
from runtime.terminal import note, progress
from train import fit

BUILD = ROOT / "build" / "audit"
SEEDS = 5
WRONG, EMPTY = 0.1, 0.2
PRECISIONS = (0.9, 0.95)
TRAINING = ("--joint", "--category", "Dress", "Shoes", "T-Shirt", "--max-hours", "0.12")
CATEGORY = "the category"
# Of a bundle's network, photos at a time.
CHUNK = 16

Labels = dict[str, str]
"""Attribute -> label, of one photo; empty where nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One photo, and what is true of it."""

    id: str
    category: str
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One row of a listing: what is said of a photo, and which of it was made wrong."""

    category: str
    labels: Labels
    wrong: frozenset[str]
    """Attributes whose value is not the photo's."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model and the photos that no training of it saw."""

    name: str
    bundles: Path
    photos: Path
    shown: Sequence[Shown]
    probabilities: Mapping[tuple[str, str], np.ndarray]
    """By category and attribute, float32 [N, K]: the served network's, for every photo."""
    categories: Mapping[str, Category]


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
    groups = {"garment": [garment()], "by eye": [by_eye(name) for name in tasks.BY_EYE]}
    found: dict[str, Any] = {}
    for group, members in groups.items():
        for kind, spoil in KINDS.items():
            found.setdefault(group, {})[kind] = measured(group, members, spoil)
    path = record.keep(
        {"model": "audit", "seeds": SEEDS, "wrong": WRONG, "empty": EMPTY, "training": list(TRAINING)},
        {"groups": found, "missing": [] if find_spec("cleanlab") else ["cleanlab"]},
        full=True,
        load_before=load_before,
        into=into,
    )
    note(f"kept in {path}")
    return DONE


def garment() -> Task:
    """The shipped model, on the publisher's test split."""
    return _task("garment", tasks.BUILD / tasks.GARMENT, ROOT / "examples" / "bundles" / "garment")


def by_eye(name: str) -> Task:
    """One fold, trained on the others if it is not there yet."""
    data, home = tasks.BUILD / name, BUILD / name
    if not (home / "bundles").is_dir():
        if fit.main(["--data", str(data), "--out", str(home / "checkpoints"), *TRAINING]) != DONE:
            raise UserError(f"the training of {name} did not end well")
        made = home / "unfinished"
        options = ["--data", str(data), "--checkpoints", str(home / "checkpoints"), "--out", str(made)]
        if build.main([*options, "--precision", "int8", "--engine", "onnxruntime"]) != DONE:
            raise UserError(f"the export of {name} was refused")
        made.rename(home / "bundles")
    (folder,) = bundle.find(home / "bundles").values()
    return _task(name, data, folder)


def _task(name: str, data: Path, folder: Path) -> Task:
    page = bundle.load(folder)
    categories = {category.name: category for category in page.products}
    shown = []
    with (data / "train.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "test" and row["Category"] in categories:
                names = [attribute.name for attribute in categories[row["Category"]].attributes]
                labels = {attribute: row[f"attr_{index}"] for index, attribute in enumerate(names, 1)}
                shown.append(Shown(id=row["id"], category=row["Category"], labels=labels))
    photos = data / "train_images"
    found = defaultdict(list)
    with Predictor.open(folder) as predictor, progress(f"{name}, photos", len(shown)) as advance:
        for start in range(0, len(shown), CHUNK):
            chunk = [images.load(photos / photo_of(one.id), page.preprocess) for one in shown[start : start + CHUNK]]
            outputs = predictor.probabilities(np.stack(chunk))
            for category in categories.values():
                for attribute in category.attributes:
                    found[category.name, attribute.name].append(outputs[attribute.output])
            advance(len(chunk))
    return Task(
        name=name,
        bundles=folder,
        photos=photos,
        shown=shown,
        probabilities={key: np.concatenate(parts) for key, parts in found.items()},
        categories=categories,
    )


Spoil = Callable[[Task, np.random.Generator], list[Declared]]


def flipped(task: Task, rng: np.random.Generator) -> list[Declared]:
    """A tenth of the values are another class, any of them."""

    def other(index: int, attribute: str, label: str) -> str:
        classes = _classes(task, index, attribute)
        return str(rng.choice([one for one in classes if one != label]))

    return _each(task, rng, other)


def second(task: Task, rng: np.random.Generator) -> list[Declared]:
    """A tenth of the values are the class that the network itself finds likeliest beside the true one."""

    def other(index: int, attribute: str, label: str) -> str:
        classes = _classes(task, index, attribute)
        probabilities_K = task.probabilities[task.shown[index].category, attribute][index].copy()
        probabilities_K[classes.index(label)] = -1
        return classes[int(probabilities_K.argmax())]

    return _each(task, rng, other)


def mixed(task: Task, rng: np.random.Generator) -> list[Declared]:
    """A tenth of the photos have the whole row of one of another category; of Garment, of another kind."""
    rows = [(one.category, dict(one.labels)) for one in task.shown]
    kinds = [one.labels.get("kind", one.category) for one in task.shown]
    for index in rng.permutation(len(rows))[: round(WRONG * len(rows))]:
        others = [place for place, kind in enumerate(kinds) if kind != kinds[index]]
        place = int(rng.choice(others))
        rows[index] = task.shown[place].category, dict(task.shown[place].labels)
    made = []
    for one, (category, labels) in zip(task.shown, rows, strict=True):
        wrong = {name for name, label in labels.items() if label and label != one.labels.get(name)}
        # What nobody knows of the photo makes no value wrong.
        unknown = {name for name in wrong if name in one.labels and not one.labels[name]}
        other = {ROUTED_BY} if category != one.category else set()
        made.append(Declared(category=category, labels=_emptied(labels, rng), wrong=frozenset(wrong - unknown | other)))
    return made


KINDS: dict[str, Spoil] = {"any other class": flipped, "the network's second choice": second, "rows mixed up": mixed}


def _each(task: Task, rng: np.random.Generator, other: Callable[[int, str, str], str]) -> list[Declared]:
    made = []
    for index, one in enumerate(task.shown):
        labels = dict(one.labels)
        wrong = {name for name, label in labels.items() if label and rng.random() < WRONG}
        labels |= {name: other(index, name, labels[name]) for name in sorted(wrong)}
        made.append(Declared(category=one.category, labels=_emptied(labels, rng), wrong=frozenset(wrong)))
    return made


def _emptied(labels: Labels, rng: np.random.Generator) -> Labels:
    return {name: "" if label and rng.random() < EMPTY else label for name, label in labels.items()}


def _classes(task: Task, index: int, attribute: str) -> list[str]:
    held = task.categories[task.shown[index].category].attributes
    return next(list(one.classes) for one in held if one.name == attribute)


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
        known = [row for row in fills if task.shown[int(row["line"]) - 2].labels.get(row["attribute"])]
        tally.runs += 1
        tally.flagged += len(flagged)
        tally.false += false
        tally.bound += bound
        tally.within += false <= bound
        tally.filled += len(known)
        tally.filled_wrongly += sum(
            row["predicted"] != task.shown[int(row["line"]) - 2].labels[row["attribute"]] for row in known
        )
        for one, row in zip(task.shown, declared, strict=True):
            tally.wrong += name == CATEGORY and ROUTED_BY in row.wrong
            for attribute, label in row.labels.items():
                if named(group, attribute) == name:
                    tally.wrong += bool(label) and attribute in row.wrong
                    tally.empty += not label and bool(one.labels.get(attribute))


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
    for (category, attribute), probabilities_NK in task.probabilities.items():
        classes = next(list(one.classes) for one in task.categories[category].attributes if one.name == attribute)
        rows = [index for index, row in enumerate(declared) if row.category == category and row.labels.get(attribute)]
        if not rows:
            continue
        labels_N = np.array([classes.index(declared[index].labels[attribute]) for index in rows])
        probabilities_NK = probabilities_NK[rows]
        found = into.setdefault(named(group, attribute), defaultdict(list))
        found["wrong"] += [attribute in declared[index].wrong for index in rows]
        found["facet"] += (1 - probabilities_NK[np.arange(len(rows)), labels_N].astype(float)).tolist()
        for way, scores_N in cleanlab(labels_N, probabilities_NK):
            found[way] += scores_N.tolist()


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
        return round(part / of, 4) if of else None

    return {
        "runs": tally.runs,
        "wrong": tally.wrong,
        "contradicts": tally.flagged,
        "false": tally.false,
        "false_at_most": tally.bound,
        "runs_within": tally.within,
        "precision": share(tally.flagged - tally.false, tally.flagged),
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

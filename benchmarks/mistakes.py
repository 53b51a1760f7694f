"""Photos that no training saw, what is true of them, and listings of them with mistakes put in on purpose."""

# N photos, K classes

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import tasks
from benchmarks.cache import ROOT
from export import build
from runtime import bundle, images
from runtime.bundle import ROUTED_BY, Category
from runtime.cells import Cell
from runtime.errors import DONE, UserError
from runtime.listing import photo_of
from runtime.predictor import Predictor, decide
from runtime.terminal import progress
from train import fit

BUILD = ROOT / "build" / "audit"
WRONG, EMPTY = 0.1, 0.2
TRAINING = ("--joint", "--category", "Dress", "Shoes", "T-Shirt", "--max-hours", "0.12")
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
    sender: str = ""


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


def garment(split: str = "test") -> Task:
    """The shipped model, on the publisher's test split, or on the validation photos that chose it."""
    return _task("garment", tasks.BUILD / tasks.GARMENT, ROOT / "examples" / "bundles" / "garment", split)


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


def _task(name: str, data: Path, folder: Path, split: str = "test") -> Task:
    page = bundle.load(folder)
    categories = {category.name: category for category in page.products}
    shown = []
    with (data / "train.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == split and row["Category"] in categories:
                names = [attribute.name for attribute in categories[row["Category"]].attributes]
                labels = {attribute: row[f"attr_{index}"] for index, attribute in enumerate(names, 1)}
                shown.append(Shown(id=row["id"], category=row["Category"], labels=labels, sender=row["group"]))
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


def cells(task: Task, declared: Sequence[Declared]) -> Iterator[tuple[Cell, bool]]:
    """Every declared value of the task's categories beside what the network says, and whether it is wrong."""
    for (name, attribute), probabilities_NK in task.probabilities.items():
        held = next(one for one in task.categories[name].attributes if one.name == attribute)
        decided = decide(probabilities_NK, held.offsets)
        for (index, confidence), row, probabilities_K in zip(decided, declared, probabilities_NK, strict=True):
            said = row.labels.get(attribute) if row.category == name else ""
            if said:
                predicted, probability = held.classes[index], float(probabilities_K[held.classes.index(said)])
                cell = Cell(name, attribute, 0, said, said, predicted, predicted, confidence, probability)
                yield cell, attribute in row.wrong


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

"""Mistakes go into listings as they are said to, and what an audit finds of them is counted right."""

# N photos, K classes

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import audit, mistakes, redraws
from benchmarks.audit import Tally
from benchmarks.mistakes import Declared, Shown, Spoil, Task
from runtime import bundle
from tests.audit_parts import with_validation

TRUTH = {"red": {"colour": "red", "warmth": "warm"}, "blue": {"colour": "blue", "warmth": "cold"}}
PHOTOS = 200


@pytest.fixture(scope="module")
def task(bundle_folder: Path, make_photo: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Red and blue photos in turn, of a network that knows them."""
    root = tmp_path_factory.mktemp("task")
    folder = with_validation(bundle_folder, root, TRUTH)
    (category,) = bundle.load(folder).categories
    shown = []
    for index in range(PHOTOS):
        colour = ("red", "blue")[index % 2]
        make_photo(root / "photos" / f"{index:06d}.jpg", colour)
        shown.append(Shown(id=str(index), category="Shirt", labels=dict(TRUTH[colour])))
    sure_NK = {
        "colour": [[0.0, 0.1, 0.9], [0.9, 0.1, 0.0]],
        "warmth": [[0.2, 0.8], [0.8, 0.2]],
    }
    return Task(
        name="shirts",
        bundles=folder,
        photos=root / "photos",
        shown=shown,
        probabilities={("Shirt", name): np.tile(pair, (PHOTOS // 2, 1)) for name, pair in sure_NK.items()},
        categories={"Shirt": category},
    )


@pytest.mark.parametrize("spoil", mistakes.KINDS.values(), ids=list(mistakes.KINDS))
def test_about_a_tenth_is_wrong_and_a_fifth_is_taken_out(spoil: Spoil, task: Task) -> None:
    if spoil is mistakes.mixed:
        kinds = [
            Shown(id=one.id, category=one.category, labels=one.labels | {"kind": one.labels["colour"]})
            for one in task.shown
        ]
        task = Task(**{**vars(task), "shown": kinds})
    declared = spoil(task, np.random.default_rng(0))
    assert len(declared) == PHOTOS
    wrong = empty = 0
    for one, row in zip(task.shown, declared, strict=True):
        for name, label in row.labels.items():
            empty += not label
            wrong += name in row.wrong
            assert not label or (label != one.labels[name]) == (name in row.wrong)
    cells = sum(len(row.labels) for row in declared)
    # Of 400 cells or more a tenth is 40, give or take three times 6; a fifth 80, give or take three times 8.
    assert wrong / cells == pytest.approx(0.1, abs=0.05)
    assert empty / cells == pytest.approx(0.2, abs=0.06)


def test_the_second_choice_is_the_likeliest_class_beside_the_true_one(task: Task) -> None:
    declared = mistakes.second(task, np.random.default_rng(0))
    assert {row.labels["colour"] for row in declared if "colour" in row.wrong} <= {"green", ""}


def test_what_the_audit_finds_is_counted(task: Task) -> None:
    declared = [Declared(category="Shirt", labels=dict(one.labels), wrong=frozenset()) for one in task.shown]
    for index in range(0, 42, 2):  # red, said to be blue; of the last one that is not told
        wrong = frozenset(["colour"] if index < 40 else [])
        declared[index] = Declared(category="Shirt", labels={"colour": "blue", "warmth": "warm"}, wrong=wrong)
    declared[41] = Declared(category="Shirt", labels={"colour": "", "warmth": "cold"}, wrong=frozenset())
    tallies: dict[tuple[str, float], Tally] = defaultdict(Tally)
    audit.audited("garment", task, declared, 0.9, tallies)
    found = audit.figures(tallies["colour", 0.9])
    assert (found["wrong"], found["contradicts"], found["false"]) == (20, 21, 1)
    assert (found["precision"], found["recall"]) == (round(20 / 21, 6), 1.0)
    assert (found["empty"], found["fills"], found["fills_precision"]) == (1, 1, 1.0)
    assert found["runs"] == found["runs_within"] == 1 and found["false_at_most"] >= 1
    assert audit.figures(tallies["warmth", 0.9])["precision"] is None


def test_wrong_values_are_ranked_on_the_same_probabilities(task: Task) -> None:
    pytest.importorskip("cleanlab", reason="needs pip install cleanlab")
    declared = mistakes.flipped(task, np.random.default_rng(0))
    found: dict[str, dict[str, Any]] = {}
    audit.rank("garment", task, declared, found)
    colour = found["colour"]
    assert set(colour) == {"wrong", "facet", "cleanlab self_confidence", "cleanlab find_label_issues"}
    assert audit.auroc(colour["wrong"], colour["facet"]) == 1.0
    # Every photo told as red is red: then audits order as the network does.
    assert np.corrcoef(colour["facet"], colour["cleanlab self_confidence"])[0, 1] > 0.99


def test_a_promise_is_tried_on_photos_dealt_anew(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redraws, "DRAWS", 3)
    shown = [Shown(id=one.id, category="Shirt", labels=one.labels, sender=one.id) for one in task.shown] * 12
    answers = {key: np.tile(own_NK, (12, 1)) for key, own_NK in task.probabilities.items()}
    many = replace(task, shown=shown, probabilities=answers)
    found = redraws.measured(many, many, [0.9])
    colour = found["attributes"]["colour"]["0.9"]
    # The network knows every colour, and half of 4800 labels is enough to say so.
    assert (colour["within"], colour["with_findings"], colour["precision"]) == (3, 3, 1.0)
    assert colour["mean_share_false"] == 0.0
    # Half of the mistakes are green, of which there is no label.
    assert colour["recall"] == pytest.approx(0.5, abs=0.15)
    # Emptied cells are not among the 2400 values, of which a tenth is wrong: 96 a draw, give or take three times 10.
    assert colour["contradicts"] == pytest.approx(288, abs=54)

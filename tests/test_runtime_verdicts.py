"""Who is judged with whom, and what each verdict needs."""

# N validation photos, K classes

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from runtime.bundle import Attribute, Category
from runtime.cells import Cell
from runtime.validation import Answers, Validation
from runtime.verdicts import LEAST_LABELS, Judged, Promise, Stratum, Values, Verdicts

SHIRT = Category(
    name="Shirt",
    attributes=(
        Attribute(name="colour", classes=("red", "blue", "green"), output="colour"),
        Attribute(name="neck", classes=("round", "v"), output="neck"),
        Attribute(name="sleeve", classes=("long", "short"), output="sleeve"),
    ),
)


def kept(**counts: Sequence[int]) -> Validation:
    """So many labels of each class, every prediction right and 0.9 sure."""
    answers = {}
    for name, of_class in counts.items():
        labels_N = np.repeat(np.arange(len(of_class)), of_class).astype(np.int16)
        probabilities_NK = np.full((len(labels_N), len(of_class)), 0.1 / (len(of_class) - 1), np.float32)
        probabilities_NK[np.arange(len(labels_N)), labels_N] = 0.9
        answers[name] = Answers(labels_N=labels_N, probabilities_NK=probabilities_NK)
    return Validation(answers=answers, features_NF=np.zeros((0, 4)), kinds_N=np.zeros(0))


def learnt(validation: Validation | None) -> dict[tuple[str, str, str], Stratum]:
    verdicts = Verdicts()
    verdicts.learn("Shirt", SHIRT, validation)
    return verdicts.strata


def cell(meant: str, predicted: str, declared_confidence: float, confidence: float = 0.9, declared: str = "") -> Cell:
    return Cell("Shirt", "colour", 1, declared or meant, meant, predicted, predicted, confidence, declared_confidence)


def test_a_class_with_labels_enough_is_judged_by_itself_and_small_attributes_together() -> None:
    many = LEAST_LABELS
    strata = learnt(kept(colour=(many, many - 1, 1), neck=(many - 2, 1), sleeve=(5, 5)))
    of = {key[1:]: stratum for key, stratum in strata.items()}
    assert of["colour", "red"].names == ["colour red"] and len(of["colour", "red"].labels) == many
    assert of["colour", "blue"] is of["colour", "green"] and len(of["colour", "blue"].labels) == many
    together = of["neck", "round"]
    assert together is of["neck", "v"] is of["sleeve", "long"] is of["sleeve", "short"]
    assert (together.names, len(together.labels)) == (["neck", "sleeve"], many - 1 + 10)


def test_a_common_class_does_not_leave_a_rare_one_without_company() -> None:
    strata = learnt(kept(colour=(LEAST_LABELS, 3, 0), neck=(1, 1), sleeve=(1, 1)))
    assert len({id(strata["Shirt", "colour", name]) for name in ("red", "blue", "green")}) == 1
    assert len(strata["Shirt", "colour", "red"].labels) == LEAST_LABELS + 3


def test_without_validation_photos_all_is_one_stratum_of_nothing() -> None:
    strata = learnt(None)
    (only,) = {id(stratum): stratum for stratum in strata.values()}.values()
    assert (len(only.labels), only.names) == (0, ["colour", "neck", "sleeve"])


def judged(cells: Sequence[Cell], precision: float = 0.9) -> list[Judged]:
    verdicts = Verdicts()
    verdicts.learn("Shirt", SHIRT, kept(colour=(300, 300, 300), neck=(1, 1), sleeve=(1, 1)))
    verdicts.see(cells)
    verdicts.promise(precision)
    return [verdicts.judge(one) for one in cells]


def test_each_verdict_needs_what_it_says() -> None:
    cells = [
        cell("red", "red", 0.9),
        *[cell("red", "blue", 0.001) for _ in range(20)],
        cell("red", "blue", 0.95, confidence=0.6),
        cell("", "blue", 0.0),
        cell("", "blue", 0.0, confidence=0.5),
        cell("", "blue", 0.0, declared="purple"),
    ]
    found = judged(cells)
    names = ["agrees", *["contradicts"] * 20, "unsure", "fills", "unsure", "unknown value"]
    assert [one.verdict for one in found] == names
    assert found[1].worth > 0.9 and found[0].worth == 0.0
    assert [one.worth for one in found[-3:]] == [0.9, 0.5, 1.0]


def test_what_is_improbable_does_not_contradict_where_nothing_else_is_probable() -> None:
    assert {one.verdict for one in judged([cell("red", "blue", 0.001, confidence=0.5) for _ in range(20)])} == {
        "unsure"
    }


def test_labels_whose_photos_are_told_by_nothing_do_not_stand_in_the_way() -> None:
    values, sure_from_K = Values(), np.array([0.8, np.inf])
    for odd, place, confidence in ((1.0, 0, 0.7), (0.9, 0, 0.8), (0.5, -1, 0.9), (1.0, 1, 0.99)):
        values.add(odd, place, confidence)
    assert values.contrary(sure_from_K).tolist() == [0.0, 0.9, 0.0, 0.0]


def test_a_few_odd_values_in_a_short_listing_are_no_certain_mistakes() -> None:
    short = judged([cell("red", "blue", 0.001)] + [cell("red", "red", 0.9) for _ in range(4)])
    assert short[0].verdict == "unsure" and short[0].worth < 0.99


def test_the_chance_of_being_wrong_grows_with_how_odd_a_value_is() -> None:
    stratum, rng = Stratum(names=["colour"]), np.random.default_rng(0)
    for odd in rng.random(2000) ** 3:
        stratum.labels.add(odd, -1, 1.0)
    for odd in [*rng.random(900) ** 3, *(1 - rng.random(100) / 1000)]:
        stratum.declared.add(odd, -1, 1.0)
    promise = Promise(stratum, 0.9, stratum.sure_from(0.9), np.zeros(0))
    chances = [promise.chance(odd) for odd in np.linspace(0, 1, 50)]
    assert chances == sorted(chances)
    assert chances[0] < 0.2 and promise.chance(0.999) > 0.9
    # A tenth is wrong; with 1000 values and 2000 labels some 40 more or less are told.
    assert promise.wrong == pytest.approx(100, abs=40)


def test_without_labels_what_is_odd_is_what_the_network_finds_improbable() -> None:
    stratum = Stratum(names=["colour"])
    for odd in (0.25, 0.75):
        stratum.declared.add(odd, -1, 1.0)
    promise = Promise(stratum, 0.9, stratum.sure_from(0.9), np.zeros(0))
    assert (promise.cut, promise.sure_from) == (None, None)
    assert [promise.chance(odd) for odd in (0.25, 0.75)] == [0.25, 0.75]

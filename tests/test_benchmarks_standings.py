"""What a study of recipes adds up to, worked out by hand on a few answers."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import standings
from benchmarks.tasks import BY_EYE, GARMENT

RATES = (1e-5, 1e-4)
RIGHT, HALF = [0, 1], [0, 0]  # of the truth 0, 1: HM 1, and of micro-F1 1/2 and macro-F1 1/3: HM 0.4


def line(recipe: str, task: str, seed: int, plain: list[int], offset: list[int], hm: float = 0.5) -> dict[str, Any]:
    one = {"category": "Cap", "attribute": "colour", "truth": [0, 1], "plain": plain, "offset": offset}
    return {"recipe": recipe, "task": task, "seed": seed, "validation_hm": hm, "attributes": [one]}


def of(found: dict[str, Any], recipe: str) -> dict[str, Any]:
    (standing,) = [standing for standing in found["standings"] if standing["recipe"] == recipe]
    return standing


def test_a_recipe_stands_at_the_mean_of_its_seeds_with_the_offsets_it_decides_by() -> None:
    lines = [line("default", GARMENT, 0, HALF, RIGHT), line("default", GARMENT, 1, RIGHT, HALF)]
    found = of(standings.summary(lines, RATES), "default")[GARMENT]
    assert found["seeds"] == [0, 1]
    assert found["values"] == [1.0, 0.4]
    assert found["mean"] == pytest.approx(0.7)
    assert found["deviation"] == pytest.approx(0.4243)


def test_folds_are_pooled_before_they_are_scored_and_count_only_when_all_are_there() -> None:
    lines = [line("default", task, 0, RIGHT, RIGHT if number else HALF) for number, task in enumerate(BY_EYE)]
    # Of ten answers nine are right: F1 of class 0 is 10/11, of class 1 8/9.
    macro = (10 / 11 + 8 / 9) / 2
    found = of(standings.summary(lines, RATES), "default")["by eye"]
    assert found["values"] == [pytest.approx(2 * 0.9 * macro / (0.9 + macro), abs=1e-4)]
    assert of(standings.summary(lines[1:], RATES), "default")["by eye"]["values"] == []


def test_categories_count_alike_however_many_attributes_they_have() -> None:
    made = line("default", GARMENT, 0, RIGHT, RIGHT)
    others = [{**made["attributes"][0], "category": "Boot", "attribute": name, "offset": HALF} for name in "abc"]
    made["attributes"] += others
    assert of(standings.summary([made], RATES), "default")[GARMENT]["mean"] == pytest.approx((1.0 + 0.4) / 2)


def test_the_reference_stands_with_the_rate_that_validation_chose_and_without_offsets() -> None:
    lines = [
        line("reference 1e-05", GARMENT, 0, RIGHT, RIGHT, hm=0.3),
        line("reference 0.0001", GARMENT, 0, HALF, RIGHT, hm=0.6),
        line("reference 0.0001", GARMENT, 1, HALF, RIGHT, hm=0.1),
    ]
    found = standings.summary(lines, RATES)
    assert found["rates_chosen"] == {GARMENT: 1e-4, "by eye": None}
    assert of(found, "reference")[GARMENT]["values"] == [0.4, 0.4]
    assert standings.summary(lines[1:], RATES)["rates_chosen"][GARMENT] is None


def test_a_part_is_judged_on_the_seeds_that_ran_with_it_and_without() -> None:
    lines = [
        line("default", GARMENT, 0, HALF, RIGHT),
        line("default", GARMENT, 1, HALF, RIGHT),
        line("no MMD", GARMENT, 1, RIGHT, HALF),
    ]
    found = {(row["part"], row["on"]): row for row in standings.summary(lines, RATES)["ablation"]}
    mmd = found["without the MMD term → with it", GARMENT]
    assert (mmd["gain"]["seeds"], mmd["gain"]["values"]) == ([1], [0.6])
    offsets = found["without decision offsets → with them", GARMENT]
    assert offsets["gain"]["values"] == [0.6, 0.6]

"""What a study of recipes adds up to, worked out by hand on a few answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import standings
from benchmarks.tasks import BY_EYE, GARMENT

RATES = (1e-5, 1e-4)
RIGHT, HALF = [0, 1], [0, 0]  # of the truth 0, 1: HM 1, and of micro-F1 1/2 and macro-F1 1/3: HM 0.4


def line(recipe: str, task: str, seed: int, plain: list[int], offset: list[int], hm: float = 0.5) -> dict[str, Any]:
    answers = {"truth": [0, 1], "plain": plain, "offset": offset, "senders": ["7", "8"]}
    one = {"category": "Cap", "attribute": "colour", **answers}
    return {"recipe": recipe, "task": task, "seed": seed, "validation_hm": hm, "attributes": [one]}


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return standings.summary({(line["recipe"], line["task"], line["seed"]): line for line in lines}, RATES)


def of(found: dict[str, Any], recipe: str) -> dict[str, Any]:
    (standing,) = [standing for standing in found["standings"] if standing["recipe"] == recipe]
    return standing


def test_a_recipe_stands_at_the_mean_of_its_seeds_with_the_offsets_it_decides_by() -> None:
    lines = [line("default", GARMENT, 0, HALF, RIGHT), line("default", GARMENT, 1, RIGHT, HALF)]
    found = of(summary(lines), "default")[GARMENT]
    assert found["seeds"] == [0, 1]
    assert found["values"] == [1.0, 0.4]
    assert found["mean"] == pytest.approx(0.7)
    assert found["deviation"] == pytest.approx(0.4243)


def test_folds_are_pooled_before_they_are_scored_and_count_only_when_all_are_there() -> None:
    lines = [line("default", task, 0, RIGHT, RIGHT if number else HALF) for number, task in enumerate(BY_EYE)]
    # Of ten answers nine are right: F1 of class 0 is 10/11, of class 1 8/9.
    macro = (10 / 11 + 8 / 9) / 2
    found = of(summary(lines), "default")["by eye"]
    assert found["values"] == [pytest.approx(2 * 0.9 * macro / (0.9 + macro), abs=1e-4)]
    assert of(summary(lines[1:]), "default")["by eye"]["values"] == []


def test_categories_count_alike_however_many_attributes_they_have() -> None:
    made = line("default", GARMENT, 0, RIGHT, RIGHT)
    others = [{**made["attributes"][0], "category": "Boot", "attribute": name, "offset": HALF} for name in "abc"]
    made["attributes"] += others
    assert of(summary([made]), "default")[GARMENT]["mean"] == pytest.approx((1.0 + 0.4) / 2)


def test_every_category_counts_alike_where_both_kinds_of_labels_are_there() -> None:
    garment = line("reference 1e-05", GARMENT, 0, HALF, HALF, hm=0.6)
    others = [line("reference 0.0001", task, 0, RIGHT, HALF, hm=0.6) for task in BY_EYE]
    for made in others:
        made["attributes"][0]["category"] = "Boot"
    worse = [
        {**made, "recipe": f"reference {rate:g}", "validation_hm": 0.1}
        for made, rate in [(garment, 1e-4), *((made, 1e-5) for made in others)]
    ]
    found = of(summary([garment, *others, *worse]), "reference")
    # Each kind of labels with the rate that its own search chose.
    assert found["every category"]["values"] == [pytest.approx((0.4 + 1.0) / 2)]
    assert of(summary([garment, *worse]), "reference")["every category"]["values"] == []


def test_the_reference_stands_with_the_rate_that_validation_chose_and_without_offsets() -> None:
    lines = [
        line("reference 1e-05", GARMENT, 0, RIGHT, RIGHT, hm=0.3),
        line("reference 0.0001", GARMENT, 0, HALF, RIGHT, hm=0.6),
        line("reference 0.0001", GARMENT, 1, HALF, RIGHT, hm=0.1),
    ]
    found = summary(lines)
    assert found["rates_chosen"] == {GARMENT: 1e-4, "by eye": None}
    assert found["validation_hm_by_rate"][GARMENT] == {1e-5: 0.3, 1e-4: 0.6}
    assert of(found, "reference")[GARMENT]["values"] == [0.4, 0.4]
    assert of(found, "reference, with decision offsets")[GARMENT]["values"] == [1.0, 1.0]
    assert summary(lines[1:])["rates_chosen"][GARMENT] is None


def test_a_part_is_judged_on_the_seeds_that_ran_with_it_and_without() -> None:
    lines = [
        line("default", GARMENT, 0, HALF, RIGHT),
        line("default", GARMENT, 1, HALF, RIGHT),
        line("no MMD", GARMENT, 1, RIGHT, HALF),
    ]
    found = {(row["part"], row["on"]): row for row in summary(lines)["ablation"]}
    mmd = found["without the MMD term → with it", GARMENT]
    assert (mmd["gain"]["seeds"], mmd["gain"]["values"]) == ([1], [0.6])
    offsets = found["without decision offsets → with them", GARMENT]
    assert offsets["gain"]["values"] == [0.6, 0.6]


def test_two_recipes_differ_by_what_each_seed_gained_and_the_probe_stands_beside_every_seed() -> None:
    lines = [line("probe", GARMENT, 0, HALF, HALF)]
    lines += [line("default", GARMENT, seed, HALF, RIGHT if seed else HALF) for seed in (0, 1)]
    found = {row["between"]: row[GARMENT] for row in summary(lines)["differences"]}
    assert found["default - probe"]["gain"]["values"] == [0.0, pytest.approx(0.6)]
    assert found["default - reference"]["gain"] == {"seeds": [], "values": [], "mean": None, "deviation": None}


def test_the_interval_of_a_difference_draws_senders_the_same_for_both() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=300)
    senders = [str(index // 5) for index in range(300)]
    wrong = np.where(rng.random(300) < 0.2, (truth + 1) % 3, truth)
    worse = np.where(rng.random(300) < 0.2, (truth + 1) % 3, wrong)

    def of_seed(recipe: str, given: np.ndarray) -> dict[str, Any]:
        made = line(recipe, GARMENT, 0, [], [])
        both = {"plain": given.tolist(), "offset": given.tolist()}
        made["attributes"][0] |= {"truth": truth.tolist(), "senders": senders, **both}
        return made

    found = {
        row["between"]: row[GARMENT]
        for row in summary([of_seed("probe", worse), of_seed("default", wrong)])["differences"]
    }
    gain = found["default - probe"]["gain"]
    low, high = gain["interval"]
    assert low < gain["mean"] < high
    # Of one and the same set of answers nothing is left to draw.
    same = {
        row["between"]: row[GARMENT]
        for row in summary([of_seed("probe", wrong), of_seed("default", wrong)])["differences"]
    }
    assert same["default - probe"]["gain"]["interval"] == [0, 0]
    # Paired: narrower than the two scores' own intervals would allow.
    assert high - low < 0.15

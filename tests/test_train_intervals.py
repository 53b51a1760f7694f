"""Bootstrap intervals: what a plain loop would find, in a fraction of its time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from train import intervals
from train.config import MISSING
from train.metrics import hm_of


def answers_of(labels_NL: np.ndarray, classes: list[int], right: float, seed: int = 1) -> np.ndarray:
    """Answers that are right in about that share of the rows."""
    rng = np.random.default_rng(seed)
    guesses_NL = np.stack([rng.integers(count, size=len(labels_NL)) for count in classes], 1)
    keep = (rng.random(labels_NL.shape) < right) & (labels_NL != MISSING)
    return np.where(keep, labels_NL, guesses_NL)


def labels(rows: int, classes: list[int], missing: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = np.stack([rng.integers(count, size=rows) for count in classes], 1)
    return np.where(rng.random(found.shape) < missing, MISSING, found)


def test_resamples_score_what_scikit_learn_says_of_the_same_rows() -> None:
    classes = [3, 2, 6]
    labels_NL = labels(40, classes, missing=0.4)
    answers_NL = answers_of(labels_NL, classes, right=0.6)
    found_SL = intervals.resampled_hm(labels_NL, answers_NL, classes, resamples=30, seed=7)
    drawn_SN = np.random.default_rng(7).integers(40, size=(30, 40))
    for rows, hm_L in zip(drawn_SN, found_SL, strict=True):
        for column, hm in enumerate(hm_L):
            there = labels_NL[rows, column] != MISSING
            expected = hm_of(labels_NL[rows, column][there], answers_NL[rows, column][there])
            assert hm == pytest.approx(expected, abs=1e-12)  # both divide the same counts in float64


def test_a_draw_without_a_label_of_an_attribute_has_no_score_of_it() -> None:
    labels_NL = np.full((30, 2), MISSING)
    labels_NL[:, 0] = 1
    labels_NL[4, 1] = 0
    found_SL = intervals.resampled_hm(labels_NL, np.ones_like(labels_NL), [2, 2], resamples=200)
    drawn_SN = np.random.default_rng(0).integers(30, size=(200, 30))
    assert (np.isnan(found_SL[:, 1]) == ~(drawn_SN == 4).any(1)).all()
    assert intervals.interval(found_SL[:, 0]) == (1.0, 1.0)
    assert intervals.interval(found_SL[:, 1]) == (0.0, 0.0)


def test_whole_groups_are_drawn_and_score_what_a_loop_over_them_does() -> None:
    classes = [3, 2]
    labels_NL = labels(12, classes, missing=0.2)
    answers_NL = answers_of(labels_NL, classes, right=0.6)
    groups_N = np.array(["b", "a", "b", "c", "a", "d", "d", "b", "e", "c", "a", "d"], object)
    found_SL = intervals.resampled_hm(labels_NL, answers_NL, classes, groups_N=groups_N, resamples=30, seed=7)
    for drawn_G, hm_L in zip(np.random.default_rng(7).integers(5, size=(30, 5)), found_SL, strict=True):
        # Numbered as they come.
        rows = np.concatenate([np.flatnonzero(groups_N == "bacde"[group]) for group in drawn_G])
        for column, hm in enumerate(hm_L):
            there = labels_NL[rows, column] != MISSING
            expected = hm_of(labels_NL[rows, column][there], answers_NL[rows, column][there])
            assert hm == pytest.approx(expected, abs=1e-12)  # both divide the same counts in float64


def test_rows_that_are_each_a_group_are_drawn_as_rows_without_groups() -> None:
    labels_NL = labels(50, [3], missing=0.0)
    answers_NL = answers_of(labels_NL, [3], right=0.5)
    names_N = np.array([f"id {index}" for index in range(50)], object)
    apart, without = (
        intervals.resampled_hm(labels_NL, answers_NL, [3], groups_N=groups_N) for groups_N in (names_N, None)
    )
    assert (apart == without).all()


def test_photos_of_one_item_leave_the_interval_as_wide_as_the_item_alone_does() -> None:
    labels_NL = labels(100, [4], missing=0.0)
    answers_NL = answers_of(labels_NL, [4], right=0.7)
    four_NL, four_answers_NL, items_N = (np.repeat(array, 4, 0) for array in (labels_NL, answers_NL, np.arange(100)))
    once, grouped, ungrouped = (
        high - low
        for low, high in (
            intervals.interval(intervals.resampled_hm(*of, [4], groups_N=groups_N)[:, 0])
            for of, groups_N in (
                ((labels_NL, answers_NL), None),
                ((four_NL, four_answers_NL), items_N),
                ((four_NL, four_answers_NL), None),
            )
        )
    )
    assert grouped == pytest.approx(once, rel=1e-12)  # four times every count, the same draws
    # Half as wide without the groups, as if they were other items; the widths themselves are known to some 5 %.
    assert ungrouped == pytest.approx(grouped / 2, rel=0.2)


def test_an_interval_holds_the_score_and_narrows_with_the_photos() -> None:
    widths = []
    for rows in (100, 1600):
        labels_NL = labels(rows, [4], missing=0.2)
        answers_NL = answers_of(labels_NL, [4], right=0.7)
        there = labels_NL[:, 0] != MISSING
        score = hm_of(labels_NL[there, 0], answers_NL[there, 0])
        low, high = intervals.interval(intervals.resampled_hm(labels_NL, answers_NL, [4])[:, 0])
        assert 0 <= low < score < high <= 1
        widths.append(high - low)
    # Sixteen times the photos, a quarter of the width; the widths themselves are known to some 5 %.
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.3)


def test_the_same_seed_gives_the_same_resamples_and_another_seed_others() -> None:
    labels_NL = labels(50, [3], missing=0.0)
    answers_NL = answers_of(labels_NL, [3], right=0.5)
    first, again, other = (
        intervals.resampled_hm(labels_NL, answers_NL, [3], resamples=20, seed=seed) for seed in (3, 3, 4)
    )
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("groups_N", [None, np.arange(3000) // 3], ids=["by photo", "by group"])
def test_ten_attributes_of_three_thousand_photos_take_seconds(groups_N: np.ndarray | None) -> None:
    classes = [21, 13, 10, 8, 6, 5, 4, 3, 2, 2]
    labels_NL = labels(3000, classes, missing=0.3)
    answers_NL = answers_of(labels_NL, classes, right=0.7)
    begun = time.perf_counter()
    found_SL = intervals.resampled_hm(labels_NL, answers_NL, classes, groups_N=groups_N)
    seconds = time.perf_counter() - begun
    assert found_SL.shape == (1000, 10)
    # 0.25 s on two cores; the limit is generous, since others may be at work on them.
    assert seconds < 10

"""Scores against numbers worked out by hand and against scikit-learn's."""

# N rows, K classes

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from runtime.bundle import Attribute, Category
from train import metrics
from train.config import MISSING

CATEGORY = Category(
    name="Cap",
    attributes=(
        Attribute(name="colour", classes=("blue", "green", "red"), output="colour"),
        Attribute(name="shade", classes=("dark", "light"), output="shade"),
    ),
)


def certain(answers: list[int], classes: int, confidence: float = 0.8) -> np.ndarray:
    """Probabilities [N, K] that give each answer that confidence."""
    rest = (1 - confidence) / (classes - 1)
    probabilities_NK = np.full((len(answers), classes), rest, np.float32)
    probabilities_NK[np.arange(len(answers)), answers] = confidence
    return probabilities_NK


def test_scores_of_four_photos_are_those_worked_out_by_hand() -> None:
    labels_NL = np.array([[0, MISSING], [0, 1], [1, 1], [2, MISSING]])
    colour, shade = metrics.scores(
        [CATEGORY], [certain([0, 1, 1, 2], 3), certain([0, 1, 0, 1], 2)], labels_NL, commonest=[0, 1]
    )
    assert colour.attribute == "colour"
    assert colour.labels == 4
    assert colour.accuracy == colour.micro_f1 == 3 / 4
    # Blue: precision 1, recall 1/2; green: 1/2, 1; red: 1, 1. So F1 of 2/3, 2/3, 1.
    assert colour.macro_f1 == pytest.approx(7 / 9)
    assert colour.weighted_f1 == pytest.approx((2 * 2 / 3 + 2 / 3 + 1) / 4)
    assert colour.hm == pytest.approx(2 * (3 / 4) * (7 / 9) / (3 / 4 + 7 / 9))
    # Always blue: micro 2/4; macro (2/3 + 0 + 0) / 3.
    assert colour.baseline_hm == pytest.approx(2 * (1 / 2) * (2 / 9) / (1 / 2 + 2 / 9))
    # float32 probabilities
    assert colour.loss == pytest.approx(-(3 * np.log(0.8) + np.log(0.1)) / 4, rel=1e-6)
    # Two labels, both light; one answer is right. Light: precision 1, recall 1/2; dark: never true, so 0.
    assert (shade.labels, shade.accuracy, shade.baseline_hm) == (2, 1 / 2, 1.0)
    assert shade.macro_f1 == pytest.approx(1 / 3)


def test_scores_of_many_photos_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    probabilities = [rng.dirichlet(np.ones(count), 300).astype(np.float32) for count in (3, 2)]
    labels_NL = np.stack([rng.integers(MISSING, count, 300) for count in (3, 2)], 1)
    found = metrics.scores([CATEGORY], probabilities, labels_NL, commonest=[2, 0])
    for score, probabilities_NK, labels_N, common in zip(found, probabilities, labels_NL.T, (2, 0), strict=True):
        kept = labels_N != MISSING
        truth, answers = labels_N[kept], probabilities_NK[kept].argmax(1)
        micro, macro, weighted = (
            sklearn_metrics.f1_score(truth, answers, average=kind) for kind in ("micro", "macro", "weighted")
        )
        assert (score.micro_f1, score.macro_f1, score.weighted_f1) == pytest.approx((micro, macro, weighted))
        assert score.accuracy == pytest.approx(sklearn_metrics.accuracy_score(truth, answers))
        assert score.hm == pytest.approx(2 * micro * macro / (micro + macro))
        assert score.baseline_hm == metrics.hm_of(truth, np.full_like(truth, common))
        # scikit-learn divides by each row's sum, which float32 leaves a few 1e-7 off one.
        labels = list(range(probabilities_NK.shape[1]))
        rows_NK = probabilities_NK[kept].astype(np.float64)
        expected = sklearn_metrics.log_loss(truth, rows_NK / rows_NK.sum(1, keepdims=True), labels=labels)
        assert score.loss == pytest.approx(expected, rel=1e-5)
        assert score.labels == kept.sum() < 300


def test_an_attribute_without_labels_is_left_out() -> None:
    labels_NL = np.array([[0, MISSING], [1, MISSING]])
    found = metrics.scores([CATEGORY], [certain([0, 1], 3), certain([0, 1], 2)], labels_NL, commonest=[0, 0])
    assert [score.attribute for score in found] == ["colour"]


def test_decision_offsets_change_the_answers_and_not_the_loss() -> None:
    shifted = Category(
        name="Cap", attributes=(Attribute(name="a", classes=("x", "y"), output="a", offsets=(0.0, 2.0)),)
    )
    plain = Category(name="Cap", attributes=(Attribute(name="a", classes=("x", "y"), output="a"),))
    labels_NL, probabilities = np.array([[0], [1]]), [certain([0, 0], 2, confidence=0.7)]
    (with_offsets,) = metrics.scores([shifted], probabilities, labels_NL, commonest=[0])
    (without,) = metrics.scores([plain], probabilities, labels_NL, commonest=[0])
    # log 0.3 + 2 > log 0.7: every answer is y.
    assert (with_offsets.accuracy, without.accuracy) == (0.5, 0.5)
    assert with_offsets.loss == without.loss
    assert metrics.scores([shifted], probabilities, np.array([[1], [1]]), commonest=[0])[0].accuracy == 1.0


def test_answers_that_are_all_wrong_score_zero_without_a_warning() -> None:
    assert metrics.hm_of(np.array([0, 0, 1]), np.array([1, 1, 0])) == 0.0
    (score,) = metrics.scores(
        [Category(name="Cap", attributes=CATEGORY.attributes[:1])], [certain([1, 1], 3)], np.array([[0], [2]]), [1]
    )
    assert (score.hm, score.micro_f1, score.baseline_hm) == (0.0, 0.0, 0.0)


def test_a_probability_of_zero_on_the_truth_gives_a_finite_loss() -> None:
    (score,) = metrics.scores(
        [Category(name="Cap", attributes=CATEGORY.attributes[:1])],
        [certain([1], 3, confidence=1.0)],
        np.array([[0]]),
        commonest=[0],
    )
    assert score.loss == pytest.approx(-np.log(1e-12))


def test_the_table_has_a_row_for_each_attribute_and_their_average_last() -> None:
    labels_NL = np.array([[0, MISSING], [0, 1], [1, 1], [2, MISSING]])
    found = metrics.scores(
        [CATEGORY], [certain([0, 1, 1, 2], 3), certain([0, 1, 0, 1], 2)], labels_NL, commonest=[0, 1]
    )
    colour, shade, average = metrics.table(found)
    assert len(colour) == len(average) == len(metrics.COLUMNS)
    assert [colour[0], shade[0], average[0]] == ["colour", "shade", "average"]
    assert [colour[-1], shade[-1], average[-1]] == ["4", "2", "6"]
    hm = metrics.COLUMNS.index("HM")
    assert average[hm] == f"{(found[0].hm + found[1].hm) / 2:.3f}" == f"{metrics.mean_hm(found):.3f}"
    baseline = metrics.COLUMNS.index("baseline HM")
    assert average[baseline] == f"{metrics.mean_baseline_hm(found):.3f}"


def test_what_tells_categories_apart_is_no_category_of_the_mean_unless_it_is_alone() -> None:
    (cap,) = metrics.scores(
        [Category(name="Cap", attributes=CATEGORY.attributes[:1])], [certain([0, 1], 3)], np.array([[0], [2]]), [0]
    )
    router = replace(cap, category="Router", attribute="Category", hm=1.0, baseline_hm=0.9)
    assert 0 < cap.hm < 1
    assert metrics.mean_hm([router, cap]) == cap.hm
    assert metrics.mean_baseline_hm([router, cap]) == cap.baseline_hm
    assert metrics.mean_hm([router]) == 1.0


def test_the_mean_of_no_scores_is_zero() -> None:
    assert metrics.mean_hm([]) == metrics.mean_baseline_hm([]) == 0.0

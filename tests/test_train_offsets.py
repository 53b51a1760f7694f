"""Offsets against the answers worked out by hand, HM against scikit-learn's, its error against that of fresh draws."""

# N rows, K classes, G groups

from __future__ import annotations

import numpy as np
import pytest

from runtime.predictor import decide
from train import metrics, offsets


def test_hm_from_counts_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        classes, rows = rng.integers(2, 9), rng.integers(1, 40)
        # Few rows and many classes: some occur in neither labels nor answers, and count in neither.
        labels_N, answers_N = rng.integers(0, classes, (2, rows))
        found = offsets.hm_of_answers(labels_N, answers_N, classes)
        # Sums of a few fractions in another order.
        assert found == pytest.approx(metrics.hm_of(labels_N, answers_N), abs=1e-12)


def test_hm_of_many_candidates_at_once_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    labels_N, answers_CN = rng.integers(0, 4, 30), rng.integers(0, 4, (5, 30))
    right = np.stack([np.bincount(labels_N[labels_N == one_N], minlength=4) for one_N in answers_CN])
    answered = np.stack([np.bincount(one_N, minlength=4) for one_N in answers_CN])
    found = metrics.hm_of_counts(right, answered, np.bincount(labels_N, minlength=4))
    assert found == pytest.approx([metrics.hm_of(labels_N, one_N) for one_N in answers_CN], abs=1e-12)


def test_answers_are_those_of_the_runtime() -> None:
    rng = np.random.default_rng(0)
    probabilities_NK = rng.dirichlet(np.full(5, 0.3), 500).astype(np.float32)
    probabilities_NK[0] = [0, 0, 1, 0, 0]
    chosen = (0.0, 0.5, 1.25, 2.0, 0.75)
    theirs = [index for index, _ in decide(probabilities_NK, chosen)]
    assert offsets.answers(probabilities_NK, np.array(chosen)).tolist() == theirs


def test_the_offsets_of_two_classes_are_those_worked_out_by_hand() -> None:
    # Rows of the first kind are 1 in 3 rare, rows of the second hardly ever; the prior of rare is 0.1. Answering
    # rare in the first kind costs a little micro-F1 and lifts its F1 from 0.
    probabilities_NK = np.array([[0.6, 0.4]] * 20 + [[0.975, 0.025]] * 80)
    prior_K = probabilities_NK.mean(0)
    assert prior_K == pytest.approx([0.9, 0.1])
    found_K = offsets.proposed(probabilities_NK)
    # 0.4 beats 0.6 from tau = log(0.6 / 0.4) / log(0.9 / 0.1) = 0.18 on: the smallest of the family is 0.2.
    assert found_K == pytest.approx([0, 0.2 * np.log(9)], abs=1e-4)
    assert offsets.answers(probabilities_NK, found_K).tolist() == [1] * 20 + [0] * 80


@pytest.mark.parametrize(
    "probabilities_NK",
    [
        np.full((30, 3), 1 / 3),
        np.eye(3)[np.arange(30) % 3],
        np.tile([1.0, 0.0, 0.0], (30, 1)),
    ],
    ids=["all alike", "certain and balanced", "one class, the others impossible"],
)
def test_where_no_answer_is_worth_moving_every_offset_is_zero(probabilities_NK: np.ndarray) -> None:
    assert not offsets.proposed(probabilities_NK).any()


def test_a_class_expected_in_less_than_a_row_gets_no_more_than_one_expected_in_one() -> None:
    rng = np.random.default_rng(0)
    probabilities_NK = rng.dirichlet([8, 2, 0.3, 0.001], 50)
    found_K = offsets.proposed(probabilities_NK)
    assert found_K.max() <= max(offsets.TAUS) * np.log(50)
    assert found_K.min() == 0


def test_the_gain_is_the_difference_in_hm_and_its_error_that_of_fresh_draws() -> None:
    classes, groups, rows = 3, 60, 600

    def drawn(seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(seed)
        labels_N = rng.choice(classes, rows, p=[0.6, 0.3, 0.1])
        plain_N = np.where(rng.random(rows) < 0.7, labels_N, 0)
        moved_N = np.where(rng.random(rows) < 0.3, labels_N, plain_N)
        groups_N = rng.permutation(np.arange(rows) % groups)
        found, error = offsets.gain(labels_N, plain_N, moved_N, groups_N, classes)
        expected = metrics.hm_of(labels_N, moved_N) - metrics.hm_of(labels_N, plain_N)
        assert found == pytest.approx(expected, abs=1e-12)
        return found, error

    found, errors = np.array([drawn(seed) for seed in range(60)]).T
    # The deviation of 60 draws is itself known to one part in eleven: three of those.
    assert errors.mean() == pytest.approx(found.std(), rel=0.3)


def test_answers_that_stay_gain_nothing_for_certain() -> None:
    labels_N = np.array([0, 1, 1, 0])
    assert offsets.gain(labels_N, labels_N, labels_N, np.arange(4), 2) == (0, 0)

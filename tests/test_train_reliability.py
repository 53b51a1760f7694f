"""Calibration on cases that can be done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from train.reliability import BINS, Bin, bins, expected_calibration_error


def test_calibration_error_of_a_case_done_by_hand() -> None:
    # Four answers at 0.9, three right; two at 0.6, none right: 4/6 * |0.9 - 0.75| + 2/6 * |0.6 - 0|.
    probabilities_NK = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    labels_N = np.array([0, 0, 0, 1, 0, 0])
    assert expected_calibration_error(probabilities_NK, labels_N) == pytest.approx(0.1 + 0.2)
    found = bins(probabilities_NK, labels_N)
    assert [bin.rows for bin in found] == [2, 4]
    assert found[0] == pytest.approx(Bin(2, 0.6, 0.0))
    assert found[1] == pytest.approx(Bin(4, 0.9, 0.75))


def test_certain_and_right_is_without_error_and_certain_and_wrong_is_all_error() -> None:
    certain_NK = np.eye(3)
    assert expected_calibration_error(certain_NK, np.array([0, 1, 2])) == 0
    assert expected_calibration_error(certain_NK, np.array([1, 2, 0])) == 1


def test_one_class_is_always_certain_and_right() -> None:
    assert bins(np.ones((5, 1)), np.zeros(5, int)) == [Bin(5, 1.0, 1.0)]


def test_every_row_is_in_one_bin_and_bins_rise() -> None:
    rng = np.random.default_rng(0)
    probabilities_NK = rng.dirichlet(np.ones(4), 500)
    found = bins(probabilities_NK, rng.integers(4, size=500))
    assert sum(bin.rows for bin in found) == 500
    assert len(found) <= BINS
    assert [bin.confidence for bin in found] == sorted(bin.confidence for bin in found)


def test_nothing_to_count_is_without_error() -> None:
    assert expected_calibration_error(np.zeros((0, 2)), np.zeros(0, int)) == 0

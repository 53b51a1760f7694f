"""Features of other photos are told from features of the same."""

# N photos, F features

from __future__ import annotations

import numpy as np
import pytest

from runtime import drift


def features(rng: np.random.Generator, count: int, shift: float = 0.0) -> np.ndarray:
    return np.asarray(rng.normal(shift, 1, (count, 16)), np.float16)


def test_of_the_same_distribution_one_in_twenty_is_called_a_drift() -> None:
    rng = np.random.default_rng(0)
    found = [drift.between(features(rng, 60), features(rng, 50), seed=seed).found for seed in range(200)]
    # At 5 %, 20 or more of 200 have a chance below a hundredth.
    assert sum(found) < 20


def test_another_distribution_is_a_drift() -> None:
    rng = np.random.default_rng(0)
    found = drift.between(features(rng, 60), features(rng, 50, shift=0.5))
    assert found.found and found.p == pytest.approx(0.001)
    assert (found.photos, found.distance > 0.02) == (50, True)


def test_the_distance_is_the_mmd_of_its_definition() -> None:
    rng = np.random.default_rng(1)
    one_NF, other_NF = rng.normal(size=(7, 3)), rng.normal(1, 1, (5, 3))
    both_NF = np.concatenate([one_NF, other_NF])
    far_NN = ((both_NF[:, None] - both_NF) ** 2).sum(-1)
    kernel_NN = np.exp(-far_NN / np.median(far_NN[np.triu_indices(12, 1)]))
    expected = kernel_NN[:7, :7].mean() + kernel_NN[7:, 7:].mean() - 2 * kernel_NN[:7, 7:].mean()
    assert drift.between(one_NF, other_NF).distance == pytest.approx(expected)


def test_photos_that_are_all_alike_are_no_drift() -> None:
    same_NF = np.ones((10, 4), np.float16)
    assert drift.between(same_NF, same_NF).p == 1.0


def test_the_same_photos_have_the_same_p_value_each_time() -> None:
    rng = np.random.default_rng(2)
    one_NF, other_NF = features(rng, 30), features(rng, 30, shift=0.2)
    assert drift.between(one_NF, other_NF) == drift.between(one_NF, other_NF)

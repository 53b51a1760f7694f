"""Samples that are called drifted are counted, and photos are changed as is said."""

# N photos, F features, H height, W width, C channels

from __future__ import annotations

import numpy as np

from benchmarks import drift


def test_samples_of_the_same_are_seldom_called_drifted_and_others_always() -> None:
    rng = np.random.default_rng(0)
    kept_NF, same_NF = rng.normal(size=(100, 8)), rng.normal(size=(300, 8))
    same, other = (drift.alarms(kept_NF, features_NF, 60) for features_NF in (same_NF, same_NF + 1))
    assert (same["photos"], len(same["p"])) == (60, drift.DRAWS)
    assert same["alarms"] <= drift.MOST_FALSE
    assert other["alarms"] == drift.DRAWS and other["mmd2"] > same["mmd2"]


def test_a_sample_is_no_larger_than_what_there_is() -> None:
    rng = np.random.default_rng(0)
    assert drift.alarms(rng.normal(size=(30, 4)), rng.normal(size=(25, 4)), 256)["photos"] == 25


def test_grey_has_no_colour_and_blur_no_edges() -> None:
    image_HWC = np.zeros((32, 32, 3), np.uint8)
    image_HWC[:, 16:] = (200, 0, 0)
    grey_HWC, blurred_HWC = drift._grey(image_HWC), drift._blurred(image_HWC)
    assert (grey_HWC == grey_HWC[..., :1]).all() and grey_HWC.max() > 0
    steepest = np.abs(np.diff(blurred_HWC[16, :, 0].astype(int))).max()
    assert 0 < steepest < 60  # of 200

"""Whether confidence can be believed: how often the likeliest class is right, against how likely it was said to be."""

# N rows, K classes

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Fifteen, as Guo et al. (2017) and most figures since.
BINS = 15


class Bin(NamedTuple):
    """The rows whose confidence falls into one interval, of which there is at least one."""

    rows: int
    confidence: float
    """Their mean confidence, 0-1."""
    accuracy: float
    """The share of them that is right, 0-1."""


def bins(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> list[Bin]:
    """BINS intervals of confidence of equal width, lowest first, those without a row left out."""
    confidence_N = probabilities_NK.max(1).astype(np.float64)
    right_N = probabilities_NK.argmax(1) == labels_N
    # An interval holds its upper edge, so that a confidence of 1 falls into the last.
    bin_N = np.clip(np.ceil(confidence_N * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        Bin(int(of.sum()), float(confidence_N[of].mean()), float(right_N[of].mean()))
        for of in (bin_N == index for index in range(BINS))
        if of.any()
    ]


def expected_calibration_error(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """The mean distance between confidence and accuracy over the bins, weighted by their rows, 0-1.

    Naeini et al., 2015, over bins of equal width as Guo et al., 2017 count it: for figures that compare with theirs,
    and because with 20 labels bins of equal mass would hold one row each.
    """
    found = bins(probabilities_NK, labels_N)
    return sum(bin.rows * abs(bin.confidence - bin.accuracy) for bin in found) / max(1, len(labels_N))

"""What a model takes for what, and where it is most sure of being right when it is not."""

# N rows, K classes

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from train.config import MISSING


class Confused(NamedTuple):
    """Photos of one class that were taken for another."""

    declared: int
    answered: int
    photos: int
    share: float
    """Of the photos declared so, 0-1."""


class Mistake(NamedTuple):
    """A photo whose declared class is another than the one answered."""

    row: int
    declared: int
    answered: int
    confidence: float
    """Probability of the class answered, 0-1."""
    declared_probability: float


def confusion(labels_N: np.ndarray, answers_N: np.ndarray, classes: int) -> np.ndarray:
    """int64 [K, K]: rows that were declared (first axis) and answered (second axis) so."""
    there_N = labels_N != MISSING
    pairs_N = labels_N[there_N] * classes + answers_N[there_N]
    return np.bincount(pairs_N, minlength=classes * classes).reshape(classes, classes)


def most_confused(confusion_KK: np.ndarray, most: int) -> list[Confused]:
    """The pairs with the most photos, those of a larger share first where they have as many."""
    totals_K = confusion_KK.sum(1)
    found = [
        Confused(int(declared), int(answered), int(count), float(count / totals_K[declared]))
        for (declared, answered), count in np.ndenumerate(confusion_KK)
        if count and declared != answered
    ]
    return sorted(found, key=lambda pair: (-pair.photos, -pair.share))[:most]


def worst(
    labels_N: np.ndarray, answers_N: np.ndarray, confidence_N: np.ndarray, probabilities_NK: np.ndarray, most: int
) -> list[Mistake]:
    """The most confident mistakes, the most confident first."""
    wrong = np.flatnonzero((labels_N != MISSING) & (labels_N != answers_N))
    order = wrong[np.argsort(-confidence_N[wrong], kind="stable")][:most]
    return [
        Mistake(
            row=int(row),
            declared=int(labels_N[row]),
            answered=int(answers_N[row]),
            confidence=float(confidence_N[row]),
            declared_probability=float(probabilities_NK[row, labels_N[row]]),
        )
        for row in order
    ]

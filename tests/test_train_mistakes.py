"""Confusion counted, and mistakes in the order in which they are worth a look."""

from __future__ import annotations

import numpy as np

from train import mistakes
from train.config import MISSING
from train.mistakes import Confused, Mistake

LABELS_N = np.array([0, 0, 0, 1, 1, MISSING, 2])
ANSWERS_N = np.array([0, 1, 1, 1, 0, 2, 0])


def test_confusion_counts_what_was_declared_by_what_was_answered() -> None:
    found_KK = mistakes.confusion(LABELS_N, ANSWERS_N, 4)
    assert found_KK.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_most_confused_pairs_come_by_photos_then_by_share() -> None:
    found = mistakes.most_confused(mistakes.confusion(LABELS_N, ANSWERS_N, 3), 2)
    assert found == [Confused(0, 1, 2, 2 / 3), Confused(2, 0, 1, 1.0)]


def test_the_worst_mistakes_are_the_most_confident_and_never_an_unlabelled_row() -> None:
    confidence_N = np.array([0.9, 0.6, 0.8, 0.9, 0.7, 0.99, 0.5])
    probabilities_NK = np.full((7, 3), 0.125)
    found = mistakes.worst(LABELS_N, ANSWERS_N, confidence_N, probabilities_NK, 3)
    assert [mistake.row for mistake in found] == [2, 4, 1]
    assert found[0] == Mistake(row=2, declared=0, answered=1, confidence=0.8, declared_probability=0.125)
    assert mistakes.worst(ANSWERS_N, ANSWERS_N, confidence_N, probabilities_NK, 3) == []

"""What is improbable to the network is tempered by what validation photos of the same prediction showed."""

# N photos, K classes

from __future__ import annotations

import numpy as np
import pytest

from runtime.confusion import OWN_PHOTOS, WEIGHT, Confusion

# Of 90 photos told as class 0 a ninth are of class 1, none of class 2; of class 2 nothing is known.
PREDICTED_N = np.repeat([0, 0, 1], [80, 10, 50])
LABELS_N = np.repeat([0, 1, 1], [80, 10, 50])


def test_what_is_often_confused_is_less_odd_than_what_never_was() -> None:
    confusion = Confusion(PREDICTED_N, LABELS_N, 3)
    often, never = confusion.tempered(0.01, 0, [1]), confusion.tempered(0.01, 0, [2])
    assert often == pytest.approx((1 - WEIGHT) * 0.01 + WEIGHT * (10 + OWN_PHOTOS * 0.01) / (90 + OWN_PHOTOS))
    assert never < 0.01 < often


def test_where_no_validation_photo_is_told_so_the_network_is_believed() -> None:
    assert Confusion(PREDICTED_N, LABELS_N, 3).tempered(0.3, 2, [0]) == pytest.approx(0.3)


def test_the_tempered_probabilities_of_all_classes_add_up() -> None:
    confusion = Confusion(PREDICTED_N, LABELS_N, 3)
    each = [confusion.tempered(probability, 0, [label]) for label, probability in enumerate([0.7, 0.2, 0.1])]
    assert sum(each) == pytest.approx(1)
    assert confusion.tempered(0.3, 0, [1, 2]) == pytest.approx(each[1] + each[2])


def test_a_validation_photo_is_not_told_by_itself() -> None:
    # The only photo told as class 1 that is of class 0 has seen no other.
    predicted_N, labels_N = np.append(PREDICTED_N, 1), np.append(LABELS_N, 0)
    probabilities_N = np.full(len(labels_N), 0.5)
    tempered_N = Confusion(predicted_N, labels_N, 3).of_validation(probabilities_N, predicted_N, labels_N)
    assert tempered_N[-1] == pytest.approx(Confusion(PREDICTED_N, LABELS_N, 3).tempered(0.5, 1, [0]))

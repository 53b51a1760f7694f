"""What labelled photos with the same prediction turned out to show: it tempers what a network finds improbable.

Networks can be quite sure of what they confuse. Where one in ten of the labelled photos told as T-Shirt was labelled
Top, a listing that says Top of such a photo is no surprise, whatever the network's probability of it; where none was,
the network's doubt counts for less. The two are pooled linearly (Stone: The opinion pool, Annals of Mathematical
Statistics 1961); the shares that were seen lean on the network's own where they are few, as the mean of a Dirichlet
posterior does.
"""

# N photos, K classes

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

WEIGHT = 0.2
"""Of what labelled photos turned out to show, beside the network's own probability."""
OWN_PHOTOS = 10
"""As many labelled photos as the network's own probability counts for. Both were chosen on halves of Garment's
validation photos, by the area under the ROC curve: 0.1 to 0.3, and 5 to 20 photos, do as well."""


class Confusion:
    """Of one attribute."""

    def __init__(self, predicted_N: np.ndarray, labels_N: np.ndarray, classes: int) -> None:
        import numpy as np

        self._counts_KK = np.zeros((classes, classes), np.int64)
        np.add.at(self._counts_KK, (predicted_N, labels_N), 1)

    def tempered(self, probability: float, predicted: int, labels: Sequence[int]) -> float:
        """The network's probability that a photo is of one of these classes, pooled with how many labelled photos of
        the same prediction were."""
        counts_K = self._counts_KK[predicted]
        return float(_pooled(probability, counts_K[labels].sum(), counts_K.sum()))

    def of_validation(self, probabilities_N: np.ndarray, predicted_N: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
        """The same of the labelled photos' own labels, each pooled with the others: float64 [N], 0-1."""
        seen_N = self._counts_KK[predicted_N, labels_N] - 1
        pooled_N: np.ndarray = _pooled(probabilities_N, seen_N, self._counts_KK[predicted_N].sum(axis=1) - 1)
        return pooled_N


def _pooled(probability: Any, seen: Any, of: Any) -> Any:
    share = (seen + OWN_PHOTOS * probability) / (of + OWN_PHOTOS)
    return (1 - WEIGHT) * probability + WEIGHT * share

"""Decision offsets for HM-F1: one family, and how sure a gain is.

-tau * log(prior) is added to the log-probabilities: post-hoc logit adjustment (Menon et al., 2021, "Long-tail Learning
via Logit Adjustment"). A probability stays what it was; the answer leans towards rare classes, which macro-F1 counts
as much as common ones.
"""

# N rows, K classes, G groups, T values of tau

from __future__ import annotations

from typing import TYPE_CHECKING

from train.metrics import hm_of_counts

if TYPE_CHECKING:
    import numpy as np

# 0 leaves the answers as they are, 1 is for classes that all count alike; HM asks for something between.
TAUS = tuple(step / 10 for step in range(11))
# As in `runtime.predictor.decide` and in the loss of `train.metrics`: a probability of exactly 0 has a logarithm.
TINY = 1e-12


def proposed(probabilities_NK: np.ndarray) -> np.ndarray:
    """The offsets, float64 [K], whose answers have the highest expected HM if these probabilities are true.

    No label is needed: a row that is answered k adds its probability of k to k's right answers. Rare classes have few
    labels, and F1 of few labels is noise: tau, or an offset for each class, fitted to the labels lost HM on held-out
    photos. The prior is the mean probability; held at one row in N, below which it is noise too. The commonest
    class has offset 0, and so has every class when no tau above 0 is expected to gain.
    """
    import numpy as np

    prior_K = np.maximum(probabilities_NK.mean(0), 1 / len(probabilities_NK))
    family_TK = np.outer(TAUS, np.log(prior_K.max()) - np.log(prior_K)).round(4)
    rows_N, classes = np.arange(len(probabilities_NK)), probabilities_NK.shape[1]
    right_TK, answered_TK = np.empty_like(family_TK), np.empty_like(family_TK)
    for index, offsets_K in enumerate(family_TK):
        answers_N = answers(probabilities_NK, offsets_K)
        right_TK[index] = np.bincount(answers_N, probabilities_NK[rows_N, answers_N], classes)
        answered_TK[index] = np.bincount(answers_N, minlength=classes)
    # argmax takes the first of equals: the smallest tau.
    best: np.ndarray = family_TK[hm_of_counts(right_TK, answered_TK, probabilities_NK.sum(0)).argmax()]
    return best


def answers(probabilities_NK: np.ndarray, offsets_K: np.ndarray) -> np.ndarray:
    """Each row's class, int64 [N], as `runtime.predictor.decide` chooses it."""
    import numpy as np

    chosen_N: np.ndarray = (np.log(np.maximum(probabilities_NK, TINY)) + offsets_K).argmax(1)
    return chosen_N


def hm_of_answers(labels_N: np.ndarray, answers_N: np.ndarray, classes: int) -> float:
    """`train.metrics.hm_of`, a hundred times as fast."""
    import numpy as np

    counted = (labels_N[labels_N == answers_N], answers_N, labels_N)
    return float(hm_of_counts(*(np.bincount(of_N, minlength=classes) for of_N in counted)))


def gain(
    labels_N: np.ndarray, plain_N: np.ndarray, moved_N: np.ndarray, groups_N: np.ndarray, classes: int
) -> tuple[float, float]:
    """HM of the moved answers less HM of the plain ones, and its standard error: a jackknife over groups from 0 up."""
    import numpy as np

    groups = int(groups_N.max()) + 1

    def counts_GK(of_N: np.ndarray, groups_of_N: np.ndarray) -> np.ndarray:
        return np.bincount(groups_of_N * classes + of_N, minlength=groups * classes).reshape(groups, classes)

    true_GK = counts_GK(labels_N, groups_N)
    whole, without_G = 0.0, np.zeros(groups)
    for answers_N, sign in ((moved_N, 1), (plain_N, -1)):
        right_N = answers_N == labels_N
        counted = (counts_GK(labels_N[right_N], groups_N[right_N]), counts_GK(answers_N, groups_N), true_GK)
        whole += sign * float(hm_of_counts(*(counts.sum(0) for counts in counted)))
        without_G += sign * hm_of_counts(*(counts.sum(0) - counts for counts in counted))
    return whole, float(np.sqrt((groups - 1) * without_G.var()))

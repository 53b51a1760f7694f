"""How good predictions are, attribute by attribute, as the challenge counts."""

# N rows, K classes

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.bundle import ROUTER, Attribute, Category
from runtime.predictor import decide
from train.config import MISSING

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("attribute", "loss", "accuracy", "weighted F1", "micro F1", "macro F1", "HM", "baseline HM", "labels")
LEGEND = "HM: harmonic mean of micro- and macro-F1, 0-1. Baseline: always the commonest class. Loss: in nats."


@dataclass(frozen=True, kw_only=True)
class Score:
    """One attribute's figures on labelled rows; F1 as scikit-learn counts it, over the classes that occur."""

    category: str
    attribute: str
    loss: float
    accuracy: float
    weighted_f1: float
    micro_f1: float
    macro_f1: float
    hm: float
    """Harmonic mean of micro- and macro-F1: the challenge's measure."""
    baseline_hm: float
    """The same for always answering the commonest training class."""
    labels: int


def scores(
    categories: Sequence[Category], probabilities: Sequence[np.ndarray], labels_NL: np.ndarray, commonest: Sequence[int]
) -> list[Score]:
    """A score for each attribute that has a label at all; `probabilities` are [N, K], one array an attribute."""
    attributes = [(category.name, attribute) for category in categories for attribute in category.attributes]
    return [
        _score(name, attribute, probabilities_NK[labels_N != MISSING], labels_N[labels_N != MISSING], common)
        for (name, attribute), probabilities_NK, labels_N, common in zip(
            attributes, probabilities, labels_NL.T, commonest, strict=True
        )
        if (labels_N != MISSING).any()
    ]


def mean_hm(found: Sequence[Score]) -> float:
    """The challenge's score, 0-1: the mean HM of each category's attributes, averaged over the categories."""
    return _mean_over_categories(found, lambda score: score.hm)


def mean_baseline_hm(found: Sequence[Score]) -> float:
    """The same for always answering the commonest class, 0-1."""
    return _mean_over_categories(found, lambda score: score.baseline_hm)


def table(found: Sequence[Score]) -> list[list[str]]:
    """The scores as rows of text under COLUMNS, the average last."""
    several = len({score.category for score in found}) > 1
    rows = [
        [
            f"{score.category} {score.attribute}" if several else score.attribute,
            *(f"{value:.3f}" for value in _values(score)),
            str(score.labels),
        ]
        for score in found
    ]
    averages = [sum(column) / len(found) for column in zip(*map(_values, found), strict=True)]
    return [*rows, ["average", *(f"{value:.3f}" for value in averages), str(sum(score.labels for score in found))]]


def hm_of(truth_N: np.ndarray, answers_N: np.ndarray) -> float:
    """The harmonic mean of micro- and macro-F1 of class indices, 0-1."""
    from sklearn.metrics import f1_score

    micro = f1_score(truth_N, answers_N, average="micro")
    macro = f1_score(truth_N, answers_N, average="macro", zero_division=0)
    return float(2 * micro * macro / (micro + macro)) if micro + macro else 0.0


def hm_of_counts(right: np.ndarray, answered: np.ndarray, true: np.ndarray) -> np.ndarray:
    """HM, 0-1, [...] from each class's right answers, answers and labels, [..., K], over the classes that occur."""
    import numpy as np

    either = answered + true
    f1 = 2 * right / np.where(either > 0, either, 1)
    macro = f1.sum(-1) / np.maximum((either > 0).sum(-1), 1)
    micro = right.sum(-1) / np.maximum(true.sum(-1), 1)
    hm: np.ndarray = 2 * micro * macro / np.where(micro + macro > 0, micro + macro, 1)
    return hm


def _mean_over_categories(found: Sequence[Score], value: Callable[[Score], float]) -> float:
    parts: dict[str, list[float]] = {}
    for score in found:
        parts.setdefault(score.category, []).append(value(score))
    # What only tells the categories apart is none itself, unless there is nothing else.
    means = [sum(part) / len(part) for name, part in parts.items() if name != ROUTER or len(parts) == 1]
    return sum(means) / len(means) if means else 0.0


def _score(
    category: str, attribute: Attribute, probabilities_NK: np.ndarray, labels_N: np.ndarray, common: int
) -> Score:
    import numpy as np
    from sklearn.metrics import f1_score

    answers_N = np.array([index for index, _ in decide(probabilities_NK, attribute.offsets)])
    likelihood_N = probabilities_NK[np.arange(len(labels_N)), labels_N]
    return Score(
        category=category,
        attribute=attribute.name,
        loss=float(-np.log(np.maximum(likelihood_N, 1e-12)).mean()),
        accuracy=float((answers_N == labels_N).mean()),
        weighted_f1=float(f1_score(labels_N, answers_N, average="weighted", zero_division=0)),
        micro_f1=float(f1_score(labels_N, answers_N, average="micro")),
        macro_f1=float(f1_score(labels_N, answers_N, average="macro", zero_division=0)),
        hm=hm_of(labels_N, answers_N),
        baseline_hm=hm_of(labels_N, np.full_like(labels_N, common)),
        labels=len(labels_N),
    )


def _values(score: Score) -> list[float]:
    return [
        score.loss,
        score.accuracy,
        score.weighted_f1,
        score.micro_f1,
        score.macro_f1,
        score.hm,
        score.baseline_hm,
    ]

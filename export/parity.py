"""The gate: does an artifact on an engine answer as PyTorch does, on real photos, and is it as often right?"""

# N photos, K classes, S resamples

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import fidelity
from runtime.bundle import Attribute, Category, Verdict
from runtime.fidelity import ENOUGH_LABELS, LIMITS, Answers
from train.config import MISSING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How much of the mean HM an artifact may lose."""

    lost: float = 0.005
    bound: float = 0.015
    """What the loss is below with 95 % certainty over other photos: the paired bootstrap's one-sided bound."""

    def raised(self, drop: float) -> Accuracy:
        """The limits of someone who accepts that loss, with the same room for chance above it."""
        return Accuracy(lost=max(self.lost, drop), bound=max(self.bound, drop + self.bound - self.lost))


ACCURACY = Accuracy()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Real photos and PyTorch's answers to them."""

    categories: tuple[Category, ...]
    photos_NHWC: np.ndarray
    labels_NL: np.ndarray
    groups_N: np.ndarray
    """Which photos belong together, by any names."""
    reference: Mapping[str, np.ndarray]
    """Float32 [N, K] by output name."""

    @property
    def attributes(self) -> list[Attribute]:
        """Every attribute, in the order of the labels' columns."""
        return [attribute for category in self.categories for attribute in category.attributes]

    def few(self, count: int) -> Evidence:
        """At most so many of the photos, from first to last."""
        import numpy as np

        rows = np.unique(np.linspace(0, len(self.photos_NHWC) - 1, count).astype(int))
        return Evidence(
            categories=self.categories,
            photos_NHWC=self.photos_NHWC[rows],
            labels_NL=self.labels_NL[rows],
            groups_N=self.groups_N[rows],
            reference={name: answers[rows] for name, answers in self.reference.items()},
        )


def judge(
    path: Path,
    precision: str,
    engine: str,
    hint: str,
    evidence: Evidence,
    *,
    accuracy: Accuracy = ACCURACY,
    batch: int = 0,
) -> Verdict:
    """The gate's verdict on one artifact on one engine; `unrun` where it cannot be tried here.

    Args:
        batch: the largest that will be served; by default what predict takes.
    """

    def measured(answers: Answers) -> tuple[dict[str, float], str]:
        figures, reason = fidelity.compared(answers, evidence.reference, evidence.attributes, LIMITS[precision])
        if figures:
            figures |= scored(answers, evidence) | {"hm_limit": accuracy.lost}
        return figures, reason or complaint(figures, accuracy)

    return fidelity.judge(path, precision, engine, hint, evidence.photos_NHWC, measured, batch=batch)


def scored(answers: Answers, evidence: Evidence) -> dict[str, float]:
    """The mean HM, each attribute's, and what of PyTorch's mean is lost, on the photos that have labels."""
    import numpy as np

    from train import intervals, metrics

    attributes = evidence.attributes
    commonest = [0] * len(attributes)
    classes = [len(attribute.classes) for attribute in attributes]

    def of(outputs: Answers) -> tuple[float, np.ndarray, dict[str, float]]:
        columns = [outputs[attribute.output] for attribute in attributes]
        decided_NL = np.stack(
            [fidelity.labels(column, attribute) for column, attribute in zip(columns, attributes, strict=True)], 1
        )
        found = metrics.scores(evidence.categories, columns, evidence.labels_NL, commonest)
        resampled_SL = intervals.resampled_hm(evidence.labels_NL, decided_NL, classes, groups_N=evidence.groups_N)
        each = {f"hm of {outputs_of[score.category, score.attribute]}": score.hm for score in found}
        return metrics.mean_hm(found), _mean_hm(resampled_SL, evidence.categories), each

    outputs_of = {
        (category.name, attribute.name): attribute.output
        for category in evidence.categories
        for attribute in category.attributes
    }
    (mine, mine_S, each), (theirs, theirs_S, _) = of(answers), of(evidence.reference)
    known = int((evidence.labels_NL != MISSING).sum())
    return {
        "hm": mine,
        "hm_lost": theirs - mine,
        "hm_lost_bound": float(np.nanquantile(theirs_S - mine_S, 0.95)) if known else 0.0,
        "labels": float(known),
        **each,
    }


def complaint(figures: Mapping[str, float], accuracy: Accuracy) -> str:
    """Which limit of accuracy the figures break and by how much; empty where they keep both, or labels are too few."""
    if figures["labels"] < ENOUGH_LABELS:
        return ""
    for name, limit, words in (
        ("hm_lost", accuracy.lost, "the mean HM falls by"),
        ("hm_lost_bound", accuracy.bound, "the mean HM may fall (95 % bound) by"),
    ):
        if figures[name] > limit:
            return f"{words} {100 * figures[name]:.2f} points, limit {100 * limit:g}"
    return ""


def _mean_hm(hms_SL: np.ndarray, categories: Sequence[Category]) -> np.ndarray:
    """Of each resample: over a category's attributes, then over categories; what a draw has no label of is left out."""
    import warnings

    import numpy as np

    ends = np.cumsum([len(category.attributes) for category in categories])[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a category of which a draw holds no label at all
        means = [np.nanmean(part_SL, axis=1) for part_SL in np.split(hms_SL, ends, axis=1)]
        mean_S: np.ndarray = np.nanmean(means, axis=0)
    return mean_S

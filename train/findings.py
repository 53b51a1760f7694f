"""What an evaluation finds, category by category: scores with their intervals, confusion, calibration, mistakes."""

# N rows, L attributes, S resamples, K classes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from runtime.bundle import ROUTER, Attribute
from train import intervals, metrics, mistakes, reliability
from train.answers import Answers, Model
from train.config import MISSING
from train.metrics import Score
from train.mistakes import Mistake
from train.reliability import Bin, expected_calibration_error


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far confidence can be believed."""

    bins: tuple[Bin, ...]
    error: float
    """Expected calibration error, 0-1."""


@dataclass(frozen=True, kw_only=True)
class AttributeFindings:
    """One attribute that has a label in the split."""

    attribute: Attribute
    score: Score
    hm_interval: tuple[float, float]
    confusion_KK: np.ndarray
    temperature: float | None
    """What the logits are divided by; None where the model holds none, or holds it in its graph."""
    before: Calibration | None
    """Without the temperature; None where there is none to leave out."""
    after: Calibration
    """As the model answers."""
    worst: tuple[Mistake, ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """One category."""

    answers: Answers
    attributes: tuple[AttributeFindings, ...]
    unlabelled: tuple[Attribute, ...]
    """Attributes without a label in this split: there is nothing to say of them."""
    mean_hm_S: np.ndarray
    """The category's mean HM in each resample."""

    @property
    def scores(self) -> list[Score]:
        return [found.score for found in self.attributes]

    @property
    def groups(self) -> int:
        """How many groups the photos come in, such as a supplier's; as many as photos where the data names none."""
        return len(set(self.answers.groups_N.tolist()))

    @property
    def mean_hm_interval(self) -> tuple[float, float]:
        return intervals.interval(self.mean_hm_S)


def findings(model: Model, answers: Answers, *, seed: int, worst: int) -> Findings:
    """What there is to say of one category's answers; `worst` mistakes at most are kept of each attribute."""
    labelled = (answers.labels_NL != MISSING).any(0)
    decided = [answers.decided(index) for index in range(len(labelled))]
    hm_SL = intervals.resampled_hm(
        answers.labels_NL[:, labelled],
        np.stack([chosen_N for chosen_N, _ in decided], 1)[:, labelled],
        [len(a.classes) for a, kept in zip(answers.category.attributes, labelled, strict=True) if kept],
        groups_N=answers.groups_N,
        seed=seed,
    )
    temperatures = model.page.temperatures if model.page else {}
    found = []
    for score, index, hm_S in zip(answers.scores(), np.flatnonzero(labelled), hm_SL.T, strict=True):
        attribute = answers.category.attributes[index]
        labels_N = answers.labels_NL[:, index]
        answered_N, confidence_N = decided[index]
        probabilities_NK = answers.probabilities[index]
        found.append(
            AttributeFindings(
                attribute=attribute,
                score=score,
                hm_interval=intervals.interval(hm_S),
                confusion_KK=mistakes.confusion(labels_N, answered_N, len(attribute.classes)),
                temperature=temperatures.get(attribute.output),
                before=_calibration(answers.raw[index], labels_N) if attribute.output in temperatures else None,
                after=_calibration(probabilities_NK, labels_N),
                worst=tuple(mistakes.worst(labels_N, answered_N, confidence_N, probabilities_NK, worst)),
            )
        )
    return Findings(
        answers=answers,
        attributes=tuple(found),
        unlabelled=tuple(a for a, kept in zip(answers.category.attributes, labelled, strict=True) if not kept),
        # Every row has a label of some attribute, and so has every draw.
        mean_hm_S=np.nanmean(hm_SL, axis=1),
    )


def overall(found: Sequence[Findings]) -> tuple[float, tuple[float, float], float]:
    """The mean HM over categories, its interval, and the baseline's mean HM."""
    scores = [score for findings in found for score in findings.scores]
    products = [one for one in found if one.answers.category.name != ROUTER] or found
    mean_S = np.mean([findings.mean_hm_S for findings in products], axis=0)
    return metrics.mean_hm(scores), intervals.interval(mean_S), metrics.mean_baseline_hm(scores)


def document(found: Sequence[Findings]) -> dict[str, object]:
    """The content of metrics.json: for each category's name

    - `split`; `drawn_by`, the seed that drew it anew, or null; `photos`, how many were scored, in `groups`; `left_out`,
      a list of {path, reason, detail}
    - `mean_hm`, `mean_hm_interval` [low, high] and `mean_baseline_hm`
    - `scores`: one object an attribute that has labels: category, attribute, loss, accuracy, weighted_f1, micro_f1,
      macro_f1, hm, baseline_hm, labels
    - `attributes`: by name, for the same attributes, `classes`; `hm_interval` [low, high]; `confusion`, photos by
      declared class, then by answered class; `temperature`, null where the page holds none; `ece_before` and
      `ece_after` it, the first null where there is no temperature to leave out
    - `unlabelled`: names of the attributes that have no label in this split

    Every share is 0-1 and unrounded; intervals are 95 % bootstrap percentiles by group of photos; there is no NaN.
    """
    return {
        findings.answers.category.name: {
            "split": findings.answers.split,
            "drawn_by": findings.answers.drawn_by,
            "photos": len(findings.answers.paths),
            "groups": findings.groups,
            "left_out": [lost._asdict() | {"path": str(lost.path)} for lost in findings.answers.lost],
            "mean_hm": metrics.mean_hm(findings.scores),
            "mean_hm_interval": findings.mean_hm_interval,
            "mean_baseline_hm": metrics.mean_baseline_hm(findings.scores),
            "scores": [asdict(score) for score in findings.scores],
            "attributes": {of.attribute.name: _entry(of) for of in findings.attributes},
            "unlabelled": [attribute.name for attribute in findings.unlabelled],
        }
        for findings in found
    }


def _entry(found: AttributeFindings) -> dict[str, object]:
    return {
        "classes": found.attribute.classes,
        "hm_interval": found.hm_interval,
        "confusion": found.confusion_KK.tolist(),
        "temperature": found.temperature,
        "ece_before": found.before.error if found.before else None,
        "ece_after": found.after.error,
    }


def _calibration(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> Calibration:
    there_N = labels_N != MISSING
    of = probabilities_NK[there_N], labels_N[there_N]
    return Calibration(bins=tuple(reliability.bins(*of)), error=expected_calibration_error(*of))

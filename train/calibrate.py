"""What is free at inference: a temperature and decision offsets for each attribute, fitted on validation labels.

The temperature (Guo et al., 2017, "On Calibration of Modern Neural Networks") divides the logits and leaves every
answer as it was; it goes into the graph's weights. The offsets move answers and leave every probability as it was;
they go into the bundle's page. The tempered probabilities propose the offsets, and the labels dispose: they are kept
only where cross-fitted HM rises by more than its standard error.
"""

# N rows, L attributes, K classes, G groups

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.bundle import Attribute, Category
from train import offsets as decision
from train.config import MISSING
from train.offsets import TINY

if TYPE_CHECKING:
    import numpy as np

COLUMNS = ("attribute", "NLL", "NLL tempered", "ECE", "ECE tempered", "HM", "HM with offsets", "labels")
LEGEND = "NLL: negative log-likelihood. ECE: expected calibration error. HM: as above. Tempered: with the temperature."

# From ten labels of the shipped model's validation photos, a temperature gained little NLL on the others, and in the
# worst of twenty draws lost ten times as much. Deciding on it as on the offsets was turned down: that cost NLL.
MIN_LABELS = 20
COLDEST, HOTTEST = 0.05, 20.0
# Of a prior on 1/T around 1, which adds 2 (1/T - 1)^2 to the sum of NLL: nothing beside hundreds of labels. Without
# it, twenty labels that happen to be all right drive T to its bound, and the first wrong answer costs tens of nats.
PRIOR_DEVIATION = 0.5
FOLDS = 5
# Standard errors that a gain must exceed. At half of one, offsets that gain nothing were kept up to three times as
# often, on the shipped model's photos divided by sender; at two, synthetic problems lost a third to two thirds of
# what offsets gain there.
NOISE = 1.0


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What each step does for one attribute, on rows that took no part in its fit."""

    category: str
    attribute: str
    labels: int
    nll_before: float
    nll_after: float
    """Mean negative log-likelihood, tempered."""
    ece_before: float
    ece_after: float
    """Expected calibration error, tempered."""
    hm_before: float
    hm_after: float
    """Harmonic mean of micro- and macro-F1, with offsets."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is fitted, on all the labels; and what it gains, on labels not used for it."""

    temperatures: dict[str, float]
    """By output; absent where too few labels leave it at 1."""
    offsets: dict[str, tuple[float, ...]]
    """By output, one a class, 0 for the commonest; absent where none help."""
    gains: tuple[Gain, ...]
    """One an attribute that has a label, in order."""


def fit(
    categories: Sequence[Category],
    probabilities: Sequence[np.ndarray],
    labels_NL: np.ndarray,
    groups_N: np.ndarray,
    *,
    seed: int,
) -> Calibration:
    """Temperatures and offsets from every label, and their gains cross-fitted in FOLDS folds that divide no group.

    A gain is that of the whole procedure: each fold's rows are answered with the temperature, the tau and the
    decision for or against offsets that the other folds gave. With one group there are no folds: the figures
    after equal those before, and there is a temperature but no offsets. Offsets need FOLDS groups. A fold's fit sees
    a fifth fewer labels than the one that is given, so that a gain is rather too small than too large.

    Raises ValueError for arrays that do not fit the categories, and for probabilities that are none, NaN among them.

    Args:
        probabilities: float [N, K], 0-1, one array an attribute, flattened over the categories in order.
        labels_NL: class indices; MISSING where nobody typed one.
        groups_N: what belongs together, such as a supplier's photos; the row's own number where nothing does.
        seed: of the folds.
    """
    import numpy as np

    temperatures: dict[str, float] = {}
    offsets: dict[str, tuple[float, ...]] = {}
    gains: list[Gain] = []
    attributes = [(category.name, attribute) for category in categories for attribute in category.attributes]
    _check_shapes(attributes, probabilities, labels_NL, groups_N)
    for index, (category, attribute) in enumerate(attributes):
        labelled_N = labels_NL[:, index] != MISSING
        labels_N = labels_NL[labelled_N, index]
        _check_values(attribute, probabilities[index], labels_N)
        if not len(labels_N):
            continue
        probabilities_NK = np.asarray(probabilities[index], np.float64)[labelled_N]
        groups_of_N = _numbered(groups_N[labelled_N])
        # Its own generator: what one attribute gets does not depend on those before it.
        fitted = _fit(probabilities_NK, labels_N, groups_of_N, np.random.default_rng([seed, index]))
        if fitted.temperature != 1:
            temperatures[attribute.output] = fitted.temperature
        if fitted.offsets_K.any():
            offsets[attribute.output] = tuple(fitted.offsets_K.tolist())
        gains.append(_gain(category, attribute, probabilities_NK, labels_N, groups_of_N, [seed, index, 1]))
    return Calibration(temperatures=temperatures, offsets=offsets, gains=tuple(gains))


def tempered(probabilities_NK: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities that the same logits, divided by `temperature`, would give; float64 [N, K], rows sum to 1."""
    import numpy as np

    scaled_NK = np.log(np.maximum(np.asarray(probabilities_NK, np.float64), TINY)) / temperature
    powers_NK: np.ndarray = np.exp(scaled_NK - scaled_NK.max(1, keepdims=True))
    powers_NK /= powers_NK.sum(1, keepdims=True)
    return powers_NK


def with_offsets(categories: Sequence[Category], offsets: dict[str, tuple[float, ...]]) -> tuple[Category, ...]:
    """The categories with those offsets, by output, and with none where `offsets` has none."""
    import msgspec

    sizes = {attribute.output: len(attribute.classes) for category in categories for attribute in category.attributes}
    for output, values in offsets.items():
        if sizes.get(output) != len(values):
            raise ValueError(
                f"{len(values)} offsets for output {output!r}, which has {sizes.get(output, 'no')} classes"
            )

    def filled(attribute: Attribute) -> Attribute:
        return msgspec.structs.replace(attribute, offsets=offsets.get(attribute.output, ()))

    return tuple(
        msgspec.structs.replace(category, attributes=tuple(map(filled, category.attributes))) for category in categories
    )


def table(gains: Sequence[Gain]) -> list[list[str]]:
    """The gains as rows of text under COLUMNS, the average last; no row where there is no gain."""
    if not gains:
        return []
    several = len({gain.category for gain in gains}) > 1
    rows = [
        [
            f"{gain.category} {gain.attribute}" if several else gain.attribute,
            *(f"{value:.3f}" for value in _values(gain)),
            str(gain.labels),
        ]
        for gain in gains
    ]
    averages = [sum(column) / len(gains) for column in zip(*map(_values, gains), strict=True)]
    return [*rows, ["average", *(f"{value:.3f}" for value in averages), str(sum(gain.labels for gain in gains))]]


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    temperature: float
    offsets_K: np.ndarray
    """Zeros for none."""


def _check_shapes(
    attributes: Sequence[tuple[str, Attribute]],
    probabilities: Sequence[np.ndarray],
    labels_NL: np.ndarray,
    groups_N: np.ndarray,
) -> None:
    rows = len(groups_N)
    if not len(attributes) == len(probabilities) == labels_NL.shape[1]:
        seen = f"{len(probabilities)} arrays of probabilities and {labels_NL.shape[1]} columns of labels"
        raise ValueError(f"{len(attributes)} attributes need as many of each, got {seen}")
    if len(labels_NL) != rows:
        raise ValueError(f"labels have {len(labels_NL)} rows, groups have {rows}")
    for (_, attribute), probabilities_NK in zip(attributes, probabilities, strict=True):
        if probabilities_NK.shape != (rows, len(attribute.classes)):
            expected = f"[{rows}, {len(attribute.classes)}]"
            raise ValueError(
                f"probabilities of {attribute.output!r} must be {expected}, got {list(probabilities_NK.shape)}"
            )


def _check_values(attribute: Attribute, probabilities_NK: np.ndarray, labels_N: np.ndarray) -> None:
    # Not `< 0`: a comparison with NaN is false.
    wrong_NK = ~((probabilities_NK >= 0) & (probabilities_NK <= 1 + 1e-3))
    if wrong_NK.any():
        raise ValueError(f"probabilities of {attribute.output!r} must be 0 to 1, got {probabilities_NK[wrong_NK][0]}")
    if not ((labels_N >= 0) & (labels_N < len(attribute.classes))).all():
        seen = f"{labels_N.min()} to {labels_N.max()}"
        raise ValueError(f"labels of {attribute.output!r} must be 0 to {len(attribute.classes) - 1}, got {seen}")


def _fit(probabilities_NK: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray, rng: np.random.Generator) -> _Fitted:
    """The temperature, and the offsets if they hold on labels that did not see them; groups are numbered from 0."""
    import numpy as np

    proposal = _proposal(probabilities_NK, labels_N)
    none = _Fitted(temperature=proposal.temperature, offsets_K=np.zeros_like(proposal.offsets_K))
    # A standard error over two or three groups says nothing.
    if not proposal.offsets_K.any() or groups_N.max() + 1 < FOLDS:
        return none
    plain_N = probabilities_NK.argmax(1)
    moved_N = plain_N.copy()
    for rest_N, fold_N in _folds(groups_N, rng):
        other = _proposal(probabilities_NK[rest_N], labels_N[rest_N])
        moved_N[fold_N] = decision.answers(tempered(probabilities_NK[fold_N], other.temperature), other.offsets_K)
    gain, error = decision.gain(labels_N, plain_N, moved_N, groups_N, probabilities_NK.shape[1])
    return proposal if gain > NOISE * error else none


def _proposal(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> _Fitted:
    """The temperature of these labels, and the offsets that its probabilities speak for."""
    import numpy as np

    if len(labels_N) < MIN_LABELS:
        return _Fitted(temperature=1.0, offsets_K=np.zeros(probabilities_NK.shape[1]))
    temperature = _temperature(probabilities_NK, labels_N)
    return _Fitted(temperature=temperature, offsets_K=decision.proposed(tempered(probabilities_NK, temperature)))


def _temperature(probabilities_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """The T that minimises NLL under the prior: convex in 1/T, so that a bounded search finds the one minimum."""
    import numpy as np
    from scipy.optimize import minimize_scalar

    logits_NK = np.log(np.maximum(probabilities_NK, TINY))
    logits_NK -= logits_NK.max(1, keepdims=True)
    of_truth = logits_NK[np.arange(len(labels_N)), labels_N].sum()

    def loss(inverse: float) -> float:
        likelihood = np.log(np.exp(inverse * logits_NK).sum(1)).sum() - inverse * of_truth
        return float(likelihood + 0.5 * ((inverse - 1) / PRIOR_DEVIATION) ** 2)

    found = minimize_scalar(loss, bounds=(1 / HOTTEST, 1 / COLDEST), method="bounded", options={"xatol": 1e-4})
    return round(float(1 / found.x), 4)


def _numbered(groups_N: np.ndarray) -> np.ndarray:
    """The groups as 0, 1, 2 ..., in order of their names; int64 [N]."""
    import numpy as np

    # ravel: one release of numpy, 2.0, gives this in another shape.
    return np.unique(groups_N, return_inverse=True)[1].ravel()


def _folds(groups_N: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rest, fold) row masks of FOLDS folds of about equal size, or of as many as there are groups; none for one."""
    import numpy as np

    sizes_G = np.bincount(groups_N)
    if len(sizes_G) < 2:
        return
    fold_of_G = np.empty(len(sizes_G), int)
    rows = np.zeros(min(FOLDS, len(sizes_G)))
    order = rng.permutation(len(sizes_G))
    # The largest first, each to the fold that has the fewest rows: one sender may hold a tenth of the photos.
    for group in order[np.argsort(-sizes_G[order], kind="stable")]:
        fold_of_G[group] = rows.argmin()
        rows[fold_of_G[group]] += sizes_G[group]
    for fold in range(len(rows)):
        fold_N = fold_of_G[groups_N] == fold
        yield ~fold_N, fold_N


def _gain(
    category: str,
    attribute: Attribute,
    probabilities_NK: np.ndarray,
    labels_N: np.ndarray,
    groups_N: np.ndarray,
    seed: Sequence[int],
) -> Gain:
    import numpy as np

    rng = np.random.default_rng(seed)
    plain_N = probabilities_NK.argmax(1)
    after_NK, moved_N = probabilities_NK.copy(), plain_N.copy()
    for rest_N, fold_N in _folds(groups_N, rng):
        fitted = _fit(probabilities_NK[rest_N], labels_N[rest_N], _numbered(groups_N[rest_N]), rng)
        if fitted.temperature != 1:
            after_NK[fold_N] = tempered(probabilities_NK[fold_N], fitted.temperature)
        if fitted.offsets_K.any():
            moved_N[fold_N] = decision.answers(after_NK[fold_N], fitted.offsets_K)

    from train.reliability import expected_calibration_error

    def nll(of_NK: np.ndarray) -> float:
        return float(-np.log(np.maximum(of_NK[np.arange(len(labels_N)), labels_N], TINY)).mean())

    return Gain(
        category=category,
        attribute=attribute.name,
        labels=len(labels_N),
        nll_before=nll(probabilities_NK),
        nll_after=nll(after_NK),
        ece_before=expected_calibration_error(probabilities_NK, labels_N),
        ece_after=expected_calibration_error(after_NK, labels_N),
        hm_before=decision.hm_of_answers(labels_N, plain_N, probabilities_NK.shape[1]),
        hm_after=decision.hm_of_answers(labels_N, moved_N, probabilities_NK.shape[1]),
    )


def _values(gain: Gain) -> list[float]:
    return [gain.nll_before, gain.nll_after, gain.ece_before, gain.ece_after, gain.hm_before, gain.hm_after]

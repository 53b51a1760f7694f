"""How far a score would move with other photos: the bootstrap, by photo or by group of them, vectorised."""

# N rows, G groups, L attributes, S resamples, K classes of one attribute

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.config import MISSING
from train.metrics import hm_of_counts

RESAMPLES = 1000
LEVEL = 0.95
# Resamples held at once: their weights are float32 [chunk, N], 10 MB for 25,000 rows.
CHUNK = 100


def resampled_hm(
    labels_NL: np.ndarray,
    answers_NL: np.ndarray,
    classes: Sequence[int],
    *,
    groups_N: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """The HM of each attribute on rows drawn with replacement, [S, L]; NaN where a draw holds no label of it.

    A resample draws photos, not labels: the attributes of one photo stay together, so that a mean over them has an
    interval too. A draw is a weight for each row, and what F1 is made of are sums over rows: one matrix product.

    Photos of one sender often show one item, and then say together little more than one of them: with groups, whole
    ones are drawn, as many as there are.

    Args:
        labels_NL: class indices, MISSING where there is none.
        answers_NL: the classes chosen; they count only where there is a label.
        classes: how many each attribute has.
        groups_N: which rows belong together, by any names; None where each is on its own.
    """
    rng = np.random.default_rng(seed)
    numbers_N = np.arange(len(labels_NL)) if groups_N is None else _numbered(groups_N)
    groups = int(numbers_N.max()) + 1
    columns = [
        _columns(labels_N, answers_N, count)
        for labels_N, answers_N, count in zip(labels_NL.T, answers_NL.T, classes, strict=True)
    ]
    every = np.concatenate(columns, 1)
    parts = []
    for start in range(0, resamples, CHUNK):
        drawn_SG = rng.integers(groups, size=(min(CHUNK, resamples - start), groups))
        # bincount of one draw after another, each in numbers of its own.
        offsets_S1 = groups * np.arange(len(drawn_SG))[:, None]
        weights_S = np.bincount((drawn_SG + offsets_S1).ravel(), minlength=groups * len(drawn_SG))
        weights_SG = weights_S.reshape(len(drawn_SG), groups).astype(np.float32)
        sums = weights_SG[:, numbers_N] @ every
        # float32 counts exactly up to 16 million; the divisions are to be as exact as scikit-learn's.
        ends = np.cumsum([column.shape[1] for column in columns])[:-1]
        parts.append(np.stack([_hm(part.astype(np.float64)) for part in np.split(sums, ends, axis=1)], 1))
    return np.concatenate(parts)


def interval(values_S: np.ndarray) -> tuple[float, float]:
    """The percentile interval of LEVEL over the resamples that have a value."""
    low, high = np.nanquantile(values_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _numbered(groups_N: np.ndarray) -> np.ndarray:
    """The groups as 0, 1, 2 ... in the order they come, so that rows on their own are drawn as without groups."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups_N.tolist()))}
    return np.array([numbers[group] for group in groups_N.tolist()])


def _columns(labels_N: np.ndarray, answers_N: np.ndarray, count: int) -> np.ndarray:
    """float32 [N, 3K]: for each class whether it was declared, whether it was answered, and whether both."""
    there_N1 = (labels_N != MISSING)[:, None]
    declared_NK = (labels_N[:, None] == np.arange(count)) & there_N1
    answered_NK = (answers_N[:, None] == np.arange(count)) & there_N1
    return np.concatenate([declared_NK, answered_NK, declared_NK & answered_NK], 1).astype(np.float32)


def _hm(sums: np.ndarray) -> np.ndarray:
    """HM for each row of sums [S, 3K]; macro-F1 is over the classes that a draw declares or answers."""
    declared_SK, answered_SK, both_SK = np.split(sums, 3, axis=1)
    return np.where(declared_SK.sum(1) > 0, hm_of_counts(both_SK, answered_SK, declared_SK), np.nan)

"""What a precision that was asked for lets an audit say: thresholds from labelled photos, with finite-sample bounds.

Both promises rest on the binomial bound of Clopper and Pearson (1934) at thresholds that are tried in a fixed sequence,
ending before the first that does not pass, so that the last to pass keeps the confidence of one (Angelopoulos, Bates,
Candès, Jordan, Lei: Learn then Test, 2021).

*This declared value is wrong*: how improbable it is, is held against how improbable the right labels are of photos
that the network did not learn from, where something else is surely predicted. The sequence is of the listing's own most
improbable values, more and more of them: as many are flagged as may be while, by the bound on the share of right
values that are as odd, a share of 1 - precision at most is expected to be false. How many may be false in the listing
at hand, which can be unlucky, is bounded beside. Where findings begin hangs on the listing, too: how many of its values
are wrong no export can know.

*This empty cell should hold the predicted value*: a threshold on confidence, found on labelled photos alone, above
which predictions are right as often as asked.

Both hold for photos that are drawn as the labelled ones were.
"""

# N labelled photos, M of the listing

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
"""With which a promise is kept, over draws of the labelled photos."""
FALSE_CONFIDENCE = 0.99
"""Of the bound on false findings, for a cut set beforehand. This one is chosen, and begins early where the labels
happen to be less odd than others: the bound holds a little less often."""
LEAST_CELLS = 50
"""A listing of fewer is judged as one of so many. A false discovery rate counts a listing without a finding as perfect:
of the findings of many short listings more would be wrong than of a long one's."""
FIRST_SHARE, STEP = 0.3, 0.05
"""The sequence of confidences: of the most confident 30 % of the labelled photos, then of 5 % more each. It must not
begin where a single wrong label decides."""
ODD_LABELS, MOST_FIRST = 5, 0.05
"""The sequence of cuts: the fewest findings that may be with five labels as odd, or with fewer labels where these are
more than a twentieth of the listing; then 5 % more each."""


class Cut(NamedTuple):
    """Where findings begin, and how many of them may be wrong."""

    at: float
    """The least score that is a finding."""
    findings: int
    false: int
    """As many may be, at most."""


def cut(null_N: np.ndarray, scores_M: np.ndarray, precision: float) -> Cut | None:
    """The scores that are findings, of which a share of 1 - precision at most is expected to be wrong; None for none.

    Args:
        null_N: scores of labelled photos where nothing is wrong, the higher the odder, 0 of what can be no finding.
        scores_M: of the listing, all that are judged together.
    """
    import numpy as np

    odd_M, tests = np.sort(scores_M[scores_M > 0])[::-1], max(len(scores_M), LEAST_CELLS)
    as_high_M, labels = _as_high(null_N, odd_M), len(null_N)
    found, findings = 0, fewest_findings(labels, len(scores_M), precision)
    while findings <= len(odd_M):
        # All that are as odd are in: a cut cannot part them.
        findings = int(np.searchsorted(-odd_M, -odd_M[findings - 1], side="right"))
        if not shows(int(as_high_M[findings - 1]), labels, _share(findings, tests, precision)):
            break
        found = findings
        findings += max(1, int(STEP * findings))
    if not found:
        return None
    false = false_at_most(int(as_high_M[found - 1]), labels, len(scores_M))
    return Cut(float(odd_M[found - 1]), found, min(found, false))


def fewest_findings(labels: int, values: int, precision: float) -> int:
    """Of so many declared values, the fewest that can be called wrong; more than there are where none can."""
    tests = max(values, LEAST_CELLS)
    for odd in reversed(range(ODD_LABELS + 1)):
        low, high = 1, tests + 1
        while low < high:
            middle = (low + high) // 2
            enough = shows(odd, labels, _share(middle, tests, precision))
            low, high = (low, middle) if enough else (middle + 1, high)
        if low <= max(1, MOST_FIRST * values):
            break
    return low


def _share(findings: int, tests: int, precision: float) -> float:
    """Of right values that may be findings, so that no more of these are false than is asked."""
    return (1 - precision) * findings / tests + 1e-12  # 0.1 is a little less than a tenth


def p_values(null_N: np.ndarray, scores_M: np.ndarray) -> np.ndarray:
    """How seldom one as high is among those of nothing wrong: float64 [M], above 0, 1 at most; conformal p-values
    (Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005)."""
    rare_M: np.ndarray = (1 + _as_high(null_N, scores_M)) / (len(null_N) + 1)
    return rare_M


def false_at_most(as_high: int, of: int, tests: int) -> int:
    """Of `tests` right values as many score where `as_high` of `of` labels do: a quantile of the beta-binomial
    distribution, which their number has just above the score of the next label (Marques: Universal distribution of the
    empirical coverage in split conformal prediction, Statistics & Probability Letters 2025)."""
    import numpy as np

    if as_high >= of:
        return tests
    a, b = as_high + 1, of - as_high
    none = _log_beta(a, tests + b) - _log_beta(a, b)
    numbers = np.arange(tests)
    ratios = np.log((tests - numbers) / (numbers + 1) * (a + numbers) / (tests - numbers - 1 + b))
    chances = np.exp(none + np.append(0.0, np.cumsum(ratios)))
    return int(np.searchsorted(np.cumsum(chances), FALSE_CONFIDENCE))


def confident_from(confidences_N: np.ndarray, right_N: np.ndarray, precision: float) -> float | None:
    """The least confidence from which predictions are right as often as `precision` says; None where the labelled
    photos are too few, or too often wrong, to tell.

    Args:
        confidences_N: of the predictions for labelled photos.
        right_N: bool, which of them are right.
    """
    import numpy as np

    order_N = np.argsort(-confidences_N, kind="stable")
    falling_N, wrong_N = -confidences_N[order_N], np.cumsum(~right_N[order_N])
    found = None
    size = max(FIRST_SHARE * len(order_N), labels_needed(1 - precision))
    while size < len(order_N) + 1:
        last = min(math.ceil(size), len(order_N)) - 1
        # All that are as confident are in: a threshold cannot part them.
        last = int(np.searchsorted(falling_N, falling_N[last], side="right")) - 1
        if not shows(int(wrong_N[last]), last + 1, 1 - precision):
            break
        found = -float(falling_N[last])
        size += max(1.0, STEP * len(order_N))
    return found


def labels_needed(share: float) -> int:
    """The fewest labels, none of them wrong, that show that no more than this share is."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-share))


def shows(seen: int, of: int, share: float) -> bool:
    """Whether `seen` in `of` show that no larger share is, by the upper bound of Clopper and Pearson (1934)."""
    import numpy as np

    if seen >= of or share >= 1:
        return share >= 1
    numbers = np.arange(seen + 1)
    ways = np.cumsum(np.log(np.concatenate([[1.0], (of - numbers[:-1]) / numbers[1:]])))
    seldom = np.exp(ways + numbers * math.log(share) + (of - numbers) * math.log1p(-share)).sum()
    return bool(seldom <= 1 - CONFIDENCE)


def share_right(p_M: np.ndarray) -> float:
    """The share of the p-values that are of values with nothing wrong, 0 to 1, as far as those above a half tell
    (Storey: A direct approach to false discovery rates, JRSS B 2002)."""
    if not len(p_M):
        return 1.0
    return min(1.0, (1 + int((p_M > 0.5).sum())) / (0.5 * len(p_M)))


def _as_high(null_N: np.ndarray, scores_M: np.ndarray) -> np.ndarray:
    """For each score how many of the others are no lower: int64 [M]."""
    import numpy as np

    as_high_M: np.ndarray = len(null_N) - np.searchsorted(np.sort(null_N), scores_M, side="left")
    return as_high_M


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

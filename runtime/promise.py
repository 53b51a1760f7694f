"""What a precision that was asked for lets an audit say: thresholds from validation photos, with finite-sample bounds.

*This declared value is wrong*: how improbable it is, is held against how improbable the right labels of validation
photos are, where something else is surely predicted, which gives each value a conformal p-value (Vovk, Gammerman,
Shafer: Algorithmic Learning in a Random World, 2005). The step-up procedure of Benjamini and Hochberg (1995) flags as
many as may be: the expected share of false ones is 1 - precision at most, however few the labels (Bates, Candès, Lei,
Romano, Sesia: Testing for outliers with conformal p-values, Annals of Statistics 2023). That is an average over
listings and over draws of the validation photos; how many findings may be false this time is bounded beside. Where
findings begin hangs on the listing, too: how many of its values are wrong no export can know.

*This empty cell should hold the predicted value*: a threshold on confidence, found on validation photos alone, above
which predictions are right as often as asked, at 95 % confidence by the binomial bound of Clopper and Pearson (1934),
along a fixed sequence of thresholds (Angelopoulos, Bates, Candès, Jordan, Lei: Learn then Test, 2021).

Both hold for photos that are drawn as the validation photos were.
"""

# N validation photos, M of the listing

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
"""With which predictions that fill are right as often as asked, over draws of the validation photos."""
FALSE_CONFIDENCE = 0.99
"""Of the bound on false findings, for a cut set beforehand. This one is chosen, and begins early where the validation
labels happen to be less odd than others: the bound holds a little less often."""
LEAST_CELLS = 50
"""A listing of fewer is judged as one of so many. A false discovery rate counts a listing without a finding as perfect:
of the findings of many short listings more would be wrong than of a long one's."""
FIRST_SHARE, STEP = 0.3, 0.05
"""The sequence of thresholds: the most confident 30 % of the validation photos, then 5 % more each. It ends at the
first that does not pass, so it must not begin where a single wrong label decides."""


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
        null_N: scores of validation photos where nothing is wrong, the higher the odder, 0 of what can be no finding.
        scores_M: of the listing, all that are judged together.
    """
    import numpy as np

    odd_M, tests = np.sort(scores_M[scores_M > 0])[::-1], max(len(scores_M), LEAST_CELLS)
    ranks_M = np.arange(1, len(odd_M) + 1)
    # 0.1 is a little less than a tenth.
    kept = np.flatnonzero(p_values(null_N, odd_M) * tests <= (1 - precision) * ranks_M + 1e-9)
    if not len(kept):
        return None
    at = float(odd_M[kept[-1]])
    findings, as_high = int((odd_M >= at).sum()), int((null_N >= at).sum())
    return Cut(at, findings, min(findings, false_at_most(as_high, len(null_N), len(scores_M))))


def p_values(null_N: np.ndarray, scores_M: np.ndarray) -> np.ndarray:
    """How seldom one as high is among those of nothing wrong: float64 [M], above 0, 1 at most."""
    import numpy as np

    as_high_M = len(null_N) - np.searchsorted(np.sort(null_N), scores_M, side="left")
    rare_M: np.ndarray = (1 + as_high_M) / (len(null_N) + 1)
    return rare_M


def false_at_most(as_high: int, of: int, tests: int) -> int:
    """Of `tests` right values as many score where `as_high` of `of` validation labels do: a quantile of the
    beta-binomial distribution, which their number has at a threshold set beforehand."""
    if as_high >= of:
        return tests
    below = 0.0
    for number in range(tests):
        log_beta = _log_beta(number + as_high + 1, tests - number + of - as_high) - _log_beta(as_high + 1, of - as_high)
        below += math.exp(_log_choose(tests, number) + log_beta)
        if below >= FALSE_CONFIDENCE:
            return number
    return tests


def confident_from(confidences_N: np.ndarray, right_N: np.ndarray, precision: float) -> float | None:
    """The least confidence from which predictions are right as often as `precision` says; None where the validation
    photos are too few, or too often wrong, to tell.

    Args:
        confidences_N: of the predictions for validation photos.
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
        if share_at_most(int(wrong_N[last]), last + 1) > 1 - precision:
            break
        found = -float(falling_N[last])
        size += max(1.0, STEP * len(order_N))
    return found


def fewest_findings(labels: int, values: int, precision: float) -> int:
    """Of so many declared values, the fewest that can be called wrong, by labels none of which is as odd."""
    return math.ceil(max(values, LEAST_CELLS) / (labels + 1) / (1 - precision) - 1e-9)


def labels_needed(share: float) -> int:
    """The fewest labels, none of them wrong, that show that no more than this share is."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-share))


def share_at_most(seen: int, of: int) -> float:
    """The upper bound of Clopper and Pearson (1934) on a share of which `seen` in `of` were seen."""
    import numpy as np

    if seen >= of:
        return 1.0
    numbers = np.arange(seen + 1)
    ways = np.cumsum(np.log(np.concatenate([[1.0], (of - numbers[:-1]) / numbers[1:]])))
    low, high = seen / of, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        seldom = np.exp(ways + numbers * math.log(middle) + (of - numbers) * math.log1p(-middle)).sum()
        low, high = (middle, high) if seldom > 1 - CONFIDENCE else (low, middle)
    return high


def share_right(p_M: np.ndarray) -> float:
    """The share of the p-values that are of values with nothing wrong, 0 to 1, as far as those above a half tell
    (Storey: A direct approach to false discovery rates, JRSS B 2002)."""
    if not len(p_M):
        return 1.0
    return min(1.0, (1 + int((p_M > 0.5).sum())) / (0.5 * len(p_M)))


def _log_choose(of: int, taken: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(taken + 1) - math.lgamma(of - taken + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

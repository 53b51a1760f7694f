"""What may be promised: bounds as scipy has them, and promises that are kept on samples of known truth."""

# N validation photos, M of the listing

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from runtime import promise


@pytest.mark.parametrize(("seen", "of"), [(0, 1), (0, 59), (3, 59), (10, 700), (199, 200), (1000, 2000)])
def test_the_bound_on_a_share_is_that_of_clopper_and_pearson(seen: int, of: int) -> None:
    bound = stats.beta.ppf(0.95, seen + 1, of - seen)
    assert promise.shows(seen, of, bound + 1e-9) and not promise.shows(seen, of, bound - 1e-9)


def test_a_share_of_which_all_were_seen_has_no_bound() -> None:
    assert not promise.shows(5, 5, 0.999) and not promise.shows(0, 0, 0.999)
    assert promise.shows(5, 5, 1.0) and promise.shows(0, 0, 1.0)


@pytest.mark.parametrize(("as_high", "of", "tests"), [(0, 700, 600), (6, 700, 600), (0, 50, 1000), (30, 60, 10)])
def test_as_many_are_false_as_the_beta_binomial_distribution_has_it(as_high: int, of: int, tests: int) -> None:
    expected = stats.betabinom.ppf(0.99, tests, as_high + 1, of - as_high)
    assert promise.false_at_most(as_high, of, tests) == expected


def test_without_one_less_odd_label_every_value_may_be_right() -> None:
    assert promise.false_at_most(7, 7, 30) == 30


@pytest.mark.parametrize("share", [0.1, 0.05, 0.01])
def test_the_fewest_labels_are_those_that_the_bound_needs(share: float) -> None:
    needed = promise.labels_needed(share)
    assert promise.shows(0, needed, share) and not promise.shows(0, needed - 1, share)


def test_p_values_are_those_of_a_uniform_draw_where_nothing_is_wrong() -> None:
    rng = np.random.default_rng(0)
    p_M = promise.p_values(rng.normal(size=999), rng.normal(size=20_000))
    assert p_M.min() > 0 and p_M.max() <= 1
    # 999 labels leave a share of a half uncertain by .016, and so twice as much of its double: three times that.
    assert [np.mean(p_M <= level) for level in (0.1, 0.5)] == pytest.approx([0.1, 0.5], abs=0.05)
    assert promise.share_right(p_M) == pytest.approx(1, abs=0.1)


def test_p_values_of_ties_are_on_the_safe_side() -> None:
    assert promise.p_values(np.array([0.2, 0.5, 0.5, 0.9]), np.array([0.5, 1.0])).tolist() == [0.8, 0.2]


def listing(
    rng: np.random.Generator, labels: int, values: int, wrong: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of right labels; of a listing's values; and which of these are wrong, whose scores lie 5 higher."""
    wrong_M = rng.random(values) < wrong
    return 10 + rng.normal(size=labels), 10 + rng.normal(size=values) + 5 * wrong_M, wrong_M


@pytest.mark.parametrize("precision", [0.9, 0.95])
@pytest.mark.parametrize("labels", [600, 3000])
def test_of_what_contradicts_as_many_are_wrong_as_is_promised(precision: float, labels: int) -> None:
    rng = np.random.default_rng(0)
    kept, within, found = [], [], []
    for _ in range(400):
        null_N, scores_M, wrong_M = listing(rng, labels=labels, values=500, wrong=0.1)
        cut = promise.cut(null_N, scores_M, precision)
        flagged_M = scores_M >= cut.at if cut else np.zeros(500, bool)
        # Among right values a score is so high by chance; what that makes of listings like this is known.
        expected = stats.norm.sf(cut.at - 10) * (~wrong_M).sum() if cut else 0
        kept.append(expected <= (1 - precision) * flagged_M.sum())
        within.append((flagged_M & ~wrong_M).sum() <= (cut.false if cut else 0))
        found.append((flagged_M & wrong_M).sum() / wrong_M.sum())
        assert cut is None or cut.findings == flagged_M.sum()
    # 95 % keep to it, of 400 draws 370 or more in all but one case of a hundred.
    assert sum(kept) >= 370 and sum(within) >= 370
    # 600 labels show no less than that 0.7 % of 500 values, 3.5, may be false: of 50 wrong ones more than a twentieth.
    assert (np.mean(found) > 0.9) == ((labels, precision) != (600, 0.95))


@pytest.mark.parametrize("odd", [0.05, 0.3, 1.0], ids=lambda share: f"{share:g} odd")
@pytest.mark.parametrize(
    ("labels", "values", "precision"), [(3000, 5000, 0.8), (3000, 700, 0.9), (719, 700, 0.9), (10_000, 5000, 0.9)]
)
def test_a_promise_that_no_cut_keeps_is_seldom_made(labels: int, values: int, precision: float, odd: float) -> None:
    rng = np.random.default_rng(4)
    broken = 0
    for _ in range(400):
        # A share is odd at all, right or wrong alike: above any cut about as much is false as is promised, or more.
        odd_M = 10 + rng.normal(size=round(odd * values))
        right = 1.01 * (1 - precision) * len(odd_M)
        odd_N = 10 + rng.normal(size=rng.binomial(labels, right / values))
        null_N, scores_M = np.zeros(labels), np.zeros(values)
        null_N[: len(odd_N)], scores_M[: len(odd_M)] = odd_N, odd_M
        cut = promise.cut(null_N, scores_M, precision)
        broken += cut is not None and right * stats.norm.sf(cut.at - 10) > (1 - precision) * cut.findings
    # 5 % at most; of 400 draws 32 or more in one case of a hundred.
    assert broken < 32


def test_a_listing_without_mistakes_has_next_to_no_findings() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        null_N, scores_M, _ = listing(rng, labels=1000, values=500, wrong=0.0)
        cut = promise.cut(null_N, scores_M, 0.9)
        found += cut is not None
    # Each has any at 5 %; of 200 draws 18 or more in one case of a hundred.
    assert found < 18


def test_of_the_findings_of_many_short_listings_no_more_are_false_than_of_a_long_one() -> None:
    rng = np.random.default_rng(2)
    false = findings = 0
    for _ in range(4000):
        null_N, scores_M, wrong_M = listing(rng, labels=3000, values=5, wrong=0.1)
        if cut := promise.cut(null_N, scores_M, 0.9):
            findings += cut.findings
            false += int(((scores_M >= cut.at) & ~wrong_M).sum())
    assert findings > 1000
    assert false / findings <= 0.1


def test_what_can_be_no_finding_is_none_however_much_may_be_wrong() -> None:
    scores_M = np.append(np.zeros(90), np.ones(10))
    found = promise.cut(np.zeros(1000), scores_M, 0.5)
    assert found is not None and found[:2] == (1.0, 10)


@pytest.mark.parametrize(("labels", "values"), [(719, 14), (719, 578), (3000, 20), (3000, 5000)])
def test_the_fewest_findings_are_those_that_the_bound_needs(labels: int, values: int) -> None:
    fewest = promise.fewest_findings(labels, values, 0.9)
    for number, found in ((fewest - 1, False), (fewest, True)):
        scores_M = np.append(np.ones(number), np.zeros(values - number))
        assert (promise.cut(np.zeros(labels), scores_M, 0.9) is not None) == found


@pytest.mark.parametrize(("labels", "values"), [(0, 10), (10, 0), (0, 0)])
def test_of_nothing_nothing_contradicts(labels: int, values: int) -> None:
    assert promise.cut(np.zeros(labels), np.ones(values), 0.95) is None


def test_where_all_of_a_long_listing_is_odder_than_any_label_that_takes_59_labels_to_say() -> None:
    odder_M = np.ones(100_000)
    assert promise.cut(np.zeros(58), odder_M, 0.95) is None
    found = promise.cut(np.zeros(59), odder_M, 0.95)
    assert found is not None and found == (1.0, 100_000, promise.false_at_most(0, 59, 100_000))


def test_a_long_listing_is_judged_in_no_time() -> None:
    rng = np.random.default_rng(3)
    null_N, scores_M, wrong_M = listing(rng, labels=10_000, values=200_000, wrong=0.3)
    started = time.monotonic()
    found = promise.cut(null_N, scores_M, 0.8)
    assert time.monotonic() - started < 5
    assert found is not None and found.findings > 0.9 * wrong_M.sum()


def predictions(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, 0.5 to 1, the most of them high, each the chance that its prediction is right; and whether it is."""
    confidences_N = 1 - rng.random(count) ** 2 / 2
    return confidences_N, rng.random(count) < confidences_N


@pytest.mark.parametrize("precision", [0.9, 0.95])
def test_what_fills_is_right_as_often_as_is_promised(precision: float) -> None:
    rng = np.random.default_rng(0)
    kept, told = [], []
    for _ in range(300):
        at = promise.confident_from(*predictions(rng, 1000), precision)
        told.append(at is not None)
        # Above a confidence c the mean chance of being right is 1 - (1 - c) / 3.
        kept.append(at is None or 1 - (1 - at) / 3 >= precision)
    # At 95 % confidence: of 300 draws 276 or more in all but one case of a hundred.
    assert sum(kept) >= 276
    assert np.mean(told) > 0.9


def test_the_threshold_takes_in_all_that_are_as_confident() -> None:
    confidences_N = np.repeat([0.9, 0.8], 100)
    right_N = np.ones(200, bool)
    right_N[100:] = False
    assert promise.confident_from(confidences_N, right_N, 0.9) == 0.9
    right_N[:100:4] = False  # a quarter of those at 0.9, which no order may part
    assert promise.confident_from(confidences_N, right_N, 0.9) is None


@pytest.mark.parametrize(("labels", "found"), [(0, False), (58, False), (59, True)])
def test_fewer_right_predictions_than_are_needed_promise_nothing(labels: int, found: bool) -> None:
    at = promise.confident_from(np.linspace(0.6, 0.9, labels), np.ones(labels, bool), 0.95)
    assert (at is not None) == found


def test_the_share_of_right_values_is_told_from_what_does_not_look_odd() -> None:
    rng = np.random.default_rng(0)
    null_N, scores_M, wrong_M = listing(rng, labels=2000, values=5000, wrong=0.2)
    assert promise.share_right(promise.p_values(null_N, scores_M)) == pytest.approx(1 - wrong_M.mean(), abs=0.04)
    assert promise.share_right(np.zeros(0)) == 1.0

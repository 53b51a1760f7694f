"""Temperatures that are known, offsets that the truth allows, and gains that are not taken from the rows fitted to."""

# N rows, L attributes, K classes, D features

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import msgspec
import numpy as np
import pytest

from runtime.bundle import Attribute, Category
from train import calibrate, metrics
from train.calibrate import Calibration
from train.config import MISSING
from train.reliability import expected_calibration_error


def category(*classes: int, name: str = "Cap") -> Category:
    """A category of attributes a0, a1 ... of so many classes."""
    return Category(
        name=name,
        attributes=tuple(
            Attribute(name=f"a{index}", classes=tuple(map(str, range(count))), output=f"{name}/a{index}")
            for index, count in enumerate(classes)
        ),
    )


class Problem:
    """Classes as Gaussians of unit variance: the true probabilities are known."""

    def __init__(self, prior_K: Sequence[float], *, spread: float, seed: int = 0) -> None:
        self.prior_K = np.array(prior_K) / np.sum(prior_K)
        self.means_KD = np.random.default_rng(seed).normal(size=(len(prior_K), 3)) * spread

    def draw(self, rows: int, *, temperature: float = 1.0, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities, float32 [N, K], that become the true ones at that temperature; and labels, int64 [N]."""
        rng = np.random.default_rng(seed)
        labels_N = rng.choice(len(self.prior_K), rows, p=self.prior_K)
        features_ND = self.means_KD[labels_N] + rng.normal(size=(rows, 3))
        logits_NK = np.log(self.prior_K) + features_ND @ self.means_KD.T - (self.means_KD**2).sum(1) / 2
        powers_NK = np.exp(temperature * (logits_NK - logits_NK.max(1, keepdims=True)))
        return (powers_NK / powers_NK.sum(1, keepdims=True)).astype(np.float32), labels_N


BALANCED = Problem([1, 1, 1, 1], spread=1.0)
# The rarest class has one label in 26: argmax hardly ever answers it.
IMBALANCED = Problem([60, 30, 10, 4], spread=0.9)


def fit(probabilities_NK: np.ndarray, labels_N: np.ndarray, groups_N: np.ndarray | None = None) -> Calibration:
    """One attribute, each row its own group unless told otherwise."""
    groups_N = np.arange(len(labels_N)) if groups_N is None else groups_N
    return calibrate.fit([category(probabilities_NK.shape[1])], [probabilities_NK], labels_N[:, None], groups_N, seed=0)


def temperature_of(found: Calibration) -> float:
    return found.temperatures.get("Cap/a0", 1.0)


def hm_after(found: Calibration, probabilities_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """HM of photos never seen, as the bundle would answer them."""
    tempered_NK = calibrate.tempered(probabilities_NK, temperature_of(found))
    filled = calibrate.with_offsets([category(probabilities_NK.shape[1])], found.offsets)
    (score,) = metrics.scores(filled, [tempered_NK], labels_N[:, None], [0])
    return score.hm


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0, 3.5])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
    probabilities_NK, labels_N = BALANCED.draw(4000, temperature=temperature, seed=1)
    found = fit(probabilities_NK, labels_N)
    # 4,000 labels know it to 2 % here (one standard deviation over twenty seeds); three of those.
    assert temperature_of(found) == pytest.approx(temperature, rel=0.06)
    (gain,) = found.gains
    if temperature > 1.5:
        assert gain.nll_after < gain.nll_before - 0.05
        assert gain.ece_after < gain.ece_before / 2


def test_a_temperature_changes_no_answer_and_gives_what_divided_logits_give() -> None:
    rng = np.random.default_rng(0)
    logits_NK = rng.normal(size=(500, 6)) * 3
    probabilities_NK = np.exp(logits_NK) / np.exp(logits_NK).sum(1, keepdims=True)
    for temperature in (calibrate.COLDEST, 0.7, 1.0, 3.0, calibrate.HOTTEST):
        expected_NK = np.exp(logits_NK / temperature)
        expected_NK /= expected_NK.sum(1, keepdims=True)
        found_NK = calibrate.tempered(probabilities_NK.astype(np.float32), temperature)
        assert (found_NK.argmax(1) == probabilities_NK.argmax(1)).all()
        assert found_NK.sum(1) == pytest.approx(1)
        # float32 going in: 6e-8 of a probability, twenty times as much of it at the coldest.
        assert np.abs(found_NK - expected_NK).max() < 1e-5


def test_probabilities_of_exactly_zero_stay_finite() -> None:
    probabilities_NK = np.array([[1, 0, 0], [0, 0.5, 0.5], [0, 0, 1]] * 20, np.float32)
    labels_N = np.array([0, 1, 0] * 20)
    found = fit(probabilities_NK, labels_N)
    (gain,) = found.gains
    assert np.isfinite([value for value in asdict(gain).values() if isinstance(value, float)]).all()
    # A third of the labels has probability 0: over-confident, if anything is.
    assert temperature_of(found) > 2
    assert np.isfinite(calibrate.tempered(probabilities_NK, temperature_of(found))).all()


def test_labels_that_are_all_right_leave_a_temperature_that_one_wrong_answer_survives() -> None:
    probabilities_NK, _ = BALANCED.draw(40, seed=0)
    found = fit(probabilities_NK, probabilities_NK.argmax(1))
    assert calibrate.COLDEST < temperature_of(found) < 1
    certain_NK = calibrate.tempered(np.array([[0.8, 0.2]]), temperature_of(found))
    # Without the prior T falls to its bound of 0.05, and this is log(4) / 0.05 = 28 nats.
    assert -np.log(certain_NK[0, 1]) < 8


def test_the_fewer_the_labels_the_closer_the_temperature_to_one() -> None:
    problem = Problem([1, 1], spread=1.5)
    inverses = []
    for rows in (20, 100, 2000):
        drawn = (problem.draw(rows, temperature=3.0, seed=seed) for seed in range(20))
        inverses.append(np.median([1 / temperature_of(fit(*part)) for part in drawn]))
    assert 0.3 < inverses[2] < inverses[1] < inverses[0] < 0.7


def test_offsets_raise_hm_on_photos_never_seen_where_the_truth_allows_it() -> None:
    fresh_NK, fresh_N = IMBALANCED.draw(20_000, temperature=4.0, seed=99)
    none = Calibration(temperatures={}, offsets={}, gains=())
    before = hm_after(none, fresh_NK, fresh_N)
    told, true = [], []
    for seed in range(4):
        found = fit(*IMBALANCED.draw(1500, temperature=4.0, seed=seed))
        (offsets_K,) = found.offsets.values()
        # Rarer classes are favoured more.
        assert list(offsets_K) == sorted(offsets_K)
        assert offsets_K[0] == 0
        # 3.9 to 4.1 points over twelve seeds.
        true.append(hm_after(found, fresh_NK, fresh_N) - before)
        assert true[-1] > 0.03
        told.append(found.gains[0].hm_after - found.gains[0].hm_before)
    # What the gains say is what happens; each is of 1,500 labels, 58 of the rarest class, and off by a point or two.
    assert np.mean(told) == pytest.approx(np.mean(true), abs=0.015)


def test_on_noise_with_few_labels_hm_does_not_fall_on_average() -> None:
    changes = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        probabilities_NK = rng.dirichlet([3, 1, 1, 0.5, 0.5], 2030).astype(np.float32)
        labels_N = rng.choice(5, 2030, p=[0.5, 0.2, 0.15, 0.1, 0.05])
        found = fit(probabilities_NK[:30], labels_N[:30])
        plain = metrics.hm_of(labels_N[30:], probabilities_NK[30:].argmax(1))
        changes.append(hm_after(found, probabilities_NK[30:], labels_N[30:]) - plain)
    # A point at most; it is 0.4 here. Where nothing can be known, no rule is right every time: 7 of 60 kept offsets.
    assert np.mean(changes) > -0.01


def test_with_few_labels_and_nothing_to_gain_offsets_are_rare_and_cost_little() -> None:
    # Forty labels of five balanced classes: argmax is best.
    problem = Problem([1, 1, 1, 1, 1], spread=1.0)
    fresh_NK, fresh_N = problem.draw(5000, seed=99)
    before = metrics.hm_of(fresh_N, fresh_NK.argmax(1))
    found = [fit(*problem.draw(40, seed=seed)) for seed in range(30)]
    assert np.mean([bool(one.offsets) for one in found]) <= 0.2
    assert np.mean([hm_after(one, fresh_NK, fresh_N) for one in found]) > before - 0.003


def test_a_gain_is_not_taken_from_the_rows_that_it_was_fitted_to() -> None:
    # Each group's answers are all right or all wrong, as sure either way: what one half says of the temperature,
    # another half denies. Fitted to all, T lowers the NLL of those same rows; cross-fitted, it must not show that.
    rng = np.random.default_rng(3)
    rises = []
    for _ in range(20):
        groups_N = np.arange(60) // 10
        probabilities_NK = np.tile([0.75, 0.25], (60, 1))
        labels_N = (rng.random(6) > 0.75).astype(int)[groups_N]
        found = fit(probabilities_NK, labels_N, groups_N)
        (gain,) = found.gains
        in_sample_NK = calibrate.tempered(probabilities_NK, temperature_of(found))
        in_sample = -np.log(in_sample_NK[np.arange(60), labels_N]).mean()
        assert in_sample <= gain.nll_before
        rises.append((gain.nll_before - in_sample, gain.nll_before - gain.nll_after))
    fitted, held_out = np.mean(rises, 0)
    assert fitted > 0.03
    assert held_out < 0


def test_folds_divide_no_group_and_hold_each_row_once() -> None:
    groups_N = np.random.default_rng(0).integers(0, 12, 200)
    folds = list(calibrate._folds(groups_N, np.random.default_rng(0)))
    assert len(folds) == calibrate.FOLDS
    assert (sum(fold_N.astype(int) for _, fold_N in folds) == 1).all()
    for rest_N, fold_N in folds:
        assert (rest_N == ~fold_N).all()
        assert not set(groups_N[rest_N]) & set(groups_N[fold_N])
        # Twelve groups of about 17 rows in five folds.
        assert 20 <= fold_N.sum() <= 60


def test_an_attribute_without_labels_is_left_out() -> None:
    probabilities_NK, labels_N = BALANCED.draw(100, temperature=2.0, seed=0)
    labels_NL = np.stack([np.full(100, MISSING), labels_N], 1)
    found = calibrate.fit([category(4, 4)], [probabilities_NK] * 2, labels_NL, np.arange(100), seed=0)
    assert list(found.temperatures) == ["Cap/a1"]
    assert [gain.attribute for gain in found.gains] == ["a1"]
    empty = calibrate.fit([category(4)], [probabilities_NK], np.full((100, 1), MISSING), np.arange(100), seed=0)
    assert empty == Calibration(temperatures={}, offsets={}, gains=())


def test_an_attribute_of_which_one_class_is_present_gets_no_offsets() -> None:
    probabilities_NK, _ = BALANCED.draw(100, seed=0)
    found = fit(probabilities_NK, np.zeros(100, int))
    assert found.offsets == {}
    assert 0 < found.gains[0].hm_before < 1


@pytest.mark.parametrize("rows", [1, 3, calibrate.MIN_LABELS - 1])
def test_too_few_labels_change_nothing(rows: int) -> None:
    found = fit(*IMBALANCED.draw(rows, temperature=3.0, seed=0))
    assert (found.temperatures, found.offsets) == ({}, {})
    (gain,) = found.gains
    assert gain.labels == rows
    assert (gain.nll_after, gain.ece_after, gain.hm_after) == (gain.nll_before, gain.ece_before, gain.hm_before)


def test_one_group_gives_a_temperature_and_no_gain_that_nobody_could_measure() -> None:
    found = fit(*IMBALANCED.draw(1500, temperature=2.0, seed=0), np.zeros(1500, int))
    assert temperature_of(found) == pytest.approx(2.0, rel=0.15)
    assert found.offsets == {}
    (gain,) = found.gains
    assert (gain.nll_after, gain.ece_after, gain.hm_after) == (gain.nll_before, gain.ece_before, gain.hm_before)


def test_figures_before_are_those_of_the_scores() -> None:
    probabilities_NK, labels_N = IMBALANCED.draw(300, temperature=2.0, seed=0)
    (gain,) = fit(probabilities_NK, labels_N).gains
    (score,) = metrics.scores([category(4)], [probabilities_NK], labels_N[:, None], [0])
    assert (gain.hm_before, gain.labels) == (pytest.approx(score.hm), score.labels)
    # float32 there, float64 here.
    assert gain.nll_before == pytest.approx(score.loss, rel=1e-5)


def test_groups_may_be_names_and_their_order_and_that_of_attributes_do_not_matter() -> None:
    first, second = (IMBALANCED.draw(200, temperature=2.0, seed=seed) for seed in range(2))
    numbers_N = np.arange(200) // 4
    labels_NL = np.stack([first[1], second[1]], 1)
    both = calibrate.fit([category(4, 4)], [first[0], second[0]], labels_NL, numbers_N, seed=7)
    named = np.array([f"sender {number:02d}" for number in numbers_N], object)
    joint = [category(4), category(4, name="Hat")]
    apart = calibrate.fit(joint, [first[0], second[0]], labels_NL, named, seed=7)
    assert list(apart.temperatures.values()) == list(both.temperatures.values())
    assert [gain.nll_after for gain in apart.gains] == [gain.nll_after for gain in both.gains]
    assert [(gain.category, gain.attribute) for gain in apart.gains] == [("Cap", "a0"), ("Hat", "a0")]
    labels_NL[:, 0] = MISSING
    alone = calibrate.fit([category(4, 4)], [first[0], second[0]], labels_NL, numbers_N, seed=7)
    assert alone.gains == both.gains[1:]


def test_nan_and_what_is_no_probability_are_refused() -> None:
    probabilities_NK, labels_N = BALANCED.draw(50, seed=0)
    for wrong in (np.nan, -0.1, 1.5, np.inf):
        broken_NK = probabilities_NK.copy()
        broken_NK[7, 2] = wrong
        with pytest.raises(ValueError, match=r"probabilities of 'Cap/a0' must be 0 to 1, got "):
            fit(broken_NK, labels_N)
    # Also in a row that has no label.
    labels_N[7] = MISSING
    with pytest.raises(ValueError, match="must be 0 to 1"):
        fit(broken_NK, labels_N)


def test_arrays_that_do_not_fit_the_categories_are_refused() -> None:
    probabilities_NK, labels_N = BALANCED.draw(50, seed=0)
    groups_N = np.arange(50)
    with pytest.raises(ValueError, match=r"2 attributes need as many of each, got 1 arrays .* and 1 columns of labels"):
        calibrate.fit([category(4, 4)], [probabilities_NK], labels_N[:, None], groups_N, seed=0)
    with pytest.raises(ValueError, match=r"'Cap/a0' must be \[50, 3\], got \[50, 4\]"):
        calibrate.fit([category(3)], [probabilities_NK], labels_N[:, None], groups_N, seed=0)
    with pytest.raises(ValueError, match="labels have 50 rows, groups have 49"):
        calibrate.fit([category(4)], [probabilities_NK], labels_N[:, None], groups_N[1:], seed=0)
    with pytest.raises(ValueError, match="labels of 'Cap/a0' must be 0 to 3, got 0 to 4"):
        fit(probabilities_NK, np.where(groups_N == 9, 4, labels_N))


def test_true_probabilities_have_next_to_no_calibration_error() -> None:
    probabilities_NK, labels_N = BALANCED.draw(20_000, seed=0)
    # Fifteen bins of some 1,300 rows, each off by about 0.01 by chance.
    assert expected_calibration_error(probabilities_NK, labels_N) < 0.015


def test_with_offsets_fills_in_those_that_there_are_and_takes_out_the_others() -> None:
    categories = [category(2, 3), category(2, name="Hat")]
    filled = calibrate.with_offsets(categories, {"Cap/a1": (0.0, 0.5, 1.0), "Hat/a0": (0.0, 0.1)})
    assert [a.offsets for one in filled for a in one.attributes] == [(), (0.0, 0.5, 1.0), (0.0, 0.1)]
    assert calibrate.with_offsets(filled, {}) == tuple(categories)
    with pytest.raises(ValueError, match="2 offsets for output 'Cap/a1', which has 3 classes"):
        calibrate.with_offsets(categories, {"Cap/a1": (0.0, 1.0)})
    with pytest.raises(ValueError, match="2 offsets for output 'Shoe/a0', which has no classes"):
        calibrate.with_offsets(categories, {"Shoe/a0": (0.0, 1.0)})


def test_a_calibration_survives_json() -> None:
    found = fit(*IMBALANCED.draw(1500, temperature=2.0, seed=0))
    assert found.offsets
    assert msgspec.json.decode(msgspec.json.encode(found), type=Calibration) == found


def test_the_table_has_a_row_for_each_gain_and_their_average_last() -> None:
    drawn = [IMBALANCED.draw(200, temperature=2.0, seed=seed) for seed in range(2)]
    labels_NL = np.stack([labels_N for _, labels_N in drawn], 1)
    categories = [category(4), category(4, name="Hat")]
    gains = calibrate.fit(categories, [part for part, _ in drawn], labels_NL, np.arange(200), seed=0).gains
    first, second, average = calibrate.table(gains)
    assert len(first) == len(average) == len(calibrate.COLUMNS)
    assert [first[0], second[0], average[0]] == ["Cap a0", "Hat a0", "average"]
    assert [first[-1], second[-1], average[-1]] == ["200", "200", "400"]
    assert average[1] == f"{(gains[0].nll_before + gains[1].nll_before) / 2:.3f}"
    assert calibrate.table(gains[:1])[0][0] == "a0"
    assert calibrate.table([]) == []


def test_ten_attributes_of_three_thousand_rows_take_seconds() -> None:
    drawn = [Problem([8, 4, 2, 1, 1, 1], spread=1.0, seed=seed).draw(3000, seed=seed) for seed in range(10)]
    labels_NL = np.stack([labels_N for _, labels_N in drawn], 1)
    start = time.process_time()
    calibrate.fit([category(*[6] * 10)], [part for part, _ in drawn], labels_NL, np.arange(3000), seed=0)
    # 1 to 3 s of one core here, by how busy its neighbour is; 2.4 to 7 s with 21 classes.
    assert time.process_time() - start < 10

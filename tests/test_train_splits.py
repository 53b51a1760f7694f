"""Validation splits of made-up labels: what they share out, what they keep whole, and what they never depend on."""

# N rows, L attributes, G groups

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Sequence

import numpy as np
import pytest

from runtime.errors import UserError
from train.config import MISSING
from train.splits import folds, stratified

SHARE = 0.15
SEEDS = range(5)


def made_up(
    rows: int, *, attributes: int = 6, classes: int = 8, size: int = 1, missing: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, of each class half as many as of the one before, and groups of about `size` rows that are much alike."""
    rng = np.random.default_rng(seed)
    groups_N = np.arange(rows) if size == 1 else rng.integers(0, rows // size, rows)
    chances = 0.5 ** np.arange(classes)
    chances /= chances.sum()
    own_NL = rng.choice(classes, (rows, attributes), p=chances)
    of_group_NL = rng.choice(classes, (rows, attributes), p=chances)[groups_N]
    labels_NL = np.where(rng.random((rows, attributes)) < 0.5, of_group_NL, own_NL)
    labels_NL[rng.random((rows, attributes)) < missing] = MISSING
    return labels_NL, groups_N


def random_split(groups_N: np.ndarray, seed: int) -> np.ndarray:
    """What stratification is measured against: SHARE of the groups, whatever their labels."""
    names = np.unique(groups_N)
    return np.isin(groups_N, np.random.default_rng(seed).permutation(names)[: round(SHARE * len(names))])


def shares(labels_NL: np.ndarray, val_N: np.ndarray, *, at_least: int = 1) -> list[float]:
    """Val's part of the rows of each class that has so many rows."""
    masks = [column == label for column in labels_NL.T for label in np.unique(column[column != MISSING])]
    return [float(val_N[mask].mean()) for mask in masks if mask.sum() >= at_least]


def worst(labels_NL: np.ndarray, val_N: np.ndarray, *, at_least: int = 1) -> float:
    return max(abs(share - SHARE) for share in shares(labels_NL, val_N, at_least=at_least))


def sides(val_N: np.ndarray, groups_N: Sequence[Hashable] | np.ndarray) -> dict[Hashable, set[bool]]:
    found: dict[Hashable, set[bool]] = {}
    for group, val in zip(groups_N, val_N.tolist(), strict=True):
        found.setdefault(group, set()).add(val)
    return found


# Sharing out


@pytest.mark.parametrize("seed", SEEDS)
def test_single_rows_share_out_every_class_to_the_row(seed: int) -> None:
    labels_NL, groups_N = made_up(4000, seed=seed)
    val_N = stratified(labels_NL, groups_N, share=SHARE, seed=seed)
    assert (val_N.dtype, val_N.shape) == (np.dtype(bool), (4000,))
    # Half a row is the nearest that a whole number may be off; a row and a half leaves room for six attributes at once.
    for column in labels_NL.T:
        for label in range(8):
            mask = column == label
            assert abs(val_N[mask].sum() - SHARE * mask.sum()) <= max(1.5, 0.005 * mask.sum())
    assert val_N.mean() == pytest.approx(SHARE, abs=0.002)


@pytest.mark.parametrize("size", [1, 5, 20])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_worst_class_is_nearer_its_share_than_in_a_random_split(size: int, seed: int) -> None:
    labels_NL, groups_N = made_up(4000, size=size, seed=seed)
    ours, random = (
        worst(labels_NL, val_N, at_least=40)
        for val_N in (stratified(labels_NL, groups_N, share=SHARE, seed=seed), random_split(groups_N, seed))
    )
    assert ours < random / 2


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8])
def test_any_share_is_kept_to(share: float) -> None:
    labels_NL, groups_N = made_up(3000, size=5)
    val_N = stratified(labels_NL, groups_N, share=share, seed=0)
    assert val_N.mean() == pytest.approx(share, abs=0.01)
    found = shares(labels_NL, val_N, at_least=100)
    assert found == pytest.approx([share] * len(found), abs=0.02)


def test_rows_without_any_label_are_split_near_the_share_too() -> None:
    labels_NL, groups_N = made_up(1000)
    labels_NL[:400] = MISSING
    val_N = stratified(labels_NL, groups_N, share=SHARE, seed=0)
    assert val_N[:400].mean() == pytest.approx(SHARE, abs=0.01)
    assert val_N[400:].mean() == pytest.approx(SHARE, abs=0.01)


def test_a_table_without_any_label_or_any_attribute_is_split_near_the_share() -> None:
    for labels_NL in (np.full((200, 3), MISSING), np.empty((200, 0), np.int64)):
        assert stratified(labels_NL, range(200), share=SHARE, seed=0).sum() == 30  # SHARE of 200


def test_an_attribute_without_labels_changes_nothing() -> None:
    labels_NL, groups_N = made_up(500, size=5)
    wider_NL = np.insert(labels_NL, 2, MISSING, 1)
    for seed in SEEDS:
        one, other = (stratified(labels, groups_N, share=SHARE, seed=seed) for labels in (labels_NL, wider_NL))
        assert (one == other).all()


def test_a_missing_label_counts_nowhere() -> None:
    # Were MISSING a class, it would be in the first two rows alone, and they would be parted by every seed.
    labels_NL = np.array([[0, MISSING], [0, MISSING], [0, 0], [0, 0], [1, 0], [1, 0], [1, 0], [1, 0]])
    parted = [np.ptp(stratified(labels_NL, range(8), share=0.25, seed=seed)[:2].astype(int)) for seed in range(20)]
    assert set(parted) == {0, 1}


# Rare classes


@pytest.mark.parametrize("seed", range(20))
def test_a_class_of_three_rows_in_three_groups_is_on_both_sides(seed: int) -> None:
    labels_NL, groups_N = made_up(300, classes=3, seed=seed)
    labels_NL[[7, 70, 200], 2] = 3
    val_N = stratified(labels_NL, groups_N, share=SHARE, seed=seed)
    assert set(val_N[[7, 70, 200]].tolist()) == {False, True}


@pytest.mark.parametrize("seed", range(20))
def test_a_class_in_two_groups_is_on_both_sides(seed: int) -> None:
    labels_NL, groups_N = made_up(400, classes=3, size=10, seed=seed)
    labels_NL[np.isin(groups_N, [3, 30]), 2] = 3
    val_N = stratified(labels_NL, groups_N, share=SHARE, seed=seed)
    assert val_N[groups_N == 3].all() != val_N[groups_N == 30].all()


@pytest.mark.parametrize("seed", range(20))
def test_a_class_in_one_group_is_in_train(seed: int) -> None:
    labels_NL, groups_N = made_up(400, classes=3, size=10, seed=seed)
    labels_NL[groups_N == 3, 2] = 3
    labels_NL[groups_N == 30, 4] = 3
    val_N = stratified(labels_NL, groups_N, share=0.5, seed=seed)
    assert not val_N[np.isin(groups_N, [3, 30])].any()
    assert val_N.any()


def test_train_keeps_a_class_of_one_group_before_val_is_given_several_of_two() -> None:
    # Two groups hold all of class 1: of the first two attributes one each, of the last three both.
    labels_NL = np.zeros((12, 5), np.int64)
    labels_NL[0], labels_NL[1] = (1, 0, 1, 1, 1), (0, 1, 1, 1, 1)
    for seed in SEEDS:
        val_N = stratified(labels_NL, range(12), share=0.25, seed=seed)
        assert val_N[:2].tolist() == [False, False]
        assert val_N.sum() == 3


@pytest.mark.parametrize("seed", range(40))
def test_of_few_groups_no_split_at_all_leaves_fewer_classes_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 10))
    groups_N = np.r_[np.arange(count), rng.integers(0, count, count)]
    labels_NL = rng.integers(MISSING, 4, (2 * count, 3))
    masks = [column == label for column in labels_NL.T for label in range(4) if (column == label).any()]
    shared = [mask for mask in masks if len(set(groups_N[mask])) > 1]

    def left_out(val_N: np.ndarray) -> tuple[int, int]:
        """How many classes train lacks, and how many of those in two groups or more val lacks."""
        return sum(bool(val_N[mask].all()) for mask in masks), sum(not val_N[mask].any() for mask in shared)

    labelled_N = (labels_NL != MISSING).any(1)
    every = (np.array(sides, bool)[groups_N] for sides in itertools.product((0, 1), repeat=count))
    best = min(left_out(val_N) for val_N in every if val_N[labelled_N].any())
    assert left_out(stratified(labels_NL, groups_N, share=SHARE, seed=seed)) == best


def test_val_has_a_labelled_row_even_where_every_class_is_in_one_group() -> None:
    labels_NL = np.array([[0], [1], [2], [MISSING], [MISSING]])
    for seed in SEEDS:
        val_N = stratified(labels_NL, range(5), share=0.2, seed=seed)
        assert val_N[:3].sum() == 1


def test_the_one_group_with_labels_is_in_train() -> None:
    labels_NL = np.array([[0, 0], [1, 1], [MISSING, MISSING]])
    for seed in SEEDS:
        assert stratified(labels_NL, ["a", "a", "b"], share=0.5, seed=seed).tolist() == [False, False, True]


@pytest.mark.parametrize("seed", SEEDS)
def test_both_sides_have_every_class_that_any_split_of_a_chain_could_give_them(seed: int) -> None:
    # Each class is in two neighbouring groups, so that the one split with all classes on both sides takes every second.
    links = np.random.default_rng(seed).permutation(40)
    groups = [group for pair in itertools.pairwise(links.tolist()) for group in pair]
    labels_NL = np.repeat(np.arange(39), 2)[:, None]
    val_N = stratified(labels_NL, groups, share=SHARE, seed=seed)
    assert (val_N[::2] != val_N[1::2]).all()


# Groups


@pytest.mark.parametrize("size", [3, 20, 200])
def test_a_group_is_never_divided(size: int) -> None:
    labels_NL, groups_N = made_up(2000, size=size)
    for seed in SEEDS:
        val_N = stratified(labels_NL, groups_N, share=SHARE, seed=seed)
        assert all(len(found) == 1 for found in sides(val_N, groups_N).values())
        assert 0 < val_N.sum() < 2000


def test_a_group_larger_than_the_share_stays_in_train_where_smaller_ones_can_serve() -> None:
    labels_NL, _ = made_up(1000, missing=0.0, classes=3)
    groups_N = np.r_[np.zeros(600, np.int64), np.arange(400) // 10 + 1]
    val_N = stratified(labels_NL, groups_N, share=SHARE, seed=0)
    assert not val_N[:600].any()
    assert val_N.mean() == pytest.approx(SHARE, abs=0.01)


def test_two_groups_go_to_a_side_each() -> None:
    labels_NL = np.array([[0], [1], [0], [1]])
    for seed in SEEDS:
        assert sorted(stratified(labels_NL, ["a", "a", "b", "b"], share=SHARE, seed=seed).tolist()) == [0, 0, 1, 1]


def test_groups_of_unlike_kinds_are_told_apart() -> None:
    # "1" and 1 would be one group if they were made text, and a pair two dimensions if it were made an array.
    groups: list[Hashable] = ["1", 1, ("1", 1), None] * 25
    val_N = stratified(np.tile([[0], [0], [1], [1]], (25, 1)), groups, share=0.5, seed=0)
    found = sides(val_N, groups)
    assert all(len(home) == 1 for home in found.values())
    assert found["1"] != found[1]
    assert found["1", 1] != found[None]


# What a split depends on


@pytest.mark.parametrize("size", [1, 10])
def test_a_seed_gives_the_same_split_again_and_another_seed_another(size: int) -> None:
    labels_NL, groups_N = made_up(1000, size=size)
    first, again, other = (stratified(labels_NL, groups_N, share=SHARE, seed=seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("size", [1, 10])
def test_the_order_of_the_rows_changes_nothing(size: int) -> None:
    labels_NL, groups_N = made_up(1000, size=size)
    order = np.random.default_rng(7).permutation(1000)
    val_N = stratified(labels_NL, groups_N, share=SHARE, seed=0)
    assert (stratified(labels_NL[order], groups_N[order], share=SHARE, seed=0) == val_N[order]).all()


def test_groups_may_be_an_array_or_a_sequence_of_the_same_names() -> None:
    labels_NL, groups_N = made_up(500, size=5)
    names = [f"sender {group}" for group in groups_N]
    as_list, as_text, as_objects = (
        stratified(labels_NL, groups, share=SHARE, seed=0)
        for groups in (names, np.array(names), np.array(names, object))
    )
    assert (as_list == as_text).all() and (as_list == as_objects).all()


def test_the_labels_given_are_left_as_they_were() -> None:
    labels_NL, groups_N = made_up(200, size=5)
    before = labels_NL.copy(), groups_N.copy()
    stratified(labels_NL, groups_N, share=SHARE, seed=0)
    assert (labels_NL == before[0]).all() and (groups_N == before[1]).all()


@pytest.mark.parametrize("size", [1, 20])
def test_a_table_as_large_as_the_challenge_takes_seconds(size: int) -> None:
    labels_NL, groups_N = made_up(70_213, attributes=42, classes=4, size=size)
    start = time.perf_counter()
    val_N = stratified(labels_NL, groups_N, share=SHARE, seed=0)
    seconds = time.perf_counter() - start
    assert seconds < 10  # about 1 on two cores; the rest is for busy machines
    assert worst(labels_NL, val_N) < 0.005


# Folds


def test_folds_are_alike_in_size_and_classes() -> None:
    labels_NL, groups_N = made_up(1000)
    folds_N = folds(labels_NL, groups_N, count=5, seed=0)
    for fold in range(5):
        assert (folds_N == fold).mean() == pytest.approx(0.2, abs=0.01)
        # Of a class with 20 labels one more or less is a twentieth.
        assert all(0.15 <= share <= 0.25 for share in shares(labels_NL, folds_N == fold, at_least=20))


def test_no_fold_divides_a_group_and_a_seed_gives_them_again() -> None:
    labels_NL, groups_N = made_up(300, size=5)
    folds_N = folds(labels_NL, groups_N, count=4, seed=1)
    assert sorted(set(folds_N.tolist())) == [0, 1, 2, 3]
    assert all(len(set(folds_N[groups_N == group])) == 1 for group in set(groups_N))
    assert np.array_equal(folds_N, folds(labels_NL, groups_N, count=4, seed=1))


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_of_few_groups_there_are_fewer_folds_none_of_them_empty(groups: int) -> None:
    labels_NL, _ = made_up(60)
    groups_N = np.arange(60) % groups
    folds_N = folds(labels_NL, groups_N, count=5, seed=0)
    made = folds_N.max() + 1
    assert 2 <= made <= groups and set(folds_N.tolist()) == set(range(made))


# Mistakes


@pytest.mark.parametrize("rows", [0, 5])
def test_fewer_than_two_groups_cannot_be_split_and_the_way_out_is_named(rows: int) -> None:
    message = (
        f"needs two groups or more, since none is divided, got {min(rows, 1)}\nadd rows of other groups, or give a `sp"
    )
    with pytest.raises(UserError, match=message):
        stratified(np.zeros((rows, 2), np.int64), ["anna"] * rows, share=SHARE, seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 15, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=f"share must be above 0 and below 1, got {share}"):
        stratified(np.zeros((4, 1), np.int64), range(4), share=share, seed=0)


@pytest.mark.parametrize("labels", [np.zeros((3, 1), np.int64), np.zeros(4, np.int64)], ids=["short", "flat"])
def test_labels_that_are_not_one_row_for_each_group_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"labels must be \[N, L\], a row for each of 4 groups_N, got \("):
        stratified(labels, range(4), share=SHARE, seed=0)

"""Which rows are for validation: every class shared out alike, no group divided, missing labels counted nowhere."""

# N rows, L attributes, G groups, K labels (every class of every attribute), E entries (a group and a label it has)

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import UserError
from train.config import MISSING

# Entries that the moves after the first pass may look at: half a second here. Counted and not timed, so that a busy
# machine splits as an idle one does. 70,213 rows of 42 labels get ten moves: the one pass has left them even already.
WORK = 30_000_000
# Few groups are cheap to split several times over, once the hardest first and then in any order. Of 1,000 random tables
# of 3 to 12 groups, one try left out more than the best of all splits in 15, two in 6, four in 1, eight in none.
TRIES = 8
ROUNDS_OF_A_TRY = 500
# Moves without a gain before a pass is given up.
PATIENCE = 30


def stratified(
    labels_NL: np.ndarray, groups_N: Sequence[Hashable] | np.ndarray, *, share: float, seed: int
) -> np.ndarray:
    """bool [N]: True for the rows of the validation split, about `share` of all and of the rows of every class.

    In this order: train has rows of every class, and val of every class that is in two groups or more, as far as the
    groups allow; the share of each class that is val's, and of all rows and of the labelled ones, is near `share`.

    After iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, ECML PKDD
    2011): each class of each attribute is a label, and the rarest labels are shared out first. Here whole groups are
    assigned, all labels of a group decide where it goes, and single moves then mend what the one pass left uneven.

    The seed and the groups settle the split, whatever the order of the rows, as long as no two groups have the same
    `repr`: by it they are sorted before they are shuffled.

    Args:
        labels_NL: int64 class indices, MISSING where a row has no label.
        groups_N: the group of each row, any hashable; ids, where every row stands for itself.
        share: of the validation split, above 0 and below 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, got {share}")
    if labels_NL.ndim != 2 or len(labels_NL) != len(groups_N):
        raise ValueError(f"labels must be [N, L], a row for each of {len(groups_N)} groups_N, got {labels_NL.shape}")
    names = groups_N.tolist() if isinstance(groups_N, np.ndarray) else groups_N
    codes = {name: code for code, name in enumerate(sorted(dict.fromkeys(names), key=repr))}
    if len(codes) < 2:
        raise UserError(
            f"a validation split needs two groups or more, since none is divided, got {len(codes)}\n"
            "add rows of other groups, or give a `split` column (train, val) in place of a `group` column"
        )
    codes_N = np.array([codes[name] for name in names])
    entries = _entries(labels_NL, codes_N, share)
    rng = np.random.default_rng(seed)
    rounds = WORK // len(entries.labels_E)
    tries = min(max(rounds // ROUNDS_OF_A_TRY, 1), TRIES)
    orders = [_hardest_first(entries, rng), *(rng.permutation(len(codes)).tolist() for _ in range(tries - 1))]
    found = [_refined(_Split(entries, _first_pass(entries, order)), rounds // tries) for order in orders]
    val_N: np.ndarray = min(found, key=_Split.cost).val_G[codes_N]
    return val_N


def folds(labels_NL: np.ndarray, groups_N: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """int64 [N]: the fold of each row, of `count` alike in size and classes, or fewer where groups are few: none is
    divided.

    A fifth is split off, then a quarter of the rest, and so on, each as `stratified` does.

    Args:
        labels_NL: int64 class indices, MISSING where a row has no label.
        groups_N: the group of each row, as there.
    """
    folds_N = np.zeros(len(groups_N), np.int64)
    left = np.arange(len(groups_N))
    for fold in range(count - 1):
        if len(set(groups_N[left].tolist())) < 2:
            break
        chosen_N = stratified(labels_NL[left], groups_N[left], share=1 / (count - fold), seed=seed)
        left = left[~chosen_N]
        folds_N[left] = fold + 1
    return folds_N


@dataclass(frozen=True, kw_only=True)
class _Entries:
    """What every group has of every label, and what is wanted of each label."""

    labels_E: np.ndarray
    """int64; the entries of a group follow each other, and no group is without one."""
    parts_E: np.ndarray
    """float64, 0-1: the part of the label's rows that are in this group."""
    sizes_G: np.ndarray
    starts_G: np.ndarray
    groups_K: np.ndarray
    """How many groups have the label; 0 for an index that nothing uses."""
    target_K: np.ndarray
    """float64, 0-1: val's part of the label's rows, as near `share` as a label of few groups can come."""
    train_lacks_K: np.ndarray
    """float64: what it costs when train has no row of the label; any such cost outweighs all unevenness."""
    val_lacks_K: np.ndarray

    def sums_G(self, values_E: np.ndarray) -> np.ndarray:
        """For each group, the sum over its entries."""
        # Not a dot product, here and in the first pass: BLAS rounds as the machine has it, and a near tie would turn.
        sums_G: np.ndarray = np.add.reduceat(values_E, self.starts_G)
        return sums_G


def _entries(labels_NL: np.ndarray, codes_N: np.ndarray, share: float) -> _Entries:
    labelled_N = (labels_NL != MISSING).any(1)
    # Two attributes more, of one class each, keep the rows and the labelled rows near the share.
    columns_NL = np.column_stack([np.zeros_like(codes_N), np.where(labelled_N, 0, MISSING), labels_NL])
    classes_L = columns_NL.max(0) + 1
    offsets_L = np.cumsum(classes_L) - classes_L
    count = int(classes_L.sum())
    order_N = np.argsort(codes_N, kind="stable")
    columns_NL = columns_NL[order_N]
    keys = (codes_N[order_N, None] * count + offsets_L + columns_NL)[columns_NL != MISSING]
    # Nearly in order as they are, which this kind of sort uses: 5 ms for three million, where np.unique takes 340.
    keys.sort(kind="stable")
    first_E = np.flatnonzero(np.diff(keys, prepend=-1))
    codes_E, labels_E = np.divmod(keys[first_E], count)
    rows_E = np.diff(first_E, append=len(keys))
    groups_K = np.bincount(labels_E, minlength=count)
    among_K = np.maximum(groups_K, 1)
    sizes_G = np.bincount(codes_E)
    # Each step outweighs all of the steps below it: unevenness, which is less than 1 a label; classes that val lacks;
    # classes that train lacks, which cannot be learnt; a val without a row, or without a labelled one.
    step = float(count + 1)
    vital_K = np.arange(count) < classes_L[:2].sum()
    return _Entries(
        labels_E=labels_E,
        parts_E=rows_E / np.bincount(labels_E, rows_E, minlength=count)[labels_E],
        sizes_G=sizes_G,
        starts_G=np.cumsum(sizes_G) - sizes_G,
        groups_K=groups_K,
        target_K=np.where(groups_K > 1, np.clip(share, 1 / among_K, 1 - 1 / among_K), 0.0),
        train_lacks_K=step**2 * (groups_K > 0),
        val_lacks_K=np.where(vital_K, step**3, step) * (groups_K > 1),
    )


def _hardest_first(entries: _Entries, rng: np.random.Generator) -> list[int]:
    """Every group once, the hardest to place first."""
    most_G = np.maximum.reduceat(entries.parts_E, entries.starts_G)
    shuffled_G = rng.permutation(len(most_G))
    # The greatest part of any label first: the rarest labels, and the groups too large to be made up for later.
    first_G = shuffled_G[np.argsort(-most_G[shuffled_G], kind="stable")]
    # Two groups that alone have a label go to a side each. Along a chain of such pairs the first settles all others:
    # they follow it at once, since chains begun at several places would not meet, and no single move mends that.
    paired = np.flatnonzero(entries.groups_K[entries.labels_E] == 2)
    paired = paired[np.argsort(entries.labels_E[paired], kind="stable")]
    codes = np.searchsorted(entries.starts_G, paired, side="right") - 1
    partners: dict[int, list[int]] = {}
    for one, other in codes.reshape(-1, 2).tolist():
        partners.setdefault(one, []).append(other)
        partners.setdefault(other, []).append(one)
    order: dict[int, None] = {}
    for group in first_G.tolist():
        waiting = [group]
        while waiting:
            if (now := waiting.pop()) not in order:
                order[now] = None
                waiting.extend(partners.get(now, ()))
    return list(order)


def _first_pass(entries: _Entries, order: list[int]) -> np.ndarray:
    """bool [G]: each group put where it leaves the labels nearest to their targets, among the groups seen so far."""
    target_E = entries.target_K[entries.labels_E]
    if_val_E = entries.parts_E * (1 - target_E)
    if_train_E = -entries.parts_E * target_E
    # Of two sums of squares, (ahead + if_val)² and (ahead + if_train)², the difference is 2 ahead · part + this.
    difference_G = entries.sums_G(if_val_E**2 - if_train_E**2).tolist()
    starts, stops = entries.starts_G.tolist(), (entries.starts_G + entries.sizes_G).tolist()
    ahead_K = np.zeros(len(entries.target_K))
    val_G = np.zeros(len(starts), bool)
    for group in order:
        own = slice(starts[group], stops[group])
        labels = entries.labels_E[own]
        ahead = ahead_K[labels]
        val_G[group] = 2 * (ahead * entries.parts_E[own]).sum() + difference_G[group] < 0
        ahead_K[labels] = ahead + (if_val_E if val_G[group] else if_train_E)[own]
    return val_G


class _Split:
    """A split that groups can be moved in, one by one."""

    def __init__(self, entries: _Entries, val_G: np.ndarray) -> None:
        self._entries = entries
        self.val_G = val_G
        self._val_E = np.repeat(val_G, entries.sizes_G)
        self._squares_G = entries.sums_G(entries.parts_E**2)
        count = len(entries.target_K)
        self._ahead_K = np.bincount(entries.labels_E, entries.parts_E * self._val_E, count) - entries.target_K
        self._val_K = np.bincount(entries.labels_E[self._val_E], minlength=count)

    def cost(self) -> tuple[float, float]:
        """What either side lacks, then how uneven the labels are; less is better."""
        entries = self._entries
        lacks = entries.val_lacks_K[self._val_K == 0].sum() + entries.train_lacks_K[self._train_K == 0].sum()
        # Rounded, since a change of rounding error alone is no gain. Unused labels have target 0, and add nothing.
        return float(lacks), round(float((self._ahead_K**2).sum()), 12)

    def changes_G(self) -> np.ndarray:
        """What moving each group to the other side would add to the cost, all in one sum."""
        entries = self._entries
        leave_train_K = entries.train_lacks_K * (self._train_K == 1) - entries.val_lacks_K * (self._val_K == 0)
        leave_val_K = entries.val_lacks_K * (self._val_K == 1) - entries.train_lacks_K * (self._train_K == 0)
        lacks_E = np.concatenate([leave_train_K, leave_val_K])[entries.labels_E + len(leave_train_K) * self._val_E]
        ahead_G = entries.sums_G(self._ahead_K[entries.labels_E] * entries.parts_E)
        changes_G: np.ndarray = np.where(self.val_G, -2.0, 2.0) * ahead_G + self._squares_G + entries.sums_G(lacks_E)
        return changes_G

    def move(self, group: int) -> None:
        start = self._entries.starts_G[group]
        own = slice(start, start + self._entries.sizes_G[group])
        labels = self._entries.labels_E[own]
        sign = -1 if self.val_G[group] else 1
        self._ahead_K[labels] += sign * self._entries.parts_E[own]
        self._val_K[labels] += sign
        self._val_E[own] = self.val_G[group] = not self.val_G[group]

    @property
    def _train_K(self) -> np.ndarray:
        return self._entries.groups_K - self._val_K


def _refined(split: _Split, rounds: int) -> _Split:
    """The same split after as many moves as `rounds` at most, each the best there is.

    Passes after Fiduccia and Mattheyses (A linear-time heuristic for improving network partitions, DAC 1982): a group
    moves once in a pass, be it at a loss, and the pass is then taken back to where it was best. So a pair of moves is
    found neither of which is good alone.
    """
    while rounds:
        best, moved, kept = split.cost(), list[int](), 0
        free_G = np.ones(len(split.val_G), bool)
        while rounds and len(moved) < len(free_G) and len(moved) - kept < PATIENCE:
            rounds -= 1
            group = int(np.where(free_G, split.changes_G(), np.inf).argmin())
            split.move(group)
            free_G[group] = False
            moved.append(group)
            if (cost := split.cost()) < best:
                best, kept = cost, len(moved)
        for group in moved[kept:]:
            split.move(group)
        if not kept:
            break
    return split

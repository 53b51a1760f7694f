"""The losses against the same numbers computed by hand, in float64."""

# B batch, K classes, F features

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from train.config import MISSING
from train.losses import BANDWIDTHS, masked_cross_entropy, mmd

LABELS_BL = torch.tensor([[0, 1], [2, MISSING], [MISSING, 0], [1, MISSING], [MISSING, MISSING]])


def logits() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [(3 * torch.randn(5, count, generator=generator)).requires_grad_() for count in (3, 2)]


def by_hand(logits_BK: np.ndarray, labels_B: np.ndarray, smoothing: float) -> float:
    """The mean over labelled rows of -sum(target * log(softmax))."""
    rows = []
    for row_K, label in zip(logits_BK.astype(np.float64), labels_B, strict=True):
        if label != MISSING:
            log_K = row_K - np.log(np.exp(row_K).sum())
            rows.append(-(1 - smoothing) * log_K[label] - smoothing * log_K.mean())
    return float(np.mean(rows)) if rows else 0.0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_masked_cross_entropy_is_the_mean_of_the_labelled_rows_of_each_attribute(smoothing: float) -> None:
    found = masked_cross_entropy(logits(), LABELS_BL, smoothing=smoothing)
    columns = zip(logits(), LABELS_BL.unbind(1), strict=True)
    expected = np.mean([by_hand(some.detach().numpy(), labels.numpy(), smoothing) for some, labels in columns])
    assert found.item() == pytest.approx(expected, rel=1e-6)  # a few float32 additions


def test_a_row_without_a_label_has_no_gradient_and_every_other_has_one() -> None:
    some = logits()
    masked_cross_entropy(some, LABELS_BL, smoothing=0.1).backward()
    for logits_BK, labels_B in zip(some, LABELS_BL.unbind(1), strict=True):
        assert logits_BK.grad is not None
        assert (logits_BK.grad.abs().sum(1) > 0).equal(labels_B != MISSING)


def test_what_stands_in_an_unlabelled_row_does_not_change_the_loss() -> None:
    some = [logits_BK.detach().clone() for logits_BK in logits()]
    before = masked_cross_entropy(some, LABELS_BL)
    some[0][2] += 50
    assert masked_cross_entropy(some, LABELS_BL).equal(before)


def test_an_attribute_without_any_label_in_the_batch_counts_as_zero() -> None:
    labels_BL = LABELS_BL.clone()
    labels_BL[:, 1] = MISSING
    some = logits()
    loss = masked_cross_entropy(some, labels_BL)
    loss.backward()
    assert loss.item() == pytest.approx(by_hand(some[0].detach().numpy(), labels_BL[:, 0].numpy(), 0.0) / 2, rel=1e-6)
    assert some[1].grad is not None
    assert not some[1].grad.any()


# MMD


def draws(count: int, *, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)) + shift


def brute_force(source_BF: np.ndarray, target_BF: np.ndarray) -> float:
    """The unbiased estimate, one pair at a time, in float64."""
    joint = np.concatenate([source_BF, target_BF]).astype(np.float64)
    pairs = [(a, b) for a in range(len(joint)) for b in range(len(joint)) if a != b]
    squared = {(a, b): float(((joint[a] - joint[b]) ** 2).sum()) for a, b in pairs}
    ordered = sorted(squared.values())
    scale = ordered[(len(ordered) - 1) // 2]  # the lower of the middle two, as torch's median
    kernel = {pair: np.mean([np.exp(-value / (b * scale)) for b in BANDWIDTHS]) for pair, value in squared.items()}
    source, target = range(len(source_BF)), range(len(source_BF), len(joint))
    return float(
        np.mean([kernel[a, b] for a in source for b in source if a != b])
        + np.mean([kernel[a, b] for a in target for b in target if a != b])
        - 2 * np.mean([kernel[a, b] for a in source for b in target])
    )


@pytest.mark.parametrize(("count", "others", "shift"), [(7, 4, 0.0), (5, 6, 1.0), (2, 2, 0.5)])
def test_mmd_equals_the_sum_over_every_pair(count: int, others: int, shift: float) -> None:
    source_BF, target_BF = draws(count, seed=1), draws(others, seed=2, shift=shift)
    found = mmd(source_BF, target_BF).item()
    # Terms are at most 1: float32 leaves some 1e-7 of each.
    assert found == pytest.approx(brute_force(source_BF.numpy(), target_BF.numpy()), abs=1e-6)


def test_mmd_is_near_zero_for_one_distribution_and_grows_with_the_shift() -> None:
    same, near, far = (mmd(draws(128, seed=3), draws(128, seed=4, shift=shift)).item() for shift in (0.0, 0.5, 1.0))
    # Unbiased: over seeds its spread is 1e-3 at this size, and a shift of half a deviation gives 50 times that.
    assert abs(same) < 5e-3
    assert 0.02 < near < far


def test_mmd_has_a_gradient_that_draws_the_two_sides_together() -> None:
    source_BF = draws(16, seed=5).requires_grad_()
    target_BF = draws(16, seed=6, shift=1.0).requires_grad_()
    before = mmd(source_BF, target_BF)
    before.backward()
    for side_BF in (source_BF, target_BF):
        assert side_BF.grad is not None
        assert (side_BF.grad.abs().sum(1) > 0).all()
    with torch.no_grad():
        assert mmd(source_BF - 5 * source_BF.grad, target_BF - 5 * target_BF.grad) < before - 1e-3


def test_the_gradient_of_mmd_is_finite_where_photos_coincide() -> None:
    source_BF = torch.ones(3, 4, requires_grad=True)
    mmd(source_BF, torch.ones(3, 4)).backward()
    assert source_BF.grad is not None
    assert torch.isfinite(source_BF.grad).all()


@pytest.mark.parametrize(("count", "others"), [(1, 4), (4, 1), (0, 0)])
def test_mmd_needs_two_photos_on_each_side(count: int, others: int) -> None:
    with pytest.raises(ValueError, match=f"two photos are needed on each side, got {count} and {others}"):
        mmd(torch.zeros(count, 4), torch.zeros(others, 4))

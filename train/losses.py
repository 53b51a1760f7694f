"""What training minimises: cross-entropy where a label is known, and the distance between two domains."""

# B batch, L attributes, K classes, F features, M both sides' photos

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train.config import MISSING

BETA = 0.999
"""At 0.999 a class's effective number stops at 1,000 labels: only rare classes are raised. Of the challenge's 42
attributes the median one keeps 96 % of its sample's worth, sum(w)^2 / n sum(w^2), and the most uneven one 25 %;
inverse frequency would keep 49 % and 7 %."""

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the median squared distance, one Gaussian kernel each."""


def masked_cross_entropy(
    logits: Sequence[Tensor],
    labels_BL: Tensor,
    *,
    smoothing: float = 0.0,
    weights: Sequence[Tensor] | None = None,
    log_priors: Sequence[Tensor] | None = None,
    counts_L: Tensor | None = None,
) -> Tensor:
    """Mean over the attributes of the cross-entropy over their labelled rows, in float32 or wider.

    Args:
        logits: one [B, K] tensor an attribute.
        labels_BL: class indices, int64; MISSING where there is no label, which then counts nowhere.
        weights: one [K] tensor an attribute, from `balanced_weights`: how much a row of each class counts.
        log_priors: one [K] tensor an attribute, from `log_prior`, added to the logits here and not in inference
            (Menon et al., 2021): the logits themselves then answer as if every class were as common as the others.
        counts_L: the labelled rows that the optimiser step sees of each attribute, in all of its passes and processes;
            those of this batch by default. The losses of a batch's parts then add up to the loss of the whole. Where
            gradients are averaged over P processes, give the counts divided by P.
    """
    assert labels_BL.shape == (len(logits[0]), len(logits)), "one column of labels for each attribute"
    device = logits[0].device
    classes = [logits_BK.shape[1] for logits_BK in logits]
    classes_L = torch.tensor(classes, device=device)
    first_L = classes_L.cumsum(0) - classes_L
    with torch.autocast(device.type, enabled=False):
        joint_BK = torch.cat(list(logits), 1)
        joint_BK = joint_BK.to(torch.promote_types(joint_BK.dtype, torch.float32))
    if log_priors is not None:
        joint_BK = joint_BK + _joint(log_priors, classes).to(joint_BK)
    # All attributes in one tensor, as wide as the one of the most classes: a loop over 42 takes three times as long.
    place_K = torch.arange(max(classes), device=device)
    beyond_LK = place_K >= classes_L[:, None]
    joint_BLK = joint_BK[:, (first_L[:, None] + place_K).masked_fill(beyond_LK, 0)]
    logs_BLK = joint_BLK.masked_fill(beyond_LK, -torch.inf).log_softmax(2)
    known_BL = labels_BL != MISSING
    index_BL = labels_BL.clamp_min(0)
    rows_BL = -logs_BLK.gather(2, index_BL[:, :, None])[:, :, 0]
    if smoothing:
        even_BL = -logs_BLK.masked_fill(beyond_LK, 0.0).sum(2) / classes_L
        rows_BL = (1 - smoothing) * rows_BL + smoothing * even_BL
    if weights is not None:
        # A row's weight is its label's, smoothed or not. torch's own weights would multiply the smoothed part by
        # each class's weight, whatever the label, and so put the most of it where labels are fewest.
        rows_BL = rows_BL * _joint(weights, classes).to(rows_BL)[first_L + index_BL]
    counts_L = known_BL.sum(0) if counts_L is None else counts_L
    # Plain counts even with weights: those are 1 on average over the training labels, so that the loss keeps its
    # scale, while a batch's own sum of weights would cancel them wherever it held a single class.
    counts_L = counts_L.to(rows_BL)
    counts_L = counts_L.where(counts_L > 0, 1.0)
    return (rows_BL.where(known_BL, 0.0).sum(0) / counts_L).mean()


def balanced_weights(counts_K: Tensor) -> Tensor:
    """The weight of a row of each class, float32, falling with the class's labels and 1 on average over all labels.

    One over the class's effective number (Cui et al., 2019). A class without labels weighs as one of a single label.
    """
    counts_K = counts_K.double()
    raw_K = (1 - BETA) / (1 - BETA ** counts_K.clamp_min(1))
    total = counts_K.sum()
    mean = (raw_K * counts_K).sum() / total if total > 0 else raw_K.mean()
    return (raw_K / mean).float()


def log_prior(counts_K: Tensor) -> Tensor:
    """The logarithm of each class's share of the labels, float32, one label added to every class."""
    return ((counts_K.double() + 1) / (counts_K.double() + 1).sum()).log().float()


def mmd(source_BF: Tensor, target_BF: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between two samples, unbiased, with a gradient (Gretton et al., 2012).

    A mean of Gaussian kernels (Long et al., 2015), their bandwidths multiples of the median squared distance
    within the joint sample: whatever the features' unit and their number, no kernel saturates. The estimate may
    fall slightly below zero for equal distributions. In float32 or wider, under autocast too.
    """
    count, others = len(source_BF), len(target_BF)
    if count < 2 or others < 2:
        raise ValueError(f"two photos are needed on each side, got {count} and {others}")
    with torch.autocast(source_BF.device.type, enabled=False):
        joint_MF = torch.cat([source_BF, target_BF])
        joint_MF = joint_MF.to(torch.promote_types(joint_MF.dtype, torch.float32))
        # Not cdist, though faster: it takes a root, whose slope is infinite where two photos coincide.
        squared_MM = (joint_MF[:, None] - joint_MF).square().sum(2)
        # The scale is a unit of measurement: without detaching it, the loss could fall by inflating it.
        scale = _scale(squared_MM.detach())
        kernel_MM = torch.stack([torch.exp(-squared_MM / (factor * scale)) for factor in BANDWIDTHS]).mean(0)
        kernel_MM = kernel_MM.masked_fill(torch.eye(len(joint_MF), dtype=torch.bool, device=joint_MF.device), 0.0)
        within_source = kernel_MM[:count, :count].sum() / (count * (count - 1))
        within_target = kernel_MM[count:, count:].sum() / (others * (others - 1))
        return within_source + within_target - 2 * kernel_MM[:count, count:].mean()


def _joint(rows: Sequence[Tensor], classes: list[int]) -> Tensor:
    assert [len(row_K) for row_K in rows] == classes, "one value for each class of each attribute"
    return torch.cat(list(rows))


def _scale(squared_MM: Tensor) -> Tensor:
    """The median squared distance over the pairs, above zero even where all coincide."""
    first, second = torch.triu_indices(len(squared_MM), len(squared_MM), offset=1, device=squared_MM.device)
    return squared_MM[first, second].median().clamp_min(1e-30)

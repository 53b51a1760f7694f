"""What training minimises: cross-entropy where a label is known, and the distance between two domains."""

# B batch, K classes, F features

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from train.config import MISSING

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the median squared distance, one Gaussian kernel each."""


def masked_cross_entropy(logits: Sequence[Tensor], labels_BL: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean over the attributes of the cross-entropy over their labelled rows.

    Args:
        logits: one [B, K] tensor an attribute.
        labels_BL: class indices, int64; MISSING where there is no label, which then counts nowhere.
    """
    losses = []
    for logits_BK, labels_B in zip(logits, labels_BL.unbind(1), strict=True):
        total = functional.cross_entropy(
            logits_BK, labels_B, ignore_index=MISSING, label_smoothing=smoothing, reduction="sum"
        )
        losses.append(total / (labels_B != MISSING).sum().clamp_min(1))
    return torch.stack(losses).mean()


def mmd(source_BF: Tensor, target_BF: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between two samples, unbiased, with a gradient (Gretton et al., 2012).

    A mean of Gaussian kernels (Long et al., 2015), their bandwidths multiples of the median squared distance
    within the joint sample. The estimate may fall slightly below zero for equal distributions.
    """
    count, others = len(source_BF), len(target_BF)
    if count < 2 or others < 2:
        raise ValueError(f"two photos are needed on each side, got {count} and {others}")
    joint = torch.cat([source_BF, target_BF]).float()
    distances = torch.cdist(joint, joint, compute_mode="donot_use_mm_for_euclid_dist").square()
    off_diagonal = ~torch.eye(len(joint), dtype=torch.bool, device=joint.device)
    # The scale is a unit of measurement: without detaching it, the loss could fall by inflating it.
    scale = distances.detach()[off_diagonal].median().clamp_min(1e-12)
    kernel = torch.stack([torch.exp(-distances / (factor * scale)) for factor in BANDWIDTHS]).mean(0)
    kernel = kernel * off_diagonal
    within_source = kernel[:count, :count].sum() / (count * (count - 1))
    within_target = kernel[count:, count:].sum() / (others * (others - 1))
    return within_source + within_target - 2 * kernel[:count, count:].mean()

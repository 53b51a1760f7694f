"""The network as a user of the neighbours would hand it to their exporters: normalised floats in, probabilities out."""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from train import checkpoint
from train.network import FacetModel

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint


class Plain(torch.nn.Module):
    """Normalised RGB [B, 3, H, W], float32, to a tuple of probabilities [B, K]."""

    def __init__(self, model: FacetModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(logits_BK.softmax(1) for logits_BK in self.model(images_BCHW).logits)


def load(folder: Path) -> tuple[Plain, Checkpoint]:
    """The checkpoint's network, and its page."""
    model, page = checkpoint.load(folder)
    return Plain(model).eval(), page

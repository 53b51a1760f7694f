"""The network as a user of the neighbours would hand it to their exporters: normalised floats in, probabilities out."""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from train import checkpoint
from train.network import FacetModel

if TYPE_CHECKING:
    import numpy as np

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


def normalised(photos_NHWC: np.ndarray, page: Checkpoint) -> np.ndarray:
    """Its input, float32 [N, 3, H, W], for uint8 RGB photos."""
    import numpy as np

    config = page.preset.model
    scaled_NHWC = photos_NHWC.astype(np.float32) / 255
    changed_NHWC = (scaled_NHWC - np.float32(config.mean)) / np.float32(config.std)
    return np.ascontiguousarray(changed_NHWC.transpose(0, 3, 1, 2))

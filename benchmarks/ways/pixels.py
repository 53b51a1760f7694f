"""Photos as the neighbours' graphs take them: normalised floats, channels first."""

# N photos, H height, W width, C channels

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from train.checkpoint import Checkpoint


def normalised(photos_NHWC: np.ndarray, page: Checkpoint) -> np.ndarray:
    """Its input, float32 [N, 3, H, W], for uint8 RGB photos."""
    import numpy as np

    config = page.preset.model
    scaled_NHWC = photos_NHWC.astype(np.float32) / 255
    changed_NHWC = (scaled_NHWC - np.float32(config.mean)) / np.float32(config.std)
    return np.ascontiguousarray(changed_NHWC.transpose(0, 3, 1, 2))

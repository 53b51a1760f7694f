"""Random changes to a training photo, on the pixels that the runtime itself would see."""

# H height, W width

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from train.config import AugmentConfig

if TYPE_CHECKING:
    import numpy as np


def augment(image_HWC: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A changed copy of a uint8 RGB image, of its own size; all geometry is one resampling."""
    import cv2

    if rng.random() >= config.probability:
        return image_HWC
    height, width = image_HWC.shape[:2]
    changed = cv2.warpPerspective(
        image_HWC,
        warp(height, width, config, rng),
        (width, height),
        flags=cv2.INTER_LINEAR,
        # A mirrored border adds no black corners, which a model would learn to read.
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if config.contrast or config.brightness:
        alpha = 1 + rng.uniform(-config.contrast, config.contrast)
        beta = 255 * rng.uniform(-config.brightness, config.brightness)
        # Not convertScaleAbs: it would fold what falls below zero back up, and turn black into grey.
        changed = cv2.addWeighted(changed, alpha, changed, 0.0, beta)
    return changed


def warp(height: int, width: int, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """A random 3x3 homography from source to result pixels: flip, crop, affine and perspective in one."""
    import cv2
    import numpy as np

    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)

    # Perspective: each corner moves inwards by up to the given share of half a side.
    reach = config.perspective / 2 * rng.random((4, 2)) * [width, height]
    inwards = corners + reach * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    matrix = cv2.getPerspectiveTransform(inwards.astype(np.float32), corners)

    # Affine about the centre.
    angle = math.radians(rng.uniform(-config.rotate_deg, config.rotate_deg))
    shear = math.tan(math.radians(rng.uniform(-config.shear_deg, config.shear_deg)))
    zoom = rng.uniform(*config.scale)
    shift = rng.uniform(-config.shift, config.shift, 2) * [width, height]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = zoom * turn @ np.array([[1, shear], [0, 1]])
    if rng.random() < config.flip:
        linear = linear @ np.diag([-1.0, 1.0])
    centre = np.array([width, height]) / 2
    affine = np.eye(3)
    affine[:2, :2] = linear
    affine[:2, 2] = centre + shift - linear @ centre

    # Crop: a rectangle of a share of the area and of about the image's own shape fills the result.
    area = rng.uniform(*config.crop)
    # Stretched by at most 4 to 3, and never past the image's own edge: that would leave less than the area.
    stretch = math.exp(rng.uniform(-1, 1) * min(math.log(4 / 3), -math.log(area)) / 2)
    box = math.sqrt(area) * np.array([stretch, 1 / stretch]) * [width, height]
    origin = rng.random(2) * ([width, height] - box)
    crop = np.diag([*([width, height] / box), 1.0])
    crop[:2, 2] = -origin * [width, height] / box

    # All of the above counts from the image's edge, OpenCV from the centre of the first pixel.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    homography: np.ndarray = np.linalg.inv(half) @ crop @ affine @ matrix @ half
    return homography

"""Photos as they stand in a report: small, as data URIs, so that the page needs no other file."""

# H height, W width

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import cv2
import numpy as np

from train.augment import augment
from train.config import AugmentConfig

JPEG_QUALITY = 72
# The overlay is stretched over the photo by whoever shows it; this many pixels a side make it smooth.
OVERLAY_PIXELS = 48
OVERLAY_RGB = (255, 96, 20)
OVERLAY_OPACITY = 0.75
# How many times the average weight is tinted fully.
OVERLAY_FULL = 3.0


class Operation(NamedTuple):
    """One random change, alone and at its strength."""

    name: str
    strength: str
    pictures: list[str]


def jpeg(image_HWC: np.ndarray, longest: int) -> str:
    """A data URI of a uint8 RGB image, shrunk until its longer side has at most `longest` pixels."""
    height, width = image_HWC.shape[:2]
    scale = min(1.0, longest / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image_HWC = cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", image_HWC[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return _uri("jpeg", content)


def overlay(attention_HW: np.ndarray) -> str:
    """A data URI of a translucent tint where a map that sums to 1 weighs more than its average, the more the stronger.

    What looks everywhere alike is left untinted: scaled to its own peak, it would seem to look somewhere.
    """
    relative_HW = attention_HW * attention_HW.size
    full = max(OVERLAY_FULL, float(relative_HW.max()))
    size = (OVERLAY_PIXELS, OVERLAY_PIXELS)
    strength_HW = np.clip((cv2.resize(relative_HW, size, interpolation=cv2.INTER_CUBIC) - 1) / (full - 1), 0, 1)
    image_HWC = np.empty((*strength_HW.shape, 4), np.uint8)
    image_HWC[:, :, :3] = OVERLAY_RGB[::-1]
    # Some thirty steps compress well, and nobody sees more.
    image_HWC[:, :, 3] = np.round(strength_HW * 31) / 31 * 255 * OVERLAY_OPACITY
    _, content = cv2.imencode(".png", image_HWC)
    return _uri("png", content)


def operations(image_HWC: np.ndarray, config: AugmentConfig, *, draws: int, longest: int) -> list[Operation]:
    """Each operation that `config` has switched on, drawn several times with all others off."""
    return [
        Operation(
            _name(field.name),
            _strength(field.name, getattr(config, field.name)),
            draw(image_HWC, only(config, field.name), draws=draws, longest=longest),
        )
        for field in fields(config)
        if field.name != "probability" and getattr(config, field.name) != _off(getattr(config, field.name))
    ]


def draw(image_HWC: np.ndarray, config: AugmentConfig, *, draws: int, longest: int) -> list[str]:
    """So many pictures of the image changed at random, each of them surely changed."""
    rng = np.random.default_rng(0)
    sure = replace(config, probability=1.0)
    return [jpeg(augment(image_HWC, sure, rng), longest) for _ in range(draws)]


def only(config: AugmentConfig, name: str) -> AugmentConfig:
    """The configuration with every operation off but that one, which is sure to happen."""
    off = {field.name: _off(getattr(config, field.name)) for field in fields(config)}
    # A flip's strength is its chance: shown at half, it would mostly not be seen.
    kept = 1.0 if name == "flip" else getattr(config, name)
    return replace(config, **(off | {"probability": 1.0, name: kept}))


def _off(value: object) -> Any:
    """What switches an operation off, by AugmentConfig's own rule."""
    return (1.0, 1.0) if isinstance(value, Sequence) else 0.0


def _name(field: str) -> str:
    return {"crop": "resized crop", "shear_deg": "shear", "rotate_deg": "rotation"}.get(field, field.replace("_", " "))


def _strength(field: str, value: object) -> str:
    if isinstance(value, Sequence):
        return " to ".join(f"{end:g}" for end in value)
    if field == "flip":
        return f"in {_percent(value)} of the draws"
    if field.endswith("_deg"):
        return f"up to ±{value:g}°"
    return f"up to {_percent(value)}" if field == "perspective" else f"up to ±{_percent(value)}"


def _percent(share: Any) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _uri(kind: str, content: np.ndarray) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"

"""Pictures of a report: small, decodable, and each operation of the augmentation alone."""

from __future__ import annotations

import base64
from dataclasses import fields

import cv2
import numpy as np
import pytest

from train import pictures
from train.augment import augment
from train.config import PRESETS, AugmentConfig

OFF = AugmentConfig(
    probability=1.0, flip=0.0, rotate_deg=0.0, crop=(1, 1), perspective=0.0, shift=0.0, scale=(1, 1), shear_deg=0.0
)


def pixels(uri: str, kind: str) -> np.ndarray:
    head, _, content = uri.partition(",")
    assert head == f"data:image/{kind};base64"
    found = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found


def photo(height: int = 60, width: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (6, 4, 3)).astype(np.uint8), (width, height))


@pytest.mark.parametrize(
    ("size", "expected"), [((60, 40), (30, 20)), ((20, 10), (20, 10)), ((3000, 2), (30, 1))], ids=str
)
def test_a_picture_is_shrunk_to_its_longer_side_and_never_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert pixels(pictures.jpeg(photo(*size), 30), "jpeg").shape[:2] == expected


def test_a_picture_keeps_its_colours() -> None:
    red_HWC = np.full((16, 16, 3), (200, 40, 40), np.uint8)
    found_HWC = pixels(pictures.jpeg(red_HWC, 16), "jpeg")[:, :, ::-1]
    assert np.abs(found_HWC.astype(int) - red_HWC).max() <= 4  # JPEG moves a flat colour by a step or two


def test_an_overlay_tints_where_the_map_weighs_most_and_nothing_where_it_is_even() -> None:
    attention_HW = np.full((7, 7), 0.5 / 48)
    attention_HW[5, 1] = 0.5
    alpha_HW = pixels(pictures.overlay(attention_HW), "png")[:, :, 3]
    row, column = np.unravel_index(alpha_HW.argmax(), alpha_HW.shape)
    assert (row * 7 // len(alpha_HW), column * 7 // len(alpha_HW)) == (5, 1)
    assert alpha_HW[:10, 30:].max() == 0
    assert pixels(pictures.overlay(np.full((7, 7), 1 / 49)), "png")[:, :, 3].max() == 0


@pytest.mark.parametrize("name", [field.name for field in fields(AugmentConfig) if field.name != "probability"])
def test_an_operation_alone_changes_a_photo_and_with_it_off_nothing_does(name: str) -> None:
    image_HWC = photo()
    rng = np.random.default_rng(0)
    # Bilinear resampling by the identity may round.
    assert np.abs(augment(image_HWC, OFF, rng).astype(int) - image_HWC).max() <= 1
    every = AugmentConfig(contrast=0.3, brightness=0.3)
    alone = pictures.only(every, name)
    strength = 1.0 if name == "flip" else getattr(every, name)
    assert alone == AugmentConfig(**{**{f.name: getattr(OFF, f.name) for f in fields(OFF)}, name: strength})
    assert np.abs(augment(image_HWC, alone, rng).astype(int) - image_HWC).max() > 5


@pytest.mark.parametrize("preset", PRESETS)
def test_the_operations_shown_are_those_of_the_preset(preset: str) -> None:
    found = pictures.operations(photo(), PRESETS[preset].augment, draws=3, longest=30)
    names = [operation.name for operation in found]
    assert {"flip", "rotation", "resized crop", "perspective", "shear"} <= set(names)
    assert ("contrast" in names) == (preset == "default")
    assert ("shift" in names) == (preset == "reference")
    assert all(len(set(operation.pictures)) > 1 for operation in found if operation.name != "flip")
    assert all(len(operation.pictures) == 3 for operation in found)


def test_nothing_is_shown_of_an_augmentation_that_is_off() -> None:
    assert pictures.operations(photo(), OFF, draws=3, longest=30) == []


def test_strengths_are_said_in_their_units() -> None:
    found = pictures.operations(photo(), AugmentConfig(brightness=0.08), draws=1, longest=30)
    said = {operation.name: operation.strength.replace("\N{NO-BREAK SPACE}", " ") for operation in found}
    assert said["rotation"] == "up to ±5°"
    assert said["resized crop"] == "0.8 to 1"
    assert said["flip"] == "in 50 % of the draws"
    assert said["brightness"] == "up to ±8 %"

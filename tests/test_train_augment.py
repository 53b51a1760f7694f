"""Random changes to a small photo of noise: each strength alone, none, and all together."""

# H height, W width, C channels

from __future__ import annotations

import cv2
import numpy as np
import pytest

from train.augment import augment
from train.config import PRESETS, AugmentConfig

SEEDS = range(5)


@pytest.fixture
def image_HWC() -> np.ndarray:
    """Soft noise of 40 x 30 px: neighbouring pixels differ, none is at either end of the range."""
    noise_HWC = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    return cv2.GaussianBlur(noise_HWC, (5, 5), 0)


def config(**changes: object) -> AugmentConfig:
    """Every strength at zero, but those given."""
    zero: dict[str, object] = {
        "probability": 1.0,
        "flip": 0.0,
        "rotate_deg": 0.0,
        "crop": (1.0, 1.0),
        "perspective": 0.0,
        "shift": 0.0,
        "scale": (1.0, 1.0),
        "shear_deg": 0.0,
    }
    return AugmentConfig(**(zero | changes))


def changed(image_HWC: np.ndarray, config: AugmentConfig, seed: int) -> np.ndarray:
    return augment(image_HWC, config, np.random.default_rng(seed))


def test_at_probability_zero_nothing_changes(image_HWC: np.ndarray) -> None:
    strong = AugmentConfig(probability=0.0, rotate_deg=45.0, contrast=0.5, brightness=0.5)
    for seed in SEEDS:
        assert np.array_equal(changed(image_HWC, strong, seed), image_HWC)


def test_at_probability_a_half_about_half_of_the_photos_change(image_HWC: np.ndarray) -> None:
    some = config(probability=0.5, shift=0.2)
    count = sum(not np.array_equal(changed(image_HWC, some, seed), image_HWC) for seed in range(100))
    assert 35 <= count <= 65  # three standard deviations of 100 even draws


def test_with_every_strength_at_zero_the_photo_stays_as_it_is(image_HWC: np.ndarray) -> None:
    for seed in SEEDS:
        largest = np.abs(changed(image_HWC, config(), seed).astype(int) - image_HWC).max()
        assert largest <= 1  # one rounding of the resampling


def test_a_flip_alone_is_the_mirrored_photo(image_HWC: np.ndarray) -> None:
    for seed in SEEDS:
        largest = np.abs(changed(image_HWC, config(flip=1.0), seed).astype(int) - image_HWC[:, ::-1]).max()
        assert largest <= 1  # one rounding of the resampling


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_same_seed_gives_the_same_picture_and_another_seed_another(image_HWC: np.ndarray, name: str) -> None:
    always = AugmentConfig(**(vars(PRESETS[name].augment) | {"probability": 1.0}))
    pictures = [changed(image_HWC, always, seed) for seed in SEEDS]
    assert all(np.array_equal(changed(image_HWC, always, seed), pictures[seed]) for seed in SEEDS)
    assert len({picture.tobytes() for picture in pictures}) == len(SEEDS)


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_result_has_the_size_and_the_type_of_the_photo(image_HWC: np.ndarray, name: str) -> None:
    for seed in SEEDS:
        picture = changed(image_HWC, PRESETS[name].augment, seed)
        assert (picture.shape, picture.dtype) == (image_HWC.shape, np.uint8)


@pytest.mark.parametrize(
    "strength",
    [
        {"rotate_deg": 20.0},
        {"crop": (0.3, 0.5)},
        {"perspective": 0.4},
        {"shift": 0.3},
        {"scale": (0.5, 0.7)},
        {"shear_deg": 20.0},
        {"contrast": 0.5},
        {"brightness": 0.3},
    ],
    ids=lambda strength: next(iter(strength)),
)
def test_each_strength_changes_the_photo_without_touching_the_original(
    image_HWC: np.ndarray, strength: dict[str, object]
) -> None:
    before = image_HWC.copy()
    picture = changed(image_HWC, config(**strength), 0)
    # Noise resampled elsewhere, or shifted in brightness, differs by several levels on average.
    assert np.abs(picture.astype(int) - image_HWC).mean() > 2
    assert np.array_equal(image_HWC, before)


def test_no_strength_adds_a_black_border() -> None:
    grey_HWC = np.full((40, 30, 3), 200, np.uint8)
    for seed in SEEDS:
        some = config(rotate_deg=20.0, perspective=0.4, shift=0.3, scale=(0.5, 0.7), shear_deg=20.0)
        assert changed(grey_HWC, some, seed).min() == 200


def test_a_darker_photo_has_no_lighter_pixel_and_a_lighter_one_no_darker() -> None:
    ramp_HWC = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    for seed in range(20):
        gained = changed(ramp_HWC, config(brightness=0.3), seed).astype(int) - ramp_HWC
        assert (gained <= 0).all() or (gained >= 0).all()


def test_a_change_of_contrast_keeps_the_order_of_the_levels() -> None:
    ramp_HWC = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    for seed in range(20):
        assert (np.diff(changed(ramp_HWC, config(contrast=0.3, brightness=0.3), seed).astype(int), axis=1) >= 0).all()

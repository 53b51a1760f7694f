"""What a training run can be told, and the presets: named sets of values, never branches in the code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from runtime.bundle import LARGEST_SIDE
from runtime.errors import UserError

MISSING = -1
"""The label of an attribute that nobody typed."""
PHASES = (1, 2)
Balance = Literal["none", "weights", "logits"]


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: a timm backbone with a feature map, and the kind of heads on it."""

    backbone: str
    backbone_args: dict[str, str] = field(default_factory=dict)
    """Handed to timm.create_model, where pretrained weights ask for it."""
    last_stage: bool = False
    """Stop at the last stage's map, without the layers that widen it for a classifier."""
    heads: Literal["attention", "reference"]
    dropout: float = 0.2
    size: int
    """Height and width of the input, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        _check(8 <= self.size <= LARGEST_SIDE, f"size must be 8 to {LARGEST_SIDE} pixels, got {self.size}")
        _check(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Strengths of the random changes to a training photo; zero or (1, 1) switches one off."""

    probability: float = 0.5
    """Share of the photos that are changed at all."""
    flip: float = 0.5
    rotate_deg: float = 5.0
    crop: tuple[float, float] = (0.8, 1.0)
    """Share of the area that a resized crop keeps."""
    perspective: float = 0.1
    shift: float = 0.15
    scale: tuple[float, float] = (0.85, 1.15)
    shear_deg: float = 5.0
    contrast: float = 0.0
    brightness: float = 0.0
    """Share of the full range by which pixels are made lighter or darker."""

    def __post_init__(self) -> None:
        for name in ("probability", "flip", "perspective", "shift", "contrast", "brightness"):
            _check(0 <= getattr(self, name) <= 1, f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("rotate_deg", "shear_deg"):
            _check(0 <= getattr(self, name) < 90, f"{name} must be in [0, 90), got {getattr(self, name)}")
        for name, most in (("crop", 1.0), ("scale", 10.0)):
            low, high = getattr(self, name)
            _check(
                0 < low <= high <= most, f"{name} must be two numbers that rise, in (0, {most:g}], got {low}, {high}"
            )


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """One phase of training."""

    epochs: int
    min_steps: int = 0
    """Epochs are added until there are as many steps: a category of few photos needs more of them."""
    batch: int
    """Photos an optimiser step, over all processes."""
    passes: int = 1
    """Forward passes that a step is divided into where memory is short; their gradients add up to the batch's own.

    Those of the MMD term do not: each pass compares its own photos alone, those of all processes together.
    """
    complete_rows: bool = False
    """Train on the rows that have every label and on no others."""
    backbone_lr: float = 0.0
    heads_lr: float
    layer_decay: float = 1.0
    """Each stage of the backbone learns at this share of the next one's rate (Clark et al., 2020, for layers)."""
    weight_decay: float = 0.05
    schedule: Literal["cosine", "plateau"] = "cosine"
    warmup: float = 0.1
    """Share of the steps in which the rate climbs; cosine only."""
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    balance: Balance = "none"
    """For rare classes: weigh their labels more, or add the log of each class's share to the logits of the loss."""
    mmd_weight: float = 0.0
    target_batch: int = 0
    """Unlabelled photos of the target domain a step, for the MMD term."""
    ema_decay: float = 0.0
    """Decay of the averaged weights, which are then the ones evaluated and kept; 0 for none."""

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, f"epochs must be 1 or more, got {self.epochs}")
        _check(self.batch >= 1, f"batch must be 1 or more, got {self.batch}")
        _check(self.min_steps >= 0, f"min_steps must be 0 or more, got {self.min_steps}")
        _check(1 <= self.passes <= self.batch, f"passes must be from 1 to batch ({self.batch}), got {self.passes}")
        _check(0 < self.layer_decay <= 1, f"layer_decay must be in (0, 1], got {self.layer_decay}")
        _check(self.heads_lr > 0, f"heads_lr must be above 0, got {self.heads_lr}")
        _check(self.backbone_lr >= 0, f"backbone_lr must be 0 or more, got {self.backbone_lr}")
        _check(self.weight_decay >= 0, f"weight_decay must be 0 or more, got {self.weight_decay}")
        _check(0 <= self.warmup <= 1, f"warmup must be in [0, 1], got {self.warmup}")
        _check(self.clip_norm > 0, f"clip_norm must be above 0, got {self.clip_norm}")
        _check(0 <= self.label_smoothing < 1, f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        _check(self.mmd_weight >= 0, f"mmd_weight must be 0 or more, got {self.mmd_weight}")
        _check(0 <= self.ema_decay < 1, f"ema_decay must be in [0, 1), got {self.ema_decay}")
        # Fewer, and the term would be left out of every step without a word.
        pair = 2 * self.passes if self.mmd_weight else 0
        _check(
            min(self.batch, self.target_batch) >= pair,
            "an MMD term compares two batches: batch and target_batch must be 2 or more for each pass "
            f"({pair}), got {self.batch} and {self.target_batch}",
        )


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything a run is made of, but its data."""

    model: ModelConfig
    augment: AugmentConfig
    phase1: PhaseConfig
    phase2: PhaseConfig
    weights: str
    """Where the backbone starts: `hub`, `none`, or a safetensors file of its timm names."""


PRESETS = {
    # The challenge entry that the project grew out of, parameter for parameter.
    "reference": Preset(
        model=ModelConfig(
            backbone="convnext_base.fb_in22k_ft_in1k_384",
            heads="reference",
            dropout=0.1,
            size=512,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        augment=AugmentConfig(flip=0.9),
        phase1=PhaseConfig(
            epochs=12,
            batch=4,
            complete_rows=True,
            backbone_lr=1e-5,
            heads_lr=1e-5,
            weight_decay=0.01,
            schedule="plateau",
            mmd_weight=0.1,
            target_batch=4,
        ),
        phase2=PhaseConfig(epochs=3, batch=4, heads_lr=1e-3, weight_decay=0.01, schedule="plateau"),
        weights="hub",
    ),
    # What two CPU cores train in minutes, from the weights that ship with the project.
    "default": Preset(
        model=ModelConfig(
            backbone="mobilenetv2_100",
            # The shipped weights come from TensorFlow, which pads by its own rule.
            backbone_args={"pad_type": "same"},
            # Its last layer, 320 to 1280 channels, is a fifth of the weights and gained nothing in accuracy.
            last_stage=True,
            heads="attention",
            size=224,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        # Few photos: stronger than the reference's set, and on nearly every photo.
        augment=AugmentConfig(
            probability=0.9,
            rotate_deg=10.0,
            crop=(0.5, 1.0),
            perspective=0.05,
            shift=0.0,
            scale=(1.0, 1.0),
            contrast=0.25,
            brightness=0.08,
        ),
        phase1=PhaseConfig(
            epochs=6,
            min_steps=120,
            batch=16,
            backbone_lr=3e-4,
            heads_lr=2e-3,
            label_smoothing=0.1,
            mmd_weight=0.1,
            target_batch=4,
            ema_decay=0.99,
        ),
        phase2=PhaseConfig(epochs=3, batch=16, heads_lr=1e-3, label_smoothing=0.1),
        weights="examples/weights/mobilenetv2_100_coral.safetensors",
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}; have: {', '.join(PRESETS)}")
    return PRESETS[name]

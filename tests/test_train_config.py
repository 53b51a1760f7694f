"""Presets are data: what they cannot hold is refused when they are made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.errors import UserError
from tests.train_parts import TINY
from train.config import PRESETS, PhaseConfig, preset


def test_a_preset_is_found_by_its_name() -> None:
    assert preset("default") is PRESETS["default"]


def test_an_unknown_preset_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match="no preset 'huge'; have: reference, default"):
        preset("huge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more, got 0"),
        ({"batch": 0}, "batch must be 1 or more, got 0"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1\.0"),
        ({"batch": 2, "passes": 3}, r"passes must be from 1 to batch \(2\), got 3"),
        ({"heads_lr": 0.0}, "heads_lr must be above 0, got 0"),
        ({"backbone_lr": -1.0}, r"backbone_lr must be 0 or more, got -1\.0"),
        ({"warmup": 1.1}, r"warmup must be in \[0, 1\], got 1\.1"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, got 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1\.0"),
        ({"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\], got 0\.0"),
        ({"mmd_weight": 0.1, "target_batch": 1}, r"2 or more for each pass \(2\), got 2 and 1"),
        ({"mmd_weight": 0.1, "batch": 3, "target_batch": 4, "passes": 2}, r"for each pass \(4\), got 3 and 4"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_phase_that_cannot_run_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PhaseConfig(epochs=1, batch=2, heads_lr=0.1), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 7}, "size must be 8 to 16384 pixels, got 7"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1\.0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_model_that_cannot_be_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY.model, **change)

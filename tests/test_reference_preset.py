"""The reference system at its real size: minutes and some 16 GB, so it runs with make test-slow."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_reference_takes_a_real_step_and_its_checkpoint_exports(tmp_path: Path) -> None:
    from export.build import main as build
    from runtime.predictor import Predictor
    from train.fit import main as fit

    data, checkpoints, bundles = ROOT / "examples" / "clothing", tmp_path / "checkpoints", tmp_path / "bundles"
    options = ["--preset", "reference", "--category", "T-Shirt", "--max-steps", "1", "--weights", "none", "--quiet"]
    assert fit(["--data", str(data), "--out", str(checkpoints), *options]) == 0
    few = ["--calibration-photos", "4", "--gate-photos", "4"]
    assert (
        build(["--precision", "fp32", "--checkpoints", str(checkpoints), "--out", str(bundles), "--quiet", *few]) == 0
    )
    with Predictor.open(bundles / "t-shirt") as predictor:
        (answers,) = predictor([next((data / "train_images").iterdir())])
    assert set(answers) == {"colour", "pattern", "neck"}

"""What need not be made again, and what must be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export import build, parity
from runtime import bundle
from runtime.bundle import Verdict
from tests import export_parts
from tests.export_parts import run
from train import checkpoint

pytestmark = pytest.mark.usefixtures("tiny_preset", "exported_once")


@pytest.fixture(scope="module")
def data(export_folder: Path) -> Path:
    return export_parts.data(export_folder)


@pytest.fixture(scope="module")
def checkpoints(export_folder: Path) -> Path:
    return export_parts.checkpoints(export_folder)


@pytest.fixture(scope="module")
def built(export_folder: Path) -> Path:
    return export_parts.built(export_folder)


def test_a_build_of_which_nothing_has_changed_does_nothing_and_says_so(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--checkpoints", str(checkpoints), "--out", str(tmp_path), "--precision", "fp32", "fp16"]
    assert build.main(options) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    first = capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "load", None)  # it is not even opened
        assert build.main(options) == 0
    second = capsys.readouterr()
    assert f"unchanged: {tmp_path / 'cap'}" in second.err
    # The same table but for its title.
    assert second.out.splitlines()[1:] == first.out.splitlines()[1:]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_is_new_alone_is_made(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 0
    made: list[str] = []
    judge = parity.judge

    def watched(path: Path, precision: str, *rest: Any, **options: Any) -> Verdict:
        made.append(path.name)
        return judge(path, precision, *rest, **options)

    monkeypatch.setattr(parity, "judge", watched)
    assert run(checkpoints, tmp_path, "--precision", "fp32", "fp16") == 0
    plans = {name for name in made if name.endswith(".plan")}
    # The float32 graph is made as the other's source, and checked as that.
    assert set(made) == {"check.onnx", "fp16.0.onnx", *plans}
    assert {artifact.precision for artifact in bundle.verify(tmp_path / "cap").artifacts} == {"fp32", "fp16"}


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "a photo": lambda data, bundles: os.utime(data / "train_images" / "000003.jpg"),
    "a label": lambda data, bundles: (data / "train.csv").write_text((data / "train.csv").read_text() + "\n"),
    "a damaged file": lambda data, bundles: next(bundles.rglob("*.onnx")).write_bytes(b"damaged"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_has_changed_is_made_again(
    data: Path, checkpoints: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    own = shutil.copytree(data, tmp_path / "data")
    shutil.copytree(built, tmp_path / "bundles" / "cap")
    options = ["--checkpoints", str(checkpoints), "--data", str(own), "--out", str(tmp_path / "bundles")]
    # A copy of the photos, under another name, is the same photos.
    assert build.main([*options, "--precision", "fp32"]) == 0
    assert "unchanged" in capsys.readouterr().err
    CHANGES[change](own, tmp_path / "bundles")
    assert build.main([*options, "--precision", "fp32"]) == 0
    assert "unchanged" not in capsys.readouterr().err
    bundle.verify(tmp_path / "bundles" / "cap")


@pytest.mark.parametrize(
    "option",
    [
        ("--gate-photos", "5"),
        ("--calibration-photos", "3"),
        ("--allow-drop", "2"),
        ("--calibration", str(build.EXAMPLE_DATA.parent / "photos")),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_another_option_makes_it_again_but_calibration_nothing_in_float32(
    checkpoints: Path,
    built: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: tuple[str, str],
    precision: str,
) -> None:
    shutil.copytree(built, tmp_path / "cap")
    options = ["--checkpoints", str(checkpoints), "--out", str(tmp_path), "--precision", precision]
    options += ["--engine", "onnxruntime", "openvino"]
    assert build.main(options) == 0
    assert "unchanged" in capsys.readouterr().err
    assert build.main([*options, *option]) == 0
    assert ("unchanged" in capsys.readouterr().err) == (precision == "fp32" and option[0].startswith("--calibration"))

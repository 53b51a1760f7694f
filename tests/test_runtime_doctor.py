"""What the machine can run is said, and for the rest the command that would enable it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from runtime import bundle, doctor, machine
from runtime.bundle import Verdict
from runtime.engines import ENGINES
from runtime.engines.cuda import why_no_gpu
from runtime.files import sha256_of


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """As one line: a terminal's width is no matter."""
    return " ".join(capsys.readouterr().out.split())


def test_what_is_here_is_ready_and_the_bundles_served(fleet_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--bundles", str(fleet_root)]) == 0
    out = shown(capsys)
    assert machine.processor().name in out and f"{machine.processor().cores} cores" in out
    assert f" onnxruntime {machine.version_of('onnxruntime')} ready " in out
    for slug in ("boot", "garment", "shirt"):
        assert f" {slug} fp32 on onnxruntime" in out


def test_an_engine_that_is_missing_comes_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engines.EngineKind.installed", lambda kind: kind.package == "onnxruntime")
    states = {finding.what: (finding.state, finding.remedy) for finding in doctor.engines()}
    assert states.keys() == ENGINES.keys()
    assert states["onnxruntime"] == (doctor.READY, "")
    assert states["openvino"] == ("not installed", "pip install openvino")


def test_an_engine_without_its_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr("runtime.engines.EngineKind.installed", lambda kind: True)
    monkeypatch.setattr("runtime.plans.version_here", lambda name: "1.2.3")
    states = {finding.what: finding.state for finding in doctor.engines()}
    assert states["tensorrt-rtx"] == states["tensorrt"] == "no NVIDIA driver found on this machine"


def test_a_bundle_of_plans_alone_is_not_ready_without_a_gpu(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr("runtime.engines.EngineKind.installed", lambda kind: True)
    folder = tmp_path / "shirt"
    shutil.copytree(bundle_folder, folder)
    page = bundle.load(folder)
    plan = msgspec.structs.replace(
        page.artifacts[0],
        file="model.plan",
        sha256=sha256_of(next(folder.glob("model.*.onnx"))),
        engines=("tensorrt",),
        profile=bundle.Profile(),
        verdicts=(bundle.Verdict(engine="tensorrt", state="passed"),),
    )
    next(folder.glob("model.*.onnx")).rename(folder / "model.plan")
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(plan,)))
    found = doctor.bundle_here("shirt", folder)
    assert found.state == f"model.plan: {why_no_gpu()}"
    assert "export.build" in found.remedy


def test_an_extra_that_is_missing_comes_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    states = [(finding.state, finding.remedy) for finding in doctor.extras()]
    assert states == [
        (doctor.READY, ""),
        ("not installed", "pip install pyarrow"),
        *(("not installed", f"in the clone: pip install '.[{extra}]'") for extra in ("train", "export")),
    ]


def test_a_bundle_that_nothing_here_serves_comes_with_its_command_and_exit_code_1(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = bundle.load(bundle_folder)
    (graph,) = page.artifacts
    refused = msgspec.structs.replace(graph, verdicts=(Verdict(engine="onnxruntime", state="refused", reason="off"),))
    folder = tmp_path / "shirt"
    folder.mkdir()
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(refused,)))
    assert doctor.main(["--bundles", str(folder)]) == 1
    out = shown(capsys)
    assert "no passed artifact in bundle 'shirt'" in out
    assert "python -m export.build --precision fp16" in out


def test_a_damaged_bundle_is_told_of_too(bundle_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shirt"
    folder.mkdir()
    page = bundle.load(bundle_folder)
    bundle.save(folder, page)  # without its files
    found = doctor.bundle_here("shirt", folder)
    assert page.artifacts[0].file in found.state
    assert found.remedy.startswith("python -m export.build ")

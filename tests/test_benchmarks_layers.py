"""The layers that are counted are those of the int8 graph."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from benchmarks import layers
from runtime import bundle
from runtime.bundle import Verdict


def test_of_a_bundle_with_float32_too_int8_is_taken(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(bundle_folder, tmp_path / "shirt"))
    page = bundle.load(copy)
    (graph,) = page.artifacts
    shutil.copy(copy / graph.file, copy / "model.int8.onnx")
    passed = (Verdict(engine="openvino", hint="f32", state="passed"),)
    int8 = msgspec.structs.replace(graph, file="model.int8.onnx", precision="int8", verdicts=passed)
    bundle.save(copy, msgspec.structs.replace(page, artifacts=(graph, int8)))
    counted: list[Path] = []

    def noted(path: Path, hint: str, images_1HWC: object) -> list[dict[str, object]]:
        counted.append(path)
        return [{"name": "a", "kind": "Convolution", "by": "jit", "ms": 1.0}]

    network = SimpleNamespace(name="shirt", bundle=copy, make=lambda precisions: None)
    monkeypatch.setattr(layers, "CONVNEXT_BASE", network)
    monkeypatch.setattr(layers, "counted", noted)
    assert layers.main(["--out", str(tmp_path)]) == 0
    assert counted == [copy / "model.int8.onnx"]

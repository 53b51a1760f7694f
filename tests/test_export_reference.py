"""The export of the reference system's network at its real size: minutes each, so they run with make test-slow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import watch
from benchmarks.networks import CONVNEXT_BASE
from export import artifacts, evidence, graph, parity
from export.artifacts import Job
from runtime.errors import UserError
from train import checkpoint
from train.checkpoint import Checkpoint
from train.network import FacetModel

pytestmark = pytest.mark.slow

BLOCK = "backbone.stages.2.blocks.13."
"""One of thirty-six."""
GIGABYTES = 6.0


@pytest.fixture(scope="module")
def home() -> Path:
    CONVNEXT_BASE.write()
    return CONVNEXT_BASE.home


def test_a_corrupt_block_is_refused_and_nothing_is_made_of_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, page = checkpoint.load(home / "checkpoint")
    photos = evidence.gather(model, page, home / "data", calibration=2, gate=8)
    honest = graph.graph

    def corrupt(model: FacetModel, page: Checkpoint) -> onnx.ModelProto:
        """Its channels are those of their neighbours."""
        made = honest(model, page)
        touched = [t for t in made.graph.initializer if t.name.startswith(BLOCK) and len(t.dims) > 1]
        assert len(touched) == 3
        for tensor in touched:
            rolled = np.roll(numpy_helper.to_array(tensor), 1, axis=0)
            tensor.CopyFrom(numpy_helper.from_array(rolled, tensor.name))
        return made

    def judged() -> parity.Verdict:
        ((_, made),) = artifacts.make(model, page, photos, [Job("fp32")], tmp_path)
        return made.artifact.verdicts[0]

    assert judged().state == "passed", judged().reason
    monkeypatch.setattr(graph, "graph", corrupt)
    assert judged().state == "refused", judged().figures
    for precision in ("fp16", "int8"):
        with pytest.raises(UserError, match="the exported graph is not the trained network"):
            next(artifacts.make(model, page, photos, [Job(precision)], tmp_path))


@pytest.mark.usefixtures("home")
def test_calibration_on_300_photos_takes_less_than_6_gb(tmp_path: Path) -> None:
    photos = ["--calibration-photos", "300", "--gate-photos", "8", "--out", str(tmp_path)]
    code, samples = watch.module("export.build", [*CONVNEXT_BASE.sources, "--precision", "int8", *photos])
    assert code == 0
    assert max(sample.resident for sample in samples) * 2**20 < GIGABYTES * 1e9

"""What is made of a checkpoint, what the gate refuses of it, and what is tried then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export import artifacts, graph, parity
from runtime import bundle, files
from runtime.bundle import State, Verdict
from runtime.fidelity import LIMITS, Limits, hints
from tests import export_parts
from tests.export_parts import graphs, run
from train.checkpoint import Checkpoint
from train.network import FacetModel

IMPOSSIBLE = Limits(probability=0.0, agreement=1.0, nrmse=0.0, slot=0.0)
"""No artifact but a bit-for-bit copy of PyTorch keeps these."""

pytestmark = pytest.mark.usefixtures("tiny_preset", "exported_once")


@pytest.fixture(scope="module")
def checkpoints(export_folder: Path) -> Path:
    return export_parts.checkpoints(export_folder)


@pytest.fixture(scope="module")
def built(export_folder: Path) -> Path:
    return export_parts.built(export_folder)


def test_an_int8_graph_that_is_refused_gets_tensors_back_in_float32_until_it_passes(
    checkpoints: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = graphs(bundle.load(built))["int8"]
    figures = [verdict.figures for verdict in before.verdicts if verdict.figures]
    # A little less than what it strays by as a whole, on one of the engines.
    least = 0.9 * max(figure["probability_difference"] for figure in figures)
    monkeypatch.setitem(LIMITS, "int8", Limits(probability=least, agreement=0.0, nrmse=9.0, slot=0.05))
    assert run(checkpoints, tmp_path, "--precision", "int8") == 0
    after = graphs(bundle.verify(tmp_path / "cap"))["int8"]
    assert set(after.kept_float) > set(before.kept_float)
    for verdict in after.verdicts:
        assert verdict.state in ("passed", "unrun")
        assert not verdict.figures or verdict.figures["probability_difference"] <= least + 1e-6


def test_without_the_time_to_rank_tensors_no_graph_is_judged_twice(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    judge = parity.judge

    def watched(path: Path, precision: str, *rest: Any, **options: Any) -> Verdict:
        if precision == "int8":
            judged.append(files.sha256_of(path))
        return judge(path, precision, *rest, **options)

    monkeypatch.setattr(parity, "judge", watched)
    monkeypatch.setattr(artifacts, "RANKING_LIMIT_S", 0.0)
    monkeypatch.setitem(LIMITS, "int8", IMPOSSIBLE)
    assert run(checkpoints, tmp_path, "--precision", "int8") == 1
    ways = sum(len(hints(engine, "int8")) for engine in artifacts.GRAPH_ENGINES)
    assert (len(judged), len(set(judged))) == (ways, 1)


def test_nothing_is_made_of_a_graph_that_is_not_the_trained_network(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the exporter, or of a rewrite, that is too small for the limits of fp16 and int8."""
    honest = graph.graph

    def corrupt(model: FacetModel, page: Checkpoint) -> onnx.ModelProto:
        made = honest(model, page)
        stem = next(tensor for tensor in made.graph.initializer if len(tensor.dims) == 4)
        stem.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stem) * np.float32(1.005), stem.name))
        return made

    monkeypatch.setattr(graph, "graph", corrupt)
    for precision in ("fp16", "int8"):
        assert run(checkpoints, tmp_path, "--precision", precision) == 2
        said = capsys.readouterr().err
        assert "the exported graph is not the trained network: a probability differs by" in said
        assert "see on which engine, with the same command and: --precision fp32" in said
    assert run(checkpoints, tmp_path, "--precision", "fp32") == 1
    assert not (tmp_path / "cap").exists()


def test_a_refused_artifact_is_left_out_and_the_exit_code_is_1(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "fp16", IMPOSSIBLE)
    assert run(checkpoints, tmp_path, "--precision", "fp32", "fp16") == 1
    page = bundle.verify(tmp_path / "cap")
    # Nor is there a plan: it would be made of the graph that was refused.
    assert [(artifact.precision, artifact.target) for artifact in page.artifacts] == [("fp32", "")]
    assert not list((tmp_path / "cap").glob("model.fp16*"))
    assert "refused: a probability differs by" in capsys.readouterr().out


def test_where_everything_is_refused_no_bundle_is_left(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(LIMITS, "fp32", IMPOSSIBLE)
    assert run(checkpoints, tmp_path / "bundles", "--precision", "fp32") == 1
    assert not (tmp_path / "bundles" / "cap").exists()
    said = capsys.readouterr().err
    assert f"nothing passed the gate: no bundle in {tmp_path / 'bundles' / 'cap'}" in said
    assert "fp32 was refused by the gate for: cap" in said
    assert "bundle:" not in said


def test_what_an_engine_refuses_in_its_own_way_falls_short_whatever_passed_beside(built: Path) -> None:
    artifact = graphs(bundle.load(built))["int8"]

    def falls_short(engine: str, *states: State) -> bool:
        ways = zip(hints(engine, "int8"), states, strict=True)
        verdicts = tuple(Verdict(engine=engine, hint=hint, state=state) for hint, state in ways)
        return artifacts.Made(artifact=msgspec.structs.replace(artifact, verdicts=verdicts), path=built).falls_short

    assert falls_short("onnxruntime", "refused", "passed")
    assert not falls_short("openvino", "passed", "refused")
    assert not falls_short("openvino", "passed", "unrun")


def test_where_every_candidate_falls_short_the_first_that_passed_somewhere_is_kept(built: Path) -> None:
    artifact = graphs(bundle.load(built))["int8"]

    def tried(ort: State, openvino: State) -> artifacts.Made:
        verdicts = (
            Verdict(engine="onnxruntime", state=ort),
            Verdict(engine="openvino", hint="f32", state=openvino),
        )
        return artifacts.Made(artifact=msgspec.structs.replace(artifact, verdicts=verdicts), path=built)

    nowhere, here, more, everywhere = (
        tried("refused", "refused"),
        tried("passed", "refused"),
        tried("passed", "refused"),
        tried("passed", "passed"),
    )
    assert artifacts.best([nowhere, here, more]) is here
    assert artifacts.best([nowhere, here, everywhere]) is everywhere
    assert artifacts.best([nowhere, nowhere]) is nowhere


def test_what_no_engine_passed_and_one_refused_is_refused(built: Path) -> None:
    artifact = graphs(bundle.load(built))["fp32"]

    def judged(*states: State) -> bool:
        verdicts = tuple(Verdict(engine="onnxruntime", state=state) for state in states)
        return msgspec.structs.replace(artifact, verdicts=verdicts).refused

    assert judged("refused", "unrun")
    assert judged("refused")
    assert not judged("refused", "passed")
    assert not judged("unrun")


@pytest.mark.parametrize(
    ("precisions", "targets", "expected"),
    [
        (["fp32"], [], [("fp32", "", "")]),
        (["fp16", "fp16"], ["sm89", "sm89"], [("fp16", "", ""), ("fp16", "tensorrt-rtx", "sm89")]),
        (
            ["fp32", "int8"],
            ["sm89"],
            [("fp32", "", ""), ("int8", "", ""), ("fp32", "tensorrt-rtx", "sm89"), ("int8", "tensorrt-rtx", "sm89")],
        ),
        (
            ["int8", "fp16"],
            ["sm89", "sm75"],
            [
                ("int8", "", ""),
                ("fp16", "", ""),
                ("fp16", "tensorrt-rtx", "sm89"),
                ("fp16", "tensorrt-rtx", "sm75"),
            ],
        ),
    ],
)
def test_plans_come_after_their_graphs_and_from_the_half_graph_where_there_is_one(
    precisions: list[artifacts.Precision], targets: list[str], expected: list[tuple[str, str, str]]
) -> None:
    assert artifacts.jobs(precisions, [("tensorrt-rtx", target) for target in targets]) == expected

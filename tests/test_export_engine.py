"""A bundle's plans are built for real, with tensorrt-rtx, and become part of it or leave it as it was."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from export import engine
from export.plan import Options, Plan, plan_from_onnx
from runtime import bundle, files
from runtime.bundle import Artifact, Profile, Verdict
from runtime.engines.cuda import why_no_gpu

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: no plan can be built")

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
FP32 = ("--precision", "fp32", "--quiet")
ADA = (*FP32, "--target", "sm89")


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A bundle with one graph, fp32, that plans can be added to."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundles" / bundle_folder.name))


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy of an example bundle, whose one graph is int8 and takes most of a second to build."""
    return Path(shutil.copytree(ROOT / "examples" / "bundles" / "dress", tmp_path / "bundles" / "dress"))


def test_one_call_builds_a_plan_for_each_target_and_each_becomes_an_artifact(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (graph,) = bundle.load(folder).artifacts
    assert engine.main([str(folder), *FP32, "--target", "sm86", "sm89", "--batch", "1", "2", "4"]) == 0

    page = bundle.verify(folder)
    assert page.artifacts[0] == graph
    ampere, ada = page.artifacts[1:]
    assert (ampere.target, ada.target) == ("sm86", "sm89")
    for plan in (ampere, ada):
        assert plan.file == f"model.fp32.{plan.target}.{plan.sha256[:8]}.plan"
        assert plan.bytes == (folder / plan.file).stat().st_size
        assert (plan.precision, plan.engines) == ("fp32", ("tensorrt-rtx",))
        assert plan.built_with == {"tensorrt-rtx": trt.__version__}
        assert plan.profile == Profile(min_batch=1, opt_batch=2, max_batch=4)
        (verdict,) = plan.verdicts
        if reason := why_no_gpu():
            assert (verdict.engine, verdict.state) == ("tensorrt-rtx", "unrun")
            assert verdict.reason == reason.splitlines()[0]
    assert names_in(folder) == named(folder)

    table = capsys.readouterr().out
    assert "Tensor types are the parsed network's, which are the graph's; those of a plan's own layers show" in table
    for plan in (ampere, ada):
        (line,) = (line for line in table.splitlines() if f"shirt fp32 {plan.target}" in line)
        assert "FLOAT " in line
        assert "UINT8 1" in line
        assert "HALF" not in line


def test_an_int8_graph_gives_an_int8_plan(
    shipped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal, and a wide one
    monkeypatch.setenv("COLUMNS", "300")
    assert engine.main([str(shipped), "--precision", "int8", "--target", "sm89"]) == 0
    (plan,) = plans(shipped)
    assert plan.file.startswith("model.int8.sm89.")
    shown = capsys.readouterr()
    assert "INT8 112" in shown.out  # the graph has as many DequantizeLinear nodes
    assert "UINT8 1," in shown.out or "UINT8 1 " in shown.out  # the photos alone: TensorRT takes no other uint8
    assert "dress, int8 plan for sm89" in shown.err
    assert "100/100" in shown.err
    assert "left" in shown.err


def test_a_folder_of_bundles_stands_for_all_of_them(folder: Path) -> None:
    other = Path(shutil.copytree(folder, folder.parent / "coat"))
    assert engine.main([str(folder.parent), *ADA]) == 0
    assert [len(plans(each)) for each in (folder, other)] == [1, 1]


def test_what_is_unchanged_is_kept_and_said_so_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.main([str(folder), *ADA]) == 0
    before = contents(folder)
    capsys.readouterr()
    assert engine.main([str(folder), *ADA]) == 0
    (plan,) = plans(folder)
    assert capsys.readouterr() == (
        "",
        f"kept, as nothing it is made from has changed: {folder / plan.file} (make it anew: --rebuild)\n",
    )
    assert contents(folder) == before


@pytest.mark.parametrize(("state", "kept"), [("passed", True), ("unrun", False)])
def test_a_plan_for_the_gpu_here_is_kept_only_where_it_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, state: bundle.State, kept: bool
) -> None:
    job = engine.Job(
        folder=folder,
        slug="shirt",
        graph=graph_of(folder),
        library="tensorrt",
        version="11.0",
        target="",
        profile=Profile(),
        options=Options(),
    )
    file = folder / "model.fp32.0123abcd.plan"
    file.write_bytes(b"a plan")
    plan = Artifact(
        file=file.name,
        sha256=files.sha256_of(file),
        bytes=6,
        precision="fp32",
        engines=("tensorrt",),
        built_with={"tensorrt": "11.0"},
        made_from=job.made_from,
        verdicts=(Verdict(engine="tensorrt", state="passed"),),  # perhaps on another machine, with another GPU
    )
    page = bundle.load(folder)
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(*page.artifacts, plan)))
    monkeypatch.setattr(engine, "judged", lambda job, page, plan: Verdict(engine="tensorrt", state=state))
    assert engine.unchanged(job) == (plan if kept else None)


def test_rebuild_makes_the_plan_anew_and_sweeps_the_earlier_one(folder: Path) -> None:
    assert engine.main([str(folder), *FP32, "--target", "sm86", "sm89"]) == 0
    ampere, ada = plans(folder)
    written = (folder / ada.file).stat().st_mtime_ns
    assert engine.main([str(folder), *ADA, "--rebuild"]) == 0
    assert {plan.target: plan.made_from for plan in plans(folder)} == {
        "sm86": ampere.made_from,
        "sm89": ada.made_from,
    }
    assert ampere in plans(folder)
    (anew,) = (plan for plan in plans(folder) if plan.target == "sm89")
    assert (folder / anew.file).stat().st_mtime_ns > written
    assert names_in(folder) == named(folder)
    bundle.verify(folder)


@pytest.mark.parametrize("change", ["profile", "library", "graph", "plan"])
def test_what_changed_since_is_made_anew_without_being_asked(
    folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.main([str(folder), *ADA]) == 0
    (before,) = plans(folder)
    written = (folder / before.file).stat().st_mtime_ns
    if change == "library":
        monkeypatch.setattr(trt, "__version__", "99.0")
    elif change == "graph":
        content = (folder / graph_of(folder).file).read_bytes() + b"\x42\x00"  # one more field that ONNX ignores
        (folder / graph_of(folder).file).write_bytes(content)
        change_graph(folder, sha256=files.sha256_of(folder / graph_of(folder).file))
    elif change == "plan":
        (folder / before.file).write_bytes(b"half a plan")
    batch = ("--batch", "1", "2", "3") if change == "profile" else ()
    assert engine.main([str(folder), *ADA, *batch]) == 0
    (after,) = plans(folder)
    assert (folder / after.file).stat().st_mtime_ns > written
    assert (after.made_from == before.made_from) == (change == "plan")
    assert names_in(folder) == named(folder)
    bundle.verify(folder)


def test_a_precision_that_the_bundle_has_no_graph_of_is_answered_with_those_it_has(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused([str(folder), "--target", "sm89"], capsys)
    assert f"{folder} has no fp16 graph to build a plan from; it has: fp32\n" in said
    assert said.endswith(f"python -m export.build --category shirt --precision fp16 --out {folder.parent}\n")


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ((), r"(none has tried)"),
        (
            (Verdict(engine="onnxruntime", state="refused", reason="50.0% of labels agree"),),
            r"(onnxruntime refused: 50.0% of labels agree)",
        ),
    ],
)
def test_a_graph_that_no_engine_passed_is_no_source_for_a_plan(
    folder: Path, capsys: pytest.CaptureFixture[str], verdicts: Sequence[Verdict], reason: str
) -> None:
    change_graph(folder, verdicts=tuple(verdicts))
    said = refused([str(folder), *ADA], capsys)
    assert said.startswith(f"error: no engine passed the fp32 graph of {folder} {reason}\nbuild it anew with: python")


def test_a_damaged_graph_is_no_source_for_a_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = folder / graph_of(folder).file
    graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
    said = refused([str(folder), *ADA], capsys)
    assert f"{graph} was changed after it was built" in said


def test_a_damaged_golden_photo_is_found_before_a_plan_is_built(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = folder / bundle.load(folder).golden.photos[0].file
    photo.write_bytes(photo.read_bytes()[:-1])
    assert f"{photo} was changed after it was built" in refused([str(folder), *ADA], capsys)


def test_every_mistake_is_found_before_the_first_plan_is_built(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    assert "has no target 'sm1'; choose one of: sm75" in refused([str(folder), *ADA, "sm1"], capsys)
    assert "has no fp16 graph" in refused([str(folder), "--precision", "fp32", "fp16", "--target", "sm89"], capsys)
    assert "no bundle in" in refused([str(folder), str(folder / "golden"), *ADA], capsys)
    assert "got min 4, opt 2, max 1" in refused([str(folder), *ADA, "--batch", "4", "2", "1"], capsys)
    for flag in (("--hardware-compatible",), ("--version-compatible",), ("--timing-cache", "cache")):
        assert flag[0] in refused([str(folder), *ADA, *flag], capsys)
    assert contents(folder) == before


def test_a_bundle_that_is_not_there_is_said_before_a_gpu_that_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(tmp_path / "gone") in refused([str(tmp_path / "gone"), *FP32], capsys)


def test_without_a_gpu_the_targets_of_tensorrt_rtx_are_offered(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    said = refused([str(folder), *FP32], capsys)
    assert said.startswith("error: no GPU to build for: no NVIDIA driver found on this machine\n")
    assert said.endswith("--target sm75 sm80 sm86 sm89 sm120 sm121\n")


def test_without_tensorrt_and_a_target_tensorrt_rtx_builds_for_the_gpu_here(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engines.EngineKind.installed", lambda kind: kind.package == "tensorrt_rtx")
    monkeypatch.setattr(engine, "gpu_here", lambda: "sm86")
    assert engine.main([str(folder), *FP32]) == 0
    assert [plan.target for plan in plans(folder)] == ["sm86"]
    monkeypatch.setattr(engine, "gpu_here", lambda: "sm90")
    capsys.readouterr()
    assert "and this GPU is sm90\nTensorRT builds for it: pip install tensorrt cuda-bindings" in refused(
        [str(folder), *FP32], capsys
    )


def test_without_any_library_the_install_line_is_given(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.engines.EngineKind.installed", lambda kind: False)
    assert "pip install tensorrt cuda-bindings" in refused([str(folder), *FP32], capsys)
    assert "pip install tensorrt-rtx cuda-bindings" in refused([str(folder), *ADA], capsys)


def test_tensorrt_without_a_gpu_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr("runtime.engines.EngineKind.installed", lambda kind: kind.package == "tensorrt")
    assert "tensorrt builds only beside the GPU that will run the plan: no NVIDIA driver" in refused(
        [str(folder), *FP32], capsys
    )


def test_the_log_is_kept_in_the_folder_that_is_named(folder: Path, tmp_path: Path) -> None:
    assert engine.main([str(folder), *ADA, "--log", str(tmp_path / "logs")]) == 0
    log = tmp_path / "logs" / "shirt.fp32.sm89.log"
    assert [path.name for path in log.parent.iterdir()] == [log.name]
    assert "Engine generation completed" in log.read_text()
    assert names_in(folder) == named(folder)


def test_the_log_of_a_failed_build_lies_beside_the_plan_until_the_next_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = folder / graph_of(folder).file
    whole = graph.read_bytes()
    graph.write_bytes(b"no graph")
    change_graph(folder, sha256=files.sha256_of(graph))
    before = bundle.load(folder)

    said = refused([str(folder), *ADA], capsys)
    log = folder / "model.fp32.sm89.log"
    assert said.endswith(f"\nall that the library said: {log}\n")
    assert "ERROR: " in log.read_text()
    assert bundle.verify(folder) == before

    graph.write_bytes(whole)
    change_graph(folder, sha256=files.sha256_of(graph))
    assert engine.main([str(folder), *ADA]) == 0
    assert names_in(folder) == named(folder)


def test_plans_built_before_a_failure_are_in_their_bundles_and_in_the_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(folder, folder.parent / "broken"))
    graph = broken / graph_of(broken).file
    graph.write_bytes(b"no graph")
    change_graph(broken, sha256=files.sha256_of(graph))
    assert engine.main([str(folder), str(broken), *ADA]) == 2
    assert len(plans(folder)) == 1
    shown = capsys.readouterr()
    assert "shirt fp32 sm89" in shown.out
    assert "does not parse" in shown.err


def test_a_full_disk_is_one_clear_line_and_the_bundle_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str], largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    assert engine.main([str(folder), *ADA]) == 0
    before = contents(folder)
    (plan,) = plans(folder)
    capsys.readouterr()
    with largest_file(plan.bytes // 2):
        said = refused([str(folder), *ADA, "--rebuild"], capsys)
    assert said == (
        f"error: cannot write {folder}/model.fp32.sm89.plan: File too large; {folder} is as it was\n"
        "mend that, then type the same command again\n"
    )
    assert contents(folder) == before
    bundle.verify(folder)


def test_a_page_that_cannot_be_written_leaves_no_plan_behind(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, page: bundle.Bundle) -> bundle.Bundle:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(engine, "save", full)
    assert f"cannot write {folder}: No space left on device" in refused([str(folder), *ADA], capsys)
    assert not list(folder.glob("*.plan"))
    bundle.verify(folder)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_bundle_built_anew_meanwhile_does_not_take_a_plan_of_its_old_graph(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def slow_build(*args: Any, **options: Any) -> Plan:
        if when == "before":
            change_graph(folder, sha256="0" * 64)
        plan = plan_from_onnx(*args, **options)
        if when == "after":
            change_graph(folder, bytes=1)
        return plan

    monkeypatch.setattr(engine, "plan_from_onnx", slow_build)
    assert f"{folder} was built anew meanwhile" in refused([str(folder), *ADA], capsys)
    assert not plans(folder)


def test_where_a_plan_was_refused_one_of_another_graph_is_offered(folder: Path) -> None:
    page = bundle.load(folder)
    (graph,) = page.artifacts
    job = engine.jobs(engine.parser().parse_args([str(folder), *ADA]))[0]
    kept = f"{folder} keeps what it had, and its fp32 graph serves without a plan"
    assert engine.remedy(job) == kept
    half = msgspec.structs.replace(graph, precision="fp16", file="model.fp16.onnx")
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(graph, half)))
    assert engine.remedy(job) == f"{kept}; try: python -m export.engine {folder} --precision fp16 --target sm89"


def test_a_refused_plan_stays_out_and_the_earlier_one_in(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.main([str(folder), *ADA]) == 0
    before = contents(folder)
    capsys.readouterr()
    verdict = Verdict(engine="tensorrt-rtx", state="refused", reason="a probability differs by 0.5, limit 0.0001")
    monkeypatch.setattr(engine, "judged", lambda job, page, plan: verdict)
    assert engine.main([str(folder), *ADA, "--rebuild"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "refused: a probability differs by 0.5, limit 0.0001" in said
    assert f"{folder} keeps what it had, and its fp32 graph serves without a plan" in said
    assert contents(folder) == before


def test_a_kill_in_the_middle_leaves_the_bundle_as_it_was_and_nothing_once_the_next_is_built(shipped: Path) -> None:
    command = [str(shipped), "--precision", "int8", "--target", "sm89", "--quiet"]
    before = bundle.load(shipped)
    # Its own log tells that the build is under way.
    process = start("from export.engine import main; raise SystemExit(main())", command)
    log = shipped / "model.int8.sm89.log"
    limit = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert bundle.verify(shipped) == before
    assert log.exists()  # what a build that the system killed for its memory leaves to be read

    # And at the last moment, all written but the page.
    process = start(
        "import os, export.engine as e; e.save = lambda *_: os.kill(os.getpid(), 9); raise SystemExit(e.main())",
        command,
    )
    assert process.wait() == -signal.SIGKILL
    assert bundle.verify(shipped) == before
    assert names_in(shipped) - named(shipped)

    assert engine.main(command) == 0
    assert bundle.verify(shipped) != before
    assert names_in(shipped) == named(shipped)


def test_it_is_done_without_torch_or_onnx_or_anything_that_made_the_bundle(folder: Path) -> None:
    code = "import sys; from export.engine import main; print(main(), *sorted(sys.modules))"
    command = [sys.executable, "-c", code, str(folder), *ADA]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    said, *loaded = done.stdout.splitlines()[-1].split()
    assert said == "0", done.stderr
    assert len(plans(folder)) == 1
    assert {name for name in loaded if name.startswith("export.")} == {"export.engine", "export.plan"}
    made_with = {"torch", "timm", "onnx", "onnxscript", "nncf", "pandas", "sklearn", "train"}
    assert not made_with & {name.partition(".")[0] for name in loaded}


def start(code: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, env=ENVIRONMENT)


def refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says of a mistake."""
    assert engine.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def plans(folder: Path) -> list[Artifact]:
    return [artifact for artifact in bundle.load(folder).artifacts if artifact.file.endswith(".plan")]


def graph_of(folder: Path) -> Artifact:
    return bundle.load(folder).artifacts[0]


def change_graph(folder: Path, **changes: object) -> None:
    page = bundle.load(folder)
    graph, *others = page.artifacts
    changed = msgspec.structs.replace(graph, **changes)
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(changed, *others)))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def named(folder: Path) -> set[str]:
    """The files that a bundle's page names, and the page."""
    page = bundle.load(folder)
    kept = [page.validation.file] if page.validation else []
    return {bundle.PAGE, *kept, *(one.file for one in page.artifacts), *(photo.file for photo in page.golden.photos)}

"""Bundles are checked where they will serve: every file, every artifact on every engine, and what is found is kept."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from export import verify
from runtime import bundle, files, locks
from runtime.bundle import Artifact, Bundle, Verdict
from runtime.engines import ENGINES
from runtime.engines.cuda import why_no_gpu
from runtime.predictor import choose

HINTS = {"onnxruntime": "", "openvino": "f32"}
HONEST = {"colour": {"blue": "B", "green": "G", "red": "R"}}
# Blue and green answer for each other.
SWAPPED = {"colour": {"blue": "G", "green": "B", "red": "R"}}
PLAN = "model.fp16.sm89.00c0ffee.plan"


@pytest.fixture
def root(fleet_root: Path, tmp_path: Path) -> Path:
    """Three bundles to spoil: boot, garment, shirt."""
    return Path(shutil.copytree(fleet_root, tmp_path / "bundles"))


@pytest.fixture
def shirt(root: Path) -> Path:
    return root / "shirt"


def verdict(engine: str, state: str, **more: Any) -> Verdict:
    return Verdict(engine=engine, hint=HINTS.get(engine, ""), state=state, **more)  # type: ignore[arg-type]


def with_verdicts(folder: Path, *verdicts: Verdict) -> Path:
    """The bundle, its graph judged so."""
    page = bundle.load(folder)
    artifact = msgspec.structs.replace(page.artifacts[0], verdicts=verdicts)
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(artifact, *page.artifacts[1:])))
    return folder


def with_graph(folder: Path, graph: Path) -> Path:
    """The bundle with a graph in place of its own, which the page calls its own."""
    sha256 = files.sha256_of(graph)
    graph = graph.rename(folder / f"model.fp32.{sha256[:8]}.onnx")
    page = bundle.load(folder)
    artifact = msgspec.structs.replace(page.artifacts[0], file=graph.name, sha256=sha256, bytes=graph.stat().st_size)
    bundle.save(folder, msgspec.structs.replace(page, artifacts=(artifact,)))
    return folder


def verdicts(folder: Path) -> tuple[Verdict, ...]:
    return bundle.verify(folder).artifacts[0].verdicts


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[list[str]], str]:
    """The exit code, the rows of the tables, and what is said on stderr."""
    capsys.readouterr()
    code = verify.main([*map(str, arguments), "--quiet"])
    shown = capsys.readouterr()
    lines = [line for line in shown.out.splitlines() if not line.endswith("golden photos")]
    cells = [re.split(r" {2,}", line) for line in lines if line.split()[0] != verify.COLUMNS[0]]
    return code, cells, shown.err


def test_bundles_that_are_as_they_were_built_pass_and_are_left_as_they_are(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(root)
    code, rows, said = run(capsys, root)
    assert (code, said) == (0, "")
    engines = [name for name in HINTS if ENGINES[name].installed()]
    for _ in range(3):
        for engine in engines:
            artifact, shown, difference, agreement, *states = rows.pop(0)
            assert (artifact, shown.split()[0], agreement, states) == ("fp32", engine, "100.0%", ["passed", "passed"])
            assert float(difference.removesuffix(", limit 0.0001")) < 1e-5
    assert contents(root) == before


def test_what_was_not_tried_where_it_was_built_passes_here_and_is_served_from_then_on(
    shirt: Path, cpu_engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with_verdicts(shirt, verdict(cpu_engine, "unrun", reason="not installed where it was built"))
    code, rows, said = run(capsys, shirt)
    assert (code, said) == (0, "")
    assert rows[0][-2:] == ["unrun", "passed"]
    found = verdicts(shirt)[0]
    assert (found.engine, found.hint, found.state, found.reason) == (cpu_engine, HINTS[cpu_engine], "passed", "")
    assert found.figures["golden_photos"] == 3
    assert found.images_per_s
    assert choose(bundle.load(shirt), engine=cpu_engine, precision=None).verdict == found


def test_what_was_not_tried_and_answers_wrongly_is_refused_with_the_reason(
    shirt: Path, cpu_engine: str, make_graph: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with_graph(shirt, make_graph(shirt / "new.onnx", SWAPPED, side=24))
    with_verdicts(shirt, verdict(cpu_engine, "unrun"))
    code, rows, _ = run(capsys, shirt)
    assert code == 1
    found = verdicts(shirt)[0]
    assert found.state == "refused"
    assert re.fullmatch(r"a probability differs by 0\.\d+, limit 0\.0001", found.reason)
    assert rows[0][-2:] == ["unrun", f"refused: {found.reason}"]


def test_what_passed_where_it_was_built_and_fails_here_is_refused_and_stays_amiss(
    shirt: Path, make_graph: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with_graph(shirt, make_graph(shirt / "new.onnx", SWAPPED, side=24))
    with_verdicts(shirt, verdict("onnxruntime", "passed", images_per_s=9.0))
    assert run(capsys, shirt)[0] == 1
    assert verdicts(shirt)[0].state == "refused"
    # No engine may serve it now, and that is no less true a second time.
    assert run(capsys, shirt)[0] == 1


def test_what_still_passes_keeps_what_the_gate_measured(shirt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = verdict("onnxruntime", "passed", figures={"hm": 0.8, "labels": 900.0}, images_per_s=12.5)
    with_verdicts(shirt, gate)
    assert run(capsys, shirt)[0] == 0
    assert verdicts(shirt)[0] == gate


def test_what_the_gate_refused_stays_refused_whatever_so_few_photos_say(
    shirt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "the mean HM falls by 2.00 points, limit 0.5"
    gate = verdict("onnxruntime", "refused", reason=why, figures={"hm": 0.5, "labels": 900.0})
    other = Verdict(engine="onnxruntime", hint="float", state="passed")
    with_verdicts(shirt, gate, other)
    code, rows, _ = run(capsys, shirt)
    assert code == 0, "the bundle is as it was built, and is served by another of its verdicts"
    assert [row[-2:] for row in rows[:2]] == [["refused", f"refused: {gate.reason}"], ["passed", "passed"]]
    assert float(rows[0][2].split(",")[0]) < 1e-5
    assert verdicts(shirt)[:2] == (gate, other)


def test_what_golden_photos_refused_passes_once_they_pass(shirt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = verdict("onnxruntime", "refused", reason="a probability differs by 1", figures={"golden_photos": 3.0})
    for before in (once, verdict("onnxruntime", "refused", reason="cannot be run: gone")):
        with_verdicts(shirt, before)
        assert run(capsys, shirt)[0] == 0
        (now, *_) = verdicts(shirt)
        assert (now.state, now.figures["golden_photos"]) == ("passed", 3)


def test_what_is_refused_is_told_with_the_command_that_makes_it_anew(
    shirt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = [name for name in HINTS if ENGINES[name].installed()]
    figures = {"hm": 0.5, "labels": 900.0}
    with_verdicts(shirt, *(verdict(name, "refused", reason="HM", figures=figures) for name in ways))
    code, _, said = run(capsys, shirt)
    assert code == 1
    wanted = f"--category shirt --precision fp32 --out {shirt.parent}"
    assert said.splitlines() == [f"rebuild it with: python -m export.build {wanted}"]


def test_an_engine_that_never_tried_a_graph_tries_it(shirt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_verdicts(shirt)
    code, rows, _ = run(capsys, shirt)
    assert code == 0
    assert [row[-2:] for row in rows] == [["unrun", "passed"]] * len(rows)
    assert {one.engine for one in verdicts(shirt)} == {name for name in HINTS if ENGINES[name].installed()}


def test_an_artifact_that_nothing_here_can_try_stays_in_the_bundle(
    shirt: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_verdicts(shirt)  # by nobody
    page = bundle.load(shirt)
    other = msgspec.structs.replace(page.artifacts[0], precision="int8", file="model.int8.00c0ffee.onnx")
    (shirt / other.file).write_bytes((shirt / page.artifacts[0].file).read_bytes())
    bundle.save(shirt, msgspec.structs.replace(page, artifacts=(*page.artifacts, other)))
    monkeypatch.setattr(verify, "known", lambda artifact: list(artifact.verdicts))
    before = contents(shirt)
    assert run(capsys, shirt)[0] == 0
    assert contents(shirt) == before


def test_verdicts_wait_for_a_build_that_is_under_way(
    shirt: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.1)
    before = with_verdicts(shirt, verdict("onnxruntime", "unrun"))
    page = (before / bundle.PAGE).read_bytes()
    with locks.locked(shirt, "build"):
        code, _, said = run(capsys, shirt)
    assert code == 1
    assert f"another build is writing to {shirt}" in said
    assert (before / bundle.PAGE).read_bytes() == page


def test_an_engine_that_is_not_here_leaves_its_verdict_and_the_table_says_so(
    shirt: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "openvino", replace(ENGINES["openvino"], package="no_such_library"))
    held = (
        verdict("onnxruntime", "passed"),
        verdict("openvino", "passed"),
        Verdict(engine="openvino", state="unrun", reason="not installed where it was built"),
    )
    with_verdicts(shirt, *held)
    code, rows, _ = run(capsys, shirt)
    assert code == 0
    assert [row[2:] for row in rows[1:]] == [
        ["-", "-", "passed", "passed, not tried here: not installed"],
        ["-", "-", "unrun", "unrun: not installed"],
    ]
    assert verdicts(shirt) == held


# Plans


@pytest.fixture
def with_plans(shirt: Path) -> Callable[..., Path]:
    """Adds what are called plans to the bundle, each for its GPU and of its version."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

    def add(*targets: str, version: str = trt.__version__) -> Path:
        page = bundle.load(shirt)
        plans = []
        for target in targets:
            path = shirt / PLAN.replace("sm89", target)
            path.write_bytes(target.encode())
            plans.append(
                Artifact(
                    file=path.name,
                    sha256=files.sha256_of(path),
                    bytes=path.stat().st_size,
                    precision="fp16",
                    target=target,
                    engines=("tensorrt-rtx",),
                    built_with={"tensorrt-rtx": version},
                    verdicts=(verdict("tensorrt-rtx", "unrun", reason="no NVIDIA driver found on this machine"),),
                )
            )
        bundle.save(shirt, msgspec.structs.replace(page, artifacts=(*page.artifacts, *plans)))
        return shirt

    return add


def test_a_plan_without_its_gpu_stays_unrun_with_its_reason(
    with_plans: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    if not why_no_gpu():
        pytest.skip("this machine has a GPU")
    folder = with_plans("sm89")
    before = contents(folder)
    code, rows, said = run(capsys, folder)
    assert (code, said) == (0, "")
    assert rows[-1] == ["fp16 sm89", "tensorrt-rtx", "-", "-", "unrun", "unrun: no NVIDIA driver found on this machine"]
    assert contents(folder) == before


def test_a_plan_of_another_library_version_is_told_with_the_command_that_makes_it_anew(
    with_plans: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt_rtx as trt

    monkeypatch.setattr("runtime.plans.gpu_here", lambda: "")
    folder = with_plans("sm89", version="1.0.0.21")
    code, rows, said = run(capsys, folder)
    misfit = f"built with tensorrt-rtx 1.0.0.21, here is {trt.__version__}"
    assert (code, rows[-1][-1]) == (1, f"unrun: {misfit}")
    command = f"python -m export.engine {folder} --precision fp16 --target sm89 --rebuild"
    assert said == f"{folder / PLAN} was {misfit}\nrebuild it with: {command}\n"


def test_a_plan_for_another_gpu_is_told_with_the_command_for_this_one(
    with_plans: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.plans.gpu_here", lambda: "sm120")
    folder = with_plans("sm89")
    code, _, said = run(capsys, folder)
    assert code == 1
    command = f"python -m export.engine {folder} --precision fp16 --target sm120 --rebuild"
    assert said == f"{folder / PLAN} was built for a GPU of kind sm89, here is sm120\nrebuild it with: {command}\n"


def test_plans_for_other_gpus_are_no_matter_where_one_is_for_this_gpu(
    with_plans: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.plans.gpu_here", lambda: "sm89")
    code, rows, said = run(capsys, with_plans("sm86", "sm89"))
    assert (code, said) == (0, "")
    assert rows[-2][-1] == "unrun: built for a GPU of kind sm86, here is sm89"


# What is damaged

BUILD = "rebuild it with: python -m export.build --category garment --precision fp32 --out {root}"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def newer(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2, "shape": "unknown yet"}))


def regraft(path: Path) -> None:
    """Another taxonomy, by hand."""
    path.write_text(path.read_text().replace('"Hat"', '"Cap"'))


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "a flipped byte in a graph": ("model.*", flip, r"{path} was changed after it was built: sha256 \w+, .*", BUILD),
    "a flipped byte in a photo": ("golden/red.png", flip, r"{path} was changed after it was built: sha256 .*", BUILD),
    "a flipped byte in the page": ("bundle.json", flip, r"{path} (was changed|is not a valid|has schema).*", BUILD),
    "a missing graph": ("model.*", Path.unlink, "cannot read {path}: No such file or directory", BUILD),
    "a missing photo": ("golden/red.png", Path.unlink, "cannot read {path}: No such file or directory", BUILD),
    "a missing page": ("bundle.json", Path.unlink, "cannot read {path}: No such file or directory", BUILD),
    "another taxonomy": ("bundle.json", regraft, r"{path} was changed after it was built: its digest differs", BUILD),
    "a newer schema": (
        "bundle.json",
        newer,
        "{path} has schema 2, this version reads up to 1",
        "upgrade Facet: in its clone, git pull, then pip install .",
    ),
}


@pytest.mark.parametrize("case", list(DAMAGE))
def test_damage_is_one_line_and_the_next_command_and_the_other_bundles_are_looked_at(
    root: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    pattern, damage, line, command = DAMAGE[case]
    (path,) = (root / "garment").glob(pattern)
    damage(path)
    code, rows, said = run(capsys, root)
    assert code == 1
    assert len(rows) == 2 * len([name for name in HINTS if ENGINES[name].installed()])
    first, second, last = said.splitlines()
    assert re.fullmatch("error: " + line.format(path=re.escape(str(path))), first)
    assert second == command.format(root=root)
    assert last == f"1 of 3 bundles are not as they should be: {root / 'garment'}"


def test_every_damaged_bundle_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for slug in ("boot", "shirt"):
        flip(root / slug / "golden" / "blue.png")
    code, _, said = run(capsys, root)
    assert code == 1
    assert [line.split()[1] for line in said.splitlines() if line.startswith("error: ")] == [
        str(root / slug / "golden" / "blue.png") for slug in ("boot", "shirt")
    ]


@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["flipped byte", "missing"])
def test_a_damaged_plan_is_made_anew_by_its_own_command(
    with_plans: Callable[..., Path], capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    folder = with_plans("sm89")
    damage(folder / PLAN)
    code, _, said = run(capsys, folder)
    assert code == 1
    command = f"rebuild it with: python -m export.engine {folder} --precision fp16 --target sm89 --rebuild"
    assert said.splitlines()[1:] == [command]


def test_a_bundle_whose_page_is_lost_is_known_by_its_graph_alone_too(
    shirt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shirt / "bundle.json").unlink()
    code, rows, said = run(capsys, shirt)
    assert (code, rows) == (1, [])
    assert said.startswith(f"error: cannot read {shirt / 'bundle.json'}: No such file")
    shutil.rmtree(shirt.parent / "boot")
    shutil.rmtree(shirt.parent / "garment")
    assert run(capsys, shirt.parent)[0] == 1


# What cannot be kept


def test_verdicts_that_cannot_be_written_are_told_and_the_bundle_stays_as_it_was(
    shirt: Path, capsys: pytest.CaptureFixture[str], largest_file: Callable[[int], AbstractContextManager[None]]
) -> None:
    with_verdicts(shirt, verdict("onnxruntime", "unrun"))
    before = contents(shirt)
    with largest_file(100):
        code, rows, said = run(capsys, shirt)
    assert (code, {row[-1] for row in rows}) == (0, {"passed"})
    assert said == f"the new verdicts cannot be kept in {shirt}: File too large\n"
    assert contents(shirt) == before


def test_a_read_only_bundle_is_checked_and_its_verdicts_are_told(
    shirt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_verdicts(shirt, verdict("onnxruntime", "unrun"))
    shirt.chmod(0o555)
    try:
        if os.access(shirt, os.W_OK):
            pytest.skip("root writes where nobody may")
        code, rows, said = run(capsys, shirt)
    finally:
        shirt.chmod(0o755)
    assert (code, [row[-1] for row in rows]) == (0, ["passed"])
    assert said == f"the new verdicts cannot be kept in {shirt}: Permission denied\n"


def test_a_bundle_that_is_built_anew_meanwhile_keeps_its_own_verdicts(
    shirt: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_verdicts(shirt, verdict("onnxruntime", "unrun"))
    whole = verify.golden.check

    def check(folder: Path, page: Bundle, *rest: Any) -> Verdict:
        bundle.save(shirt, msgspec.structs.replace(page, provenance={"built": "anew"}))
        return whole(folder, page, *rest)

    monkeypatch.setattr(verify.golden, "check", check)
    code, _, said = run(capsys, shirt)
    assert code == 1
    assert said.startswith(f"error: {shirt} was built anew meanwhile, so these verdicts are not kept\ntype the same")
    assert verdicts(shirt)[0].state == "unrun"


# The call


def test_a_folder_without_a_bundle_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, tmp_path / "none")
    assert code == 2
    assert said.startswith(f"error: no bundles folder at {tmp_path / 'none'}\nbuild one with: python -m export.build")
    code, _, said = run(capsys, tmp_path)
    assert (code, said.splitlines()[0]) == (2, f"error: no bundle in {tmp_path}")


def test_a_bundle_named_twice_is_checked_once(shirt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once, twice = run(capsys, shirt.parent)[1], run(capsys, shirt.parent, shirt)[1]
    assert [row[:2] for row in once] == [row[:2] for row in twice]


def test_without_a_name_the_bundles_here_are_checked_else_the_shipped_ones(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert verify.main([]) == 0
    assert "bundles/boot: 3 golden photos" in capsys.readouterr().out
    shutil.rmtree(root)
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(verify, "default_root", lambda: (shipped, True))
    assert verify.main([]) == 2
    assert f"no bundles/ folder here: checking the example bundles in {shipped}\n" in capsys.readouterr().err


def test_progress_is_told_on_a_terminal_unless_quiet(
    shirt: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    verify.main([str(shirt)])
    assert "shirt, golden photos" in capsys.readouterr().err
    assert run(capsys, shirt)[2] == ""


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Every file's content, and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

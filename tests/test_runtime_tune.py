"""What is fastest here is found among what is faithful here, kept for this machine, and taken from then on."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from runtime import bundle, cache, machine, predictor, tune, tuned
from runtime.bundle import Verdict
from runtime.engines import ENGINES, Engine, EngineOptions
from runtime.predictor import Predictor, choose
from runtime.tune import Timed, Way
from runtime.tuned import Tuned

# Keys of the right names, and values that no machine has.
FOUND = {"sha256": "", "hint": "", "engine": "onnxruntime", "streams": 1, "batch": 4, "images_per_s": 1.0}
CHANGES = [{"batch": 10**9}, {"batch": True}, {"streams": 0}, {"streams": 1.5}, {"streams": "2"}, {"engine": []}]
CHANGES += [{"sha256": [1]}, {"hint": {}}, *({"images_per_s": rate} for rate in (float("nan"), "1", True, -1.0))]
ODD = [json.dumps(FOUND | change).encode() for change in CHANGES]


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of one graph that both CPU engines passed, a cache of its own, and a quiet machine."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "LOOK_S", 0.01)
    copy = Path(shutil.copytree(bundle_folder, tmp_path / "shirt"))
    page = bundle.load(copy)
    (graph,) = page.artifacts
    passed = tuple(
        Verdict(engine=name, hint=hint, state="passed")
        for name, hint in (("onnxruntime", ""), ("openvino", "f32"))
        if ENGINES[name].installed()
    )
    bundle.save(copy, msgspec.structs.replace(page, artifacts=(msgspec.structs.replace(graph, verdicts=passed),)))
    return copy


def found(page: bundle.Bundle, **changes: object) -> Tuned:
    (graph,) = page.artifacts
    one = Tuned(sha256=graph.sha256, engine="onnxruntime", streams=2, batch=5, images_per_s=10.0)
    return replace(one, **changes)


def test_the_fastest_way_is_kept_and_taken_from_then_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main([str(folder), "--quiet"]) == 0
    out, err = capsys.readouterr()
    page = bundle.load(folder)
    kept = tuned.read(page)
    assert kept is not None
    assert f"predict takes the first from now on: {tuned._path(page)}\n" == err
    _, _, first, *_ = out.splitlines()  # below the title and the header
    assert first.split()[1] == kept.engine
    assert first.endswith("1.00")
    with Predictor.open(folder) as predictor:
        assert (predictor.choice.engine, predictor.batch, predictor.choice.tuned) == (kept.engine, kept.batch, kept)
    assert str(predictor.choice).endswith("tuned")


def test_on_a_busy_machine_it_says_that_what_it_finds_may_not_hold(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.51 * machine.cores(), 0.0, 0.0), raising=False)
    assert tune.main([str(folder), "--quiet"]) == 0
    assert "this machine is busy (load" in capsys.readouterr().err


def test_what_was_found_holds_for_this_page_this_machine_and_these_engines_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = bundle.load(folder)
    tuned.write(page, found(page))
    assert tuned.read(page) == found(page)
    changed = bundle.save(folder, msgspec.structs.replace(page, provenance={"data": "other"}))
    assert tuned.read(changed) is None
    another = replace(machine.processor(), name="another")
    for target, value in (("processor", lambda: another), ("version_of", lambda package: "another")):
        with monkeypatch.context() as patch:
            patch.setattr(f"runtime.machine.{target}", value)
            assert tuned.read(page) is None


def test_a_pipe_where_it_would_be_is_as_none(folder: Path) -> None:
    page = bundle.load(folder)
    path = tuned.write(page, found(page))
    path.unlink()
    os.mkfifo(path)
    assert tuned.read(page) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"no json", b'{"batch": 2}', b"\xff", 100_000 * b"[", *ODD],
    ids=lambda content: repr(content[-60:]),
)
def test_what_is_no_such_file_is_as_none(folder: Path, content: bytes) -> None:
    page = bundle.load(folder)
    tuned.write(page, found(page)).write_bytes(content)
    assert tuned.read(page) is None
    with Predictor.open(folder) as predictor:
        assert predictor.choice.tuned is None


@pytest.mark.parametrize(
    "changes", [{"sha256": "0" * 64}, {"engine": "tensorrt"}, {"engine": "gone"}, {"hint": "bf16"}], ids=str
)
def test_what_the_gate_does_not_pass_is_not_taken(folder: Path, changes: dict[str, str]) -> None:
    page = bundle.load(folder)
    tuned.write(page, found(page, **changes))
    assert Predictor.open(folder).choice == choose(page, engine="auto", precision=None)


def test_many_photos_get_the_streams_that_were_found_best_and_few_no_more_than_they_ask_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = bundle.load(folder)
    tuned.write(page, found(page, streams=3))
    opened: list[EngineOptions] = []
    real = predictor.open_engine

    def noted(name: str, path: Path, options: EngineOptions) -> Engine:
        opened.append(options)
        return real(name, path, options)

    monkeypatch.setattr(predictor, "open_engine", noted)
    for streams in (8, 2, 1):
        Predictor.open(folder, streams=streams)
    assert [options.streams for options in opened] == [3, 2, 1]


def test_who_names_an_engine_or_threads_gets_them(folder: Path) -> None:
    page = bundle.load(folder)
    tuned.write(page, found(page))
    assert Predictor.open(folder).choice.tuned == found(page)
    assert Predictor.open(folder, engine="onnxruntime").choice.tuned is None
    assert Predictor.open(folder, precision="fp32").choice.tuned is None


def test_what_fails_its_golden_photos_here_is_not_timed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = bundle.load(folder)
    wrong = {name: tuple(tuple(reversed(row)) for row in rows) for name, rows in page.golden.probabilities.items()}
    golden = msgspec.structs.replace(page.golden, probabilities=wrong)
    bundle.save(folder, msgspec.structs.replace(page, golden=golden))
    assert tune.main([str(folder), "--quiet"]) == 2
    said = f"error: no artifact of {folder} passes here\nsee why with: python -m export.verify {folder}\n"
    assert capsys.readouterr().err == said


def test_one_bundle_that_cannot_be_timed_costs_the_others_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "all" / "good")
    shutil.copytree(folder, tmp_path / "all" / "bad")
    next((tmp_path / "all" / "bad").glob("*.onnx")).write_bytes(b"changed")
    assert tune.main([str(tmp_path / "all"), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert "images/s" in out and "was changed after it was built" in err


def test_a_place_that_takes_nothing_is_told_with_another(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert tune.main([str(folder), "--quiet"]) == 2
    out, said = capsys.readouterr()
    assert f"cannot keep what is found: Not a directory: {cache.folder('tuned')}\n" in said
    assert said.endswith("name a folder with: XDG_CACHE_HOME=DIR\n")
    assert not out  # nothing was timed for it


def test_only_streams_of_an_engine_with_threads_of_its_own_are_tried_with_large_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    page = bundle.load(folder)
    (graph,) = page.artifacts
    tried = {
        (engine, at_once): [way.batch for way in tune.ways_of(page, graph, verdict) if way.streams == at_once]
        for engine, verdict in ((name, Verdict(engine=name, state="passed")) for name in ("onnxruntime", "openvino"))
        for at_once in (1, 2)
    }
    at_once = tried["onnxruntime", 1]
    assert tried["openvino", 1] == at_once
    assert tried["onnxruntime", 2] == [predictor.BATCH]
    assert tried["openvino", 2] == [*at_once, tune.LARGER * at_once[-1]]


def test_the_best_few_come_to_the_last_comparison(folder: Path) -> None:
    (graph,) = bundle.load(folder).artifacts
    timed = [
        Timed(way=Way(artifact=graph, engine="onnxruntime", hint="", streams=1, batch=batch), rates=[rate])
        for batch, rate in enumerate([100.0, 86.0, 84.0, 99.0, 98.0, 97.0, 96.0], 1)
    ]
    assert [each.rate for each in tune.finalists(timed)] == [100.0, 99.0, 98.0, 97.0]
    assert [each.rate for each in tune.finalists(timed[:3])] == [100.0, 86.0]

"""Ways in processes of their own: what they are asked, what they answer, and what becomes of one that cannot."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import limits, turns, worker
from benchmarks.cache import ROOT
from benchmarks.networks import NETWORKS
from benchmarks.turns import Process, Worker
from benchmarks.ways import KINDS, OURS, REFERENCE, Kind
from benchmarks.works import WORKS


def test_the_demo_s_ways_answer_its_photos_alone_and_from_folder_to_table(tmp_path: Path) -> None:
    """Ours and the reference's, in this process: what a worker is asked, and the tables that are compared."""
    from benchmarks.ways import open_way

    work = replace(WORKS["demo"](), alone=2)
    found = {}
    photos = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
    folder = turns.linked(tmp_path / "photos", photos, 14, 4)
    for name in ("facet as installed", REFERENCE):  # ours as such is tuned first, which takes half a minute
        way = open_way(name, work)
        assert worker.done(way, work, ["how"])["step"] == way.step
        assert worker.done(way, work, ["answers", str(tmp_path / f"{name}.npz"), "16"]) == {}
        assert float(str(worker.done(way, work, ["alone", "2"])["images_per_s"])) > 0
        out = tmp_path / f"{name}.csv"
        assert float(str(worker.done(way, work, ["whole", str(folder), str(out)])["images_per_s"])) > 0
        assert len(out.read_text().splitlines()) == 5
        with np.load(tmp_path / f"{name}.npz") as arrays:
            found[name] = dict(arrays)
    assert {name: rows.shape for name, rows in found["facet as installed"].items()} == {
        attribute.output: (16, len(attribute.classes)) for attribute in work.page.attributes
    }
    # The gate's limit for int8 on the mean; the shipped graph is that.
    gaps = [np.abs(rows - found[REFERENCE][name]).mean() for name, rows in found["facet as installed"].items()]
    assert np.mean(gaps) < 0.02


def test_links_begin_anew_behind_the_last_photo(tmp_path: Path) -> None:
    photos = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for photo in photos:
        photo.touch()
    made = sorted(turns.linked(tmp_path / "links", photos, 2, 5).iterdir())
    assert [link.readlink().name for link in made] == ["c.jpg", "a.jpg", "b.jpg", "c.jpg", "a.jpg"]


def test_a_way_that_breaks_has_failed_and_says_its_last_word() -> None:
    with Process("no-such-way", "benchmarks.no_such_module") as process:
        assert process.ready() == {}
        assert not process.missing
        with pytest.raises(RuntimeError, match=r"it ended with 1: .*No module named"):
            process.ask("how")
    assert re.match(r"it ended with 1: .*No module named .*; all that it said is in ", process.failed)
    assert "No module named" in Path(process.failed.rpartition(" ")[2]).read_text()


def test_a_request_keeps_its_blanks() -> None:
    with Process("echo", "tests.echo") as process:
        process.ready()
        assert process.ask("whole", Path("my photos"), 'a "table".csv') == {
            "said": ["whole", "my photos", 'a "table".csv']
        }


def test_ctrl_c_while_a_way_is_loading_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Worker] = []

    def pressed(self: Worker) -> dict[str, object]:
        held.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "ready", pressed)
    with pytest.raises(KeyboardInterrupt), ExitStack() as stack:
        turns.started("demo", [OURS, REFERENCE], stack, print)
    assert [worker._process.poll() for worker in held] == [-signal.SIGKILL]


def test_a_way_whose_package_is_not_installed_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "other", Kind(module="benchmarks.ways.other", needs=("no_such_package", "numpy")))
    with ExitStack() as held:
        found = turns.started("demo", ["other"], held, print)
    assert found == ([], {"other": "not installed: no_such_package"}, {})


def test_without_openvino_the_machines_own_rates_are_missing_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "NEEDS", ("no_such_package", "onnx"))
    assert limits.main() == 0
    assert json.loads(capsys.readouterr().out) == {"missing": "not installed: no_such_package"}


def test_every_work_and_way_is_one_that_a_worker_takes() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in (*WORKS, *KINDS):
        assert name in said
    assert set(NETWORKS) == set(WORKS) - {"demo"}
    assert next(iter(KINDS)) == OURS

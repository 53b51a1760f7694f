"""A file of figures: its name, and what it may say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from benchmarks import record


def test_a_machines_name_is_fit_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "hardware", lambda: {"cpu": "Intel(R) Xeon(R) CPU E5-2673 v4 @ 2.30GHz", "cores": 8})
    assert record.machine_slug() == "intel-xeon-e5-2673-v4-8-cores"


def test_a_place_that_takes_nothing_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "results"
    assert record.main(record.parser("any", ""), lambda into: pytest.fail("it was measured"), ["--out", str(out)]) == 2
    assert f"cannot write in {out}: Not a directory\nchoose another folder with: --out DIR" in capsys.readouterr().err


def test_a_kill_ends_what_a_benchmark_started(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with subprocess.Popen(["sleep", "60"]) as process:

        def measure() -> int:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                return 0
            finally:
                process.kill()

        with pytest.raises(SystemExit, match="143"):
            record.run(measure, into=tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_no_number_is_kept_as_none(tmp_path: Path) -> None:
    figures = record.rounded({"off": float("inf"), "range": (float("nan"), 1.23456)})
    assert figures == {"off": None, "range": [None, 1.235]}
    path = record.keep({"model": "one"}, {"figures": figures}, full=False, load_before=0.0, into=tmp_path)
    assert json.loads(path.read_text())["figures"] == figures
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.keep({"model": "one"}, {"off": float("nan")}, full=False, load_before=0.0, into=tmp_path)

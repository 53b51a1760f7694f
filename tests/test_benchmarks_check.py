"""A slower commit is told from a noisy machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import busy, check
from benchmarks.cache import ROOT
from benchmarks.check import Comparison
from runtime import machine

NOISE = 0.05
"""Of a turn's time, as of a machine that others share."""


def compared(seed: int, slower: float, rounds: int = check.ROUNDS) -> Comparison:
    """Turns of a machine that drifts by a quarter, beside the noise of each."""
    rng = np.random.default_rng(seed)
    drift = 1 + 0.125 * np.sin(np.linspace(0, 6, rounds))
    before, again, after = (drift * np.exp(rng.normal(0, NOISE, rounds)) for _ in range(3))
    return Comparison(before_s=before.tolist(), again_s=again.tolist(), after_s=((1 + slower) * after).tolist())


def test_a_tenth_more_time_fails_and_none_does_not_whatever_the_noise() -> None:
    found = {slower: [compared(seed, slower).verdict() for seed in range(100)] for slower in (0.0, 0.1)}
    assert sum(bool(verdict["failed"]) for verdict in found[0.0]) == 0
    assert sum(bool(verdict["failed"]) for verdict in found[0.1]) >= 99
    assert np.median([verdict["slower"] for verdict in found[0.1]]) == pytest.approx(0.1, abs=0.01)


def test_a_faster_commit_does_not_fail() -> None:
    assert not compared(0, -0.3).verdict()["failed"]


@pytest.mark.parametrize("name", ["no-such-commit", "--help", ""])
def test_a_commit_that_there_is_not_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--", name]) == 2
    assert f"git has no commit {name!r}: " in capsys.readouterr().err


def test_fewer_rounds_than_tell_anything_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        check.main(["--rounds", "9", "HEAD"])
    assert "must be 10 or more" in capsys.readouterr().err


def test_what_is_kept_names_both_sides_by_their_hash_and_a_busy_machine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "compare", lambda before, after, rounds: compared(0, 0.0))
    monkeypatch.setattr(busy, "before", lambda: 1.0 * machine.cores())
    (tmp_path / "results").mkdir()
    assert check.main(["HEAD", "--out", str(tmp_path / "results")]) == 0
    assert f"others have {machine.cores()}.0 cores" in capsys.readouterr().err
    (path,) = (tmp_path / "results").iterdir()
    page = json.loads(path.read_text())
    head = check.git("rev-parse", "HEAD")
    assert page["commits"] == {"before": head, "after": head}
    assert page["changed"] is bool(check.git("status", "--porcelain"))


def test_make_takes_whatever_base_is_called_as_a_commit_s_name() -> None:
    base = ";exit 0; HEAD^{/Streams are}"
    command = ["make", "--silent", "bench-check", "PYTHON=echo", f"BASE={base}"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told == f"-m benchmarks.check -- {base}\n"


@pytest.mark.slow
def test_a_planted_tenth_is_caught_and_nothing_planted_is_not_five_times_each(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    shutil.copytree(ROOT, planted, ignore=shutil.ignore_patterns(".git", ".cache", "build", "*.egg-info"))
    # A tenth of the command's whole time, spent in its own process.
    with (planted / "runtime" / "predict.py").open("a") as file:
        file.write(PLANTED)
    caught = [check.compare(ROOT, planted).verdict() for _ in range(5)]
    quiet = [check.compare(ROOT, ROOT).verdict() for _ in range(5)]
    assert [verdict["failed"] for verdict in caught] == [True] * 5, caught
    assert [verdict["failed"] for verdict in quiet] == [False] * 5, quiet


PLANTED = """

_main = main


def main(argv=None):
    started = time.perf_counter()
    code = _main(argv)
    until = started + 1.1 * (time.perf_counter() - started)
    while time.perf_counter() < until:
        pass
    return code
"""

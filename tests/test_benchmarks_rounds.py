"""Rounds that count, and whose time on the cores is whose."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import busy, rounds
from benchmarks.busy import Watch

BURN = "import time; end = time.process_time() + {}\nwhile time.process_time() < end: pass"


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def watched(monkeypatch: pytest.MonkeyPatch, *shares: float | None) -> None:
    left = list(shares)
    monkeypatch.setattr(Watch, "share", lambda self: left.pop(0))


def test_the_first_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    watched(monkeypatch, 0.0, None)
    assert rounds.taken(lambda number: number, 2) == [(1, 0.0), (2, None)]


def test_a_round_that_others_had_part_of_is_taken_again_and_the_quieter_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    watched(monkeypatch, 0.0, 0.5, 0.01, 0.04)
    assert rounds.taken(lambda number: number, 3) == [(1, 0.0), (2, 0.04), (3, 0.01)]


def test_a_machine_that_is_never_quiet_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    watched(monkeypatch, 0.3, 0.5, 0.6, 0.2, 0.4)
    played: list[int] = []
    assert rounds.taken(lambda number: played.append(number), 2) == [(None, 0.3), (None, 0.2)]
    assert played == [0, 1, 2, 2, 2, 1]


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux alone counts each core's time")
def test_what_its_children_do_is_its_own() -> None:
    """Seconds of a process are counted by the kernel, so that a busy machine changes nothing but how long it takes."""
    before = busy._ours()
    burn(0.3)
    subprocess.run([sys.executable, "-c", BURN.format(0.3)], check=True)
    with subprocess.Popen([sys.executable, "-c", BURN.format(60)]) as running:
        time.sleep(1)
        found = busy._ours() - before
        running.kill()
    assert found > 0.7
    # Once it has ended, its time is still there.
    assert busy._ours() - before >= found


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux alone counts each core's time")
def test_all_work_is_ours_or_others() -> None:
    watch = Watch()
    time.sleep(0.3)
    share = watch.share()
    assert share is not None and 0 <= share <= 1.1  # ticks are hundredths of a second


def test_without_a_count_of_the_cores_time_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(busy, "PROC", tmp_path)
    assert Watch().share() is None
    monkeypatch.setattr("os.getloadavg", lambda: (1.5, 0.0, 0.0))
    assert busy.before(0.01) == 1.5

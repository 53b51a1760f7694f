"""What growth starts ends with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.cache import ROOT


def test_a_predict_under_way_is_ended_by_whatever_ends_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def noted(*args: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(real(*args, **options))
        return started[-1]

    def ended(pid: int, options: int) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(growth.subprocess, "Popen", noted)
    monkeypatch.setattr(growth.os, "wait4", ended)
    with pytest.raises(SystemExit, match="143"):
        growth.predicted(tmp_path / "links", [ROOT / "examples" / "photos" / "any.jpg"], 1)
    (process,) = started
    assert process.returncode == -9

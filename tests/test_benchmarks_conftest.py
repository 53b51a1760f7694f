"""How the speed suite ends: by pytest in a process of its own, over tests of a few lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cache import ROOT

INTERRUPTED = "def test_interrupted(benchmark):\n    raise KeyboardInterrupt\n"
TOLD = "def test_told(benchmark, tell):\n    tell('graphs are made')\n    benchmark.pedantic(int, rounds=1)\n"


def run(folder: Path, test: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "benchmarks.conftest"]
    return subprocess.run(
        [*command, "--benchmark-only", "-p", "no:cacheprovider", str(folder / "test_it.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("test", "code"), [(TOLD, 0), (INTERRUPTED, 2)], ids=["timed", "interrupted"])
def test_a_session_ends_without_the_plug_ins_table_or_traceback(tmp_path: Path, test: str, code: int) -> None:
    found = run(tmp_path, test)
    assert found.returncode == code, found.stdout + found.stderr
    assert "Rounds" not in found.stdout  # a column of its table
    assert "Benchmark fixture was not used" not in found.stdout + found.stderr
    assert ("graphs are made" in found.stdout) == (test is TOLD)

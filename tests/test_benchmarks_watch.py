"""A watched training: its moments, its memory, and the line through it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import watch
from benchmarks.watch import Sample, Watched
from tests.train_parts import write_data

LINUX = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc")
STEADY = Watched(
    code=0,
    first_step_s=100.0,
    last_step_s=200.0,
    steps=50,
    done_s=220.0,
    samples=tuple(Sample(float(at_s), 900.0, 500.0) for at_s in range(0, 220, 5)),
)


def grown(mb_per_s: float, *, until_s: float = 1e9) -> Watched:
    """What grows from the first step on."""
    samples = [
        sample._replace(own=500 + mb_per_s * max(0.0, min(sample.at_s, until_s) - 100)) for sample in STEADY.samples
    ]
    return replace(STEADY, samples=tuple(samples))


def test_steady_memory_does_not_grow_and_a_leak_grows_by_what_it_leaks() -> None:
    assert STEADY.growth == pytest.approx(0, abs=1e-6)
    # 110 to 200 s are looked at.
    assert grown(0.5).growth == pytest.approx(45)


def test_what_is_filled_in_the_first_tenth_is_no_growth_nor_what_comes_after_the_last_step() -> None:
    assert grown(2.0, until_s=110.0).growth == pytest.approx(0, abs=1e-6)
    last = replace(STEADY, samples=(*STEADY.samples, Sample(210.0, 9000.0, 9000.0)))
    assert last.growth == pytest.approx(0, abs=1e-6)


@LINUX
def test_memory_is_that_of_a_process_and_all_that_descend_from_it() -> None:
    # 64 MB in a grandchild. "ready" comes once they are written to.
    child = "import sys; held = bytearray(b'x') * (64 << 20); print('ready', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        resident, own = watch._held(process.pid) or (0.0, 0.0)
        process.stdin.close()
    assert 64 < own <= resident < 164
    assert watch._held(process.pid) is None


@LINUX
def test_a_training_is_watched_from_the_command_to_its_end(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    options = ["--data", str(data), "--out", str(tmp_path / "out"), "--quiet", "--max-steps", "3", "--phase", "1"]
    options += ["--backbone", "test_efficientnet", "--weights", "none", "--size", "32"]
    found = watch.training(options, tmp_path / "steps.json")
    assert found.code == 0
    assert found.steps == 3
    assert 0 < found.first_step_s < found.last_step_s < found.done_s
    assert found.samples[0].at_s < 1 and max(sample.own for sample in found.samples) > 100
    assert (tmp_path / "out" / "cap" / "checkpoint.json").is_file()


@LINUX
def test_a_training_that_fails_has_no_steps(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = watch.training(["--data", str(tmp_path), "--out", str(tmp_path / "out")], tmp_path / "steps.json")
    assert (found.code, found.steps, found.growth) == (2, 0, 0.0)
    assert "error: no such file" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["steps.json"]

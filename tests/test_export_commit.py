"""A build that is killed, or meets a full disk, leaves the bundle as it was, and the next one leaves nothing else."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from export import build
from runtime import bundle
from tests.train_parts import write_data
from train import fit, locks

pytestmark = pytest.mark.usefixtures("tiny_preset")

ROOT = Path(__file__).resolve().parents[1]
KILLS = 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("commit") / "data")


@pytest.fixture(scope="module")
def checkpoints(data: Path) -> list[Path]:
    """One category, trained from two seeds: each build over the other's bundle replaces it whole."""
    folders = [data.parent / f"seed-{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        options = ["--preset", "tiny", "--seed", str(seed), "--max-steps", "2", "--quiet"]
        assert fit.main(["--data", str(data), "--out", str(folder), *options]) == 0
    return folders


def options(checkpoints: Path, out: Path) -> list[str]:
    # Hardly trained, its answers are near ties: whether half precision keeps them is not what is asked here.
    named = ["--checkpoints", str(checkpoints), "--out", str(out), "--engine", "onnxruntime", "--quiet"]
    return [*named, "--precision", "fp32"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named(folder: Path) -> set[str]:
    page = bundle.verify(folder)
    return {bundle.PAGE, *(one.file for one in page.artifacts), *(photo.file for photo in page.golden.photos)}


def test_a_full_disk_is_one_clear_line_and_the_bundle_as_it_was(
    checkpoints: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    largest_file: Callable[[int], AbstractContextManager[None]],
) -> None:
    assert build.main(options(checkpoints[0], tmp_path)) == 0
    before = contents(tmp_path / "cap")
    capsys.readouterr()
    with largest_file(bundle.load(tmp_path / "cap").artifacts[0].bytes // 2):
        assert build.main(options(checkpoints[1], tmp_path)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: cannot write in {tmp_path / 'cap'}: File too large\n")
    assert contents(tmp_path / "cap") == before


def test_a_bundle_takes_one_build_at_a_time(
    checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.1)
    with locks.locked(tmp_path / "cap", "build"):
        assert build.main(options(checkpoints[0], tmp_path)) == 2
    assert f"error: another build is writing to {tmp_path / 'cap'}\nwait for it, or" in capsys.readouterr().err
    assert not (tmp_path / "cap").exists()


@pytest.mark.slow
def test_killed_ten_times_it_leaves_the_bundle_whole_and_after_the_next_build_nothing_else(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "cap"
    assert build.main(options(checkpoints[0], tmp_path)) == 0
    started = time.monotonic()
    assert wait_for_work(process := begin(checkpoints[1], tmp_path), folder)
    began = time.monotonic()
    assert process.wait() == 0
    works_s = time.monotonic() - began
    print(f"a build takes {began - started:.1f} s to begin and {works_s:.1f} s to write")
    chance = random.Random(0)
    interrupted = left = 0
    for turn in range(KILLS):
        before = bundle.verify(folder)
        process = begin(other(checkpoints, before), tmp_path)
        assert wait_for_work(process, folder)
        # A share each of the time that it works, the last of them about when it commits.
        time.sleep(works_s * (turn + chance.random()) / KILLS)
        process.send_signal(signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
        left += bool(set(folder.glob(".build.*")))
        after = bundle.verify(folder)
        # The old page or the new one: never half of one.
        assert after == before or after.provenance["checkpoint"] != before.provenance["checkpoint"]
    # One that had ended by itself met no kill.
    assert min(interrupted, left) >= KILLS // 2
    assert build.main(options(other(checkpoints, bundle.load(folder)), tmp_path)) == 0
    assert set(contents(folder)) == named(folder)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"golden"}


def other(checkpoints: list[Path], page: bundle.Bundle) -> Path:
    """The one that the bundle is not made of; of its own there would be nothing to build."""
    return next(folder for seed, folder in enumerate(checkpoints) if page.provenance["seed"] != str(seed))


def begin(checkpoints: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "export.build", *options(checkpoints, out)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_work(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait until a build has begun to write beside the bundle; False where it ended before."""
    already = set(folder.glob(".build.*"))
    while process.poll() is None:
        if set(folder.glob(".build.*")) - already:
            return True
        time.sleep(0.005)
    return False

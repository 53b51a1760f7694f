"""Twenty thousand photos: memory that stays, and a table that a kill at any moment does not change."""

from __future__ import annotations

import csv
import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import scale, synthetic
from runtime import predict

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
PHOTOS, KILLED, KILLS = 20_000, 2_000, 5
# Four networks, each with what ONNX Runtime keeps for batches of four on every core: 303 MB on two.
MOST_MB, GROWTH = 350, 1.05


def linked(folder: Path, count: int) -> Path:
    """A folder of so many links to the example photos."""
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:06d}.jpg").symlink_to(EXAMPLES[index % len(EXAMPLES)])
    return folder


def begin(photos: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "runtime.predict", str(photos), "--out", str(out), "--quiet", *options]
    return subprocess.Popen([*command, "--bundles", str(ROOT / "examples" / "bundles")], cwd=ROOT)


def rows_of(path: Path) -> int:
    """Lines of the unfinished table so far, its header among them."""
    return sum(part.read_bytes().count(b"\n") for part in path.parent.glob(f".{path.name}.*.part"))


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_at_the_end_is_that_of_a_quarter_of_the_way(tmp_path: Path) -> None:
    photos, out = linked(tmp_path / "photos", PHOTOS), tmp_path / "out.csv"
    process = begin(photos, out)
    held: list[tuple[int, float]] = []
    while process.poll() is None:
        try:
            held.append((rows_of(out), resident_mb(process.pid)))
        except (OSError, IndexError):  # it has just ended
            break
        time.sleep(0.5)
    assert process.wait() == 0
    quarter = next(mb for done, mb in held if done >= PHOTOS // 4)
    last = held[-2][1]
    print(f"{quarter:.0f} MB at a quarter, {last:.0f} MB at the end, {max(mb for _, mb in held):.0f} MB at most")
    assert last < GROWTH * quarter
    assert max(mb for _, mb in held) < MOST_MB
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(photos / f"{index:06d}.jpg") for index in range(PHOTOS)]
    assert {row["status"] for row in rows} == {"ok"}
    # A photo's answers are those of its other links, whichever batch it was in: to the last but one of four decimals.
    for index, row in enumerate(rows[len(EXAMPLES) :], len(EXAMPLES)):
        assert row["kind"] == rows[index % len(EXAMPLES)]["kind"]


def test_the_challenge_s_test_set_becomes_a_submission_whose_missing_photos_have_the_dummy(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    data, out = tmp_path / "data", tmp_path / "submission.csv"
    synthetic.write(data, photos=300, test_photos=synthetic.TEST_PHOTOS)
    for category in synthetic.categories():
        attributes = {
            attribute.name: dict(zip(attribute.classes, itertools.cycle("RGB"))) for attribute in category.attributes
        }
        make_bundle(tmp_path / "bundles", category.name, attributes)
    photos = sorted((data / "test_images").iterdir())
    missing, damaged = photos[7::1000], photos[13::1000]
    for path in missing:
        path.unlink()
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    options = ["--listing", str(data / "test.csv"), "--format", "challenge", "--out", str(out), "--quiet"]
    assert predict.main([str(data / "test_images"), "--bundles", str(tmp_path / "bundles"), *options]) == 1
    unanswered = {str(int(path.stem)) for path in (*missing, *damaged)}
    assert len(unanswered) == 62
    scale.check(out, data / "sample_submission.csv", unanswered=unanswered)
    assert out.read_text().count("\n") == synthetic.TEST_PHOTOS + 1


def test_kills_at_random_moments_leave_the_table_of_an_uninterrupted_run(tmp_path: Path) -> None:
    photos = linked(tmp_path / "photos", KILLED)
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert begin(photos, whole).wait() == 0
    rng = random.Random(0)
    goals = sorted(rng.sample(range(1, KILLED), KILLS))
    for goal in goals:
        process = begin(photos, out, "--resume")
        while rows_of(out) <= goal and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        assert not out.exists()
    assert begin(photos, out, "--resume").wait() == 0
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "photos", "whole.csv"]

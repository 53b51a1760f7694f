"""A listing of the challenge's own length: its rows are held in memory, its photos are not; a kill changes nothing."""

from __future__ import annotations

import csv
import itertools
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_runtime_long import ROOT, linked, resident_mb

pytestmark = pytest.mark.slow
ROWS, KILLED, KILLS = 70_213, 3_000, 3
# The shipped networks take 300 MB on two cores; a row of the listing with its findings some 3 kB, its photo 100.
MOST_MB = 700
KINDS = ("T-Shirt", "Shoes", "Hat", "", "Sneakers", "Kaftan")


def listing(path: Path, count: int) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "kind", "kids", "colour"])
        writer.writerows(
            [f"{index:06d}.jpg", KINDS[index % len(KINDS)], ("adult", "")[index % 2], "red"] for index in range(count)
        )
    return path


def begin(listing: Path, photos: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "runtime.audit", str(listing), str(photos), "--out", str(out), "--quiet", *options]
    return subprocess.Popen([*command, "--bundles", str(ROOT / "examples" / "bundles")], cwd=ROOT)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_seventy_thousand_rows_are_audited_without_their_photos_in_memory(tmp_path: Path) -> None:
    photos, out = linked(tmp_path / "photos", ROWS), tmp_path / "audit.csv"
    process = begin(listing(tmp_path / "listing.csv", ROWS), photos, out, "--fix", str(tmp_path / "fixed.csv"))
    most = 0.0
    while process.poll() is None:
        try:
            most = max(most, resident_mb(process.pid))
        except (OSError, IndexError):  # it has just ended
            break
        time.sleep(0.2)
    assert process.wait() == 0
    assert most < MOST_MB, f"{most:.0f} MB"
    with (tmp_path / "audit.answers.csv").open(newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == ROWS + 1
    with (tmp_path / "audit.summary.csv").open(newline="") as file:
        sums = {(row["category"], row["attribute"]): row for row in csv.DictReader(file)}
    kind = sums["Garment", "kind"]
    assert int(kind["declared"]) + int(kind["empty"]) == ROWS
    assert int(kind["unknown_value"]) == sum(KINDS[index % len(KINDS)] == "Kaftan" for index in range(ROWS))
    with (tmp_path / "fixed.csv").open(newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == ROWS + 1


def test_an_audit_that_is_killed_at_any_moment_goes_on_to_the_same_findings(tmp_path: Path) -> None:
    photos, rows = linked(tmp_path / "photos", KILLED), listing(tmp_path / "listing.csv", KILLED)
    assert begin(rows, photos, tmp_path / "whole.csv").wait() == 0
    rng = random.Random(0)
    for kill in itertools.count():
        process = begin(rows, photos, tmp_path / "audit.csv", *(["--resume"] if kill else []))
        if kill == KILLS:
            assert process.wait() == 0
            break
        time.sleep(rng.uniform(1, 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    for what in ("", ".summary", ".answers"):
        assert (tmp_path / f"audit{what}.csv").read_bytes() == (tmp_path / f"whole{what}.csv").read_bytes()

"""Command: how long one photo takes from nothing, as a command on an edge box would: python started, and ended.

    python -m benchmarks.cold_start

Whole processes in turns: one photo through the shipped bundles, and what it is to be held against, the bare imports of
numpy, OpenCV and ONNX Runtime. Beside them `import runtime` and `--help`. In benchmarks/results/. Python keeps what it
compiles, ours as the libraries', as it does unless it is told otherwise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import busy, record
from runtime.errors import DONE, PARTLY_DONE

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 9
# Seconds, and the bare imports' own time.
MOST_S = {"one photo": 1.0, "import runtime": 0.15, "--help": 0.2}
MOST_RATIO = 2.0


def parser() -> argparse.ArgumentParser:
    return record.parser("cold_start", "Time one photo from python's start to its end, beside the bare imports.")


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Time the commands in turns, keep what was found, and say whether each limit is kept."""
    load_before = busy.before()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder))
    medians = {what: statistics.median(seconds) for what, seconds in found.items()}
    ratio = statistics.median(ours / bare for ours, bare in zip(found["one photo"], found["bare imports"], strict=True))
    for what, seconds in medians.items():
        print(f"{what}: {seconds:.3f} s" + (f", limit {MOST_S[what]}" if what in MOST_S else ""))
    print(f"one photo over the bare imports: {ratio:.2f}, limit {MOST_RATIO}")
    head = {
        "model": "cold_start",
        **{what.strip("-").replace(" ", "_") + "_s": round(value, 4) for what, value in medians.items()},
        "ratio": round(ratio, 3),
    }
    rounds = {what: [round(each, 4) for each in seconds] for what, seconds in found.items()}
    path = record.keep(head, {"rounds_s": rounds}, full=True, load_before=load_before, into=into)
    print(f"kept in {path}")
    kept = ratio <= MOST_RATIO and all(medians[what] <= most for what, most in MOST_S.items())
    return DONE if kept else PARTLY_DONE


def measured(folder: Path) -> dict[str, list[float]]:
    """Seconds of each command, a round each, in turns."""
    photo = sorted((ROOT / "examples" / "photos").glob("*.jpg"))[0]
    out = folder / "out.csv"
    commands = {
        "bare imports": ["-c", "import numpy, cv2, onnxruntime"],
        "one photo": ["-m", "runtime.predict", str(photo), "--category", "dress", "--out", str(out)],
        "import runtime": ["-c", "import runtime"],
        "--help": ["-m", "runtime.predict", "--help"],
    }
    found: dict[str, list[float]] = {what: [] for what in commands}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for number in range(ROUNDS + 1):
        for what, command in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True, capture_output=True)
            if number:  # the first reads the files from the disk, and compiles ours
                found[what].append(time.perf_counter() - started)
    return found


if __name__ == "__main__":
    raise SystemExit(main())

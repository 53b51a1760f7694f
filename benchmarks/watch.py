"""A command in a process of its own, watched: how long it takes, and what memory it holds with its children.

As a command itself it is a training: train.fit, which notes its steps in a file.
"""

from __future__ import annotations

import atexit
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.errors import UserError

EVERY_S = 1.0
# Workers start, caches fill, and every page that is going to be written to has been.
SETTLED = 0.1


class Sample(NamedTuple):
    """The memory of a process and all its children at one moment, in MB."""

    at_s: float
    """Seconds since the command."""
    resident: float
    """All that is mapped and there; a page that several of them share counts for each."""
    own: float
    """Without the files that are mapped, libraries first: others on the machine share those. What the trainer and
    its workers share counts once."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """One training; seconds count from the command, before Python itself has started."""

    code: int
    first_step_s: float
    last_step_s: float
    steps: int
    done_s: float
    samples: tuple[Sample, ...]

    @property
    def stepping(self) -> list[Sample]:
        """The samples between the first and the last step, the first tenth of them left out."""
        start = self.first_step_s + SETTLED * (self.last_step_s - self.first_step_s)
        return [sample for sample in self.samples if start <= sample.at_s <= self.last_step_s]

    @property
    def growth(self) -> float:
        """MB that the straight line through those samples rises from the first of them to the last."""
        import numpy as np

        found = self.stepping
        if len(found) < 3:
            return 0.0
        slope = np.polyfit([sample.at_s for sample in found], [sample.own for sample in found], 1)[0]
        return float(slope * (found[-1].at_s - found[0].at_s))


def training(options: Sequence[str], note: Path) -> Watched:
    """Run `train.fit` with these options, its output passed on, and watch it to its end.

    Args:
        note: a file to put the moments of its steps in.
    """
    started = time.monotonic()
    code, samples = module("benchmarks.watch", [str(note), *options])
    done_s = time.monotonic() - started
    moments = json.loads(note.read_text()) if note.exists() else {}
    return Watched(
        code=code,
        first_step_s=moments.get("first", started) - started,
        last_step_s=moments.get("last", started) - started,
        steps=moments.get("steps", 0),
        done_s=done_s,
        samples=samples,
    )


def module(name: str, options: Sequence[str]) -> tuple[int, tuple[Sample, ...]]:
    """Run `python -m NAME OPTIONS`, its output passed on; gives its exit code and the memory that it held."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("memory is read from /proc/<pid>/smaps_rollup, which this system does not have: it takes Linux")
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", name, *options])
    samples = []
    try:
        while process.poll() is None:
            if held := _held(process.pid):
                samples.append(Sample(time.monotonic() - started, *held))
            with suppress(subprocess.TimeoutExpired):
                process.wait(EVERY_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, tuple(samples)


def main(argv: Sequence[str]) -> int:
    """train.fit with the options after the first argument, the file that is to have the moments of its steps."""
    from train import fit, optimise

    note, *options = argv
    moments: dict[str, float] = {"steps": 0}
    step = optimise.Optimiser.step

    def noted(optimiser: optimise.Optimiser) -> None:
        step(optimiser)
        # The system's clock since it booted: the process that watches reads the same one.
        moments["last"] = time.monotonic()
        moments.setdefault("first", moments["last"])
        moments["steps"] += 1

    optimise.Optimiser.step = noted  # type: ignore[method-assign]
    atexit.register(lambda: Path(note).write_text(json.dumps(moments)))
    return fit.main(options)


def _held(pid: int) -> tuple[float, float] | None:
    """MB, resident and own, of a process and its children; None where it is gone already."""
    resident = own = 0
    for one in _tree(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:  # it ended meanwhile
            continue
        sizes = {name: int(kb) for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
        resident += sizes.get("Rss", 0)
        own += sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0)
    return (resident / 1024, own / 1024) if resident else None


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The second field is the program's name in brackets, which may hold anything.
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""How busy the machine is with what is not ours, by Linux' own count of each core's time."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

from runtime import machine

# Of the cores: with more at work beside, a rate says as much about the other work as about ours.
BUSY = 0.25
# Of /proc/stat: user, nice, system, irq, softirq and steal; idle and iowait between them are nobody's work.
WORK = (0, 1, 2, 5, 6, 7)
PROC = Path("/proc")


def before(seconds: float = 1.0) -> float:
    """How many cores others have at this moment: over a second, since a load average holds minutes that are gone.

    Where there is no /proc/stat it is the load average all the same.
    """
    watch = Watch()
    time.sleep(seconds)
    share = watch.share()
    return os.getloadavg()[0] if share is None else share * machine.cores()


def is_busy(cores: float) -> bool:
    """Whether so many cores that others have are too many to measure beside."""
    return cores > BUSY * machine.cores()


class Watch:
    """From when it is made: what others had of the cores' time."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._work, self._ours = _work(), _ours()

    def share(self) -> float | None:
        """The share that was neither this process's nor its children's, 0-1; None where Linux does not count it."""
        work, ours = _work(), _ours()
        if work is None or self._work is None:
            return None
        others = (work - self._work) - (ours - self._ours)
        return max(0.0, others / (time.perf_counter() - self._started) / machine.cores())


def _work() -> float | None:
    """Seconds that the cores which this process may use have worked, since the machine started."""
    try:
        lines = (PROC / "stat").read_text().splitlines()
    except OSError:
        return None
    here = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    fields = [line.split() for line in lines]
    return sum(int(found[1 + field]) for found in fields if found[0] in here for field in WORK) / _hertz()


def _ours() -> float:
    """Seconds of this process and all its children, those that have ended among them."""
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            # Its name, in brackets, may have blanks and brackets of its own.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        process = int(path.parent.name)
        children[int(fields[1])].append(process)
        # utime and stime, and the same of its children that have ended.
        ticks[process] = sum(map(int, fields[11:15]))
    asked, found = [os.getpid()], 0
    while asked:
        process = asked.pop()
        found += ticks.get(process, 0)
        asked += children[process]
    return found / _hertz()


def _hertz() -> int:
    return os.sysconf("SC_CLK_TCK")

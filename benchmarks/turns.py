"""Ways that take turns, each in a process of its own: a machine that slows down slows all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.networks import CACHE, ROOT
from benchmarks.ways import KINDS
from runtime import machine

# What a way leaves running for a moment after its turn, threads that look for work, is over by then: after 0.05 s
# none of them took any of a core's time.
PAUSE_S = 0.1


class Process(AbstractContextManager["Process"]):
    """A command that answers each line on its stdin with a JSON object, the first unasked."""

    def __init__(self, name: str, *command: str) -> None:
        logs = CACHE / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._log = (logs / f"{name}.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # What tune finds is kept beside the networks, not among the user's own.
            env={**os.environ, "XDG_CACHE_HOME": str(CACHE)},
        )
        try:
            self.first = self._answer()
        except RuntimeError as err:
            self.first = {"missing": str(err)}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # it keeps nothing, and a library may take seconds to take itself down
        self._process.communicate()
        self._log.close()

    def ask(self, *words: object) -> dict[str, Any]:
        """Its answer to a line of these words."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended with {self._process.wait()}; what it said is in {self._log.name}")
        found: dict[str, Any] = json.loads(line)
        return found


class Worker(Process):
    """A way over a work, started, its network loaded."""

    def __init__(self, work: str, way: str) -> None:
        self.way = way
        self.slug = way.replace(" ", "-")
        super().__init__(f"{work}-{self.slug}", "benchmarks.worker", work, way)
        self.missing = str(self.first.get("missing", ""))
        self.what = str(self.first.get("what", ""))


def started(work: str, ways: Sequence[str], held: ExitStack) -> tuple[list[Worker], dict[str, str]]:
    """The ways that are here, started, and why the others are not: the first alone, since what it may have to find out
    about the machine needs it quiet, then as many at once as there are cores."""
    missing = {way: f"not installed: {lacks}" for way in ways if (lacks := KINDS[way].missing())}
    here = [way for way in ways if way not in missing]
    workers = [held.enter_context(Worker(work, way)) for way in here[:1]]
    with ThreadPoolExecutor(machine.cores()) as pool:
        workers += [held.enter_context(worker) for worker in pool.map(lambda way: Worker(work, way), here[1:])]
    missing |= {worker.way: worker.missing for worker in workers if worker.missing}
    return [worker for worker in workers if not worker.missing], missing


def turn(worker: Worker, words: Sequence[object]) -> float:
    """Images a second of one request, once what came before it is over."""
    time.sleep(PAUSE_S)
    return float(worker.ask(*words)["images_per_s"])


def linked(folder: Path, photos: Sequence[Path], start: int, count: int) -> Path:
    """A folder of links to so many of the photos, from that one on, from the first again behind the last."""
    folder.mkdir()
    for index in range(start, start + count):
        (folder / f"{index:06d}.jpg").symlink_to(photos[index % len(photos)])
    return folder

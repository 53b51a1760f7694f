"""Ways that take turns, each in a process of its own: a machine that slows down slows all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from benchmarks.cache import CACHE, ROOT
from benchmarks.ways import KINDS
from runtime import machine

# What a way leaves running for a moment after its turn, threads that look for work, is over by then: after 0.05 s
# none of them took any of a core's time.
PAUSE_S = 0.08


class Process(AbstractContextManager["Process"]):
    """A command that answers each line on its stdin with a JSON object, the first unasked: `ready` waits for that."""

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
        self.missing = ""
        """What it lacks here."""
        self.failed = ""
        """Why it ended before it was ready."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # it keeps nothing, and a library may take seconds to take itself down
        self._process.communicate()
        self._log.close()

    def ready(self) -> dict[str, Any]:
        """What it says first, which takes as long as it takes to load; empty where it lacks something or failed."""
        try:
            first = self._answer()
        except RuntimeError as err:
            self.failed = str(err)
            return {}
        self.missing = str(first.get("missing", ""))
        return {} if self.missing else first

    def ask(self, *words: object) -> dict[str, Any]:
        """Its answer to a line of these words."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        found: dict[str, Any] = json.loads(line)
        return found

    def _ended(self) -> RuntimeError:
        code = self._process.wait()
        said = Path(self._log.name).read_text(errors="replace").split("\n")
        last = next((line for line in reversed(said) if line.strip()), "no word")
        return RuntimeError(f"it ended with {code}: {last.strip()}; all that it said is in {self._log.name}")


class Worker(Process):
    """A way over a work."""

    def __init__(self, work: str, way: str) -> None:
        self.way = way
        self.slug = way.replace(" ", "-")
        super().__init__(f"{work}-{self.slug}", "benchmarks.worker", work, way)
        self.what, self.how, self.step = "", {"alone": "", "whole": ""}, 1

    def ready(self) -> dict[str, Any]:
        first = super().ready()
        self.what = str(first.get("what", ""))
        return first

    def settle(self) -> None:
        """Have it say, and find out where it has a choice, how many photos it takes at a time: nothing else may run."""
        found = self.ask("how")
        self.how, self.step = found["how"], int(found["step"])


class Started(NamedTuple):
    """The ways that can answer; why others are not here, and why others ended."""

    workers: list[Worker]
    missing: dict[str, str]
    failed: dict[str, str]


def started(work: str, ways: Sequence[str], held: ExitStack, tell: Callable[[str], None]) -> Started:
    """The ways, started: the first alone, since what it may have to find out about the machine needs it quiet, then as
    many at once as there are cores; at the end, one by one, they settle what is to be settled on a quiet machine."""
    missing = {way: f"not installed: {lacks}" for way in ways if (lacks := KINDS[way].missing())}
    workers: list[Worker] = []
    loading: deque[Worker] = deque()
    for way in ways:
        if way in missing:
            continue
        while len(loading) >= (1 if len(workers) == 1 else machine.cores()):
            loading.popleft().ready()
        tell(f"{work}: {way} starts")
        worker = held.enter_context(Worker(work, way))
        workers.append(worker)
        loading.append(worker)
    for worker in loading:
        worker.ready()
    missing |= {worker.way: worker.missing for worker in workers if worker.missing}
    failed = {worker.way: worker.failed for worker in workers if worker.failed}
    here = [worker for worker in workers if worker.way not in {**missing, **failed}]
    for worker in here:
        worker.settle()
    return Started(here, missing, failed)


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

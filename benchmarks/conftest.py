"""The --full flag, and the summary: a line a way, a file a model."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import groupby

import pytest

from benchmarks.record import Contest, save

FOUND = pytest.StashKey[list[Contest]]()
LOAD = pytest.StashKey[float]()
# Of the cores: with more at work beforehand, a rate says as much about the other work as about ours.
BUSY = 0.25


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every way, more photos and rounds")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FOUND] = []
    config.stash[LOAD] = os.getloadavg()[0]


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Contest], None]:
    """Takes a contest for the summary and the results file."""
    return request.config.stash[FOUND].append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found, load = config.stash[FOUND], config.stash[LOAD]
    for _, of_model in groupby(found, key=lambda contest: contest.model):
        contests = list(of_model)
        for contest in contests:
            what = "the network alone" if contest.kind == "alone" else "from folder to table"
            terminalreporter.section(f"{contest.model}, {what}: median (range) over rounds taken in turns")
            for line in contest.lines():
                terminalreporter.write_line(line)
        path = save(contests, full=config.getoption("full"), load_before=load)
        terminalreporter.write_line(f"kept in {path}")
    if found and load > BUSY * (os.cpu_count() or 1):
        terminalreporter.write_line(f"the machine was busy beforehand (load {load:.1f}): run it again on a quiet one")

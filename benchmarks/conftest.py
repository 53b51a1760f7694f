"""The --full flag, the works to time, and the summary: a line a measurement, a file a model."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import groupby

import pytest

from benchmarks.record import Measurement, save
from benchmarks.works import WORKS, Work

FOUND = pytest.StashKey[list[Measurement]]()
LOAD = pytest.StashKey[float]()
# Of the cores: with more at work beforehand, a rate says as much about the other work as about ours.
BUSY = 0.25


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="every engine and precision, more photos and rounds: some ten minutes"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FOUND] = []
    config.stash[LOAD] = os.getloadavg()[0]


@pytest.fixture(scope="session")
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The work that the test names, its network loaded."""
    import torch

    # All there are; the engines, left to themselves, take as many.
    torch.set_num_threads(os.cpu_count() or 1)
    return WORKS[request.param](tmp_path_factory.mktemp(request.param), full=request.config.getoption("full"))


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Measurement], None]:
    """Takes a measurement for the summary and the results file."""
    return request.config.stash[FOUND].append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found, load = config.stash[FOUND], config.stash[LOAD]
    if not found:
        return
    terminalreporter.section("predict beside the reference's way: median (range) over rounds taken in turns")
    for _, of_model in groupby(found, key=lambda measurement: measurement.model):
        measurements = list(of_model)
        for measurement in measurements:
            terminalreporter.write_line(measurement.line())
        path = save(measurements, full=config.getoption("full"), load_before=load)
        terminalreporter.write_line(f"  kept in {path}")
    if load > BUSY * (os.cpu_count() or 1):
        terminalreporter.write_line(f"the machine was busy beforehand (load {load:.1f}): run it again on a quiet one")

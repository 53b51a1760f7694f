"""The --full flag, and the summary: a line a way, a file a model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import pytest

from benchmarks import busy
from benchmarks.contest import Contest, save
from benchmarks.record import RESULTS
from runtime import files

FOUND = pytest.StashKey[list[Contest]]()
LOAD = pytest.StashKey[float]()
TITLES = {"alone": "the network alone", "whole": "from folder to table"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="every way, more photos and rounds")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FOUND] = []
    config.stash[LOAD] = 0.0
    # Its clock runs over whole contests, and its table would call that the time of a network.
    config.option.benchmark_quiet = True
    # Where a comparison fails, or Ctrl-C comes, before the clock starts, that is what the session ends with.
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")


def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if session.items and not config.option.collectonly and config.getoption("benchmark_only"):
        try:
            files.probe(RESULTS)
        except OSError as err:
            raise pytest.UsageError(f"no results can be kept: {err.strerror}: {RESULTS}") from None
        config.stash[LOAD] = busy.before()


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Contest], None]:
    """Takes a contest for the summary and the results file."""
    return request.config.stash[FOUND].append


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Writes a line at once: what is made, loaded and tuned takes minutes in which nothing else would show."""
    plugins = request.config.pluginmanager
    terminal, capture = plugins.getplugin("terminalreporter"), plugins.getplugin("capturemanager")

    def tell(line: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.ensure_newline()
            terminal.write_line(line)

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found, load = config.stash[FOUND], config.stash[LOAD]
    for model, of_model in groupby(found, key=lambda contest: contest.model):
        contests = list(of_model)
        for contest in contests:
            title = f"{model}, {TITLES[contest.kind]}: median (range) over rounds taken in turns"
            terminalreporter.section(title)
            for line in contest.lines():
                terminalreporter.write_line(line)
        try:
            told = save(contests, full=config.getoption("full"), load_before=load)
        except OSError as err:
            told = f"{model}: not kept: {err.strerror}: {err.filename}"
        terminalreporter.write_line(told)
    if found and busy.is_busy(load):
        terminalreporter.write_line(f"others had {load:.1f} cores beforehand: run it again on a quiet machine")

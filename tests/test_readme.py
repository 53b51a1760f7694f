"""The README's commands do what it says; those that install run in .ci/run, those that take minutes are parsed."""

from __future__ import annotations

import csv
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    part.strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    for part in line.split(" #")[0].split("&&")
    if part.strip()
]
# Minutes long, or a training of its own: their arguments are parsed, and `make demo` runs the real thing. Or it needs
# a GPU: tests/test_export_engine.py runs the like of it without.
PARSED = (
    "python -m train.fit",
    "python -m train.crossfit",
    "python -m runtime.tune",
    "python -m export.build --precision fp32 fp16 int8",
    "python -m export.engine bundles/t-shirt",
)
RUN = ("python -m runtime.", "python -m export.", "python -m train.evaluate")


def commands(*starts: str) -> list[str]:
    """The README's commands that start so, each once, the parsed ones only when they are asked for."""
    wanted = [command for command in dict.fromkeys(COMMANDS) if command.startswith(starts)]
    return [command for command in wanted if starts == PARSED or not command.startswith(PARSED)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a fresh clone and takes what the commands write."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("runtime", "train", "export", "examples"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    return subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )


def test_every_command_of_the_readme_is_of_a_kind_that_something_runs() -> None:
    elsewhere = ("pip install", "pytest", "make ", "git ", "cd ")
    strays = [command for command in COMMANDS if not command.startswith((*PARSED, *RUN, *elsewhere))]
    assert not strays


def test_the_two_set_up_commands_are_there() -> None:
    assert "pip install . && python -m runtime.predict examples/photos/" in README
    assert 'pip install -e ".[dev]" && pytest' in README


@pytest.mark.parametrize("command", commands(*RUN))
def test_command_runs(command: str, workplace: Path) -> None:
    result = run(command, workplace)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", commands(*PARSED))
def test_long_command_is_understood(command: str) -> None:
    _, _, module, *arguments = shlex.split(command)
    parser = importlib.import_module(module).parser()
    assert vars(parser.parse_args(arguments))


def test_make_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {command.split()[1] for command in commands("make ")} <= set(targets)


def test_first_command_gives_a_row_for_each_photo_and_most_kinds_right(tmp_path: Path) -> None:
    from runtime.predict import main

    out = tmp_path / "predictions.csv"
    assert main([str(ROOT / "examples" / "photos"), "--out", str(out), "--quiet"]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (ROOT / "examples" / "photos.csv").open(newline="") as file:
        kinds = {row["file"]: row["kind"] for row in csv.DictReader(file)}
    assert [Path(row["image"]).name for row in rows] == sorted(kinds)
    right = sum(kinds[Path(row["image"]).name] == row["kind"] for row in rows)
    # What the README promises; the figures for 722 test photos stand in benchmarks/results/.
    assert right >= 11, f"{right} of 16 kinds right"


def test_tables_are_those_of_the_results_files() -> None:
    result = subprocess.run([sys.executable, "benchmarks/readme.py", "--check"], cwd=ROOT, check=False)
    assert result.returncode == 0, "the README differs from benchmarks/results/: run python benchmarks/readme.py"


def test_python_example_runs(workplace: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    result = subprocess.run([sys.executable, "-c", example], cwd=workplace, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()

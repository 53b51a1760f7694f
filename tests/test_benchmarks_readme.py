"""The README's tables: of the newest figures, whatever machine they are of, and one line for figures that are wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cache import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The README and what it is made of."""
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    for source in ("readme", "audit_tables", "speed_tables", "figures", "plots"):
        shutil.copy(ROOT / "benchmarks" / f"{source}.py", tmp_path / "benchmarks")
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    return tmp_path


def made(clone: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/readme.py"]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)


def results(clone: Path, name: str) -> Path:
    return sorted((clone / "benchmarks" / "results").glob(f"{name}_*.json"))[-1]


def test_the_newest_figures_are_shown_whatever_their_machine_is_called(clone: Path) -> None:
    for name in ("stages", "convnext_base"):
        page = json.loads(results(clone, name).read_text())
        # Before every other by its name, and after them by its date.
        newest = clone / "benchmarks" / "results" / f"{name}_a-1-cores_2099-01-01.json"
        newest.write_text(json.dumps(page | {"hardware": {"cpu": "A", "cores": 1, "instructions": ["avx2"]}}))
    done = made(clone)
    assert done.returncode == 0, done.stderr
    readme = (clone / "README.md").read_text()
    assert "[file](benchmarks/results/stages_a-1-cores_2099-01-01.json)" in readme
    assert "\nconvnext_base: measured on A, 1 cores (avx2)\n" in readme


def test_a_range_that_holds_one_is_shown_as_no_difference(clone: Path) -> None:
    path = results(clone, "graphs")
    page = json.loads(path.read_text())
    way = {"what": "int8", "engine": "ort", "hint": "", "images_per_s": 1.0, "beside": "all rewrites"}
    ranges = {1.05: [0.9, 1.2], 1.1: [1.01, 1.2], 0.5: [0.4, 0.6]}
    ways = [way | {"ratio": ratio, "ratio_range": of} for ratio, of in ranges.items()]
    path.write_text(json.dumps(page | {"networks": {"n": {"ways": ways}}}))
    assert made(clone).returncode == 0
    shown = [line.split("|")[5].strip() for line in (clone / "README.md").read_text().splitlines() if "| ort |" in line]
    assert shown == [
        "1.05x [0.90, 1.20] all rewrites: no difference that this run can tell",
        "**1.10x** [1.01, 1.20] all rewrites",
        "**0.50x** [0.40, 0.60] all rewrites",
    ]


@pytest.mark.parametrize("name", ["stages", "convnext_base", "growth", "graphs", "gpu", "shipped_models", "recipes"])
@pytest.mark.parametrize(
    "content", ["", '{"contests": {"alone": {}}, "model": "m", "networks": 1}'], ids=["cut", "lacks"]
)
def test_a_damaged_file_is_named_in_one_line_with_what_to_do(clone: Path, name: str, content: str) -> None:
    path = results(clone, name) if name != "shipped_models" else clone / "benchmarks" / "results" / f"{name}.json"
    path.write_text(content)
    before = (clone / "README.md").read_text()
    done = made(clone)
    assert done.returncode == 1
    told, command = done.stderr.splitlines()
    assert told.startswith(f"{path.relative_to(clone)} is not as its benchmark writes it: ")
    assert command.endswith(f"with: git checkout {path.relative_to(clone)}")
    assert (clone / "README.md").read_text() == before


def test_a_file_that_is_not_there_is_named_with_what_makes_it(clone: Path) -> None:
    results(clone, "latency").unlink()
    assert made(clone).stderr.splitlines() == [
        "no benchmarks/results/latency_*_????-??-??.json",
        "make it with: python -m benchmarks.latency",
    ]

"""A small trained network for the tests of the export, and what is built of it: made once for all of them.

`folder` is the fixture export_folder.
"""

from __future__ import annotations

import functools
from pathlib import Path

from export import build
from runtime.bundle import Artifact, Bundle
from tests.train_parts import write_data
from train import fit


@functools.cache
def data(folder: Path) -> Path:
    """The data folder of `write_data`. Not to be changed."""
    return write_data(folder / "data")


@functools.cache
def checkpoints(folder: Path) -> Path:
    """Holds `cap`, trained until it knows the colours; the module that asks has the preset `tiny`."""
    out = folder / "checkpoints"
    assert fit.main(["--data", str(data(folder)), "--preset", "tiny", "--out", str(out), "--quiet"]) == 0
    return out


@functools.cache
def other_checkpoints(folder: Path) -> Path:
    """The same category, trained from another seed."""
    out = folder / "other"
    options = ["--preset", "tiny", "--seed", "1", "--max-steps", "2", "--quiet"]
    assert fit.main(["--data", str(data(folder)), "--out", str(out), *options]) == 0
    return out


@functools.cache
def built(folder: Path) -> Path:
    """The bundle with a graph of each precision, and with a plan where tensorrt-rtx is installed. Not to be changed."""
    out = folder / "bundles"
    assert run(checkpoints(folder), out, "--precision", "fp32", "fp16", "int8") == 0
    return out / "cap"


def run(checkpoints: Path, out: Path, *options: str) -> int:
    return build.main(["--checkpoints", str(checkpoints), "--out", str(out), "--quiet", *options])


def graphs(page: Bundle) -> dict[str, Artifact]:
    return {artifact.precision: artifact for artifact in page.artifacts if not artifact.target}

"""What the benchmarks make once and keep: under names made of what it was made of, there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from runtime import machine

Loaded = TypeVar("Loaded")

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
TOOLS = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")


def home(name: str, made_of: Sequence[object], sources: Iterable[Path]) -> Path:
    """The folder for what these things, these sources and the libraries here give."""
    digest = hashlib.sha256(json.dumps([*made_of, [machine.version_of(tool) for tool in TOOLS]]).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return CACHE / f"{name}-{digest.hexdigest()[:12]}"


def drop_others(here: Path) -> None:
    """Remove what other sources made under the same name: most of a gigabyte."""
    name, _, digest = here.name.rpartition("-")
    for other in here.parent.glob(f"{name}-{'?' * len(digest)}"):
        if other != here:
            shutil.rmtree(other)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place in one step at the end: a kill in between leaves nothing of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True
    ) as beside:
        scratch = Path(beside, folder.name)
        scratch.mkdir()
        yield scratch
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and has made the same
                raise


def loaded(folder: Path, make: Callable[[Path], None], load: Callable[[Path], Loaded]) -> Loaded:
    """What `load` gives of the folder that `make` fills where it is not there, and anew, once, where it is damaged."""
    there = folder.is_dir()
    if not there:
        with whole(folder) as scratch:
            make(scratch)
    try:
        return load(folder)
    except Exception:  # every library has errors of its own for a file that it cannot read
        if not there:
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return loaded(folder, make, load)

"""Command: how time and memory grow with files, batch, cores, attributes and the size of the photos.

python -m benchmarks.growth

Files, batches and cores: `predict` as a command through the shipped bundles, and the most memory that it ever held.
Attributes and sizes: ConvNeXt-atto with random weights in float32, exported as always, a photo at a time.
"""

# B batch, H height, W width, C channels

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import busy, record
from benchmarks.cache import ROOT
from benchmarks.networks import CONVNEXT_ATTO, random_network
from benchmarks.turns import linked
from runtime import inputs, machine
from runtime.bundle import Attribute, Category, Preprocess
from runtime.engines import EngineOptions, open_engine
from runtime.errors import DONE
from runtime.terminal import note

FILES = (100, 1_000, 10_000, 100_000)
BATCHES, BATCH_FILES = (1, 2, 4, 8, 16, 32, 64), 2_000
CORE_FILES = 2_000
ATTRIBUTES, SIZES = (1, 2, 5, 10, 20, 40), (224, 288, 384, 512)
CLASSES = 5
CALLS, ROUNDS = 5, 7


def parser() -> argparse.ArgumentParser:
    return record.parser("growth", "Measure time and memory over files, batch, cores, attributes and photo size.")


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Each sweep by itself; what was found is kept."""
    load_before = busy.before()
    with tempfile.TemporaryDirectory() as scratch:
        photos = inputs.find([ROOT / "examples" / "photos"])
        sweeps = {
            "files": [predicted(Path(scratch, "files"), photos, count) for count in FILES],
            "batch": [predicted(Path(scratch, "batch"), photos, BATCH_FILES, batch=batch) for batch in BATCHES],
            "cores": [
                predicted(Path(scratch, "cores"), photos, CORE_FILES, cores=cores)
                for cores in range(1, machine.cores() + 1)
            ],
        }
    size = CONVNEXT_ATTO.preset.model.size
    sweeps["attributes"] = answered([(count, size) for count in ATTRIBUTES])
    sweeps["pixels"] = answered([(len(CONVNEXT_ATTO.classes), side) for side in SIZES])
    path = record.keep({"model": "growth"}, {"sweeps": sweeps}, full=True, load_before=load_before, into=into)
    note(f"kept in {path}")
    return DONE


def predicted(
    folder: Path, photos: Sequence[Path], count: int, *, batch: int | None = None, cores: int | None = None
) -> dict[str, float]:
    """`predict` over so many links: images a second, all that a command does included, and the most that it held."""
    folder.mkdir(exist_ok=True)
    there = linked(folder / f"{count}-{batch}-{cores}", photos, 0, count)
    options = [str(there), "--out", str(folder / "out.csv"), "--engine", "onnxruntime", "--quiet"]
    with only(cores):
        command = [sys.executable, "-m", "runtime.predict", *options, *(["--batch", str(batch)] if batch else [])]
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == DONE, f"{command} ended with {process.returncode}"
    found = {
        "files": count,
        **({"batch": batch} if batch else {}),
        **({"cores": cores} if cores else {}),
        "images_per_s": round(count / seconds, 1),
        "resident_mb": round(used.ru_maxrss / 1000),
    }
    note(str(found))
    return found


@contextmanager
def only(cores: int | None) -> Iterator[None]:
    """So many of the cores for what is started inside."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def answered(networks: Sequence[tuple[int, int]]) -> list[dict[str, float]]:
    """Milliseconds a photo of networks with so many attributes at that size, in turns."""
    import numpy as np

    found: dict[tuple[int, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        paths = {one: exported(Path(scratch, f"{one[0]}-{one[1]}.onnx"), *one) for one in networks}
        for _ in range(ROUNDS):
            for (attributes, size), path in paths.items():
                photo_1HWC = np.zeros((1, size, size, 3), np.uint8)
                with open_engine("onnxruntime", path, EngineOptions()) as engine:
                    engine.infer(photo_1HWC)
                    started = time.perf_counter()
                    for _ in range(CALLS):
                        engine.infer(photo_1HWC)
                    taken = (time.perf_counter() - started) / CALLS
                found.setdefault((attributes, size), []).append(1000 * taken)
    return [
        {"attributes": attributes, "size": size, "ms": round(statistics.median(times), 3)}
        for (attributes, size), times in found.items()
    ]


def exported(path: Path, attributes: int, size: int) -> Path:
    """ConvNeXt-atto with so many heads, for photos of that size, as a graph."""
    import onnx

    from export import graph
    from train.checkpoint import Checkpoint

    model = replace(CONVNEXT_ATTO.preset.model, size=size)
    preset = replace(CONVNEXT_ATTO.preset, model=model)
    classes = tuple(map(str, range(CLASSES)))
    asked = tuple(Attribute(name=f"a{index}", classes=classes, output=f"a{index}") for index in range(attributes))
    page = Checkpoint(
        slug="growth",
        categories=(Category(name="Growth", attributes=asked),),
        preprocess=Preprocess(height=size, width=size, mean=model.mean, std=model.std),
        routes=None,
        preset=preset,
        metrics=(),
        provenance={"weights": "random"},
    )
    onnx.save(graph.graph(random_network(preset, [CLASSES] * attributes), page), path)
    return path


if __name__ == "__main__":
    raise SystemExit(main())

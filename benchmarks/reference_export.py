"""Command: what it costs to export the reference system's network, and what comes of it.

python -m benchmarks.reference_export

ConvNeXt-Base at 512 px with five heads, random weights (`networks.py`): at every precision, with a plan for one kind of
GPU, each artifact judged on every engine here. Kept are the minutes, the memory and the build's own table.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import busy, record, watch
from benchmarks.networks import CONVNEXT_BASE
from export import table
from runtime import bundle
from runtime.bundle import Artifact
from runtime.engines import ENGINES
from runtime.errors import DONE, PARTLY_DONE
from runtime.terminal import note

MINUTES, GIGABYTES = 20.0, 8.0
CALIBRATION_PHOTOS, GATE_PHOTOS = 48, 24
TARGET = "sm89"


def parser() -> argparse.ArgumentParser:
    return record.parser(
        "reference_export", "Export the reference system's network at every precision: time, memory, verdicts."
    )


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Export it in a process of its own and keep what was found; PARTLY_DONE where it costs more than it may."""
    load_before = busy.before()
    CONVNEXT_BASE.write()
    shutil.rmtree(CONVNEXT_BASE.exported.parent, ignore_errors=True)
    photos = ["--calibration-photos", str(CALIBRATION_PHOTOS), "--gate-photos", str(GATE_PHOTOS)]
    target = ["--target", TARGET] if ENGINES["tensorrt-rtx"].installed() else []
    options = [*CONVNEXT_BASE.sources, "--precision", "fp32", "fp16", "int8", *target, *photos]
    started = time.monotonic()
    code, samples = watch.module("export.build", [*options, "--out", str(CONVNEXT_BASE.exported.parent)])
    minutes = (time.monotonic() - started) / 60
    gigabytes = max(sample.resident for sample in samples) * 2**20 / 1e9
    page = bundle.verify(CONVNEXT_BASE.exported)
    path = record.keep(
        {"model": "export_convnext_base", "minutes": round(minutes, 2), "gigabytes": round(gigabytes, 2)},
        {
            "exit_code": code,
            "calibration_photos": CALIBRATION_PHOTOS,
            "gate_photos": GATE_PHOTOS,
            "memory_gigabytes": [[round(s.at_s), round(s.resident * 2**20 / 1e9, 2)] for s in samples[::10]],
            "columns": table.COLUMNS,
            "rows": table.rows(page.artifacts),
            "artifacts": [figures(artifact) for artifact in page.artifacts],
        },
        full=bool(target),
        load_before=load_before,
        into=into,
    )
    note(f"{minutes:.1f} minutes, {gigabytes:.2f} GB at most; kept in {path}")
    return DONE if minutes <= MINUTES and gigabytes <= GIGABYTES and code == DONE else PARTLY_DONE


def figures(artifact: Artifact) -> dict[str, object]:
    """What the bundle's page says of it, but for its hash."""
    return {
        "precision": artifact.precision,
        "target": artifact.target,
        "bytes": artifact.bytes,
        "kept_float": len(artifact.kept_float),
        "verdicts": [
            {"engine": one.engine, "hint": one.hint, "state": one.state, "reason": one.reason, **one.figures}
            for one in artifact.verdicts
        ],
    }


if __name__ == "__main__":
    raise SystemExit(main())

"""Command: what predict holds in memory for one and for five ConvNeXt-Base categories, apart and on one backbone.

python -m benchmarks.memory

The reference system's network at 512 px, random weights, int8. Apart, the five are copies of one bundle under the names
of the challenge's categories; together they are a joint network with the heads of all five and its own router.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks import busy, record, synthetic, watch
from benchmarks.networks import CONVNEXT_BASE, random_network
from runtime import bundle
from runtime.bundle import Preprocess
from runtime.engines import ENGINES
from runtime.errors import DONE
from runtime.terminal import note

TRAIN_PHOTOS, TEST_PHOTOS = 400, 60


def parser() -> argparse.ArgumentParser:
    return record.parser(
        "memory", "Measure predict's resident memory for one and five ConvNeXt-Base categories, apart and joint."
    )


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(parser(), measure, argv)


def measure(into: Path) -> int:
    """Predict with each and keep the most that each held."""
    load_before = busy.before()
    home = CONVNEXT_BASE.make(["int8"])
    data = home / "synthetic"
    if not data.exists():
        synthetic.write(data, photos=TRAIN_PHOTOS, test_photos=TEST_PHOTOS)
    one = CONVNEXT_BASE.bundle
    found = []
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        apart = copies(one, Path(scratch, "apart"))
        together = joint(home, data)
        for engine in ("onnxruntime", "openvino"):
            if not ENGINES[engine].installed():
                continue
            for what, bundles in (("one", one), ("five, apart", apart), ("five, one backbone", together)):
                options = ["--bundles", str(bundles), "--engine", engine, "--out", str(Path(scratch, "out.csv"))]
                named = ["--category", CONVNEXT_BASE.category] if what == "one" else []
                listed = [] if named else ["--listing", str(data / "test.csv")]
                code, samples = watch.module(
                    "runtime.predict", [str(data / "test_images"), *named, *listed, *options, "--quiet"]
                )
                assert code == DONE, f"predict ended with {code}"
                most = max(sample.resident for sample in samples)
                size = sum(file.stat().st_size for file in bundles.rglob("*.onnx")) / 2**20
                found.append(
                    {"categories": what, "engine": engine, "resident_mb": round(most), "graphs_mb": round(size)}
                )
                note(str(found[-1]))
    path = record.keep(
        {"model": "memory"}, {"photos": TEST_PHOTOS, "found": found}, full=True, load_before=load_before, into=into
    )
    note(f"kept in {path}")
    return DONE


def copies(one: Path, root: Path) -> Path:
    """The bundle once for each of the challenge's categories, under its name."""
    page = bundle.load(one)
    for category in synthetic.categories():
        folder = root / bundle.slug_of(category.name)
        shutil.copytree(one, folder, copy_function=os.link)
        (folder / bundle.PAGE).unlink()  # else the original's own would be written over
        named = msgspec.structs.replace(page.categories[0], name=category.name)
        bundle.save(folder, msgspec.structs.replace(page, slug=folder.name, categories=(named,)))
    return root


def joint(home: Path, data: Path) -> Path:
    """The bundles folder of the joint network, made once and kept."""
    from export import build
    from train import checkpoint
    from train.checkpoint import Checkpoint
    from train.data import read
    from train.table import joint as joined

    made = home / "joint"
    if (made / "bundles").exists():
        return made / "bundles"
    table = joined(read(data))
    preset = CONVNEXT_BASE.preset
    model = random_network(preset, [len(attribute.classes) for attribute in table.attributes])
    config = preset.model
    page = Checkpoint(
        slug="joint",
        categories=table.categories,
        preprocess=Preprocess(height=config.size, width=config.size, mean=config.mean, std=config.std),
        routes=table.routes,
        preset=preset,
        metrics=(),
        provenance={"weights": "random"},
    )
    checkpoint.save(made / "checkpoint", model.state_dict(), page)
    photos = ["--calibration-photos", "8", "--gate-photos", "2"]
    options = ["--checkpoints", str(made / "checkpoint"), "--data", str(data), "--precision", "int8", *photos]
    with contextlib.redirect_stdout(sys.stderr):
        code = build.main([*options, "--out", str(made / "bundles"), "--quiet"])
    assert code == DONE, f"export.build ended with {code}"
    return made / "bundles"


if __name__ == "__main__":
    raise SystemExit(main())

"""Command: int8 of networks that were really trained, judged on photos that no training and no choice saw.

    python -m benchmarks.trained_int8 --source DIR

DIR is what examples/make_examples.py reads. A ConvNeXt is trained from scratch on the photos of Garment; beside it
stands the shipped model, a MobileNetV2. Both are exported as `python -m export.build` does it, calibrated on training
photos, and the gate judges them on the 722 photos of the test split. Kept are how good they are, the gate's figures,
other ways to calibrate, and what each quantised tensor costs. A checkpoint in build/trained is used as it is.
"""

# N photos, K classes

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import busy, record, tasks
from benchmarks.cache import ROOT
from benchmarks.graphs import FLOAT
from benchmarks.reference_export import figures
from export import table
from runtime import bundle
from runtime.errors import DONE, PARTLY_DONE, UserError
from runtime.files import replacing
from runtime.terminal import note

BUILD = ROOT / "build" / "trained"
BACKBONE = "convnext_atto"
# From random weights: a smaller photo, more epochs and a higher rate than a pretrained network is given.
TRAINING = ("--backbone", BACKBONE, "--weights", "none", "--size", "128", "--epochs", "40", "--rate", "3")
CALIBRATION_PHOTOS = 128
GATE_PHOTOS = 1000  # all that there are
SHOWN_COSTS = 20
AS_BUILT = "as built"


def parser() -> argparse.ArgumentParser:
    return tasks.parser(
        "trained_int8",
        "Train a ConvNeXt from scratch, take it and the shipped MobileNetV2 to int8, judge both on test.",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return tasks.main(parser(), measure, argv)


def measure(source: Path, into: Path) -> int:
    """Train what is not there, export both, keep what was found; PARTLY_DONE where one has no int8 on an engine."""
    load_before = busy.before()
    tasks.prepare(source)
    data = tasks.BUILD / tasks.GARMENT
    train(data, BUILD / "checkpoints")
    judged_on(data, BUILD / "data")
    networks = {
        BACKBONE: BUILD / "checkpoints" / tasks.GARMENT,
        "mobilenetv2_100": ROOT / "examples" / "checkpoints" / tasks.GARMENT,
    }
    found = {name: exported(checkpoint, BUILD / "bundles" / name) for name, checkpoint in networks.items()}
    path = record.keep(
        {"model": "trained_int8", "training_minutes": trained_minutes(networks[BACKBONE]), "training": list(TRAINING)},
        {"networks": found},
        full=True,
        load_before=load_before,
        into=into,
    )
    note(f"kept in {path}")
    return DONE if all(one["exit_code"] == DONE for one in found.values()) else PARTLY_DONE


def train(data: Path, out: Path) -> None:
    """Train the ConvNeXt, unless it is there already."""
    from train import checkpoint, fit

    if (out / tasks.GARMENT / checkpoint.PAGE).exists():
        return
    code = fit.main(["--data", str(data), "--category", "Garment", "--out", str(out), *TRAINING])
    if code != DONE:
        shutil.rmtree(out, ignore_errors=True)
        raise UserError(f"train.fit ended with {code}")


def trained_minutes(folder: Path) -> float:
    """How long its phases took."""
    from train import checkpoint

    seconds = {epoch.phase: epoch.seconds for epoch in checkpoint.read(folder).history}
    return round(sum(seconds.values()) / 60, 1)


def judged_on(source: Path, folder: Path) -> None:
    """The same data folder with the test split in the place of the validation split, which is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_images").unlink(missing_ok=True)
    (folder / "train_images").symlink_to(source / "train_images")
    shutil.copy(source / "category_attributes.csv", folder)
    with (source / "train.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "val"]
    with replacing(folder / "train.csv") as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"split": "val" if row["split"] == "test" else "train"} for row in rows)


def exported(checkpoint: Path, out: Path) -> dict[str, object]:
    """What the gate found of it, and what its tensors cost."""
    from export import build

    shutil.rmtree(out, ignore_errors=True)
    options = ["--checkpoints", str(checkpoint), "--data", str(BUILD / "data"), "--out", str(out)]
    options += ["--calibration-photos", str(CALIBRATION_PHOTOS), "--gate-photos", str(GATE_PHOTOS)]
    options += ["--precision", "fp32", "int8"]
    code = build.main([*options, "--engine", "onnxruntime", "openvino"])
    artifacts = bundle.verify(out / tasks.GARMENT).artifacts
    return {
        "exit_code": code,
        "columns": table.COLUMNS,
        "rows": table.rows(artifacts),
        "artifacts": [figures(artifact) for artifact in artifacts],
        **compared(checkpoint),
    }


def compared(folder: Path) -> dict[str, object]:
    """Calibrated in other ways, as they are before any tensor is put back; and what each tensor costs as built."""
    import onnx

    from export import evidence, graph, parity, precision, sensitivity
    from export.artifacts import RANKING_LIMIT_S, RANKING_PHOTOS
    from train import checkpoint

    model, page = checkpoint.load(folder)
    photos = evidence.gather(model, page, BUILD / "data", calibration=CALIBRATION_PHOTOS, gate=GATE_PHOTOS)
    full = graph.graph(model, page)
    path = BUILD / "compared.onnx"
    rows = []
    for name, changes in ways().items():
        note(f"int8, {name}")
        quantised = precision.to_int8(full, photos.calibration, **changes)
        onnx.save(quantised, path)
        for engine, hint in FLOAT.items():
            verdict = parity.judge(path, "int8", engine, hint, photos.evidence)
            rows.append({"way": name, "engine": engine, "state": verdict.state, **verdict.figures})
        if name == AS_BUILT:
            sample_NHWC = photos.evidence.few(RANKING_PHOTOS).photos_NHWC
            costs = sensitivity.costs(full, quantised, sample_NHWC, limit_s=RANKING_LIMIT_S)
    path.unlink()
    return {"ways": rows, "costs": [[cost.tensor, cost.difference] for cost in costs[:SHOWN_COSTS]]}


def ways() -> dict[str, dict[str, object]]:
    """Arguments of nncf.quantize."""
    import nncf

    return {
        AS_BUILT: {},
        "without bias correction": {
            "advanced_parameters": nncf.AdvancedQuantizationParameters(disable_bias_correction=True)
        },
        # Nagel et al., 2019, Data-Free Quantization: each layer by itself, or after those before it; a build takes one
        # or the other.
        "with fast bias correction": {"fast_bias_correction": True},
        "with bias correction from layer to layer": {"fast_bias_correction": False},
        "with channel alignment": {
            "advanced_parameters": nncf.AdvancedQuantizationParameters(disable_channel_alignment=False)
        },
        # Xiao et al., 2023, SmoothQuant; the library has it for what it is told to be a transformer.
        "with SmoothQuant": {"model_type": nncf.ModelType.TRANSFORMER},
    }


if __name__ == "__main__":
    raise SystemExit(main())

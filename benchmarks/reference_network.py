"""Command: the reference system's network with random weights, as a checkpoint and a bundle, made once and kept.

python -m benchmarks.reference_network --precision int8

ConvNeXt-Base at 512 px with the five heads of the challenge's Men Tshirts. How fast a network answers does not hang
on what its weights are, as long as every layer has its say in the answer: see `seeded`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.record import hardware
from runtime import bundle, inputs
from runtime.bundle import Attribute, Category, Preprocess
from runtime.errors import DONE, exit_code
from train.config import preset

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint
    from train.network import FacetModel

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
SEED = 0
PRESET = preset("reference")
# The challenge's own attributes and classes of Men Tshirts.
CLASSES = {
    "color": ("black", "default", "multicolor", "white"),
    "neck": ("polo", "round"),
    "pattern": ("printed", "solid"),
    "print_or_pattern_type": ("default", "solid", "typography"),
    "sleeve_length": ("long sleeves", "short sleeves"),
}
CATEGORY = Category(
    name="Men Tshirts",
    attributes=tuple(Attribute(name=name, classes=classes, output=name) for name, classes in CLASSES.items()),
)
PARAMETERS = 95_658_253  # as the reference system's report states for this category
# An export has hundreds; here each costs seconds, and the benchmark compares the answers to its own photos again.
GATE_PHOTOS = 2
CALIBRATION_PHOTOS = 8
# In its data folder, for whoever exports it with more.
TRAIN_PHOTOS, VAL_PHOTOS = 300, 24
TOOLS = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
SOURCES = (
    "export/*.py",
    "runtime/bundle.py",
    "runtime/images.py",
    "train/checkpoint.py",
    "train/config.py",
    "train/heads.py",
    "train/network.py",
)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reference_network",
        description="Make the reference system's network, random weights, and its bundle; nothing where both are.",
    )
    parser.add_argument(
        "--precision", nargs="+", choices=["fp32", "int8"], default=["int8"], metavar="P", help="default: int8"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_code(lambda: make(home(), args.precision), extra="dev")


def home() -> Path:
    """The folder of this network, named by what it is made from and made with."""
    sources = [Path(__file__), *(path for pattern in SOURCES for path in sorted(ROOT.glob(pattern)))]
    # The processor too: a bundle's verdicts hold only where they were found.
    made_from = [SEED, asdict(PRESET), [_version(name) for name in TOOLS], hardware()]
    digest = hashlib.sha256(json.dumps(made_from).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return CACHE / digest.hexdigest()[:12]


def make(folder: Path, precisions: Sequence[str]) -> int:
    """Make what is not there yet of the checkpoint and of `bundles/` in the folder, and print where they are."""
    from export import build
    from export.artifacts import GRAPH_ENGINES

    write(folder)
    options = ["--precision", *precisions, "--engine", *GRAPH_ENGINES, "--out", str(folder / "bundles"), "--quiet"]
    photos = ["--calibration-photos", str(CALIBRATION_PHOTOS), "--gate-photos", str(GATE_PHOTOS)]
    with contextlib.redirect_stdout(sys.stderr):  # its table; what is asked for is the folder
        build.main([*named(folder), *options, *photos])
    print(folder)
    return DONE


def named(folder: Path) -> list[str]:
    """The options of export.build that name the checkpoint and the photos that `write` put there."""
    return ["--checkpoints", str(folder / "checkpoint"), "--data", str(folder / "data")]


def write(folder: Path) -> None:
    """The checkpoint and a data folder, where they are not there yet; what other sources made before is removed."""
    from train import checkpoint

    if folder.parent.exists():
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other)  # most of a gigabyte
    if not (folder / "data" / "train.csv").exists():
        _write_data(folder / "data")
    if not (folder / "checkpoint" / checkpoint.PAGE).exists():
        checkpoint.save(folder / "checkpoint", seeded().state_dict(), _page())


def seeded() -> FacetModel:
    """The network with random weights."""
    import torch

    torch.manual_seed(SEED)
    made = random_network([len(attribute.classes) for attribute in CATEGORY.attributes])
    found = sum(parameter.numel() for parameter in made.parameters())
    assert found == PARAMETERS, f"the reference's network has {PARAMETERS} parameters, this one {found}"
    return made.eval()


def random_network(classes: Sequence[int]) -> FacetModel:
    """The reference's network for attributes of so many classes, its LayerScale drawn from 0.1 to 1.

    timm starts LayerScale at 1e-6: the blocks would do next to nothing, and any change to them would pass unseen.
    """
    import torch

    from train import network

    made = network.create(PRESET.model, classes, "none")
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(".gamma"):
                parameter.uniform_(0.1, 1)
    return made.eval()


def _page() -> Checkpoint:
    from train.checkpoint import Checkpoint

    network = PRESET.model
    return Checkpoint(
        slug=bundle.slug_of(CATEGORY.name),
        categories=(CATEGORY,),
        preprocess=Preprocess(height=network.size, width=network.size, mean=network.mean, std=network.std),
        routes=None,
        preset=PRESET,
        metrics=(),
        provenance={"weights": "random", "seed": str(SEED)},
    )


def _write_data(folder: Path) -> None:
    """Photos of the examples, in the challenge's layout, their labels dealt out in turn.

    There is no truth to what random weights answer, and labels of so few photos are not what the gate judges by.
    """
    from export.evidence import spread

    photos = spread(inputs.find([ROOT / "examples" / "clothing" / "train_images"]), TRAIN_PHOTOS + VAL_PHOTOS)
    (folder / "train_images").mkdir(parents=True, exist_ok=True)
    columns = [f"attr_{number}" for number in range(1, len(CLASSES) + 1)]
    with (folder / "category_attributes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("Category", "No_of_attribute", "Attribute_list"),
                (CATEGORY.name, len(CLASSES), json.dumps(list(CLASSES))),
            ]
        )
    with (folder / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "Category", "len", *columns, "split"])
        for index, photo in enumerate(photos):
            shutil.copy(photo, folder / "train_images" / f"{index:06d}.jpg")
            labels = [classes[index % len(classes)] for classes in CLASSES.values()]
            split = "train" if index < TRAIN_PHOTOS else "val"
            table.writerow([index, CATEGORY.name, len(CLASSES), *labels, split])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    raise SystemExit(main())

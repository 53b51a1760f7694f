"""Command: the reference system's network with random weights, as a checkpoint and a bundle, made once and kept.

python -m benchmarks.reference_network --precision int8

ConvNeXt-Base at 512 px with the five heads of the challenge's Men Tshirts. How fast a network answers does not hang
on what its weights are, as long as every layer has its say in the answer: see `seeded`.
"""

# N photos, L attributes

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.record import hardware
from runtime import bundle, images
from runtime.bundle import Attribute, Category, Preprocess
from runtime.errors import DONE, exit_code
from runtime.terminal import note
from train.config import preset

if TYPE_CHECKING:
    import numpy as np

    from export.artifacts import Photos
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
    return exit_code(lambda: make(home(), args.precision))


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
    """Make what is not there yet of `checkpoint/` and `bundle/` in the folder, and print where they are."""
    from export import artifacts, commit
    from train import checkpoint

    weights, into = folder / "checkpoint", folder / "bundle"
    there = {artifact.precision for artifact in bundle.load(into).artifacts} if (into / bundle.PAGE).exists() else set()
    missing = [name for name in artifacts.TOOLS if name in precisions and name not in there]
    if missing:
        for other in CACHE.glob("*"):
            if other != folder:
                shutil.rmtree(other)  # made by sources that are no more, and most of a gigabyte
        if not (weights / checkpoint.PAGE).exists():
            checkpoint.save(weights, seeded().state_dict(), _page())
        model, page = checkpoint.load(weights)
        photos = _photos(model, page)
        with commit.scratch(into) as scratch:
            made = list(artifacts.make(model, page, photos, artifacts.jobs(missing, []), scratch))
            commit.commit(into, model, page, photos, [result for result in made if not result.refused])
        for artifact in (result.artifact for result in made):
            for verdict in artifact.verdicts:
                note(f"{artifact.precision} on {verdict.engine} {verdict.hint}: {verdict.state} {verdict.reason}")
    print(folder)
    return DONE


def seeded() -> FacetModel:
    """The network with random weights, its LayerScale drawn from 0.1 to 1.

    timm starts LayerScale at 1e-6: the blocks would do next to nothing, and any change to them would pass unseen.
    """
    import torch

    from train import network

    torch.manual_seed(SEED)
    made = network.create(PRESET.model, [len(attribute.classes) for attribute in CATEGORY.attributes], "none")
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(".gamma"):
                parameter.uniform_(0.1, 1)
    found = sum(parameter.numel() for parameter in made.parameters())
    assert found == PARAMETERS, f"the reference's network has {PARAMETERS} parameters, this one {found}"
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


def _photos(model: FacetModel, page: Checkpoint) -> Photos:
    """Photos to calibrate on and to judge by, unlabelled: there is no truth to what random weights answer."""
    import numpy as np

    from export import evidence, parity
    from train.config import MISSING
    from train.table import Table

    def load(paths: Sequence[Path]) -> np.ndarray:
        return np.stack([images.fit(images.decode(path), page.preprocess) for path in paths])

    judged = spread(images.find([ROOT / "examples" / "photos"]), GATE_PHOTOS)
    photos_NHWC = load(judged)
    labels_NL = np.full((len(judged), len(CATEGORY.attributes)), MISSING)
    return evidence.Photos(
        table=Table(
            categories=(CATEGORY,),
            routes=None,
            ids=tuple(path.stem for path in judged),
            paths=tuple(judged),
            labels_NL=labels_NL,
            kinds_N=np.zeros(len(judged), np.int64),
            groups=np.arange(len(judged)),
            splits=np.full(len(judged), "val", object),
            targets=(),
            absent=(),
        ),
        calibration_NHWC=load(spread(images.find([ROOT / "examples/clothing/train_images"]), CALIBRATION_PHOTOS)),
        evidence=parity.Evidence(
            categories=(CATEGORY,),
            photos_NHWC=photos_NHWC,
            labels_NL=labels_NL,
            groups_N=np.arange(len(judged)),
            reference=evidence.reference(model, page, photos_NHWC),
        ),
        gate_rows=np.arange(len(judged)),
    )


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of the paths, evenly spaced over them."""
    return [paths[index * len(paths) // count] for index in range(count)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    raise SystemExit(main())

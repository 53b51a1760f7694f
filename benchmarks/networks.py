"""Command: the networks that are timed, random weights, each as a checkpoint and a bundle, made once and kept.

python -m benchmarks.networks convnext_base --precision int8

How fast a network answers does not hang on what its weights are, as long as every layer has its say in the answer: see
`Network.seeded`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cache import ROOT, drop_others, home, whole
from benchmarks.record import hardware
from runtime import bundle, inputs
from runtime.bundle import Attribute, Category, Preprocess
from runtime.errors import DONE, exit_code
from train.config import Preset, preset

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint
    from train.network import FacetModel


SEED = 0
# An export has hundreds; here each costs seconds, and the benchmark compares the answers to its own photos again.
GATE_PHOTOS = 2
CALIBRATION_PHOTOS = 8
# In its data folder, for whoever exports it with more.
TRAIN_PHOTOS, VAL_PHOTOS = 300, 24
SOURCES = (
    "export/*.py",
    "runtime/bundle.py",
    "runtime/images.py",
    "train/checkpoint.py",
    "train/config.py",
    "train/heads.py",
    "train/network.py",
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network by its preset and the classes of its attributes."""

    name: str
    preset: Preset
    category: str
    classes: Mapping[str, tuple[str, ...]]
    parameters: int

    @property
    def served(self) -> Category:
        """What it answers."""
        attributes = (Attribute(name=name, classes=classes, output=name) for name, classes in self.classes.items())
        return Category(name=self.category, attributes=tuple(attributes))

    @property
    def home(self) -> Path:
        """Its folder, named by what it is made from and made with."""
        sources = [Path(__file__), *(path for pattern in SOURCES for path in sorted(ROOT.glob(pattern)))]
        # The processor too: a bundle's verdicts hold only where they were found.
        return home(self.name, [SEED, asdict(self.preset), self.category, dict(self.classes), hardware()], sources)

    @property
    def checkpoint(self) -> Path:
        return self.home / "checkpoint"

    @property
    def bundle(self) -> Path:
        return self.home / "bundles" / bundle.slug_of(self.category)

    @property
    def exported(self) -> Path:
        """The bundle that `benchmarks.reference_export` makes, of every precision."""
        return self.home / "exported" / self.bundle.name

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def sources(self) -> list[str]:
        """The options of export.build that name the checkpoint and the photos that `write` puts there."""
        return ["--checkpoints", str(self.checkpoint), "--data", str(self.data)]

    def make(self, precisions: Sequence[str]) -> Path:
        """Make what is not there yet of the checkpoint and of `bundles/`, and give the home."""
        from export import build
        from export.artifacts import GRAPH_ENGINES

        self.write()
        options = ["--precision", *precisions, "--engine", *GRAPH_ENGINES, "--out", str(self.bundle.parent), "--quiet"]
        photos = ["--calibration-photos", str(CALIBRATION_PHOTOS), "--gate-photos", str(GATE_PHOTOS)]
        with contextlib.redirect_stdout(sys.stderr):  # its table
            # What its main would turn into an exit code, a mistake or Ctrl-C, ends this command too.
            build.build(build.parser().parse_args([*self.sources, *options, *photos]))
        return self.home

    def write(self) -> None:
        """The checkpoint and a data folder, where they are not there yet; what other sources made before is removed."""
        from train import checkpoint

        drop_others(self.home)
        if not self.data.exists():
            with whole(self.data) as folder:
                self._write_data(folder)
        if not (self.checkpoint / checkpoint.PAGE).exists():
            checkpoint.save(self.checkpoint, self.seeded().state_dict(), self._page())

    def seeded(self) -> FacetModel:
        """The network with random weights."""
        import torch

        torch.manual_seed(SEED)
        made = random_network(self.preset, [len(classes) for classes in self.classes.values()])
        found = sum(parameter.numel() for parameter in made.parameters())
        assert found == self.parameters, f"{self.name} has {self.parameters} parameters, this one {found}"
        return made

    def _page(self) -> Checkpoint:
        from train.checkpoint import Checkpoint

        model = self.preset.model
        return Checkpoint(
            slug=bundle.slug_of(self.category),
            categories=(self.served,),
            preprocess=Preprocess(height=model.size, width=model.size, mean=model.mean, std=model.std),
            routes=None,
            preset=self.preset,
            metrics=(),
            provenance={"weights": "random", "seed": str(SEED)},
        )

    def _write_data(self, folder: Path) -> None:
        """Photos of the examples, in the challenge's layout, their labels dealt out in turn.

        There is no truth to what random weights answer, and labels of so few photos are not what the gate judges by.
        """
        from export.evidence import spread

        photos = spread(inputs.find([ROOT / "examples" / "clothing" / "train_images"]), TRAIN_PHOTOS + VAL_PHOTOS)
        (folder / "train_images").mkdir()
        columns = [f"attr_{number}" for number in range(1, len(self.classes) + 1)]
        with (folder / "category_attributes.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [
                    ("Category", "No_of_attribute", "Attribute_list"),
                    (self.category, len(self.classes), json.dumps(list(self.classes))),
                ]
            )
        with (folder / "train.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", "Category", "len", *columns, "split"])
            for index, photo in enumerate(photos):
                shutil.copy(photo, folder / "train_images" / f"{index:06d}.jpg")
                labels = [classes[index % len(classes)] for classes in self.classes.values()]
                split = "train" if index < TRAIN_PHOTOS else "val"
                table.writerow([index, self.category, len(self.classes), *labels, split])


def random_network(preset: Preset, classes: Sequence[int]) -> FacetModel:
    """The preset's network for attributes of so many classes, its LayerScale drawn from 0.1 to 1.

    timm starts LayerScale at 1e-6: the blocks would do next to nothing, and any change to them would pass unseen.
    """
    import torch

    from train import network

    made = network.create(preset.model, classes, "none")
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(".gamma"):
                parameter.uniform_(0.1, 1)
    return made.eval()


# The reference system's network with the challenge's own attributes and classes of Men Tshirts; as many parameters as
# its report states for this category.
CONVNEXT_BASE = Network(
    name="convnext_base",
    preset=preset("reference"),
    category="Men Tshirts",
    classes={
        "color": ("black", "default", "multicolor", "white"),
        "neck": ("polo", "round"),
        "pattern": ("printed", "solid"),
        "print_or_pattern_type": ("default", "solid", "typography"),
        "sleeve_length": ("long sleeves", "short sleeves"),
    },
    parameters=95_658_253,
)
# A small one, as `train.fit --backbone convnext_atto` makes it.
CONVNEXT_ATTO = Network(
    name="convnext_atto",
    preset=replace(
        preset("default"),
        model=replace(preset("default").model, backbone="convnext_atto", backbone_args={}, last_stage=False),
        weights="none",
    ),
    category="Shirts",
    classes={
        "colour": ("black", "blue", "grey", "red", "white"),
        "pattern": ("floral", "plain", "striped"),
        "sleeve_length": ("long", "none", "short"),
    },
    parameters=3_392_151,
)
NETWORKS = {network.name: network for network in (CONVNEXT_BASE, CONVNEXT_ATTO)}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks",
        description="Make a network with random weights and its bundle, nothing where both are; print its folder.",
    )
    parser.add_argument("network", choices=[*NETWORKS])
    parser.add_argument(
        "--precision", nargs="+", choices=["fp32", "int8"], default=["int8"], metavar="P", help="default: int8"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)

    def make() -> int:
        print(NETWORKS[args.network].make(args.precision))
        return DONE

    return exit_code(make, extra="dev")


if __name__ == "__main__":
    raise SystemExit(main())

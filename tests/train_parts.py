"""Small real things for the tests of training and export: photos whose colour is the label, networks of few weights."""

# H height, W width, C channels, N photos

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from runtime.bundle import Attribute, Category, Preprocess
from train.config import AugmentConfig, ModelConfig, PhaseConfig, Preset

if TYPE_CHECKING:
    import onnx

    from train.checkpoint import Checkpoint
    from train.network import FacetModel

COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
SHADES = {"dark": 0.4, "light": 1.0}
CATEGORY = Category(
    name="Cap",
    attributes=(
        Attribute(name="colour", classes=tuple(COLOURS), output="colour"),
        Attribute(name="shade", classes=tuple(SHADES), output="shade"),
    ),
)

TOP_COLOURS = {"magenta": (220, 40, 220), "yellow": (220, 220, 40)}
TOPS = Category(
    name="Women Tops & Tunics",
    attributes=(
        Attribute(name="colour", classes=tuple(TOP_COLOURS), output="colour"),
        Attribute(name="print or pattern", classes=tuple(SHADES), output="print or pattern"),
    ),
)


def tiny(backbone: str, *, last_stage: bool = False, **phase1: object) -> Preset:
    """A preset of that backbone at 64 px, where its last map has 2 x 2 positions; it learns colours in 24 steps."""
    defaults: dict[str, object] = {
        "epochs": 8,
        "batch": 6,
        "backbone_lr": 3e-3,
        "heads_lr": 1e-2,
        "mmd_weight": 0.1,
        "target_batch": 2,
        "ema_decay": 0.5,
    }
    return Preset(
        model=ModelConfig(
            backbone=backbone,
            last_stage=last_stage,
            heads="attention",
            dropout=0.1,
            size=64,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        augment=AugmentConfig(),
        phase1=PhaseConfig(**(defaults | phase1)),
        phase2=PhaseConfig(epochs=8, batch=6, heads_lr=5e-2),
        weights="none",
    )


# 84,000 weights, with the layers that make a network hard to move: BatchNorm, depthwise, squeeze-and-excitation.
TINY = tiny("test_efficientnet", last_stage=True)


def write_data(
    folder: Path, *, count: int = 24, edit: Callable[[list[dict[str, str]]], list[dict[str, str]]] | None = None
) -> Path:
    """A data folder: photos of 32 px, one quarter val; colour and shade can be seen, every seventh shade is missing.

    Args:
        edit: gives the rows to write instead of those that the photos were made for.
    """
    (folder / "train_images").mkdir(parents=True)
    rows = _draw(folder, "Cap", COLOURS, range(count))
    write_csv(folder / "train.csv", edit(rows) if edit else rows)
    write_csv(
        folder / "category_attributes.csv",
        [{"Category": "Cap", "No_of_attribute": "2", "Attribute_list": '["colour", "shade"]'}],
    )
    return folder


def write_two(folder: Path) -> Path:
    """As `write_data`, with a second category of other colours, as many photos, and a name full of odd characters."""

    def both(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [*rows, *_draw(folder, TOPS.name, TOP_COLOURS, range(len(rows), 2 * len(rows)))]

    write_data(folder, edit=both)
    listed = [
        {
            "Category": category.name,
            "No_of_attribute": "2",
            "Attribute_list": str([attribute.name for attribute in category.attributes]),
        }
        for category in (CATEGORY, TOPS)
    ]
    write_csv(folder / "category_attributes.csv", listed)
    return folder


def _draw(
    folder: Path, category: str, colours: Mapping[str, tuple[int, int, int]], indices: range
) -> list[dict[str, str]]:
    """Photos of one colour each, noise over it, and their rows of train.csv."""
    rng = np.random.default_rng(indices.start)
    rows = []
    for index in indices:
        colour = list(colours)[index % len(colours)]
        shade = list(SHADES)[index // len(colours) % 2]
        image_HWC = np.array(colours[colour]) * SHADES[shade] + rng.integers(-25, 26, (32, 32, 3))
        pixels_HWC = np.clip(image_HWC, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "train_images" / f"{index:06d}.jpg"), pixels_HWC[:, :, ::-1])
        rows.append(
            {
                "id": str(index),
                "Category": category,
                "len": "2",
                "attr_1": colour,
                "attr_2": "" if index % 7 == 0 else shade,
                "split": "val" if index % 24 >= 18 else "train",
            }
        )
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@functools.cache
def network(backbone: str, *, act_layer: str = "", heads: str = "attention") -> tuple[FacetModel, Checkpoint]:
    """A network that is far from its initial state in everything an export could lose, and its page. Not to be changed.

    LayerScale starts at 1e-6 and attention at zero: left so, whole blocks would do nothing, and nothing could be
    lost in them. BatchNorm's statistics are those of `photos`, over which each class's logit has mean 0, deviation 1.
    """
    import torch

    from train import batchnorm, checkpoint
    from train import network as make

    preset = tiny(backbone)
    arguments = {"act_layer": act_layer} if act_layer else {}
    preset = replace(preset, model=replace(preset.model, heads=heads, backbone_args=arguments))
    torch.manual_seed(0)
    made = make.create(preset.model, [3, 2], "none").eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.1, 1.0)
            elif name.endswith(("query_LC", "excite.weight")):
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            elif heads == "reference" and parameter.ndim > 1 and not name.startswith("backbone"):
                parameter.mul_(6)  # as made, all photos would look the same behind its sigmoids
            elif ".bn" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
    inputs_BCHW = make.normalise(torch.from_numpy(photos(32, seed=1)), preset.model)
    batchnorm.recentre(made, [inputs_BCHW])
    with torch.no_grad():
        for index, logits_BK in enumerate(made(inputs_BCHW).logits):
            *_, weight_KC, bias_K = made.heads.rows_of(index)
            weight_KC /= logits_BK.std(0)[:, None]
            bias_K.sub_(logits_BK.mean(0)).div_(logits_BK.std(0))
    page = checkpoint.Checkpoint(
        slug="cap",
        categories=(CATEGORY,),
        preprocess=Preprocess(height=64, width=64, mean=preset.model.mean, std=preset.model.std),
        routes=None,
        preset=preset,
        metrics=(),
        provenance={},
    )
    return made, page


def full_graph(
    backbone: str, *, act_layer: str = "", heads: str = "attention", temperatures: Mapping[str, float] | None = None
) -> onnx.ModelProto:
    """The float32 graph of that network; an export takes seconds, so it is made once. Not to be changed."""
    return _full_graph(backbone, act_layer, heads, tuple((temperatures or {}).items()))


@functools.cache
def _full_graph(
    backbone: str, act_layer: str, heads: str, temperatures: tuple[tuple[str, float], ...]
) -> onnx.ModelProto:
    from export import graph

    model, page = network(backbone, act_layer=act_layer, heads=heads)
    return graph.graph(model, replace(page, temperatures=dict(temperatures)))


def photos(count: int, *, seed: int = 0) -> np.ndarray:
    """So many uint8 RGB photos of 64 px: soft patches of colour, each photo of its own brightness."""
    rng = np.random.default_rng(seed)
    patches_NHWC = rng.integers(0, 256, (count, 4, 4, 3)) * rng.uniform(0.3, 1.0, (count, 1, 1, 1))
    return np.stack([cv2.resize(patches_HWC, (64, 64)) for patches_HWC in patches_NHWC]).astype(np.uint8)

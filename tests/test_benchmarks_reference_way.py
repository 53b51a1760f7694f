"""The reference's own way answers as the network does: a tiny timm backbone, photos of random pixels."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.ways.reference import ReferenceWay
from runtime.bundle import Attribute, Category, Preprocess
from train import checkpoint, network
from train.config import AugmentConfig, ModelConfig, PhaseConfig, Preset

SIDE = 32
CLASSES = {"colour": ("black", "red", "white"), "neck": ("polo", "round")}
MODEL = ModelConfig(
    backbone="test_convnext", heads="attention", size=SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
PHASE = PhaseConfig(epochs=1, batch=1, heads_lr=1e-3)


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    made = network.create(MODEL, [len(classes) for classes in CLASSES.values()], "none")
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            # At timm's own 1e-6 the blocks, and what normalisation feeds them, would hardly show in the answer.
            if name.endswith(".gamma"):
                parameter.uniform_(0.1, 1)
    return made.eval()


@pytest.fixture(scope="module")
def page():
    return checkpoint.Checkpoint(
        slug="t-shirt",
        categories=(
            Category(
                name="T-Shirt",
                attributes=tuple(
                    Attribute(name=name, classes=classes, output=name) for name, classes in CLASSES.items()
                ),
            ),
        ),
        preprocess=Preprocess(height=SIDE, width=SIDE, mean=MODEL.mean, std=MODEL.std),
        routes=None,
        preset=Preset(model=MODEL, augment=AugmentConfig(), phase1=PHASE, phase2=PHASE, weights="none"),
        metrics=(),
        provenance={},
    )


@pytest.fixture
def way(made, page):
    return ReferenceWay(made, page)


def image(seed, height=SIDE, width=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_probabilities_are_the_networks_own_on_the_same_pixels(way, made):
    images_BHWC = np.stack([image(seed) for seed in range(3)])
    with torch.inference_mode():
        logits = made(network.normalise(torch.from_numpy(images_BHWC), MODEL)).logits
    wanted = [logits_BK.softmax(1).numpy() for logits_BK in logits]
    for row, image_HWC in enumerate(images_BHWC):
        for found_K, wanted_BK in zip(way.probabilities(image_HWC), wanted, strict=True):
            # Scaling to 0-1 before or after the mean is taken off moves the last bits of a float32 pixel.
            assert np.abs(found_K - wanted_BK[row]).max() < 1e-5


def test_another_photo_gets_another_answer(way):
    some, other = (np.concatenate(way.probabilities(image(seed) // (1 + seed))) for seed in (0, 1))
    assert np.abs(some - other).max() > 1e-4


def test_a_photo_of_the_models_size_keeps_its_pixels_in_rgb(way, tmp_path):
    image_HWC = image(0)
    Image.fromarray(image_HWC).save(tmp_path / "a.png")
    assert (way.pixels(tmp_path / "a.png") == image_HWC).all()


def test_a_photo_of_another_shape_is_squashed_not_cropped(way, tmp_path):
    halves_HWC = np.zeros((SIDE * 2, SIDE * 5, 3), np.uint8)
    halves_HWC[:, halves_HWC.shape[1] // 2 :] = 255
    Image.fromarray(halves_HWC).save(tmp_path / "a.png")
    squashed_HWC = way.pixels(tmp_path / "a.png")
    assert squashed_HWC.shape == (SIDE, SIDE, 3) and squashed_HWC.dtype == np.uint8
    assert (squashed_HWC[:, : SIDE // 2 - 1] == 0).all() and (squashed_HWC[:, SIDE // 2 + 1 :] == 255).all()


def test_the_table_has_a_row_for_each_photo_in_order_with_its_likeliest_label(way, tmp_path):
    for name, seed in (("b", 1), ("a", 0)):
        Image.fromarray(image(seed, 40, 48)).save(tmp_path / f"{name}.jpg")
    way.whole(tmp_path, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    for row in rows:
        for (name, classes), answer_K in zip(
            CLASSES.items(), way.probabilities(way.pixels(tmp_path / row["image"])), strict=True
        ):
            assert row[name] == classes[answer_K.argmax()]
            assert row[f"{name}_confidence"] == f"{answer_K.max():.4f}"


def test_it_opens_what_training_saves(made, page, tmp_path):
    checkpoint.save(tmp_path / "t-shirt", made.state_dict(), page)
    opened, given = ReferenceWay.open(tmp_path / "t-shirt"), ReferenceWay(made, page)
    for found_K, wanted_K in zip(opened.probabilities(image(0)), given.probabilities(image(0)), strict=True):
        assert (found_K == wanted_K).all()

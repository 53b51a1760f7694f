"""The network: what it gives, what models made of it share, and its backbone's weights taken from a file, exactly."""

# B batch, C channels, H height, W width, K classes, F features

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.errors import UserError
from tests.train_parts import TINY, photos
from tests.train_parts import network as far
from train import calibrate, network
from train.config import PRESETS, ModelConfig

ROOT = Path(__file__).resolve().parent.parent


def config(backbone: str) -> ModelConfig:
    return ModelConfig(backbone=backbone, heads="attention", size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@torch.no_grad()
def test_a_model_gives_logits_for_each_attribute_and_the_pooled_map() -> None:
    torch.manual_seed(0)
    made = network.create(TINY.model, [4, 2, 3], "none").eval()
    images_BCHW = torch.randn(2, 3, 64, 64)
    output = made(images_BCHW)
    assert [tuple(logits_BK.shape) for logits_BK in output.logits] == [(2, 4), (2, 2), (2, 3)]
    assert output.features.shape == (2, made.channels)
    assert made.map(images_BCHW).shape == (2, made.channels, 2, 2)
    torch.testing.assert_close(output.features, made.map(images_BCHW).mean((2, 3)), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("heads", ["attention", "reference"])
def test_a_tempered_model_gives_calibrated_probabilities_and_leaves_the_other_as_it_was(heads: str) -> None:
    made, _ = far("test_resnet", heads=heads)
    inputs_BCHW = network.normalise(torch.from_numpy(photos(8)), made.config)
    before = made(inputs_BCHW)
    after = network.tempered(made, [0.6, 1.8])(inputs_BCHW)
    for temperature, raw_BK, tempered_BK in zip((0.6, 1.8), before.logits, after.logits, strict=True):
        expected_BK = calibrate.tempered(raw_BK.softmax(1).numpy(), temperature)
        # Each weight is rounded once more, and the reference's logits are small differences of large sums.
        np.testing.assert_allclose(tempered_BK.softmax(1).numpy(), expected_BK, rtol=0, atol=1e-5)
        assert tempered_BK.argmax(1).equal(raw_BK.argmax(1))
    assert after.features.equal(before.features)
    assert all(one.equal(other) for one, other in zip(made(inputs_BCHW).logits, before.logits, strict=True))


@torch.no_grad()
def test_a_temperature_of_one_changes_no_bit() -> None:
    made, _ = far("test_resnet")
    tempered = network.tempered(made, [1.0, 1.0])
    assert tempered is not made
    assert all(value.equal(made.state_dict()[name]) for name, value in tempered.state_dict().items())


def test_models_made_of_another_share_all_but_its_heads() -> None:
    made, _ = far("test_resnet")
    for other in (network.tempered(made, [2.0, 2.0]), network.picked(made, [1])):
        assert other.backbone is made.backbone
        assert other.neck is made.neck
        assert {id(parameter) for parameter in other.heads.parameters()}.isdisjoint(map(id, made.heads.parameters()))
        assert not any(module.training for module in other.modules())


def test_normalise_takes_pixels_to_the_network_in_its_layout() -> None:
    images_BHWC = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8))
    made_BCHW = network.normalise(images_BHWC, PRESETS["reference"].model)
    mean, std = (np.array(values) for values in (PRESETS["reference"].model.mean, PRESETS["reference"].model.std))
    expected_BCHW = ((images_BHWC.numpy() / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert made_BCHW.dtype == torch.float32
    # float32 of values up to 2.6, computed in float64 here.
    np.testing.assert_allclose(made_BCHW.numpy(), expected_BCHW, rtol=1e-5, atol=1e-6)


def test_a_backbone_without_its_last_layers_gives_the_narrower_map() -> None:
    whole = network.create(config("mobilenetv2_035"), [2], "none")
    ended = network.create(ModelConfig(**(vars(config("mobilenetv2_035")) | {"last_stage": True})), [2], "none")
    assert (whole.channels, ended.channels) == (1280, 112)


def test_making_a_model_leaves_it_in_train_mode() -> None:
    assert all(module.training for module in network.create(TINY.model, [2], "none").modules())


# Weights


def test_the_weights_that_ship_fit_the_default_preset_exactly() -> None:
    # In train/config.py the path is relative to the project.
    path = ROOT / PRESETS["default"].weights
    made = network.create(PRESETS["default"].model, [2], str(path))
    found = load_file(path)
    state = made.backbone.state_dict()
    assert found.keys() >= state.keys()
    assert all(value.equal(found[name].to(value.dtype)) for name, value in state.items())
    left_out = {name.split(".")[0] for name in found.keys() - state.keys()}
    assert left_out == {"conv_head", "bn2", "classifier"}


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., str]:
    """Writes a file of the tiny backbone's own weights, changed, and gives its path."""

    def write(change: Callable[[dict[str, Tensor]], object]) -> str:
        state = dict(network.create_backbone(TINY.model).state_dict())
        change(state)
        save_file(state, tmp_path / "weights.safetensors")
        return str(tmp_path / "weights.safetensors")

    return write


def test_weights_from_a_file_are_taken_bit_for_bit(weights: Callable[..., str]) -> None:
    path = weights(lambda state: None)
    state = network.create(TINY.model, [2], path).backbone.state_dict()
    assert all(value.equal(state[name]) for name, value in load_file(path).items())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("bn1.weight"), r"missing bn1\.weight$"),
        (lambda state: state.update(extra=torch.zeros(1)), r"unexpected extra$"),
        (lambda state: state.update({"bn1.bias": torch.zeros(5)}), r"bn1\.bias has shape \[5\], not \[\d+\]$"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_refused_with_the_keys_named(
    weights: Callable[..., str], change: Callable[[dict[str, Tensor]], object], complaint: str
) -> None:
    with pytest.raises(UserError, match=rf"weights\.safetensors does not fit the model: {complaint}"):
        network.create(TINY.model, [2], weights(change))


def test_a_classifier_in_the_weights_is_left_out(weights: Callable[..., str]) -> None:
    def add(state: dict[str, Tensor]) -> None:
        state |= {"classifier.weight": torch.zeros(1000, 256), "classifier.bias": torch.zeros(1000)}

    network.create(TINY.model, [2], weights(add))


def test_a_weights_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"no weights file at nowhere\.safetensors\nname one with: --weights FILE"):
        network.create(TINY.model, [2], "nowhere.safetensors")


def test_a_weights_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"a pickle, perhaps, which is never opened")
    with pytest.raises(UserError, match=r"weights\.pth is not a safetensors file: "):
        network.create(TINY.model, [2], str(tmp_path / "weights.pth"))


def test_weights_that_cannot_be_fetched_are_one_clear_line_that_names_the_file_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as without a network, but at once
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        network.create(config("test_convnext.r160_in1k"), [2], "hub")
    first, then = str(caught.value).split("\n")
    assert re.match(r"the weights of 'test_convnext\.r160_in1k' could not be fetched: \S", first)
    assert then == "give them as a file with: --weights FILE.safetensors, or start from none with: --weights none"


def test_a_backbone_that_timm_does_not_know_is_named() -> None:
    with pytest.raises(UserError, match="no such backbone: 'convnext_gigantic'"):
        network.create(config("convnext_gigantic"), [2], "none")


@pytest.mark.parametrize(
    ("backbone", "gives"),
    [
        ("test_vit", "3 dimensions"),
        ("test_mambaout", "NHWC"),
        ("test_vit3", r"nothing for 64 x 64 pixels \(Input height \(64\) doesn't match model \(160\)\.\)"),
    ],
)
def test_a_backbone_without_a_map_is_answered_with_ones_that_have(backbone: str, gives: str) -> None:
    with pytest.raises(UserError, match=rf"gives {gives}, not a feature map .*\nchoose a convolutional one"):
        network.create(config(backbone), [2], "none")


def test_a_size_that_leaves_a_backbone_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"gives nothing for 8 x 8 pixels \(.*\n.*, or its own --size$"):
        network.create(replace(config("test_convnext"), size=8), [2], "none")


def test_a_backbone_of_one_size_is_taken_at_that_size() -> None:
    assert network.create(replace(config("test_coatnet"), size=160), [2], "none").channels == 128


def test_what_no_output_hangs_on_is_found() -> None:
    made = network.create(config("test_convnext"), [2, 3], "none")
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    found = {names[id(parameter)] for parameter in network.unused(made, torch.device("cpu"))}
    assert found == {"backbone.head.norm.weight", "backbone.head.norm.bias"}
    assert made.training

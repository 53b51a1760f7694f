"""The network: a timm backbone, a neck, and a head per attribute."""

# B batch, C channels, H height, W width, K classes, F features

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from runtime.errors import UserError
from train import heads
from train.config import ModelConfig, Preset

PROJECT = Path(__file__).resolve().parent.parent
SHIPPED = Path(__file__).resolve().parent / "shipped"
# Side in pixels of the image that a network is tried with.
PROBE = 64


class Output(NamedTuple):
    """What the network gives for a batch."""

    logits: list[Tensor]
    """One [B, K] tensor an attribute."""
    features: Tensor
    """[B, F]: the average over positions of the map that the heads read."""


class FacetModel(nn.Module):
    """Normalised RGB images [B, 3, H, W], float32, to the logits of each attribute and the pooled features."""

    def __init__(self, config: ModelConfig, classes: Sequence[int], backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.backbone: Any = backbone
        self.neck, self.heads, self.channels = heads.build(
            config.heads, _channels(backbone, config.size), classes, config.dropout
        )

    def map(self, images_BCHW: Tensor) -> Tensor:
        """The feature map that the heads read, [B, C, H, W]."""
        features_BCHW: Tensor = self.neck(self.backbone.forward_features(images_BCHW))
        return features_BCHW

    def forward(self, images_BCHW: Tensor) -> Output:
        map_BCHW = self.map(images_BCHW)
        return Output(self.heads(map_BCHW), map_BCHW.mean((2, 3)))


def tempered(model: FacetModel, temperatures: Sequence[float]) -> FacetModel:
    """The model whose softmax is calibrated: each attribute's logits are divided by its temperature, in the weights.

    The heads are a copy; all else is shared with `model`.

    Args:
        temperatures: one an attribute, as `Checkpoint.head_temperatures` gives them.
    """
    made = _with_heads(model, copy.deepcopy(model.heads))
    for index, temperature in enumerate(temperatures):
        *_, weight_KC, bias_K = made.heads.rows_of(index)
        weight_KC.div_(temperature)
        bias_K.div_(temperature)
    return made


def picked(model: FacetModel, indices: Sequence[int]) -> FacetModel:
    """The model of these attributes alone, in this order; all but the heads is shared with `model`."""
    return _with_heads(model, model.heads.picked(indices))


def create(config: ModelConfig, classes: Sequence[int], weights: str) -> FacetModel:
    """A model ready to train, its backbone from `weights`: `hub`, `none`, or a safetensors file of timm's names."""
    backbone = create_backbone(config, pretrained=weights == "hub")
    if weights not in ("hub", "none"):
        _load_backbone(backbone, config, Path(weights))
    return FacetModel(config, classes, backbone)


def create_backbone(config: ModelConfig, *, pretrained: bool = False) -> nn.Module:
    """The timm backbone of that name, without classifier, down to its last feature map."""
    import timm

    if ":" in config.backbone:
        raise UserError(f"a backbone is a name of timm's own, not an address: {config.backbone!r}")
    try:
        # Any: nn.Module alone has none of the methods that timm's models share.
        backbone: Any = timm.create_model(config.backbone, pretrained=pretrained, num_classes=0, **_args(config))
    except (RuntimeError, TypeError, KeyError) as err:
        if pretrained and timm.is_model(config.backbone.partition(".")[0]):
            raise UserError(
                f"the hub has no weights of {config.backbone!r}: {err}\n"
                "give them as a file with: --weights FILE.safetensors, or start from none with: --weights none"
            ) from None
        raise UserError(f"no such backbone: {config.backbone!r} ({err})") from None
    except OSError as err:
        raise UserError(
            f"the weights of {config.backbone!r} could not be fetched: {err}\n"
            "give them as a file with: --weights FILE.safetensors, or start from none with: --weights none"
        ) from None
    if config.last_stage:
        backbone.prune_intermediate_layers(1, prune_norm=True, prune_head=True)
    return cast("nn.Module", backbone)


def with_backbone(preset: Preset, name: str) -> Preset:
    """The preset on another timm backbone, with that one's own normalisation, and its weights from the hub."""
    import timm

    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError:
        found = None
    if found is None:
        raise UserError(
            f"no such backbone: {name!r}\nlist them with: python -c 'import timm; print(timm.list_models())'"
        )
    (red, green, blue), deviations = found.mean, found.std
    model = replace(
        preset.model,
        backbone=name,
        backbone_args={},
        last_stage=False,
        mean=(red, green, blue),
        std=(deviations[0], deviations[1], deviations[2]),
    )
    return replace(preset, model=model, weights="hub")


def normalise(images_BHWC: Tensor, config: ModelConfig) -> Tensor:
    """uint8 RGB images [B, H, W, 3] as the network's input: float32 [B, 3, H, W], channels last in memory."""
    mean = torch.tensor(config.mean, device=images_BHWC.device) * 255
    std = torch.tensor(config.std, device=images_BHWC.device) * 255
    return ((images_BHWC.float() - mean) / std).permute(0, 3, 1, 2)


def unused(model: FacetModel, device: torch.device) -> list[nn.Parameter]:
    """Parameters that no output hangs on, such as the norm before a classifier that was taken off."""
    parameters = list(model.parameters())
    training = model.training
    output = model.eval()(torch.zeros(1, 3, model.config.size, model.config.size, device=device))
    model.train(training)
    whole = sum(part.sum() for part in (*output.logits, output.features))
    gradients = torch.autograd.grad(whole, parameters, allow_unused=True)
    return [parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is None]


def require_equal_keys(expected: dict[str, Tensor], found: dict[str, Tensor], source: Path) -> None:
    """UserError, the keys named, unless both have the same names and shapes, and the found ones hold numbers."""
    complaints = [
        *(f"missing {name}" for name in expected.keys() - found.keys()),
        *(f"unexpected {name}" for name in found.keys() - expected.keys()),
        *(
            f"{name} has shape {list(found[name].shape)}, not {list(expected[name].shape)}"
            for name in expected.keys() & found.keys()
            if expected[name].shape != found[name].shape
        ),
        *(
            f"{name} has values that are no numbers"
            for name in expected.keys() & found.keys()
            if expected[name].is_floating_point() and not _is_finite(found[name])
        ),
    ]
    if complaints:
        more = f", and {len(complaints) - 6} more" if len(complaints) > 6 else ""
        raise UserError(f"{source} does not fit the model: {', '.join(sorted(complaints)[:6])}{more}")


def _is_finite(value: Tensor) -> bool:
    return value.is_floating_point() and bool(value.isfinite().all())


def _with_heads(model: FacetModel, heads: nn.Module) -> FacetModel:
    # What deepcopy finds here already it takes as it is: five categories on one backbone would fill a laptop's memory.
    done = {id(part): part for part in (model.backbone, model.neck)} | {id(model.heads): heads}
    return copy.deepcopy(model, done)


def _args(config: ModelConfig) -> dict[str, Any]:
    return dict(config.backbone_args)


def _channels(backbone: Any, size: int) -> int:
    """How many channels the backbone's map has; UserError where it gives none."""
    training = backbone.training
    backbone.eval()
    # Small first, which is quick; a few networks take the size that they are made for and no other.
    for side in (min(PROBE, size), size):
        try:
            with torch.no_grad():
                map_BCHW = backbone.forward_features(torch.zeros(1, 3, side, side))
        except (AssertionError, RuntimeError) as err:
            gives = f"nothing for {side} x {side} pixels ({err})"
            continue
        if not isinstance(map_BCHW, Tensor):
            gives = f"a {type(map_BCHW).__name__}"
        else:
            gives = f"{map_BCHW.ndim} dimensions" if map_BCHW.ndim != 4 else getattr(backbone, "output_fmt", "NCHW")
        break
    backbone.train(training)
    if gives != "NCHW":
        raise UserError(
            f"the backbone gives {gives}, not a feature map [B, C, H, W]\n"
            "choose a convolutional one, such as convnext_atto or mobilenetv2_100, or its own --size"
        )
    return int(map_BCHW.shape[1])


def _load_backbone(backbone: nn.Module, config: ModelConfig, path: Path) -> None:
    import timm
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        # A preset names weights that ship with the project, wherever the command runs: in the clone, or in the wheel.
        path = next((one for one in (PROJECT / path, SHIPPED / path.name) if one.is_file()), path)
    if not path.is_file():
        raise UserError(f"no weights file at {path}\nname one with: --weights FILE, or take the hub's: --weights hub")
    try:
        found = load_file(path)
    except SafetensorError as err:
        raise UserError(f"{path} is not a safetensors file: {err}") from None
    with torch.device("meta"):
        whole = timm.create_model(config.backbone, **_args(config))
    # What the whole network has and the backbone lacks was left out on purpose: the classifier, the last layers.
    left_out = whole.state_dict().keys() - backbone.state_dict().keys()
    kept = {name: value for name, value in found.items() if name not in left_out}
    require_equal_keys(backbone.state_dict(), kept, path)
    backbone.load_state_dict(kept)

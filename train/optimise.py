"""One optimiser step: which parameter learns how fast, when, and the averaged weights that are kept of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from runtime.errors import UserError
from train.config import PhaseConfig
from train.network import FacetModel

# Epochs without a better validation loss after which a plateau has been reached, as in the reference system.
PATIENCE, FACTOR = 2, 0.5
# Steps after which an average has forgotten the start half-way; fewer steps have a shorter memory.
AVERAGE_WARMUP = 20


class NoNumberError(UserError):
    """A loss or a gradient that is no number: the rates were too large."""


class Optimiser:
    """AdamW (Loshchilov and Hutter, 2019) over some of a model's parameters, its rates following a schedule.

    Gradients are scaled in float16, clipped together, and never applied where the loss is no number.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        config: PhaseConfig,
        steps: int,
        *,
        gone: Callable[[], float] = lambda: 0.0,
        half: bool = False,
    ) -> None:
        """Steps are what the phase will take at most.

        Args:
            gone: the share of the time limit that is spent: the cosine ends with the steps or with the time.
            half: the forward pass is in float16, whose small gradients must be scaled up to survive.
        """
        self.taken = 0
        self._config = config
        self._steps = steps
        self._gone = gone
        self._adamw = torch.optim.AdamW(list(groups))
        self._rates = [group["lr"] for group in self._adamw.param_groups]
        self._scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=half)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self._adamw, factor=FACTOR, patience=PATIENCE)
        self._follow()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that it changes."""
        return [parameter for group in self._adamw.param_groups for parameter in group["params"]]

    @property
    def rate(self) -> float:
        """The largest learning rate of the moment."""
        return float(max(group["lr"] for group in self._adamw.param_groups))

    def collect(self, loss: Tensor) -> None:
        """Add the gradients of a pass's loss; UserError for a loss that is no number, before it spoils a weight."""
        require_finite(loss.item(), "loss")
        self._scaler.scale(loss).backward()

    def step(self) -> None:
        """Apply the gradients that have come together, and forget them."""
        self._scaler.unscale_(self._adamw)
        norm = nn.utils.clip_grad_norm_(self.parameters, self._config.clip_norm)
        # In float16 the scaler looks for itself: it leaves such a step out and scales by less.
        if not self._scaler.is_enabled():
            require_finite(norm.item(), "gradient")
        self._scaler.step(self._adamw)
        self._scaler.update()
        self._adamw.zero_grad(set_to_none=True)
        self.taken += 1
        self._follow()

    def epoch_ended(self, loss: float) -> None:
        """Tell the plateau schedule the validation loss."""
        if self._config.schedule == "plateau":
            self._plateau.step(loss)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a resumed training needs: tensors by name, and plain values."""
        tensors = {
            f"{index}/{name}": value
            for index, values in self._adamw.state_dict()["state"].items()
            for name, value in values.items()
        }
        plateau = {"best": self._plateau.best, "bad": self._plateau.num_bad_epochs}
        return tensors, {
            "taken": self.taken,
            "rates": [group["lr"] for group in self._adamw.param_groups],
            "scaler": self._scaler.state_dict(),
            # JSON has no infinity.
            "plateau": plateau if math.isfinite(self._plateau.best) else {},
        }

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        whole = self._adamw.state_dict()
        for name, value in tensors.items():
            index, _, part = name.partition("/")
            whole["state"].setdefault(int(index), {})[part] = value
        self._adamw.load_state_dict(whole)
        for group, rate in zip(self._adamw.param_groups, values["rates"], strict=True):
            group["lr"] = rate
        self.taken = values["taken"]
        self._scaler.load_state_dict(values["scaler"])
        if values["plateau"]:
            self._plateau.best = values["plateau"]["best"]
            self._plateau.num_bad_epochs = values["plateau"]["bad"]

    def _follow(self) -> None:
        if self._config.schedule != "cosine":
            return
        done = max(min(1.0, self.taken / self._steps), self._gone())
        warmup = max(1, round(self._config.warmup * self._steps)) / self._steps
        climb = min(1.0, (done + 1 / self._steps) / warmup)
        share = climb * (0.5 + 0.5 * math.cos(math.pi * done))
        for group, rate in zip(self._adamw.param_groups, self._rates, strict=True):
            group["lr"] = rate * share


def require_finite(value: float, what: str) -> None:
    """UserError for what became no number, before it gets into the weights that are kept."""
    if not math.isfinite(value):
        raise NoNumberError(
            f"the {what} became {value}: the last checkpoint that was written is kept\n"
            "train anew with smaller rates: --rate 0.3, then 0.1"
        )


def end_to_end(model: FacetModel, config: PhaseConfig) -> list[dict[str, Any]]:
    """Parameter groups of phase 1: the backbone's stages, each at its share of the rate, then neck and heads."""
    stages = _stages(model.backbone)
    last = max(stages.values(), default=0)
    groups: list[dict[str, Any]] = []
    for stage in sorted(set(stages.values())):
        rate = config.backbone_lr * config.layer_decay ** (last - stage)
        members = [parameter for name, parameter in model.backbone.named_parameters() if stages[name] == stage]
        groups += _groups(members, rate, config)
    return groups + heads_alone(model, config, neck=True)


def heads_alone(model: FacetModel, config: PhaseConfig, *, neck: bool = False) -> list[dict[str, Any]]:
    """Parameter groups of phase 2."""
    modules: list[nn.Module] = [model.neck, model.heads] if neck else [model.heads]
    return _groups([p for module in modules for p in module.parameters()], config.heads_lr, config)


class Average:
    """A model whose weights are the moving average of another's (Polyak and Juditsky, 1992)."""

    def __init__(self, model: FacetModel, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self._decay = decay

    @torch.no_grad()
    def follow(self, model: FacetModel, taken: int) -> None:
        """Move towards the model's weights; early on the average would be mostly the start: a shorter memory first."""
        decay = min(self._decay, taken / (taken + AVERAGE_WARMUP))
        for kept, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(value, 1 - decay)
            else:
                kept.copy_(value)


def _groups(parameters: Iterable[nn.Parameter], rate: float, config: PhaseConfig) -> list[dict[str, Any]]:
    found = list(parameters)
    # Biases and normalisation scales are not shrunk: their size carries no complexity.
    halves = [
        {"params": [p for p in found if p.ndim > 1], "lr": rate, "weight_decay": config.weight_decay},
        {"params": [p for p in found if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
    ]
    return [half for half in halves if half["params"]]


def _stages(backbone: nn.Module) -> dict[str, int]:
    """For each parameter of the backbone, how many stages in it lies, as timm groups its own models."""
    from timm.models import group_parameters

    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return {name: 0 for name, _ in backbone.named_parameters()}
    grouped = group_parameters(backbone, matcher(coarse=True))
    return {name: int(stage) for stage, names in grouped.items() for name in names}

"""BatchNorm under fine-tuning: statistics that fit the data, then left alone."""

# B batch, C channels

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def recentre(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Take each BatchNorm's statistics from the data and change its affine so that eval mode computes the same.

    Weights whose BatchNorm was folded away carry mean 0 and variance 1: the affine then has the wrong scale to be
    trained, and a small step moves the features far. Statistics of the data give it the scale it had in training.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    moments: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}
    sizes: dict[nn.Module, list[int]] = {norm: [] for norm in norms}

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double()
        moments[module].append(torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))]))
        sizes[module].append(len(values))

    hooks = [norm.register_forward_pre_hook(watch) for norm in norms]
    model.eval()
    try:
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm in norms:
        if moments[norm]:
            # The last batch may be smaller: it counts by its photos.
            weighted = [size * moment for size, moment in zip(sizes[norm], moments[norm], strict=True)]
            mean_C, square_C = torch.stack(weighted).sum(0) / sum(sizes[norm])
            _move(norm, mean_C, (square_C - mean_C.square()).clamp_min(0))


def freeze(model: nn.Module) -> None:
    """Keep every BatchNorm in eval mode: batches as small as fine-tuning's would only add noise to it."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _move(norm: nn.BatchNorm2d, mean_C: Tensor, variance_C: Tensor) -> None:
    old_mean, old_variance = norm.running_mean, norm.running_var
    assert old_mean is not None and old_variance is not None, "a BatchNorm without statistics cannot be recentred"
    slope = norm.weight / torch.sqrt(old_variance + norm.eps)
    norm.bias.add_((slope * (mean_C - old_mean)).to(norm.bias.dtype))
    norm.weight.copy_(slope * torch.sqrt(variance_C + norm.eps))
    old_mean.copy_(mean_C)
    old_variance.copy_(variance_C)

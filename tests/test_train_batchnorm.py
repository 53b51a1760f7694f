"""BatchNorm moved to the data's statistics: a small convolutional network, first as made, then with a past."""

# B batch, C channels, H height, W width

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from train.batchnorm import freeze, recentre


def network(*, past: bool) -> nn.Sequential:
    """Two convolutions, each with a BatchNorm; with a past, their statistics and affines are far from 0 and 1."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2), nn.BatchNorm2d(4)
    ).eval()
    if past:
        for norm in norms(model):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.2, 3.0)  # type: ignore[union-attr]
    return model


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def photos(*sizes: int) -> list[Tensor]:
    """Batches of those sizes, none like the other in level or contrast."""
    generator = torch.Generator().manual_seed(1)
    return [(index + 1) * torch.randn(size, 3, 12, 12, generator=generator) + index for index, size in enumerate(sizes)]


@pytest.fixture(params=[False, True], ids=["as_made", "with_a_past"])
def model(request: pytest.FixtureRequest) -> nn.Sequential:
    return network(past=request.param)


@torch.no_grad()
def test_recentre_leaves_what_the_network_computes(model: nn.Sequential) -> None:
    unseen = photos(6, 6)[1]
    before = model(unseen)
    recentre(model, photos(8, 8))
    assert norms(model)[0].running_mean.abs().max() > 0.1  # type: ignore[union-attr]
    # Outputs are of size 1 to 30: float32 through two affines rewritten in float64.
    torch.testing.assert_close(model(unseen), before, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [(8, 8), (8, 8, 1)], ids=["even", "last_batch_smaller"])
def test_the_statistics_become_those_of_all_the_photos(model: nn.Sequential, sizes: tuple[int, ...]) -> None:
    recentre(model, photos(*sizes))
    maps_BCHW = torch.cat(photos(*sizes))
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            # The rest is the float32 of the map itself.
            torch.testing.assert_close(layer.running_mean, maps_BCHW.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
            variance_C = maps_BCHW.var((0, 2, 3), correction=0)
            torch.testing.assert_close(layer.running_var, variance_C, rtol=1e-3, atol=1e-4)
        maps_BCHW = layer(maps_BCHW)


@torch.no_grad()
def test_after_recentre_train_mode_computes_nearly_what_eval_mode_does(model: nn.Sequential) -> None:
    batch = photos(64)[0]
    recentre(model, [batch])
    evaluated = model(batch)
    torch.testing.assert_close(copy.deepcopy(model).train()(batch), evaluated, rtol=1e-3, atol=1e-3)


def test_a_second_recentre_changes_nothing(model: nn.Sequential) -> None:
    recentre(model, photos(8, 8))
    once = copy.deepcopy(model.state_dict())
    recentre(model, photos(8, 8))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, once[name], rtol=1e-4, atol=1e-5)


def test_a_network_without_batchnorm_or_without_photos_is_left_alone() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3))
    recentre(plain, iter(()))
    model = network(past=True)
    before = copy.deepcopy(model.state_dict())
    recentre(model, [])
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_hooks_are_gone_even_after_a_photo_that_does_not_fit(model: nn.Sequential) -> None:
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels"):
        recentre(model, [torch.zeros(2, 5, 12, 12)])
    assert not any(norm._forward_pre_hooks for norm in norms(model))


def test_freeze_keeps_statistics_while_everything_else_trains(model: nn.Sequential) -> None:
    model.train()
    freeze(model)
    before = copy.deepcopy(model.state_dict())
    model(photos(4)[0])
    assert [module.training for module in model] == [True, False, True, True, False]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())

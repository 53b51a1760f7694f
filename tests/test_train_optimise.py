"""The optimiser: which rate each parameter has, and how it changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from runtime.errors import UserError
from tests.train_parts import TINY
from train import network, optimise
from train.network import FacetModel
from train.optimise import Average, Optimiser

PHASE = TINY.phase1


@pytest.fixture
def model() -> FacetModel:
    torch.manual_seed(0)
    return network.create(TINY.model, [3, 2], "none")


def of_one(
    schedule: str, *, steps: int = 10, warmup: float = 0.0, gone: Callable[[], float] = lambda: 0.0
) -> Optimiser:
    """Over one parameter with a gradient, at a rate of 1."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.ones(2, 2)
    groups = [{"params": [parameter], "lr": 1.0, "weight_decay": 0.0}]
    return Optimiser(groups, replace(PHASE, schedule=schedule, warmup=warmup), steps, gone=gone)


def rates_of(optimiser: Optimiser, steps: int) -> list[float]:
    """The rate at which each step is taken."""
    rates = []
    for _ in range(steps):
        rates.append(optimiser.rate)
        optimiser.step()
    return rates


def test_a_cosine_climbs_and_then_falls_to_zero() -> None:
    optimiser = of_one("cosine", warmup=0.2)
    rates = rates_of(optimiser, 10)
    assert rates[0] < rates[1]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert optimiser.rate == pytest.approx(0.0, abs=1e-12)


def test_where_time_runs_out_before_the_steps_the_cosine_ends_with_the_time() -> None:
    spent = iter([0.0, 0.5, 0.99, 1.0, 1.0])
    optimiser = of_one("cosine", steps=1000, gone=lambda: next(spent))
    rates = rates_of(optimiser, 4)
    assert rates[0] == pytest.approx(1.0, abs=1e-3)
    assert rates[1] == pytest.approx(0.5)
    assert rates[2] < 0.001
    assert rates[3] == pytest.approx(0.0, abs=1e-12)


def test_a_plateau_lowers_the_rate_when_the_loss_stops_falling() -> None:
    optimiser = of_one("plateau")
    for loss in (1.0, *[0.9] * 5):
        optimiser.step()
        optimiser.epoch_ended(loss)
    assert optimiser.rate == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_an_optimiser_goes_on_from_its_state_as_if_it_had_not_stopped(schedule: str) -> None:
    def steps(optimiser: Optimiser, count: int) -> list[float]:
        rates = []
        for _ in range(count):
            optimiser.parameters[0].grad = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
            optimiser.step()
            optimiser.epoch_ended(0.5)
            rates.append(optimiser.rate)
        return rates

    through = of_one(schedule, warmup=0.2)
    whole = steps(through, 6)
    first = of_one(schedule, warmup=0.2)
    steps(first, 3)
    tensors, values = first.state()
    second = of_one(schedule, warmup=0.2)
    with torch.no_grad():
        second.parameters[0].copy_(first.parameters[0])
    second.load_state({name: tensor.clone() for name, tensor in tensors.items()}, values)
    assert steps(second, 3) == whole[3:]
    assert second.parameters[0].equal(through.parameters[0])


def test_weight_decay_spares_biases_and_scales(model: FacetModel) -> None:
    groups = optimise.end_to_end(model, PHASE)
    assert {(p.ndim > 1, group["weight_decay"]) for group in groups for p in group["params"]} == {
        (True, PHASE.weight_decay),
        (False, 0.0),
    }
    assert {group["lr"] for group in groups} == {PHASE.heads_lr, PHASE.backbone_lr}


@pytest.mark.parametrize("phase", [1, 2])
def test_phase_1_changes_every_parameter_once_and_phase_2_those_of_the_heads(model: FacetModel, phase: int) -> None:
    groups = optimise.end_to_end(model, PHASE) if phase == 1 else optimise.heads_alone(model, PHASE)
    changed = [parameter for group in groups for parameter in group["params"]]
    wanted = list(model.parameters()) if phase == 1 else list(model.heads.parameters())
    assert len(changed) == len(wanted)
    assert {id(parameter) for parameter in changed} == {id(parameter) for parameter in wanted}


def test_a_stage_learns_at_its_share_of_the_next_ones_rate(model: FacetModel) -> None:
    groups = optimise.end_to_end(model, replace(PHASE, layer_decay=0.5))
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    named = dict(model.backbone.named_parameters())
    rates = {rate_of[id(parameter)] for parameter in named.values()}
    # Its classifier's stage, the last in timm's count, was taken off: the last that is left is one down from it.
    assert sorted(rates, reverse=True) == pytest.approx([max(rates) * 0.5**depth for depth in range(len(rates))])
    assert max(rates) == PHASE.backbone_lr
    assert rate_of[id(named["conv_stem.weight"])] == min(rates)
    assert all(rate_of[id(parameter)] == PHASE.heads_lr for parameter in model.heads.parameters())


def test_a_loss_that_is_no_number_is_refused_before_any_gradient() -> None:
    optimiser = of_one("cosine")
    (parameter,) = optimiser.parameters
    with pytest.raises(
        UserError, match=r"the loss became nan: the last .* is kept\ntrain anew with smaller rates: --rate 0\.3"
    ):
        optimiser.collect(parameter.sum() * torch.nan)
    assert parameter.grad is not None and parameter.grad.equal(torch.ones(2, 2))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_no_number_is_refused_before_it_gets_into_a_weight(value: float) -> None:
    optimiser = of_one("cosine")
    (parameter,) = optimiser.parameters
    parameter.grad = torch.tensor([[1.0, value], [0.0, 0.0]])
    with pytest.raises(
        UserError,
        match=r"the gradient became (nan|inf): the last .* is kept\ntrain anew with smaller rates: --rate 0\.3",
    ):
        optimiser.step()
    assert parameter.equal(torch.zeros(2, 2))
    assert optimiser.taken == 0


def test_gradients_scaled_for_float16_move_weights_as_unscaled_ones_do() -> None:
    moved = []
    for half in (False, True):
        parameter = nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3))
        optimiser = Optimiser([{"params": [parameter], "lr": 0.1}], PHASE, 10, half=half)
        for _ in range(3):
            optimiser.collect((parameter**2).sum())
            optimiser.step()
        moved.append(parameter.detach())
    # The scale is a power of two: multiplied and divided away, it leaves every bit.
    assert moved[0].equal(moved[1])


def test_a_step_whose_scaled_gradient_overflows_is_left_out_and_the_next_one_scaled_by_less() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimiser = Optimiser([{"params": [parameter], "lr": 0.1}], PHASE, 10, half=True)
    scale = optimiser.state()[1]["scaler"]["scale"]
    optimiser.collect(parameter.sum())
    parameter.grad[0, 0] = math.inf
    optimiser.step()
    assert parameter.equal(torch.ones(2, 2))
    assert optimiser.state()[1]["scaler"]["scale"] == scale / 2
    optimiser.collect(parameter.sum())
    optimiser.step()
    assert not parameter.equal(torch.ones(2, 2))


def test_an_average_starts_with_a_short_memory_and_then_lags(model: FacetModel) -> None:
    average = Average(model, decay=0.9)
    start = model.heads.bias_K.detach().clone()
    with torch.no_grad():
        model.heads.bias_K.add_(1.0)
    average.follow(model, taken=1)
    early = (average.model.heads.bias_K - start).mean().item()
    assert early == pytest.approx(1 - 1 / 21, rel=1e-5)  # float32
    with torch.no_grad():
        model.heads.bias_K.add_(1.0)
    average.follow(model, taken=1000)
    assert (average.model.heads.bias_K - start).mean().item() == pytest.approx(early + 0.1 * (2 - early), rel=1e-5)

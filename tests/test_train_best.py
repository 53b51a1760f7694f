"""What is kept of a phase that goes on changing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.train_parts import CATEGORY, TINY
from train import network
from train.best import BestEpoch, BestHeads
from train.metrics import Score
from train.network import FacetModel

KEYS = [("Cap", "colour"), ("Cap", "shade")]


@pytest.fixture
def model() -> FacetModel:
    torch.manual_seed(0)
    return network.create(TINY.model, [3, 2], "none").eval()


def scored(**hm: float) -> list[Score]:
    blank = Score(
        category=CATEGORY.name,
        attribute="",
        loss=0.0,
        accuracy=0.0,
        weighted_f1=0.0,
        micro_f1=0.0,
        macro_f1=0.0,
        hm=0.0,
        baseline_hm=0.0,
        labels=1,
    )
    return [replace(blank, attribute=attribute, hm=value) for attribute, value in hm.items()]


def biases(state: dict[str, torch.Tensor]) -> list[float]:
    """One of each head's, which `set_biases` sets."""
    return [state["heads.bias_K"][0].item(), state["heads.bias_K"][3].item()]


def set_biases(model: FacetModel, value: float) -> None:
    model.heads.bias_K.data.fill_(value)


def test_the_best_epoch_is_the_one_of_the_highest_mean_and_of_equals_the_first(model: FacetModel) -> None:
    best = BestEpoch(model)
    for value, colour, shade in ((1.0, 0.2, 0.2), (2.0, 0.9, 0.1), (3.0, 0.1, 0.9), (4.0, 0.3, 0.3)):
        set_biases(model, value)
        best.see(model, scored(colour=colour, shade=shade))
    assert biases(best.state()) == [2.0, 2.0]
    assert best.scores == scored(colour=0.9, shade=0.1)


def test_each_head_is_kept_from_its_own_best_epoch_and_an_unscored_one_from_the_last(model: FacetModel) -> None:
    best = BestHeads(model, KEYS)
    for value, colour in ((1.0, 0.2), (2.0, 0.9), (3.0, 0.1)):
        set_biases(model, value)
        best.see(model, scored(colour=colour))
    assert biases(best.state()) == [2.0, 3.0]
    assert best.scores == scored(colour=0.9)


@pytest.mark.parametrize("kind", [BestEpoch, BestHeads])
def test_what_was_kept_is_gone_on_with(model: FacetModel, kind: type[BestEpoch | BestHeads]) -> None:
    def make() -> BestEpoch | BestHeads:
        return BestEpoch(model) if kind is BestEpoch else BestHeads(model, KEYS)

    first = make()
    set_biases(model, 1.0)
    first.see(model, scored(colour=0.5, shade=0.5))
    state = {name: value.clone() for name, value in first.state().items()}
    set_biases(model, 2.0)
    again = make()
    again.load(state, list(first.scores))
    again.see(model, scored(colour=0.4, shade=0.4))
    assert biases(again.state()) == [1.0, 1.0]
    assert again.scores == scored(colour=0.5, shade=0.5)

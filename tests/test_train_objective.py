"""The loss of a batch: what the preset asks for reaches it, and its parts add up to the whole."""

# B batch, K classes, L attributes

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.bundle import Preprocess
from tests.train_parts import TINY, write_data
from train import data, network, phases
from train.config import MISSING, PhaseConfig, Preset
from train.losses import balanced_weights, log_prior, masked_cross_entropy
from train.objective import Means, Objective
from train.photos import Batch
from train.run import Run
from train.table import Table

# No dropout and no MMD: what is left adds up.
PLAIN = replace(
    TINY,
    model=replace(TINY.model, dropout=0.0),
    phase1=replace(TINY.phase1, epochs=2, mmd_weight=0.0, target_batch=0),
)
EMPTY = Batch(torch.empty(0), torch.empty(0), torch.empty(0), torch.empty(0), [])


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    """Float64 throughout, from photos to weights: the order of additions is then worth 1e-14, and a mistake is not."""
    inputs, threads = Run.inputs, torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "inputs", lambda run, batch: inputs(run, batch).double())
        yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Every third label of either attribute is missing, not in the same rows, and red is rare."""

    def edit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [
            row | {f"attr_{1 + index // 3 % 2}": ""} if index % 3 == 0 or (index % 3 == 2 and index > 6) else row
            for index, row in enumerate(rows)
        ]

    return data.read(write_data(tmp_path_factory.mktemp("objective") / "data", edit=edit))[0]


@pytest.fixture
def make_run(table: Table) -> Callable[..., Run]:
    def make(preset: Preset = PLAIN) -> Run:
        torch.manual_seed(0)
        return Run(
            model=network.create(preset.model, [3, 2], "none"),
            table=table,
            spec=Preprocess(height=64, width=64, mean=preset.model.mean, std=preset.model.std),
            preset=preset,
            seed=0,
            max_steps=None,
            device=torch.device("cpu"),
        )

    return make


def phase_of(**changes: object) -> PhaseConfig:
    return replace(PLAIN.phase1, **changes)


def step(run: Run, phase: PhaseConfig) -> list[Batch]:
    return next(run.training_steps(phase, 0))


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("balance", ["none", "weights", "logits"])
def test_the_balance_of_classes_and_the_smoothing_reach_the_loss(
    make_run: Callable[..., Run], table: Table, balance: str, complete: bool
) -> None:
    run = make_run()
    phase = phase_of(balance=balance, label_smoothing=0.1, complete_rows=complete)
    (batch,) = step(run, phase)
    objective = Objective(run, phase)
    found, parts = objective(run.model.eval(), batch, objective.counts([batch]), passes=1)
    # Of the rows that the phase trains on, and no others.
    labels_NL = table.labels_NL[table.rows("train", complete=complete)]
    counts = [
        torch.tensor(np.bincount(column[column != MISSING], minlength=classes))
        for column, classes in zip(labels_NL.T, (3, 2), strict=True)
    ]
    assert [int(counts_K.sum()) for counts_K in counts] == [int(n) for n in (labels_NL != MISSING).sum(0)]
    wanted = masked_cross_entropy(
        run.model(run.inputs(batch)).logits,
        batch.labels_BL,
        smoothing=0.1,
        weights=[balanced_weights(counts_K) for counts_K in counts] if balance == "weights" else None,
        log_priors=[log_prior(counts_K) for counts_K in counts] if balance == "logits" else None,
    )
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert parts == {"loss": found.item()}


def gradients(run: Run, phase: PhaseConfig, batches: list[Batch]) -> list[Tensor]:
    objective = Objective(run, phase)
    counts_L = objective.counts(batches)
    for batch in batches:
        loss, _ = objective(run.model.eval(), batch, counts_L, passes=len(batches))
        loss.backward()
    return [parameter.grad for parameter in run.model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("passes", [2, 3, 5, 6])
def test_the_gradients_of_the_passes_add_up_to_the_steps_own(make_run: Callable[..., Run], passes: int) -> None:
    whole = gradients(make_run(), PLAIN.phase1, step(make_run(), PLAIN.phase1))
    batches = step(make_run(), phase_of(passes=passes))
    assert len(batches) == passes
    parts = gradients(make_run(), PLAIN.phase1, batches)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_photos_that_are_not_there_change_no_gradient(make_run: Callable[..., Run]) -> None:
    batches = step(make_run(), PLAIN.phase1)
    alone = gradients(make_run(), PLAIN.phase1, batches)
    beside = gradients(make_run(), PLAIN.phase1, [EMPTY, *batches, EMPTY])
    for one, other in zip(beside, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_step_without_a_photo_has_a_gradient_of_zero(make_run: Callable[..., Run]) -> None:
    # All processes must take the step: there is a gradient to send, and it changes nothing.
    found = gradients(make_run(), PLAIN.phase1, [EMPTY])
    assert found and all((gradient == 0).all() for gradient in found)


def test_training_in_passes_leaves_the_same_weights(make_run: Callable[..., Run]) -> None:
    left = []
    for passes in (1, 2, 4):
        run = make_run(replace(PLAIN, phase1=phase_of(passes=passes), phase2=replace(PLAIN.phase2, passes=passes)))
        for number in (1, 2):
            phases.train(run, number)
        left.append((run.model.state_dict(), [epoch.loss for epoch in run.history]))
    for state, losses in left[1:]:
        # After 6 and 24 steps of AdamW.
        assert all(torch.allclose(value, left[0][0][name], rtol=1e-9, atol=1e-10) for name, value in state.items())
        assert losses == pytest.approx(left[0][1], rel=1e-9)


def test_the_mmd_term_compares_the_labelled_photos_with_those_of_the_target_domain(
    make_run: Callable[..., Run],
) -> None:
    run = make_run()
    phase = phase_of(mmd_weight=0.3, target_batch=4)
    (batch,) = step(run, phase)
    objective = Objective(run, phase)
    counts_L = objective.counts([batch])
    whole, parts = objective(run.model.eval(), batch, counts_L, passes=1)
    assert whole.item() == pytest.approx(parts["loss"] + 0.3 * parts["mmd"], rel=1e-12)
    only, others = objective(
        run.model.eval(), batch._replace(is_target_B=torch.zeros_like(batch.is_target_B)), counts_L, passes=1
    )
    assert others == {"loss": pytest.approx(parts["loss"])}
    assert only.item() == pytest.approx(parts["loss"])


def test_means_are_over_what_was_added() -> None:
    means = Means()
    means.add({"loss": 1.0, "mmd": 3.0})
    means.add({"loss": 2.0})
    assert (means.of("loss"), means.of("mmd"), means.of("other")) == (1.5, 3.0, 0.0)

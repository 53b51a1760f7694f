"""The phases on a small network: what each may change, and which epoch it leaves behind."""

# L attributes

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.bundle import Preprocess
from runtime.errors import UserError
from runtime.terminal import Bar
from tests.train_parts import TINY, write_data
from train import data, metrics, network, phases
from train.clock import Clock
from train.config import Preset
from train.metrics import Score
from train.run import Run
from train.table import Table

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return data.read(write_data(tmp_path_factory.mktemp("phases") / "data"))[0]


@pytest.fixture
def make_run(table: Table) -> Callable[..., Run]:
    def make(preset: Preset = TINY, *, max_steps: int | None = None, seed: int = 0, device: str = "cpu") -> Run:
        torch.manual_seed(seed)
        return Run(
            model=network.create(preset.model, [3, 2], "none").to(device),
            table=table,
            spec=Preprocess(height=64, width=64, mean=preset.model.mean, std=preset.model.std),
            preset=preset,
            seed=seed,
            max_steps=max_steps,
            device=torch.device(device),
        )

    return make


def phase2_of(**changes: object) -> Preset:
    return replace(TINY, phase2=replace(TINY.phase2, **changes))


def state_of(run: Run) -> dict[str, Tensor]:
    return copy.deepcopy(run.model.state_dict())


# How long a phase is


@pytest.mark.parametrize(
    ("changes", "max_steps", "epochs", "steps"),
    [
        ({"epochs": 2}, None, 2, 6),
        ({"epochs": 2}, 4, 2, 4),
        ({"epochs": 2}, 1, 1, 1),
        ({"epochs": 2, "min_steps": 10}, None, 4, 12),
        ({"epochs": 2, "min_steps": 5}, None, 2, 6),
        ({"epochs": 1, "batch": 100}, None, 1, 1),
    ],
)
def test_a_phase_has_as_many_epochs_and_steps_as_it_was_told(
    make_run: Callable[..., Run], changes: dict[str, int], max_steps: int | None, epochs: int, steps: int
) -> None:
    preset = replace(TINY, phase1=replace(TINY.phase1, **changes))
    run = make_run(preset, max_steps=max_steps)
    assert (run.epochs(preset.phase1), run.steps(preset.phase1)) == (epochs, steps)  # 18 training photos, 6 a batch
    taken = [batches for epoch in range(epochs) for batches in run.training_steps(preset.phase1, epoch)]
    assert len(taken) == steps


def test_an_epoch_shows_every_training_photo_once_and_validation_photos_without_labels(
    make_run: Callable[..., Run], table: Table
) -> None:
    batches = [batch for (batch,) in make_run().training_steps(TINY.phase1, 0)]
    assert [batch.is_target_B.sum().item() for batch in batches] == [2, 2, 2]
    shown = torch.cat([batch.labels_BL[~batch.is_target_B] for batch in batches]).tolist()
    assert sorted(shown) == sorted(table.labels_NL[table.rows("train")].tolist())
    assert all((batch.labels_BL[batch.is_target_B] == -1).all() for batch in batches)


def test_another_epoch_shows_the_photos_in_another_order_and_changed_anew(make_run: Callable[..., Run]) -> None:
    run = make_run(replace(TINY, phase1=replace(TINY.phase1, batch=18), augment=replace(TINY.augment, probability=1.0)))
    ((first,),), ((again,),), ((second,),) = (list(run.training_steps(run.preset.phase1, epoch)) for epoch in (0, 0, 1))
    assert first.images_BHWC.equal(again.images_BHWC)
    assert not first.labels_BL.equal(second.labels_BL)
    pictures = [{image.numpy().tobytes() for image in batch.images_BHWC} for batch in (first, second)]
    assert not pictures[0] & pictures[1]


def test_phase_2_shows_the_photos_in_an_order_and_with_changes_of_its_own(make_run: Callable[..., Run]) -> None:
    strong = replace(TINY.augment, probability=1.0)
    preset = replace(
        TINY,
        phase1=replace(TINY.phase1, batch=18, mmd_weight=0.0),
        phase2=replace(TINY.phase2, batch=18),
        augment=strong,
    )
    run = make_run(preset)
    phases = {1: preset.phase1, 2: preset.phase2}
    shown = [
        batch
        for number, phase in phases.items()
        for epoch in (0, 1)
        for (batch,) in run.training_steps(phase, epoch, number=number)
    ]
    assert len({tuple(batch.rows_B.tolist()) for batch in shown}) == 4
    pictures = [image.numpy().tobytes() for batch in shown for image in batch.images_BHWC]
    assert len(set(pictures)) == len(pictures) == 72


def test_without_an_mmd_term_no_photo_of_the_target_domain_is_fetched(make_run: Callable[..., Run]) -> None:
    phase = replace(TINY.phase1, mmd_weight=0.0)
    assert phase.target_batch
    run = make_run(replace(TINY, phase1=phase))
    assert not any(batch.is_target_B.any() for (batch,) in run.training_steps(phase, 0))


def test_each_step_advances_the_bar_by_one(make_run: Callable[..., Run]) -> None:
    told: list[tuple[float, str]] = []
    run = make_run(max_steps=4)
    run.bar = Bar(lambda amount, state: told.append((amount, state)))
    found = phases.train(run, 1)
    assert [amount for amount, _ in told if amount] == [1, 1, 1, 1]
    states = list(dict.fromkeys(state for _, state in told))
    assert states[:2] == ["first look", "validation"]
    assert states[-1] == f"best HM {metrics.mean_hm(found):.3f}"


# What a phase leaves behind


def test_phase_1_leaves_the_best_epoch_and_gives_its_scores(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, dict[str, Tensor]]] = []
    evaluate = Run.evaluate

    def record(run: Run, model: network.FacetModel, most: int | None) -> list[Score]:
        # After the start, the second of these epochs is made the best: the last must not win.
        scores = [replace(score, hm=(0.0, 0.2, 0.9, 0.5)[len(seen)]) for score in evaluate(run, model, most=most)]
        seen.append((metrics.mean_hm(scores), copy.deepcopy(model.state_dict())))
        return scores

    monkeypatch.setattr(Run, "evaluate", record)
    run = make_run(replace(TINY, phase1=replace(TINY.phase1, epochs=3)))
    found = phases.train(run, 1)
    assert len(seen) == 4
    assert metrics.mean_hm(found) == pytest.approx(0.9)
    assert all(value.equal(seen[2][1][name]) for name, value in run.model.state_dict().items())
    assert not seen[2][1]["heads.weight_KC"].equal(seen[3][1]["heads.weight_KC"])


@pytest.mark.parametrize(
    ("number", "limit_s", "first"),
    [(1, None, 4), (1, 3600.0, 6), (2, None, 6)],
    ids=["untrained heads", "an evaluation to be timed", "heads to be kept"],
)
def test_untrained_heads_are_scored_on_few_photos_that_the_seed_draws(
    make_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    limit_s: float | None,
    first: int,
) -> None:
    monkeypatch.setattr(phases, "FIRST_LOOK", 4)
    runs = [make_run(max_steps=1) for _ in range(2)]
    for run in runs:
        phases.train(run, number, clock=Clock(limit_s))
    # Every photo has a colour.
    assert [epoch.scores[0].labels for epoch in runs[0].history] == [first, 6]
    assert runs[0].history[0].scores == runs[1].history[0].scores


def test_phase_2_changes_the_heads_alone(make_run: Callable[..., Run]) -> None:
    run = make_run(phase2_of(epochs=4))
    before = state_of(run)
    phases.train(run, 2)
    changed = {name for name, value in run.model.state_dict().items() if not value.equal(before[name])}
    assert changed <= {"heads.query_LC", "heads.weight_KC", "heads.bias_K"}
    assert changed


def test_no_head_scores_less_after_phase_2_than_before(make_run: Callable[..., Run]) -> None:
    run = make_run(phase2_of(epochs=3, heads_lr=3.0))  # so wild a rate that heads do get worse on the way
    before = {score.attribute: score.hm for score in run.evaluate(run.model)}
    found = phases.train(run, 2)
    assert all(score.hm >= before[score.attribute] for score in found)
    assert run.evaluate(run.model) == found


def test_the_averaged_weights_are_the_ones_kept(make_run: Callable[..., Run]) -> None:
    phase = replace(TINY.phase1, epochs=1)
    plain, averaged = (make_run(replace(TINY, phase1=replace(phase, ema_decay=decay))) for decay in (0.0, 0.5))
    start = state_of(plain)
    for run in (plain, averaged):
        phases.train(run, 1)
    name = "heads.weight_KC"
    gone = [(run.model.state_dict()[name] - start[name]).norm() for run in (plain, averaged)]
    assert 0 < gone[1] < gone[0]  # the average lags behind


def test_batchnorm_keeps_the_statistics_it_was_given_before_the_first_step(make_run: Callable[..., Run]) -> None:
    run = make_run()
    start = state_of(run)
    phases.train(run, 1)
    end = run.model.state_dict()
    names = [name for name in end if name.endswith("running_mean")]
    assert all(not end[name].equal(start[name]) for name in names)  # recentred on the photos
    other = make_run(max_steps=1)
    phases.train(other, 1)
    assert all(end[name].equal(other.model.state_dict()[name]) for name in names)  # and not moved by 23 more steps


def test_in_bfloat16_a_network_learns_what_it_learns_in_float32_and_keeps_float32_weights(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, answers = [], []
    for half in (None, torch.bfloat16):
        # A GPU's choice, taken by the CPU.
        monkeypatch.setattr(Run, "half", half)
        run = make_run()
        for number in (1, 2):
            phases.train(run, number)
        losses.append([epoch.loss for epoch in run.history if epoch.epoch])
        answers.append(run.answers(run.model)[0])
        assert {value.dtype for value in run.model.parameters()} == {torch.float32}
    # Other digits, or nothing ran in bfloat16. The same way down; the heads' phase may begin with another epoch's.
    assert losses[0] != losses[1]
    for of_float, of_half in zip(*losses, strict=True):
        assert of_half == pytest.approx(of_float, abs=0.15)
    assert losses[1][-1] < 0.7 * losses[1][0]
    assert all(probabilities_NK.dtype == np.float32 for probabilities_NK in answers[1])


@pytest.mark.gpu
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_on_a_gpu_a_network_learns_in_half_precision(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, half: torch.dtype
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    monkeypatch.setattr(Run, "half", half)
    run = make_run(device="cuda")
    for number in (1, 2):
        phases.train(run, number)
    losses = [epoch.loss for epoch in run.history if epoch.epoch]
    assert losses[-1] < 0.7 * losses[0]


def test_a_loss_that_is_no_number_ends_the_run_with_a_reason(make_run: Callable[..., Run]) -> None:
    wild = replace(TINY, phase1=replace(TINY.phase1, heads_lr=1e30, backbone_lr=1e30, warmup=0.0))
    with pytest.raises(UserError, match=r"the loss became (nan|inf): .*\ntrain anew with smaller rates: --rate 0\.3"):
        phases.train(make_run(wild), 1)


def test_weights_that_became_no_numbers_in_the_last_step_are_not_taken_for_the_best(
    make_run: Callable[..., Run],
) -> None:
    # The loss of the one step was fine: only the validation photos tell what it did.
    wild = replace(TINY, phase1=replace(TINY.phase1, heads_lr=1e30, backbone_lr=1e30, warmup=0.0))
    kept: list[phases.State] = []
    with pytest.raises(
        UserError, match=r"the validation loss became nan: .*\ntrain anew with smaller rates: --rate 0\.3"
    ):
        phases.train(make_run(wild, max_steps=1), 1, keep=kept.append)
    assert not kept


def test_validation_photos_none_of_which_can_be_read_are_said_to_be_so(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    def alone(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"split": "val" if index == 4 else "train"} for index, row in enumerate(rows)]

    folder = write_data(tmp_path / "data", count=100, edit=alone)
    (folder / "train_images" / "000004.jpg").write_bytes(b"not an image")
    run = make_run()
    run.table = data.read(folder)[0]
    with pytest.raises(UserError, match="no photo of 'Cap' in split 'val' can be read\nmove rows to that split"):
        run.evaluate(run.model)


def test_an_unreadable_photo_is_remembered_once_and_too_many_end_the_run(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    folder = write_data(tmp_path / "data")
    (folder / "train_images" / "000004.jpg").write_bytes(b"not an image")
    run = make_run()
    run.table = data.read(folder)[0]
    with pytest.raises(UserError, match=r"1 of 24 photos are unreadable, more than 1%; the first:\n.*000004\.jpg"):
        list(run.plain_batches(run.table.rows("train")))
    assert [path.name for path in run.unreadable] == ["000004.jpg"]


def test_unreadable_photos_of_the_target_domain_are_counted_among_themselves(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    others = write_data(tmp_path / "others", count=100) / "train_images"
    run = make_run(replace(TINY, phase1=replace(TINY.phase1, target_batch=100)))
    run.table = replace(run.table, targets=tuple(sorted(others.iterdir())))
    (others / "000004.jpg").write_bytes(b"not an image")
    # One of 24 labelled photos would be too many.
    list(run.training_steps(run.preset.phase1, 0))
    assert [path.name for path in run.unreadable] == ["000004.jpg"]
    (others / "000005.jpg").write_bytes(b"not an image")
    with pytest.raises(
        UserError,
        match=r"2 of 100 target photos are unreadable, more than 1%; the first:\n  .*000004\.jpg\n  .*000005\.jpg\n"
        r"take them out of what was named with: --target-photos",
    ):
        list(run.training_steps(run.preset.phase1, 0))


def test_an_unreadable_photo_that_has_labels_is_none_of_the_target_domain_too(
    tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    folder = write_data(tmp_path / "data", count=100)
    run = make_run(replace(TINY, phase1=replace(TINY.phase1, target_batch=24)))
    run.table = data.read(folder)[0]
    # By default the target domain is that of the 24 validation photos, of which one would be too many.
    (folder / "train_images" / "000020.jpg").write_bytes(b"not an image")
    list(run.training_steps(run.preset.phase1, 0))
    assert [path.name for path in run.unreadable] == ["000020.jpg"]

"""The reference system's six faults, each with a test that fails where it comes back."""

# B batch, C channels, H height, W width, L attributes, K classes, F features, N positions

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from runtime import predict
from runtime.bundle import Preprocess
from runtime.errors import UserError
from tests.train_parts import TINY, write_data
from train import checkpoint, data, fit, heads, losses, network
from train.config import MISSING, PRESETS, Preset
from train.metrics import Score
from train.network import FacetModel
from train.objective import Objective
from train.photos import Batch
from train.run import Run
from train.table import Table

pytestmark = pytest.mark.usefixtures("tiny_preset")


def train(data_folder: Path, out: Path, *options: str) -> int:
    return fit.main(["--data", str(data_folder), "--preset", "tiny", "--out", str(out), "--quiet", *options])


# 1. Every kernel sum of the MMD term passed through `.item()`: it had no gradient. And on flattened maps of 262,144
# features every kernel was at its bound, so that it could have had none.


@pytest.mark.parametrize("pooled", [True, False], ids=["1,024 pooled features", "262,144 features"])
def test_1_mmd_tells_domains_apart_on_as_many_features_as_the_references(pooled: bool) -> None:
    torch.manual_seed(0)
    backbone, head = nn.Conv2d(3, 1024, 1), nn.Linear(1024, 3)
    labels_BL = torch.tensor([[0], [1], [2], [1]])
    photos_BCHW = torch.randn(8, 3, 16, 16)
    photos_BCHW[4:] += 0.5 * torch.randn(3, 1, 1)  # another light
    found = {}
    for weight in (0.0, 0.1):
        map_BCHW = backbone(photos_BCHW)
        features_BF = map_BCHW.mean((2, 3)) if pooled else map_BCHW.flatten(1)
        assert features_BF.shape[1] == (1024 if pooled else 262144)
        loss = losses.masked_cross_entropy([head(map_BCHW[:4].mean((2, 3)))], labels_BL)
        distance = losses.mmd(features_BF[:4], features_BF[4:])
        (gradient,) = torch.autograd.grad(loss + weight * distance, backbone.weight)
        found[weight] = gradient
    change = ((found[0.1] - found[0.0]).norm() / found[0.0].norm()).item()
    assert 0.01 < distance.item() < 1.9  # kernels all at 1 would give 0, all at 0 nothing, apart sides at most 2
    assert change > 0.01


def test_1_the_mmd_term_of_training_changes_the_gradient_of_the_backbone(tmp_path: Path) -> None:
    table = data.read(write_data(tmp_path / "data"))[0]
    gradients = []
    for weight in (0.0, 0.1):
        torch.manual_seed(0)
        phase = replace(TINY.phase1, mmd_weight=weight)
        run = run_of(table, replace(TINY, phase1=phase))
        (batch,) = next(run.training_steps(phase, 0))
        objective = Objective(run, phase)
        loss, parts = objective(run.model.eval(), batch, objective.counts([batch]), passes=1)
        loss.backward()
        gradients.append(run.model.backbone.conv_stem.weight.grad)
        assert ("mmd" in parts) == (weight > 0)
    assert (gradients[1] - gradients[0]).norm() > 0.01 * gradients[0].norm()


def run_of(table: Table, preset: Preset) -> Run:
    return Run(
        model=network.create(TINY.model, [3, 2], "none"),
        table=table,
        spec=Preprocess(height=64, width=64, mean=TINY.model.mean, std=TINY.model.std),
        preset=preset,
        seed=0,
        max_steps=None,
        device=torch.device("cpu"),
    )


# 2. "Spatial attention" held no map: it was a convolution, averaged over all positions alike.


def test_2_each_attribute_learns_to_look_where_its_answer_is() -> None:
    """Channel 0 or 1 marks the spot of one attribute, channel 2 or 3 that of the other; class 1 is the odd channel."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
        map_BCN = 0.3 * torch.randn(count, 8, 16, generator=generator)
        spots_BL = torch.randint(16, (count, 2), generator=generator)
        labels_BL = torch.randint(2, (count, 2), generator=generator)
        for attribute in range(2):
            map_BCN[torch.arange(count), 2 * attribute + labels_BL[:, attribute], spots_BL[:, attribute]] += 3
        return map_BCN.unflatten(2, (4, 4)), spots_BL, labels_BL

    torch.manual_seed(0)
    neck, made, _ = heads.build(PRESETS["default"].model.heads, 8, [2, 2], dropout=0.0)
    optimiser = torch.optim.Adam([*neck.parameters(), *made.parameters()], lr=0.05)
    for _ in range(150):
        map_BCHW, _, labels_BL = draw(64)
        optimiser.zero_grad()
        losses.masked_cross_entropy(made(neck(map_BCHW)), labels_BL).backward()
        optimiser.step()
    map_BCHW, spots_BL, _ = draw(200)
    attention_BLN = made.attention(neck(map_BCHW)).detach().flatten(2)
    # Sixteen float32 terms.
    torch.testing.assert_close(attention_BLN.sum(2), torch.ones(200, 2), rtol=0, atol=1e-6)
    assert (attention_BLN.argmax(2) == spots_BL).float().mean() > 0.95
    # It follows what it looks at.
    moved_BLN = made.attention(neck(map_BCHW.roll((1, 2), dims=(2, 3)))).detach().flatten(2)
    rolled_BLN = attention_BLN.unflatten(2, (4, 4)).roll((1, 2), dims=(2, 3)).flatten(2)
    torch.testing.assert_close(moved_BLN, rolled_BLN, rtol=0, atol=1e-6)
    assert (moved_BLN.argmax(2) != attention_BLN.argmax(2)).all()


# 3. A checkpoint whose keys lacked `module.` was loaded into a wrapped model; `strict=False` hid that none matched.


def test_3_weights_under_other_names_are_refused_and_the_names_said(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data")
    assert train(folder, tmp_path / "out", "--max-steps", "1") == 0
    weights = tmp_path / "out" / "cap" / checkpoint.WEIGHTS
    wrapped = {f"module.{name}": value for name, value in load_file(weights).items()}
    save_file(wrapped, weights)
    page = checkpoint.read(tmp_path / "out" / "cap")
    checkpoint.save(tmp_path / "out" / "cap", wrapped, page)
    with pytest.raises(
        UserError, match=r"model\.safetensors does not fit the model: missing backbone\..*, and \d+ more$"
    ):
        checkpoint.load(tmp_path / "out" / "cap")
    backbone = {name.replace("backbone.", ""): value for name, value in wrapped.items() if "backbone." in name}
    save_file(backbone, tmp_path / "backbone.safetensors")
    with pytest.raises(
        UserError, match=r"backbone\.safetensors does not fit the model: missing b\S+, .*, and \d+ more$"
    ):
        network.create(TINY.model, [3, 2], str(tmp_path / "backbone.safetensors"))


# 4. Phase 2 began the best score anew for each attribute, yet wrote one file: the last attribute's best epoch for all.


def test_4_the_checkpoint_holds_each_head_as_it_was_in_its_own_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_data(tmp_path / "data")
    assert train(folder, tmp_path / "out", "--phase", "1", "--max-steps", "3") == 0
    # Colour is made best after epoch 1 of 3, shade after epoch 2; the first figures are the start's.
    planned = {"colour": (0.1, 0.9, 0.3, 0.5), "shade": (0.2, 0.3, 0.8, 0.8)}
    seen: list[list[list[Tensor]]] = []
    evaluate = Run.evaluate

    def record(run: Run, model: FacetModel, most: int | None) -> list[Score]:
        scores = [replace(score, hm=planned[score.attribute][len(seen)]) for score in evaluate(run, model, most=most)]
        seen.append([[row.clone() for row in run.model.heads.rows_of(index)] for index in range(2)])
        return scores

    monkeypatch.setattr(Run, "evaluate", record)
    monkeypatch.setitem(PRESETS, "tiny", replace(TINY, phase2=replace(TINY.phase2, epochs=3)))
    assert train(folder, tmp_path / "out", "--phase", "2") == 0
    model, _ = checkpoint.load(tmp_path / "out" / "cap")
    for index, best in enumerate((1, 2)):
        kept = model.heads.rows_of(index)
        for epoch in range(4):
            same = all(row.equal(then) for row, then in zip(kept, seen[epoch][index], strict=True))
            assert same == (epoch == best)


# 5. An unreadable photo became a black image, in training as in prediction, and the submission lacked `len`.


def test_5_a_photo_that_cannot_be_read_is_not_trained_on_as_a_black_one(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "data", count=100)
    lost = folder / "train_images" / "000007.jpg"
    lost.write_bytes(b"not an image")
    table = data.read(folder)[0]
    run = run_of(table, TINY)
    batches = [batch for (batch,) in run.training_steps(TINY.phase1, 0)]
    shown = torch.cat([batch.rows_B[~batch.is_target_B] for batch in batches])
    assert sorted(shown.tolist()) == sorted({*table.rows("train").tolist()} - {7})
    assert all(batch.images_BHWC.flatten(1).float().mean(1).min() > 20 for batch in batches)
    assert run.unreadable == {lost}


def test_5_a_photo_that_cannot_be_read_has_its_row_in_table_and_submission_which_has_len(
    tmp_path: Path, fleet_root: Path, make_photo: Callable[..., Path]
) -> None:
    photos = tmp_path / "photos"
    make_photo(photos / "000001.png", "red")
    (photos / "000002.png").write_bytes(b"not an image")
    (tmp_path / "test.csv").write_text("id,Category\n000001.png,Shirt\n000002.png,Shirt\n")
    rows = {}
    for form in ("table", "challenge"):
        out = tmp_path / f"{form}.csv"
        options = [
            "--listing",
            tmp_path / "test.csv",
            "--bundles",
            fleet_root,
            "--out",
            out,
            "--format",
            form,
            "--quiet",
        ]
        assert predict.main([str(photos), *map(str, options)]) == 1
        with out.open(newline="") as file:
            rows[form] = list(csv.DictReader(file))
    assert [(row["status"], row["colour"], bool(row["error"])) for row in rows["table"]] == [
        ("ok", "red", False),
        ("error", "", True),
    ]
    assert [(row["len"], row["attr_1"]) for row in rows["challenge"]] == [("1", "red"), ("1", "dummy_value")]


# 6. Rows that phase 2 validated on could be rows that phase 1 had trained on.


def test_6_both_phases_validate_on_the_same_rows_and_train_on_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsplit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{name: cell for name, cell in row.items() if name != "split"} for row in rows]

    folder = write_data(tmp_path / "data", edit=unsplit)
    trained: list[set[int]] = []
    validated: list[set[int]] = []
    # The reference's phase 1 takes complete rows alone, which is how its split came to differ from phase 2's.
    preset = replace(TINY, phase1=replace(TINY.phase1, complete_rows=True, epochs=2))
    monkeypatch.setitem(PRESETS, "tiny", preset)
    call, answers = Objective.__call__, Run.answers

    def learn(objective: Objective, learner: object, batch: Batch, *args: object, **options: object) -> object:
        shown = (batch.labels_BL != MISSING).any(1)
        trained[-1].update(batch.rows_B[shown].tolist())
        assert not (shown & batch.is_target_B).any()
        return call(objective, learner, batch, *args, **options)

    def validate(run: Run, model: FacetModel, **options: Any) -> tuple[list[np.ndarray], np.ndarray]:
        found = answers(run, model, **options)
        validated[-1].update(found[1].tolist())
        return found

    monkeypatch.setattr(Objective, "__call__", learn)
    monkeypatch.setattr(Run, "answers", validate)
    for phase in (1, 2):
        trained.append(set())
        validated.append(set())
        assert train(folder, tmp_path / "out", "--phase", str(phase)) == 0
    assert validated[0] == validated[1]
    assert trained[0] < trained[1]
    assert not trained[1] & validated[1]


def test_6_phase_2_does_not_validate_on_rows_that_another_split_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unsplit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{name: cell for name, cell in row.items() if name != "split"} for row in rows]

    folder = write_data(tmp_path / "data", edit=unsplit)
    assert train(folder, tmp_path / "out", "--phase", "1", "--max-steps", "1") == 0
    assert train(folder, tmp_path / "out", "--phase", "2", "--max-steps", "1", "--seed", "1") == 2
    said = capsys.readouterr().err
    assert f"have ids that trained the checkpoint in {tmp_path / 'out' / 'cap'}\n" in said
    assert "if they are the same photos, take its split: --seed 0, " in said
    assert train(folder, tmp_path / "out", "--phase", "2", "--max-steps", "1") == 0

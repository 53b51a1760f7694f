"""Whole runs of the command, on photos of one colour and a network that learns them in a few steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from runtime.bundle import Routes
from tests.train_parts import CATEGORY, TINY, write_csv, write_data
from train import answers, checkpoint, fit, phases
from train.config import PRESETS
from train.metrics import mean_baseline_hm, mean_hm

pytestmark = pytest.mark.usefixtures("tiny_preset")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("fit") / "data")


def run(data: Path, out: Path, *options: str) -> int:
    return fit.main(["--data", str(data), "--preset", "tiny", "--out", str(out), *options])


def weights(out: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(out / "cap" / "model.safetensors")
    return found


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr: one error without a traceback, nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def test_a_run_learns_the_colours_and_leaves_a_checkpoint_and_a_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cap"]
    assert sorted(path.name for path in (tmp_path / "cap").iterdir()) == [
        "checkpoint.json",
        "model.safetensors",
        "tensorboard",
    ]
    _, page = checkpoint.load(tmp_path / "cap")
    assert (page.slug, page.categories, page.preset) == ("cap", (CATEGORY,), TINY)
    # Every photo tells its colour and its shade; the commonest class alone scores 0.28 on these.
    assert mean_hm(page.metrics) > mean_baseline_hm(page.metrics) + 0.5
    assert page.provenance["data"] == str(data)
    assert page.provenance["photos"] == "18"
    assert page.provenance.keys() >= {"seed", "torch", "timm"}
    out, err = capsys.readouterr()
    assert "Cap: 6 validation photos" in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("colour", "shade", "average"))]
    scores, gains = rows[:3], rows[3:]
    assert [row[0] for row in scores] == ["colour", "shade", "average"]
    assert [row[0] for row in gains] == ["colour", "shade", "average"]
    assert scores[-1][6] == f"{mean_hm(page.metrics):.3f}"
    assert f"checkpoint: {tmp_path / 'cap'}" in err


def test_enough_validation_labels_give_temperatures_with_which_the_page_and_evaluate_score_alike(
    tmp_path: Path,
) -> None:
    folder = write_data(tmp_path / "data", count=480)
    assert run(folder, tmp_path, "--max-steps", "10", "--quiet") == 0
    page = checkpoint.read(tmp_path / "cap")
    assert page.temperatures.keys() == {"colour", "shade"}
    assert [score.labels for score in page.metrics] == [120, 102]
    for score, gain in zip(page.metrics, page.gains, strict=True):
        assert score.loss < 0.99 * gain.nll_before
    with answers.opened(tmp_path / "cap") as model:
        (answered,) = answers.answers(model, folder, "val", quiet=True)
    assert not answered.lost
    found = answered.scores()
    # In float32, other batches in another memory layout move the loss by some 1e-7 of itself, and no answer.
    assert [replace(score, loss=0.0) for score in found] == [replace(score, loss=0.0) for score in page.metrics]
    assert [score.loss for score in found] == pytest.approx([score.loss for score in page.metrics], rel=1e-4)


@pytest.mark.parametrize("policy", ["crop", "letterbox"])
def test_the_way_photos_get_their_size_goes_with_the_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str
) -> None:
    assert run(data, tmp_path, "--resize", policy, "--max-steps", "1", "--quiet") == 0
    assert checkpoint.read(tmp_path / "cap").preprocess.resize == policy
    capsys.readouterr()
    assert run(data, tmp_path, "--phase", "2", "--max-steps", "1", "--quiet") == 2
    assert f"takes photos by {policy}\ntrain on with: --resize {policy}\n" in capsys.readouterr().err
    assert run(data, tmp_path, "--resize", policy, "--phase", "2", "--max-steps", "1", "--quiet") == 0


def test_quiet_leaves_stderr_empty(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path, "--max-steps", "1", "--quiet") == 0
    out, err = capsys.readouterr()
    assert "average" in out
    assert err == ""


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    for name, seed in (("first", "0"), ("again", "0"), ("other", "1")):
        assert run(data, tmp_path / name, "--max-steps", "3", "--seed", seed, "--quiet") == 0
    first, again, other = (weights(tmp_path / name) for name in ("first", "again", "other"))
    assert all(value.equal(again[name]) for name, value in first.items())
    assert not first["heads.weight_KC"].equal(other["heads.weight_KC"])


def test_phase_2_alone_continues_from_the_checkpoint_and_leaves_the_backbone_bit_for_bit(
    data: Path, tmp_path: Path
) -> None:
    assert run(data, tmp_path, "--phase", "1", "--max-steps", "1", "--quiet") == 0
    before, first = weights(tmp_path), checkpoint.read(tmp_path / "cap")
    assert run(data, tmp_path, "--phase", "2", "--quiet") == 0
    after, second = weights(tmp_path), checkpoint.read(tmp_path / "cap")
    assert all(value.equal(after[name]) for name, value in before.items() if not name.startswith("heads."))
    assert any(not value.equal(after[name]) for name, value in before.items() if name.startswith("heads."))
    assert mean_hm(second.metrics) > mean_hm(first.metrics)


def test_a_number_of_epochs_is_exact_where_the_preset_adds_some_on_few_photos(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 18 training photos are three steps an epoch: left alone, 12 steps would make four of them.
    monkeypatch.setitem(PRESETS, "tiny", replace(TINY, phase1=replace(TINY.phase1, min_steps=12)))
    assert run(data, tmp_path, "--phase", "1", "--epochs", "2", "--quiet") == 0
    assert [(e.epoch, e.steps) for e in checkpoint.read(tmp_path / "cap").history] == [(0, 0), (1, 3), (2, 6)]


@pytest.mark.parametrize("balance", ["weights", "logits"])
def test_a_balance_of_classes_overrides_the_presets_in_both_phases(data: Path, tmp_path: Path, balance: str) -> None:
    assert run(data, tmp_path, "--balance", balance, "--max-steps", "1", "--quiet") == 0
    preset = checkpoint.read(tmp_path / "cap").preset
    assert (preset.phase1.balance, preset.phase2.balance) == (balance, balance)


def test_a_weights_file_overrides_the_presets(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path, "--weights", str(tmp_path / "none.safetensors")) == 2
    assert f"no weights file at {tmp_path / 'none.safetensors'}" in refused(capsys)


# One model for several categories


def write_both(folder: Path, edit: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> Path:
    """A data folder of the categories Cap and Hat, of 48 photos."""
    write_data(folder, count=48, edit=edit)
    names = '["colour", "shade"]'
    listed = [{"Category": name, "No_of_attribute": "2", "Attribute_list": names} for name in ("Cap", "Hat")]
    write_csv(folder / "category_attributes.csv", listed)
    return folder


def as_hats(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row | {"Category": "Hat"} for row in rows]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every other photo is a Hat."""
    folder = tmp_path_factory.mktemp("both") / "data"
    return write_both(folder, lambda rows: [*rows[::2], *as_hats(rows[1::2])])


def test_a_joint_model_is_one_checkpoint_that_is_scored_by_category(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(both, tmp_path, "--joint", "--max-steps", "2", "--quiet") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["joint"]
    _, page = checkpoint.load(tmp_path / "joint")
    keys = [("Router", "Category"), ("Cap", "colour"), ("Cap", "shade"), ("Hat", "colour"), ("Hat", "shade")]
    assert [(score.category, score.attribute) for score in page.metrics] == keys
    # 12 validation photos, six of each category.
    assert [score.labels for score in page.metrics][:2] == [12, 6]
    assert page.routes == Routes(attribute="Category", to={"Cap": "Cap", "Hat": "Hat"})
    out = capsys.readouterr().out
    assert "Joint: 12 validation photos" in out
    assert "\nHat shade " in out


def test_a_router_is_a_checkpoint_that_tells_the_category(both: Path, tmp_path: Path) -> None:
    assert run(both, tmp_path, "--router", "--max-steps", "2", "--quiet") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["router"]
    page = checkpoint.read(tmp_path / "router")
    assert [(score.category, score.attribute, score.labels) for score in page.metrics] == [("Router", "Category", 12)]
    assert page.routes == Routes(attribute="Category", to={"Cap": "Cap", "Hat": "Hat"})


def test_joint_and_router_are_two_things(both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(both, tmp_path, "--joint", "--router")
    assert "argument --router: not allowed with argument --joint" in capsys.readouterr().err


# What the options change of a preset


def test_another_backbone_and_size_are_trained_normalised_as_that_backbone_was(data: Path, tmp_path: Path) -> None:
    options = ["--backbone", "test_resnet", "--size", "96", "--weights", "none", "--max-steps", "1", "--quiet"]
    assert run(data, tmp_path, *options) == 0
    _, page = checkpoint.load(tmp_path / "cap")
    assert (page.preset.model.backbone, page.preset.model.last_stage) == ("test_resnet", False)
    assert (page.preprocess.height, page.preprocess.width) == (96, 96)
    assert page.preprocess.mean == page.preset.model.mean == tuple(timm.get_pretrained_cfg("test_resnet").mean)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--backbone", "convnext_gigantic"],
            "error: no such backbone: 'convnext_gigantic'\nlist them with: python -c",
        ),
        (["--backbone", "hf-hub:someone/model"], "error: no such backbone: 'hf-hub:someone/model'\n"),
        (
            ["--backbone", "test_vit", "--weights", "none"],
            "error: the backbone gives 3 dimensions, not a feature map [B, C, H, W]\nchoose a convolutional one",
        ),
        (["--batch", "2", "--passes", "3"], "error: passes must be from 1 to batch (2), got 3\ncheck --size, --batch"),
        (
            ["--batch", "3", "--passes", "2"],
            "error: an MMD term compares two batches: batch and target_batch must be 2 or more for each",
        ),
        (["--size", "4"], "error: size must be 8 to 16384 pixels, got 4\ncheck --size"),
        (["--size", "100000"], "error: size must be 8 to 16384 pixels, got 100000\ncheck --size"),
        (["--rate", "1e-323"], "error: heads_lr must be above 0, got 0.0\ncheck --size, --batch, --passes and --rate"),
        (["--target-photos", "nowhere"], "error: no such file or folder: nowhere\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_trained_is_refused_before_it_begins(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run(data, tmp_path, *options) == 2
    assert said in refused(capsys)
    assert not list(tmp_path.iterdir())


def test_weights_that_cannot_be_fetched_are_answered_with_how_to_give_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as without a network, but at once
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert run(data, tmp_path / "out", "--backbone", "test_convnext", "--quiet") == 2
    first, then, *more = refused(capsys).splitlines()
    assert first.startswith("error: the weights of 'test_convnext' could not be fetched: ")
    assert then.startswith("give them as a file with: --weights FILE.safetensors, or start from none")
    assert not more


def test_batch_and_passes_hold_for_both_phases(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path, "--batch", "9", "--passes", "3", "--max-steps", "4", "--quiet") == 0
    page = checkpoint.read(tmp_path / "cap")
    assert {(phase.batch, phase.passes) for phase in (page.preset.phase1, page.preset.phase2)} == {(9, 3)}
    # 18 training photos are two steps an epoch.
    assert [epoch.steps for epoch in page.history] == [0, 2, 4, 0, 2, 4]


@pytest.mark.parametrize(("passes", "photos"), [("1", 2), ("2", 4), ("3", 6)])
def test_each_pass_gets_the_two_target_photos_that_its_mmd_term_needs(
    data: Path, tmp_path: Path, passes: str, photos: int
) -> None:
    assert run(data, tmp_path, "--passes", passes, "--max-steps", "1", "--quiet") == 0
    page = checkpoint.read(tmp_path / "cap")
    assert (page.preset.phase1.target_batch, page.preset.phase2.target_batch) == (photos, 0)
    assert page.history[1].mmd != 0


def test_a_rate_is_a_factor_on_every_rate_of_the_preset(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path, "--rate", "0.5", "--max-steps", "1", "--quiet") == 0
    found = checkpoint.read(tmp_path / "cap").preset
    for ours, before in ((found.phase1, TINY.phase1), (found.phase2, TINY.phase2)):
        assert (ours.backbone_lr, ours.heads_lr) == (0.5 * before.backbone_lr, 0.5 * before.heads_lr)


def test_target_photos_take_the_place_of_the_validation_photos_in_the_mmd_term(data: Path, tmp_path: Path) -> None:
    found = {}
    others = write_data(tmp_path / "others", count=48)
    for name, options in (("val", []), ("others", ["--target-photos", str(others / "train_images")])):
        assert run(data, tmp_path / name, *options, "--phase", "1", "--max-steps", "3", "--quiet") == 0
        found[name] = checkpoint.read(tmp_path / name / "cap").history[1]
    assert found["val"].mmd != found["others"].mmd
    assert found["val"].steps == found["others"].steps == 3


def test_one_photo_of_the_target_domain_is_no_domain_and_said_to_be_none(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = data / "train_images" / "000000.jpg"
    assert run(data, tmp_path, "--target-photos", str(photo), "--max-steps", "1") == 0
    assert "photos of the target domain: 1, too few for an MMD term\n" in capsys.readouterr().err


@pytest.mark.slow  # half a minute of compiling
def test_a_compiled_training_comes_to_the_same_scores(data: Path, tmp_path: Path) -> None:
    for name, options in (("plain", []), ("compiled", ["--compile"])):
        assert run(data, tmp_path / name, *options, "--quiet") == 0
    plain, compiled = (checkpoint.load(tmp_path / name / "cap")[1] for name in ("plain", "compiled"))
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "plain").keys()
    assert mean_hm(compiled.metrics) > mean_baseline_hm(compiled.metrics) + 0.5
    # Kernels that are fused round otherwise, and 24 steps of AdamW make something of it.
    assert compiled.history[1].loss == pytest.approx(plain.history[1].loss, rel=1e-2)


# Labels that are lacking


def test_an_attribute_without_a_validation_label_is_trained_and_said_to_be_unscored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def blank(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"attr_2": "" if row["split"] == "val" else row["attr_2"]} for row in rows]

    folder, out = write_data(tmp_path / "data", edit=blank), tmp_path / "out"
    assert run(folder, out, "--max-steps", "3", "--quiet") == 0
    said = "shade of Cap has no label in split val: it was trained, and is scored nowhere\n"
    assert capsys.readouterr().err == said
    _, page = checkpoint.load(out / "cap")
    assert [score.attribute for score in page.metrics] == ["colour"]
    assert [attribute.name for attribute in page.attributes] == ["colour", "shade"]


def test_an_attribute_without_a_training_label_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def blank(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"attr_2": "" if row["split"] == "train" else row["attr_2"]} for row in rows]

    assert run(write_data(tmp_path / "data", edit=blank), tmp_path / "out") == 2
    assert "has no label of 'shade' of 'Cap' in split 'train': there is nothing to learn\n" in refused(capsys)


def test_complete_rows_that_no_category_has_are_told_before_the_first_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bare(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        """One label or the other of every Hat is missing."""
        hats = [row | {f"attr_{1 + index % 2}": ""} for index, row in enumerate(as_hats(rows[1::2]))]
        return [*rows[::2], *hats]

    monkeypatch.setitem(PRESETS, "tiny", replace(TINY, phase1=replace(TINY.phase1, complete_rows=True)))
    assert run(write_both(tmp_path / "data", bare), tmp_path / "out") == 2
    said = "no training row of 'Hat' has every label, and the preset trains on no others\ntake one that masks missing"
    assert said in refused(capsys)
    assert not (tmp_path / "out").exists()


# Photos that are lost


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    """100 photos, so that one of them is not more than 1 %."""
    return write_data(tmp_path / "hundred", count=100)


def test_one_photo_in_a_hundred_that_is_not_there_is_listed_and_the_rest_is_trained_on(
    hundred: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = hundred / "train_images" / "000030.jpg"
    lost.unlink()
    assert run(hundred, tmp_path, "--max-steps", "1", "--quiet") == 1
    assert f"left out, not there: {lost}" in capsys.readouterr().err
    assert checkpoint.read(tmp_path / "cap").categories == (CATEGORY,)


def test_one_photo_in_a_hundred_that_is_unreadable_is_listed_and_the_rest_is_trained_on(
    hundred: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = hundred / "train_images" / "000020.jpg"  # of the validation split, every photo of which is read
    lost.write_bytes(b"not an image")
    assert run(hundred, tmp_path, "--max-steps", "1", "--quiet") == 1
    assert f"left out, unreadable: {lost}" in capsys.readouterr().err


def test_more_unreadable_photos_than_one_percent_end_the_run_before_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(tmp_path / "data")
    (folder / "train_images" / "000004.jpg").write_bytes(b"")
    assert run(folder, tmp_path / "out", "--quiet") == 2
    assert "1 of 24 photos are unreadable, more than 1%" in refused(capsys)
    assert not (tmp_path / "out").exists()


# Mistakes


def test_where_the_loss_becomes_no_number_the_option_that_the_error_names_mends_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase1 = replace(TINY.phase1, heads_lr=1e30, backbone_lr=1e30)
    monkeypatch.setitem(PRESETS, "tiny", replace(TINY, phase1=phase1))
    assert run(data, tmp_path, "--phase", "1", "--quiet") == 2
    assert refused(capsys).endswith("\ntrain anew with smaller rates: --rate 0.3, then 0.1\n")
    assert run(data, tmp_path, "--phase", "1", "--max-steps", "1", "--rate", "1e-32", "--quiet") == 0


def test_phase_2_without_a_checkpoint_says_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path, "--phase", "2", "--quiet") == 2
    assert f"cannot read {tmp_path / 'cap' / 'checkpoint.json'}" in refused(capsys)


def test_phase_2_on_another_taxonomy_is_refused_and_the_checkpoint_stays(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "out", "--phase", "1", "--max-steps", "1", "--quiet") == 0
    before = (tmp_path / "out" / "cap" / "checkpoint.json").read_bytes()

    def rename(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"attr_1": row["attr_1"].replace("red", "pink")} for row in rows]

    other = write_data(tmp_path / "other", edit=rename)
    capsys.readouterr()
    assert run(other, tmp_path / "out", "--phase", "2", "--quiet") == 2
    assert "was trained on another taxonomy\ntrain it anew without --phase 2" in refused(capsys)
    assert (tmp_path / "out" / "cap" / "checkpoint.json").read_bytes() == before


def test_phase_2_with_another_model_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(data, tmp_path, "--phase", "1", "--max-steps", "1", "--quiet") == 0
    monkeypatch.setitem(PRESETS, "tiny", replace(TINY, model=replace(TINY.model, dropout=0.5)))
    capsys.readouterr()
    assert run(data, tmp_path, "--phase", "2", "--quiet") == 2
    assert "is another model\nname its preset with: --preset" in refused(capsys)


def test_an_unknown_category_is_answered_with_those_there_are(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path, "--category", "Scarf") == 2
    assert f"no category 'Scarf' in {data}; have: Cap" in refused(capsys)


def test_a_category_named_twice_is_one(both: Path, tmp_path: Path) -> None:
    names = ["--category", "Cap", "cap", "Hat", "--joint", "--max-steps", "1", "--quiet"]
    assert run(both, tmp_path, *names) == 0
    assert [category.name for category in checkpoint.read(tmp_path / "joint").categories][-2:] == ["Cap", "Hat"]


def test_the_hub_s_weights_of_the_preset_s_network_get_the_pixels_that_they_know() -> None:
    asked = fit.parser().parse_args(["--data", "x", "--preset", "default", "--weights", "hub"])
    chosen = fit._chosen(asked)
    assert (chosen.weights, chosen.model.backbone) == ("hub", PRESETS["default"].model.backbone)
    assert (
        chosen.model.mean == tuple(timm.get_pretrained_cfg(chosen.model.backbone).mean) != PRESETS["default"].model.mean
    )
    assert not chosen.model.backbone_args


def test_too_little_memory_is_one_line_with_what_takes_less(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(phases, "train", out_of_memory)
    assert run(data, tmp_path, "--quiet") == 2
    assert "error: out of memory: CUDA out of memory" in (said := refused(capsys))
    assert "--passes 2" in said


def test_a_category_asked_for_is_the_only_one_trained(both: Path, tmp_path: Path) -> None:
    assert run(both, tmp_path / "out", "--category", "hat", "--max-steps", "1", "--quiet") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hat"]


@pytest.mark.parametrize("rate", ["0", "-1", "inf", "nan", "slow"])
def test_a_rate_that_is_no_factor_is_refused(
    data: Path, tmp_path: Path, rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(data, tmp_path, f"--rate={rate}")
    assert f"argument --rate: must be a number above 0, got '{rate}'" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--epochs", "--max-steps"])
@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_number_below_one_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, number: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(data, tmp_path, option, number)
    said = "must be a whole number, got 'many'" if number == "many" else f"must be 1 or more, got {number}"
    assert f"argument {option}: {said}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_page_is_plain_json_that_names_what_the_model_was_made_of(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path, "--max-steps", "1", "--quiet") == 0
    page = json.loads((tmp_path / "cap" / "checkpoint.json").read_text())
    assert page["preset"]["model"]["backbone"] == TINY.model.backbone
    assert page["preprocess"] == {
        "height": 64,
        "width": 64,
        "resize": "squash",
        "mean": list(TINY.model.mean),
        "std": list(TINY.model.std),
    }


def test_an_output_folder_that_takes_nothing_is_told_before_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(data, tmp_path / "file" / "out") == 2
    said = refused(capsys)
    assert "cannot write the checkpoint" in said
    assert "--out DIR" in said


@pytest.mark.parametrize("seed", ["-1", "99999999999", "x"])
def test_a_seed_that_no_generator_takes_is_refused(
    data: Path, tmp_path: Path, seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(data, tmp_path, f"--seed={seed}")
    assert "must be a whole number from 0 to 4294967295" in capsys.readouterr().err

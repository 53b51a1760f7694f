"""Whole runs of the command, on photos of one colour and a network that learns them in a few steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.train_parts import CATEGORY, TINY, write_csv, write_data
from train import checkpoint, fit
from train.config import PRESETS
from train.metrics import mean_baseline_hm, mean_hm


@pytest.fixture(scope="module", autouse=True)
def tiny_preset() -> Iterator[None]:
    """`--preset tiny`, and one thread, so that the same additions come in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", TINY)
        yield
    torch.set_num_threads(threads)


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
    rows = [[cell.strip() for cell in line.split("│")] for line in out.splitlines() if line.startswith("│")]
    scores, gains = rows[:3], rows[3:]
    assert [row[1] for row in scores] == ["colour", "shade", "average"]
    assert [row[1] for row in gains] == ["colour", "shade", "average"]
    assert scores[-1][7] == f"{mean_hm(page.metrics):.3f}"
    assert f"checkpoint: {tmp_path / 'cap'}" in err


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


def test_a_number_of_epochs_overrides_the_presets(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path, "--phase", "1", "--epochs", "1", "--quiet") == 0
    assert checkpoint.read(tmp_path / "cap").preset.phase1.epochs == 1


def test_a_weights_file_overrides_the_presets(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path, "--weights", str(tmp_path / "none.safetensors")) == 2
    assert f"no weights file at {tmp_path / 'none.safetensors'}" in refused(capsys)


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


def test_a_loss_that_is_no_number_is_the_users_to_mend(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase1 = replace(TINY.phase1, heads_lr=1e30, backbone_lr=1e30)
    monkeypatch.setitem(PRESETS, "tiny", replace(TINY, phase1=phase1))
    assert run(data, tmp_path, "--quiet") == 2
    assert "error: the loss became " in refused(capsys)


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


def test_a_category_asked_for_is_the_only_one_trained(data: Path, tmp_path: Path) -> None:
    def add(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [*rows, *(row | {"Category": "Hat"} for row in rows)]

    both = write_data(tmp_path / "both", edit=add)
    listed = [
        {"Category": name, "No_of_attribute": "2", "Attribute_list": '["colour", "shade"]'} for name in ("Cap", "Hat")
    ]
    write_csv(both / "category_attributes.csv", listed)
    assert run(both, tmp_path / "out", "--category", "hat", "--max-steps", "1", "--quiet") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hat"]


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

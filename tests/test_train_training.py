"""One training from table to checkpoint: in the time given, and whole after whatever stops it."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runtime import locks
from runtime.errors import UserError
from tests.train_parts import TINY, write_csv, write_data
from train import checkpoint, clock, data, fit, losses, objective, optimise, resume, training
from train.config import PRESETS
from train.curves import FOLDER, Epoch
from train.network import FacetModel
from train.optimise import Optimiser
from train.run import Run
from train.table import Table

LIMIT_S = 120.0
ENDLESS = replace(TINY, phase1=replace(TINY.phase1, epochs=100_000), phase2=replace(TINY.phase2, epochs=100_000))


@pytest.fixture(scope="module", autouse=True)
def endless_preset(tiny_preset: None) -> Iterator[None]:
    """`--preset endless` beside `--preset tiny`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "endless", ENDLESS)
        yield


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="module")
def table(data_folder: Path) -> Table:
    return data.read(data_folder)[0]


def run(data_folder: Path, out: Path, *options: str, preset: str = "tiny") -> int:
    return fit.main(["--data", str(data_folder), "--preset", preset, "--out", str(out), "--quiet", *options])


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (load_file(folder / checkpoint.WEIGHTS) for folder in (one, other))
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


# In the time given: on a clock that a step moves by one second, an evaluation by `Hours.evaluation_s`


class Hours:
    """Seconds that pass by what is done, on any machine the same."""

    def __init__(self, patch: pytest.MonkeyPatch, *, evaluation_s: float = 1.0, start_s: float = 0.0) -> None:
        self.now_s = start_s
        step, answers = Optimiser.step, Run.answers
        for module in (clock, training, fit):
            patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))

        def stepped(optimiser: Optimiser) -> None:
            self.now_s += 1.0
            step(optimiser)

        def answered(run: Run, model: FacetModel, **options: Any) -> tuple[list[np.ndarray], np.ndarray]:
            self.now_s += evaluation_s
            return answers(run, model, **options)

        patch.setattr(Optimiser, "step", stepped)
        patch.setattr(Run, "answers", answered)


@pytest.fixture
def train(table: Table, tmp_path: Path) -> Callable[..., Run]:
    def go(*, resume: bool = False) -> Run:
        options = training.Options(folder=tmp_path / "cap", data="", resume=resume, quiet=True)
        return training.train(table, ENDLESS, options, torch.device("cpu"), limit_s=LIMIT_S)

    return go


def of_phase(history: list[Epoch], phase: int) -> list[Epoch]:
    return [epoch for epoch in history if epoch.phase == phase]


# What an evaluation takes, and how many are reckoned a third longer: of long ones also those that phase 2 is too short
# for.
@pytest.mark.parametrize(("evaluation_s", "reckoned"), [(0.5, 3), (6.0, 3), (15.0, 5)])
def test_a_limited_training_is_evaluated_calibrated_and_written_in_time_and_wastes_little_of_it(
    train: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, evaluation_s: float, reckoned: int
) -> None:
    hours = Hours(monkeypatch, evaluation_s=evaluation_s)
    made = train()
    kept_s = training.WRITING_S + reckoned * 0.3 * evaluation_s  # time for writing is kept back too
    assert LIMIT_S - kept_s - 3 <= hours.now_s <= LIMIT_S - training.WRITING_S + 1
    page = checkpoint.load(tmp_path / "cap")[1]
    assert page.gains
    assert page.history == tuple(made.history)
    assert not (tmp_path / "cap" / resume.FILE).exists()


def test_the_phases_share_the_time_by_their_work_and_end_with_the_rate_at_zero(
    train: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    Hours(monkeypatch)
    made = train()
    first, second = (of_phase(made.history, phase) for phase in (1, 2))
    # As many photos in both, of which one in phase 2 costs PHASE_2_COST.
    share = 1 / (1 + training.PHASE_2_COST)
    assert first[-1].seconds == pytest.approx((LIMIT_S - training.WRITING_S) * share, abs=2)
    for epochs in (first, second):
        rates = [epoch.rate for epoch in epochs[1:]]
        assert max(rates) > 0.5 * epochs[0].rate
        assert rates[-1] == pytest.approx(0.0, abs=1e-3 * max(rates))


def test_with_resume_the_time_that_was_spent_counts(
    train: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = resume.write
    written: list[int] = []

    def stop_twice(folder: Path, saved: resume.Saved) -> None:
        write(folder, saved)
        written.append(saved.progress.phase)
        # In the middle of phase 1, and then of phase 2.
        if len(written) == 8 or written.count(2) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume, "write", stop_twice)
    spent_s = 0.0
    for start_s in (0.0, 5_000.0, 90_000.0):
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            hours = Hours(patch, start_s=start_s)
            made = train(resume=start_s > 0)
        spent_s += hours.now_s - start_s
    assert written.count(2) > 3
    assert 0.9 * LIMIT_S <= spent_s <= LIMIT_S
    first, second = (of_phase(made.history, phase) for phase in (1, 2))
    assert first[-1].seconds == pytest.approx((LIMIT_S - training.WRITING_S) / (1 + training.PHASE_2_COST), abs=2)
    # After the climb the rate falls without a jump where the training was interrupted.
    for epochs in (first, second):
        rates = [epoch.rate for epoch in epochs]
        peak = rates.index(max(rates))
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert max(-np.diff(rates[peak:])) < 0.3 * rates[peak]
    assert made.resumed_s == pytest.approx(spent_s - (hours.now_s - 90_000), abs=2)


def two_categories(folder: Path) -> Path:
    """Hat has twice the photos of Cap."""

    def add(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [*rows[:24], *(row | {"Category": "Hat"} for row in rows)]

    both = write_data(folder, count=48, edit=add)
    names = '["colour", "shade"]'
    listed = [{"Category": name, "No_of_attribute": "2", "Attribute_list": names} for name in ("Cap", "Hat")]
    write_csv(both / "category_attributes.csv", listed)
    return both


def test_two_categories_are_done_in_the_time_given_the_larger_with_more_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, out = two_categories(tmp_path / "both"), tmp_path / "out"
    hours = Hours(monkeypatch, start_s=5_000.0)
    assert run(both, out, "--max-hours", str(LIMIT_S / 3600), preset="endless") == 0
    # Time for writing is kept back for both, and three evaluations of each are reckoned a third longer than they take.
    kept_s = 2 * (training.WRITING_S + 3 * 0.3)
    assert LIMIT_S - kept_s - 6 <= hours.now_s - 5_000.0 <= LIMIT_S
    cap, hat = (checkpoint.read(out / slug) for slug in ("cap", "hat"))
    assert cap.gains and hat.gains
    seconds = [sum({e.phase: e.seconds for e in page.history}.values()) for page in (cap, hat)]
    # Twice the photos; what Cap leaves of its share, Hat gets too.
    assert seconds[1] / seconds[0] == pytest.approx(2.0, rel=0.2)
    assert all(page.history[-1].rate < 0.1 * TINY.phase2.heads_lr for page in (cap, hat))


def test_a_limit_that_is_over_before_it_begins_leaves_what_was_there_and_exit_code_1(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data_folder, tmp_path, "--max-hours", "1e-6") == 1
    said = capsys.readouterr().err
    for number in (1, 2):
        assert f"Cap, phase {number}: no time for one step, and nothing of it is written\ngive it more with: -" in said
    assert not (tmp_path / "cap").exists()
    assert run(data_folder, tmp_path, "--max-steps", "1") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "cap").iterdir() if path.is_file()}
    assert run(data_folder, tmp_path, "--max-hours", "1e-6") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "cap").iterdir() if path.is_file()} == before


def test_what_a_limit_cut_short_is_finished_for_such_a_limit_and_not_without_one(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_is_cut", lambda run: True)
    assert run(data_folder, tmp_path, "--max-steps", "2", "--max-hours", "1") == 0
    assert checkpoint.read(tmp_path / "cap").provenance[training.CUT] == "by --max-hours"
    monkeypatch.undo()
    assert run(data_folder, tmp_path, "--max-steps", "2", "--max-hours", "1", "--resume") == 0
    assert "from the beginning" not in capsys.readouterr().err
    assert run(data_folder, tmp_path, "--max-steps", "2", "--resume") == 0
    assert "from the beginning" in capsys.readouterr().err
    assert training.CUT not in checkpoint.read(tmp_path / "cap").provenance


@pytest.mark.parametrize("hours", ["0", "-1", "inf", "nan", "soon"])
def test_hours_that_are_none_are_refused(
    data_folder: Path, tmp_path: Path, hours: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(data_folder, tmp_path, f"--max-hours={hours}")
    assert "argument --max-hours: must be " in capsys.readouterr().err


# Whole after whatever stops it


@pytest.fixture(scope="module")
def uninterrupted(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert run(data_folder, out, "--max-steps", "9") == 0
    return out / "cap"


def test_a_loss_that_became_no_number_leaves_the_last_epoch_to_be_served_and_to_go_on_from(
    data_folder: Path,
    tmp_path: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls: list[None] = []

    def spoilt(*args: object, **options: object) -> torch.Tensor:
        calls.append(None)
        loss = losses.masked_cross_entropy(*args, **options)
        return loss * torch.nan if len(calls) == 5 else loss

    with monkeypatch.context() as patch:
        patch.setattr(objective, "masked_cross_entropy", spoilt)
        assert run(data_folder, tmp_path, "--max-steps", "9") == 2
    assert "error: the loss became nan: the last checkpoint that was written is kept\n" in capsys.readouterr().err
    _, page = checkpoint.load(tmp_path / "cap")
    assert [epoch.epoch for epoch in page.history] == [0, 1]
    assert run(data_folder, tmp_path, "--max-steps", "9", "--resume") == 0
    assert same_weights(tmp_path / "cap", uninterrupted)


def test_a_disk_that_is_full_in_the_middle_leaves_the_last_epoch_to_be_served_and_to_go_on_from(
    data_folder: Path,
    tmp_path: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    largest_file: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write, save = resume.write, checkpoint.save
    for name, module, real in (("write", resume, write), ("save", checkpoint, save)):
        calls: list[None] = []

        def full(*args: object, real: Callable[..., None] = real, calls: list[None] = calls) -> None:
            calls.append(None)
            with largest_file(100_000) if len(calls) == 2 else nullcontext():
                real(*args)

        out = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            assert run(data_folder, out, "--max-steps", "9") == 2
        said = capsys.readouterr().err
        assert f"error: cannot write the checkpoint in {out / 'cap'}: " in said
        assert "too large" in said
        assert said.endswith("\nmend that, then go on with: --resume\n")
        _, page = checkpoint.load(out / "cap")
        assert [epoch.epoch for epoch in page.history] == [0, 1]
        assert not list((out / "cap").glob(".*"))
        assert run(data_folder, out, "--max-steps", "9", "--resume") == 0
        assert same_weights(out / "cap", uninterrupted)
        # Every epoch has its point, that of the full disk too.
        history = checkpoint.read(out / "cap").history
        for number in (1, 2):
            curves = EventAccumulator(str(out / "cap" / FOLDER / f"phase{number}")).Reload()
            steps = [point.step for point in curves.Scalars("mean HM")]
            assert steps == [epoch.epoch for epoch in history if epoch.phase == number and epoch.epoch]


def test_an_interrupted_training_says_how_to_go_on(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = resume.write

    def then_stop(folder: Path, saved: resume.Saved) -> None:
        write(folder, saved)
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "write", then_stop)
    assert fit.main(["--data", str(data_folder), "--preset", "tiny", "--out", str(tmp_path)]) == 130
    assert f"{tmp_path / 'cap'} holds the last whole epoch: go on with --resume\ninterrupted" in capsys.readouterr().err


@pytest.mark.parametrize(("before", "after"), [("1", "2"), ("2", "1"), ("", "1"), ("", "2"), ("1", "")])
def test_a_state_of_other_phases_is_not_gone_on_with(
    data_folder: Path,
    tmp_path: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    before: str,
    after: str,
) -> None:
    def alone(phase: str) -> list[str]:
        return ["--phase", phase] if phase else []

    (tmp_path / "cap").mkdir()
    for name in (checkpoint.PAGE, checkpoint.WEIGHTS):
        (tmp_path / "cap" / name).write_bytes((uninterrupted / name).read_bytes())
    write = resume.write

    def then_stop(folder: Path, saved: resume.Saved) -> None:
        write(folder, saved)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume, "write", then_stop)
        assert run(data_folder, tmp_path, "--max-steps", "9", *alone(before)) == 130
    weights = (tmp_path / "cap" / checkpoint.WEIGHTS).read_bytes()
    assert run(data_folder, tmp_path, "--max-steps", "9", "--resume", *alone(after)) == 2
    assert "was begun with other data or settings\nstart anew with: rm " in capsys.readouterr().err
    assert (tmp_path / "cap" / checkpoint.WEIGHTS).read_bytes() == weights


def test_a_training_whose_state_was_removed_is_not_taken_for_finished(
    data_folder: Path, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = resume.write

    def then_stop(folder: Path, saved: resume.Saved) -> None:
        write(folder, saved)
        if saved.progress.history[-1].epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume, "write", then_stop)
        assert run(data_folder, tmp_path, "--max-steps", "9") == 130
    (tmp_path / "cap" / resume.FILE).unlink()
    assert run(data_folder, tmp_path, "--max-steps", "9", "--resume") == 0
    assert same_weights(tmp_path / "cap", uninterrupted)


def test_two_trainings_do_not_write_to_one_folder(
    data_folder: Path,
    tmp_path: Path,
    uninterrupted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.1)
    with checkpoint.held(tmp_path / "cap"):
        assert run(data_folder, tmp_path, "--max-steps", "9") == 2
    said = (
        f"error: another training is writing to {tmp_path / 'cap'}\nwait for it, or choose another folder with: --out"
    )
    assert said in capsys.readouterr().err
    assert run(data_folder, tmp_path, "--max-steps", "9") == 0
    assert same_weights(tmp_path / "cap", uninterrupted)


# Phase 2 from a checkpoint


def test_phase_2_keeps_the_curve_of_phase_1(data_folder: Path, tmp_path: Path) -> None:
    assert run(data_folder, tmp_path, "--phase", "1", "--max-steps", "3") == 0
    assert run(data_folder, tmp_path, "--phase", "2", "--max-steps", "3") == 0
    page = checkpoint.read(tmp_path / "cap")
    assert [(epoch.phase, epoch.steps) for epoch in page.history] == [(1, 0), (1, 3), (2, 0), (2, 3)]


def test_phase_2_of_a_checkpoint_of_a_newer_version_asks_for_an_upgrade(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data_folder, tmp_path, "--phase", "1", "--max-steps", "1") == 0
    page = tmp_path / "cap" / checkpoint.PAGE
    page.write_text(json.dumps(json.loads(page.read_text()) | {"version": 99}))
    before = page.read_bytes()
    assert run(data_folder, tmp_path, "--phase", "2") == 2
    assert "has version 99, this one reads up to 1\nupgrade Facet: in its clone, git pull" in capsys.readouterr().err
    assert page.read_bytes() == before


def test_other_photos_with_the_ids_of_those_that_phase_1_learnt_take_part_under_ids_of_their_own(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def resplit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [row | {"split": "val" if index % 4 == 0 else "train"} for index, row in enumerate(rows)]

    assert run(data_folder, tmp_path, "--phase", "1", "--max-steps", "1") == 0
    delivery = write_data(tmp_path / "delivery", edit=resplit)
    assert run(delivery, tmp_path, "--phase", "2", "--max-steps", "1") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: 5 validation rows, such as id 0, have ids that trained the checkpoint in ")
    assert "if they are other photos, give them other ids and file names in train.csv and train_images/, " in said
    rows = resplit(list(csv.DictReader((delivery / "train.csv").read_text().splitlines())))
    write_csv(delivery / "train.csv", [row | {"id": str(1000 + int(row["id"]))} for row in rows])
    for photo in (delivery / "train_images").iterdir():
        photo.rename(photo.with_name(f"{1000 + int(photo.stem):06d}.jpg"))
    assert run(delivery, tmp_path, "--phase", "2", "--max-steps", "1") == 0


# Where it writes


def test_a_folder_that_may_only_be_read_is_told_before_training(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(**options: object) -> None:
        raise OSError(30, os.strerror(30))

    # Root may write anywhere that is not a disk mounted so.
    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    assert run(data_folder, tmp_path) == 2
    said = f"error: cannot write the checkpoint in {tmp_path / 'cap'}: Read-only file system\n"
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_names_that_are_not_utf_8_are_trained_from_and_not_written_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Renamed, since OpenCV cannot write to such a name.
    folder = write_data(tmp_path / "plain", count=100).rename(tmp_path / os.fsdecode(b"caf\xe9"))
    lost = folder / "train_images" / "000005.jpg"
    lost.write_bytes(b"not an image")
    out = tmp_path / "out"
    assert run(folder, out, "--max-steps", "1") == 1
    assert checkpoint.read(out / "cap").provenance["data"] == f"{tmp_path}/caf\\xe9"
    assert run(folder, tmp_path / os.fsdecode(b"\xe9")) == 2
    assert "its name is not UTF-8" in capfd.readouterr().err


def test_a_path_that_is_not_utf_8_survives_the_state_of_a_training() -> None:
    for name in (b"caf\xe9 1.jpg", "café%20.jpg".encode(), b"/a/b.jpg"):
        path = Path(os.fsdecode(name))
        assert resume.unquoted(resume.quoted(path)) == path
        assert resume.quoted(path).isascii()


def test_where_rates_were_too_large_the_command_to_begin_anew_is_whole(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Optimiser.step
    taken = 0

    def fails_later(optimiser: Optimiser) -> None:
        nonlocal taken
        taken += 1
        if taken > 4:  # an epoch has three
            raise optimise.NoNumberError("the loss became nan\ntrain anew with smaller rates: --rate 0.3")
        step(optimiser)

    with monkeypatch.context() as patch:
        patch.setattr(Optimiser, "step", fails_later)
        assert run(data_folder, tmp_path, "--max-steps", "9") == 2
    state = tmp_path / "cap" / resume.FILE
    said = capsys.readouterr().err
    assert f"the loss became nan\nbegin anew: rm {state}\ntrain anew with smaller rates: --rate 0.3\n" in said
    state.unlink()
    assert run(data_folder, tmp_path, "--max-steps", "1", "--rate", "0.3") == 0


def test_unreadable_photos_that_end_a_training_are_all_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(tmp_path / "data", count=60)
    for index in range(0, 60, 6):
        (folder / "train_images" / f"{index:06d}.jpg").write_bytes(b"not an image")
    assert run(folder, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "10 of 60 photos are unreadable, more than 1%" in said
    assert said.endswith("mend them, or take their rows out of train.csv\n")


def test_while_a_training_runs_its_state_is_not_offered_for_removal(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.0)
    (tmp_path / "cap").mkdir()
    (tmp_path / "cap" / resume.FILE).write_bytes(b"of the one that runs")
    with locks.locked(tmp_path / "cap", "training"):
        assert run(data_folder, tmp_path) == 2
    said = capsys.readouterr().err
    assert "another training is writing to" in said and "rm " not in said


def test_a_training_that_comes_to_nothing_leaves_no_folder(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing came of it"), checkpoint.held(tmp_path / "some" / "where" / "cap"):
        raise UserError("nothing came of it")
    assert not list(tmp_path.iterdir())

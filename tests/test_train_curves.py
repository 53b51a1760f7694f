"""TensorBoard's event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runtime.errors import UserError
from train.curves import Epoch, EventFiles
from train.metrics import Score

ROOT = Path(__file__).resolve().parents[1]


def epoch(phase: int, number: int, *, hm: float = 0.5, categories: tuple[str, ...] = ("Cap",)) -> Epoch:
    scores = tuple(
        Score(
            category=category,
            attribute=attribute,
            loss=0.7,
            accuracy=hm + 0.1,
            weighted_f1=hm,
            micro_f1=hm,
            macro_f1=hm,
            hm=hm,
            baseline_hm=0.2,
            labels=6,
        )
        for category in categories
        for attribute in ("neck", "sleeve length / cuff")
    )
    return Epoch(
        phase=phase,
        epoch=number,
        steps=3 * number,
        seconds=1,
        loss=1 / (number + 1),
        mmd=0.25 if phase == 1 else 0.0,
        rate=0.01,
        scores=scores,
    )


def read(run: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(run))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_every_figure_of_every_epoch_is_read_back(tmp_path: Path) -> None:
    with EventFiles(tmp_path) as files:
        for entry in (epoch(1, 1, hm=0.4), epoch(1, 2, hm=0.5), epoch(2, 0, hm=0.5), epoch(2, 1, hm=0.6)):
            files.add(entry)
    first, second = read(tmp_path / "phase1"), read(tmp_path / "phase2")
    # Event files hold float32.
    assert first["mean HM"] == [(1, pytest.approx(0.4)), (2, pytest.approx(0.5))]
    assert first["loss"] == [(1, pytest.approx(1 / 2)), (2, pytest.approx(1 / 3))]
    assert first["mmd"] == [(1, pytest.approx(0.25)), (2, pytest.approx(0.25))]
    assert first["rate"] == [(1, pytest.approx(0.01)), (2, pytest.approx(0.01))]
    assert first["HM/neck"] == first["mean HM"] == first["HM/sleeve length / cuff"]
    assert first["accuracy/neck"] == [(1, pytest.approx(0.5)), (2, pytest.approx(0.6))]
    assert second["mean HM"] == [(0, pytest.approx(0.5)), (1, pytest.approx(0.6))]
    # No step had been taken at phase 2's start, and it has no MMD term.
    assert second["loss"] == [(1, pytest.approx(1 / 2))]
    assert "mmd" not in second


def test_an_epoch_can_be_seen_before_the_training_ends(tmp_path: Path) -> None:
    with EventFiles(tmp_path) as files:
        files.add(epoch(1, 1))
        assert read(tmp_path / "phase1")["mean HM"] == [(1, pytest.approx(0.5))]


def test_attributes_of_several_categories_stay_apart(tmp_path: Path) -> None:
    with EventFiles(tmp_path) as files:
        files.add(epoch(1, 1, categories=("Cap", "Hat")))
    assert {"HM/Cap/neck", "HM/Hat/neck", "accuracy/Hat/neck"} <= read(tmp_path / "phase1").keys()


def test_a_phase_that_starts_anew_replaces_its_curves_and_leaves_the_other_phase(tmp_path: Path) -> None:
    for entry in (epoch(1, 1, hm=0.1), epoch(2, 0, hm=0.3), epoch(2, 0, hm=0.6)):
        with EventFiles(tmp_path) as files:
            files.add(entry)
    assert read(tmp_path / "phase2")["mean HM"] == [(0, pytest.approx(0.6))]
    assert read(tmp_path / "phase1")["mean HM"] == [(1, pytest.approx(0.1))]


def test_a_training_that_goes_on_is_appended_to_its_curves(tmp_path: Path) -> None:
    for numbers in ((1, 2), (3,)):
        with EventFiles(tmp_path) as files:
            for number in numbers:
                files.add(epoch(1, number))
    assert [step for step, _ in read(tmp_path / "phase1")["mean HM"]] == [1, 2, 3]


@pytest.mark.parametrize("written", [0, 2], ids=["from the start", "after two epochs"])
def test_a_full_disk_is_one_error_that_names_the_folder_and_what_was_written_stays(
    tmp_path: Path,
    largest_file: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
    written: int,
) -> None:
    refusal = (
        rf"^cannot write the learning curves in {re.escape(str(tmp_path))}: File too large\n"
        r"put that right, then go on with: --resume$"
    )
    # The disk stays full until the files are closed, which is no second error.
    with ExitStack() as full, EventFiles(tmp_path) as files:
        for number in range(written):
            files.add(epoch(1, number + 1))
        (size,) = [path.stat().st_size for path in tmp_path.glob("phase1/*")] or [0]
        full.enter_context(largest_file(size + 50))
        with pytest.raises(UserError, match=refusal):
            files.add(epoch(1, written + 1))
    # A thread that writes would leave its traceback there.
    assert capsys.readouterr() == ("", "")
    if written:
        assert [step for step, _ in read(tmp_path / "phase1")["mean HM"]] == [1, 2]
        with EventFiles(tmp_path) as files:
            files.add(epoch(1, 3))
        assert [step for step, _ in read(tmp_path / "phase1")["mean HM"]] == [1, 2, 3]


def test_tensorboard_is_imported_when_the_first_epoch_is_written() -> None:
    code = "import sys, train.curves; print(*(name for name in ('torch', 'tensorboard') if name in sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

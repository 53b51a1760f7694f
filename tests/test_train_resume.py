"""A training that was killed goes on to the very weights that it would have had."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.train_parts import write_data
from train import checkpoint, fit, resume

ROOT = Path(__file__).resolve().parents[1]
# Dropout, averaged weights, changed photos, the MMD term: all that could differ the second time.
OPTIONS = ["--backbone", "test_efficientnet", "--weights", "none", "--size", "64", "--batch", "6", "--max-steps", "12"]
# After each epoch of 3 steps its state is written: four times in phase 1, three times in phase 2.
KILLS = 5


@pytest.fixture(scope="module", autouse=True)
def one_thread_everywhere(one_thread: None) -> Iterator[None]:
    """In the processes that are killed as in this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("resume") / "data")


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert fit.main(arguments(data, out)) == 0
    return out / "cap"


def arguments(data: Path, out: Path, *options: str) -> list[str]:
    return ["--data", str(data), "--out", str(out), "--quiet", *OPTIONS, *options]


def begin(data: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "train.fit", *arguments(data, out, *options)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def assert_same(found: Path, wanted: Path) -> None:
    ours, theirs = (load_file(folder / checkpoint.WEIGHTS) for folder in (found, wanted))
    assert ours.keys() == theirs.keys()
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    one, other = checkpoint.read(found), checkpoint.read(wanted)
    assert (one.metrics, one.temperatures, one.categories) == (other.metrics, other.temperatures, other.categories)
    times = [[(e.phase, e.epoch, e.steps, e.loss, e.mmd, e.scores) for e in page.history] for page in (one, other)]
    assert times[0] == times[1]


@pytest.mark.parametrize("phase", [1, 2])
def test_a_training_killed_in_either_phase_goes_on_to_the_same_weights_bit_for_bit(
    data: Path, uninterrupted: Path, tmp_path: Path, phase: int
) -> None:
    process = begin(data, tmp_path)
    state = tmp_path / "cap" / resume.FILE
    try:
        while phase_of(state) < phase and process.poll() is None:
            time.sleep(0.01)
    finally:
        kill(process)
    assert process.returncode == -signal.SIGKILL, "the training was over before it could be killed"
    assert fit.main(arguments(data, tmp_path, "--resume")) == 0
    assert_same(tmp_path / "cap", uninterrupted)
    assert not state.exists()


def phase_of(state: Path) -> int:
    """The phase of the state that was written last; 0 before the first."""
    return reached(state)[0]


def reached(state: Path) -> tuple[int, int]:
    """The phase and the epoch of the state that was written last; zeros before the first."""
    if not state.exists():
        return 0, 0
    # In one reading: the library opens the file twice, and another may have taken its place in between.
    content = state.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    epoch = json.loads(header["__metadata__"][resume.PAGE])["history"][-1]
    return epoch["phase"], epoch["epoch"]


@pytest.mark.slow
def test_five_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    # Nine steps an epoch, which last longer than the wait between two looks: four epochs in phase 1, three in phase 2.
    data = write_data(tmp_path / "data", count=72)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert fit.main(arguments(data, whole, "--max-steps", "36")) == 0
    epochs = checkpoint.read(whole / "cap").history
    shortest_s = min(two.seconds - one.seconds for one, two in pairwise(epochs) if one.phase == two.phase)
    state = killed / "cap" / resume.FILE
    rng = random.Random(0)
    moments = [reached(state)]
    for turn in range(KILLS):
        process = begin(data, killed, "--max-steps", "36", *(["--resume"] if turn else []))
        try:
            # Most of the time goes into loading torch: only what has ended an epoch of its own is in the training.
            while reached(state) == moments[-1] and process.poll() is None:
                time.sleep(0.01)
            # From the writing of that epoch's checkpoint on, into the next.
            time.sleep(rng.uniform(0, shortest_s))
        finally:
            kill(process)
        assert process.returncode == -signal.SIGKILL, "the training was over before it could be killed"
        moments.append(reached(state))
    print("killed after:", *moments[1:])
    assert moments == sorted(set(moments))
    assert {phase for phase, _ in moments[1:]} == {1, 2}
    assert fit.main(arguments(data, killed, "--max-steps", "36", "--resume")) == 0
    assert_same(killed / "cap", whole / "cap")


def interrupted(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a training that was interrupted after its first epoch, as by Ctrl-C."""
    write = resume.write

    def then_stop(folder: Path, saved: resume.Saved) -> None:
        write(folder, saved)
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "write", then_stop)
    assert fit.main(arguments(data, out)) == 130
    monkeypatch.setattr(resume, "write", write)
    return out / "cap" / resume.FILE


def test_an_unfinished_training_is_not_begun_anew_unasked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = interrupted(data, tmp_path, monkeypatch)
    before = state.read_bytes()
    assert fit.main(arguments(data, tmp_path)) == 2
    assert f"go on with it: --resume, or start anew: rm {state}" in capsys.readouterr().err
    assert state.read_bytes() == before


@pytest.mark.parametrize("change", [["--seed", "1"], ["--batch", "9"], ["--max-steps", "13"]])
def test_a_training_does_not_go_on_with_other_settings(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
) -> None:
    state = interrupted(data, tmp_path, monkeypatch)
    assert fit.main(arguments(data, tmp_path, "--resume", *change)) == 2
    assert f"was begun with other data or settings\nstart anew with: rm {state}" in capsys.readouterr().err


def test_a_state_that_is_damaged_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = interrupted(data, tmp_path, monkeypatch)
    for content in (b"", b"not a state", state.read_bytes()[:1000]):
        state.write_bytes(content)
        assert fit.main(arguments(data, tmp_path, "--resume")) == 2
        assert f"{state} is not the state of a training: " in capsys.readouterr().err
    save_file({"model/weight": torch.zeros(1)}, state)
    assert fit.main(arguments(data, tmp_path, "--resume")) == 2
    assert f"{state} is not the state of a training: " in capsys.readouterr().err


def without_best(progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("best/")]:
        del tensors[name]


def of_another_width(progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    name = next(name for name in tensors if name.startswith("model/") and tensors[name].ndim > 1)
    tensors[name] = tensors[name][:1]


STRANGE: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], object], str]] = {
    "a phase that there is not": (lambda progress, tensors: progress.update(phase=7), "phase 7 after"),
    "no epoch": (lambda progress, tensors: progress["history"].clear(), "after 0 epochs"),
    "without its best": (without_best, "the state to go on from is not of this network: 'best'"),
    "of another network": (of_another_width, "the state to go on from is not of this network: "),
}


@pytest.mark.parametrize("change", list(STRANGE))
def test_a_state_that_does_not_fit_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    state = interrupted(data, tmp_path, monkeypatch)
    with safe_open(state, framework="pt") as file:
        progress = json.loads(file.metadata()["progress"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  the file is no mapping
    edit, said = STRANGE[change]
    edit(progress, tensors)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, state, {"progress": json.dumps(progress)}
    )
    assert fit.main(arguments(data, tmp_path, "--resume")) == 2
    assert said in capsys.readouterr().err


def test_a_training_goes_on_where_its_photos_were_moved_unreadable_ones_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(tmp_path / "data", count=100)
    (folder / "train_images" / "000020.jpg").write_bytes(b"not an image")  # of 24 photos to validate on
    interrupted(folder, tmp_path, monkeypatch)
    moved = folder.rename(tmp_path / "moved")
    capsys.readouterr()
    assert fit.main(arguments(moved, tmp_path, "--resume")) == 1
    lost = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert lost == [f"left out, unreadable: {moved / 'train_images' / '000020.jpg'}"]


def test_resuming_what_is_finished_leaves_it_as_it_is(
    data: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in uninterrupted.iterdir() if path.is_file()}
    assert fit.main([*arguments(data, uninterrupted.parent, "--resume")]) == 0
    assert not capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in uninterrupted.iterdir() if path.is_file()} == before


def test_what_is_finished_of_other_settings_is_neither_gone_on_with_nor_lost(
    data: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in uninterrupted.iterdir() if path.is_file()}
    assert fit.main([*arguments(data, uninterrupted.parent, "--resume"), "--seed", "9"]) == 2
    said = capsys.readouterr().err
    assert f"the training that is finished in {uninterrupted} was of other data or settings\ntrain it anew w" in said
    assert {path.name: path.read_bytes() for path in uninterrupted.iterdir() if path.is_file()} == before


def test_a_second_phase_that_may_go_on_begins_with_the_first_one_s_checkpoint(data: Path, tmp_path: Path) -> None:
    assert fit.main(arguments(data, tmp_path, "--phase", "1")) == 0
    assert fit.main(arguments(data, tmp_path, "--phase", "2", "--resume")) == 0
    again = {path.name: path.read_bytes() for path in (tmp_path / "cap").iterdir() if path.is_file()}
    assert [epoch.phase for epoch in checkpoint.read(tmp_path / "cap").history][-1] == 2
    assert fit.main(arguments(data, tmp_path, "--phase", "2", "--resume")) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "cap").iterdir() if path.is_file()} == again


def test_resuming_what_was_never_begun_begins_it_and_says_so(
    data: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit.main(arguments(data, tmp_path, "--resume")) == 0
    assert f"nothing to go on from in {tmp_path / 'cap'}: from the beginning" in capsys.readouterr().err
    assert_same(tmp_path / "cap", uninterrupted)

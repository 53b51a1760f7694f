"""Several processes train as one: the same weights, scores and files, whatever share each of them has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.train_parts import tiny, write_data
from train import checkpoint, network
from train.curves import Epoch

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = "test_convnext"
PASSES = (1, 2)
# Float64 leaves the order of additions as the one difference, some 1e-14; the share of a loss counted wrong in one
# process would show as a hundredth.
TOLERANCE = 1e-10
# Float64 throughout, from photos to weights; whoever writes beside the first process is found out.
SCRIPT = f"""
import json, os, sys
from dataclasses import replace

import torch
import torch.distributed as dist

from tests.train_parts import tiny
from train import checkpoint, fit, resume
from train.config import PRESETS
from train.run import Run

torch.set_default_dtype(torch.float64)
inputs = Run.inputs
Run.inputs = lambda run, batch: inputs(run, batch).double()


def refuse(*args, **kwargs):
    raise AssertionError("only the first process writes")


if os.environ.get("RANK", "0") != "0":
    checkpoint.save = resume.write = refuse
made = tiny({BACKBONE!r}, epochs=1, batch=12, target_batch=4, mmd_weight=1.0)
PRESETS["tiny"] = replace(made, model=replace(made.model, dropout=0.0), phase2=replace(made.phase2, epochs=1, batch=12))
# What torchrun started meets once: the second training takes the first one's group.
init = dist.init_process_group
dist.init_process_group = lambda backend: dist.is_initialized() or init(backend)
dist.destroy_process_group = lambda: None
codes = [fit.main(options) for options in json.loads(sys.argv[1])]
assert codes == [1] * len(codes), codes  # done, with photos that were left out
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """The trainings of some processes: their folder and what they said."""

    root: Path
    out: str
    err: str

    def weights(self, passes: int) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = load_file(self.root / str(passes) / "cap" / checkpoint.WEIGHTS)
        return found

    def history(self, passes: int) -> tuple[Epoch, ...]:
        return checkpoint.read(self.root / str(passes) / "cap").history


@pytest.fixture(scope="module")
def start() -> dict[str, torch.Tensor]:
    """The backbone's weights; LayerScale, which starts at 1e-6 and would silence whole blocks, from 0.1 to 1."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = network.create_backbone(tiny(BACKBONE).model).state_dict()
    return {
        name: torch.rand_like(value) * 0.9 + 0.1 if name.endswith("gamma") else value for name, value in state.items()
    }


@pytest.fixture(scope="module")
def trained(start: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Done]:
    """The same trainings by one process and by two: a step in one pass, then in two."""
    home = tmp_path_factory.mktemp("processes")
    (home / "script.py").write_text(SCRIPT)

    def uneven(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        # Two thirds of the shades are missing, and 145 training photos leave one alone in the last batch of twelve.
        return [
            row | {"attr_2": row["attr_2"] if index % 3 == 0 else "", "split": "train" if index < 145 else "val"}
            for index, row in enumerate(rows)
        ]

    data = write_data(home / "data", count=200, edit=uneven)
    # One of each split. Validation photos are dealt out in turns: this one is the second process's alone.
    for index in (7, 148):
        (data / "train_images" / f"{index:06d}.jpg").write_bytes(b"not an image")
    save_file(start, home / "weights.safetensors")
    options = ["--preset", "tiny", "--weights", home / "weights.safetensors", "--data", data, "--quiet"]
    options += ["--target-photos", write_data(home / "targets") / "train_images"]

    def begin(processes: int) -> subprocess.Popen[str]:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        several = [
            [*map(str, options), "--passes", str(passes), "--out", str(home / str(processes) / str(passes))]
            for passes in PASSES
        ]
        return subprocess.Popen(
            [sys.executable, *(launcher if processes > 1 else []), home / "script.py", json.dumps(several)],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(processes: int, process: subprocess.Popen[str]) -> Done:
        with process:
            try:
                out, err = process.communicate(timeout=240)
            finally:
                process.kill()
        assert process.returncode == 0, err
        return Done(root=home / str(processes), out=out, err=err)

    running = {processes: begin(processes) for processes in (1, 2)}
    one, two = (wait(processes, process) for processes, process in running.items())
    return one, two


@pytest.mark.parametrize("passes", PASSES)
def test_two_processes_leave_the_weights_of_one(
    trained: tuple[Done, Done], start: dict[str, torch.Tensor], passes: int
) -> None:
    one, two = (done.weights(passes) for done in trained)
    assert one.keys() == two.keys()
    largest = max(
        (two[name] - value).abs().max().item() / max(value.abs().max().item(), 1e-3) for name, value in one.items()
    )
    print("largest difference, relative to the largest weight of its tensor:", largest)
    assert largest < TOLERANCE
    # All have learnt but the norm in front of the classifier that was taken off.
    unmoved = {name for name, value in start.items() if value.equal(one[f"backbone.{name}"].float())}
    assert unmoved == {"head.norm.weight", "head.norm.bias"}


@pytest.mark.parametrize("passes", PASSES)
def test_two_processes_tell_the_loss_and_the_scores_of_one(trained: tuple[Done, Done], passes: int) -> None:
    one, two = (done.history(passes) for done in trained)
    for ours, theirs in zip(two, one, strict=True):
        assert (ours.phase, ours.epoch, ours.steps, ours.rate) == (
            theirs.phase,
            theirs.epoch,
            theirs.steps,
            theirs.rate,
        )
        assert (ours.loss, ours.mmd) == pytest.approx((theirs.loss, theirs.mmd), rel=TOLERANCE)
        for score, other in zip(ours.scores, theirs.scores, strict=True):
            # Probabilities are made float32 before they are scored.
            assert score.loss == pytest.approx(other.loss, rel=1e-6)
            assert (score.hm, score.accuracy, score.labels) == (other.hm, other.accuracy, other.labels)
    assert [epoch.steps for epoch in one] == [0, 13, 0, 13]
    assert one[1].mmd != 0


def test_two_processes_write_the_files_once_and_say_all_once(trained: tuple[Done, Done]) -> None:
    one, two = trained
    assert two.out == one.out
    for passes in PASSES:
        assert {path.name for path in (two.root / str(passes) / "cap").iterdir()} == {
            "checkpoint.json",
            "model.safetensors",
            "tensorboard",
        }
    for photo in ("000007.jpg", "000148.jpg"):
        assert two.err.count(f"{photo}\n") == one.err.count(f"{photo}\n") == len(PASSES)

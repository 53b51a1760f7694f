"""Checkpoints of a small network: the same bits back, or an error that says what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.bundle import Preprocess, Routes, sha256_of
from runtime.errors import UserError
from tests.train_parts import CATEGORY, TINY
from train import checkpoint, network
from train.checkpoint import Checkpoint
from train.metrics import Score
from train.network import FacetModel

PAGE = Checkpoint(
    slug="cap",
    categories=(CATEGORY,),
    preprocess=Preprocess(height=64, width=64, mean=TINY.model.mean, std=TINY.model.std),
    routes=Routes(attribute="colour", to={"red": "Red Caps"}),
    preset=TINY,
    metrics=(
        Score(
            category="Cap",
            attribute="colour",
            loss=0.1,
            accuracy=0.9,
            weighted_f1=0.9,
            micro_f1=0.9,
            macro_f1=0.8,
            hm=0.85,
            baseline_hm=0.2,
            labels=6,
        ),
    ),
    provenance={"data": "photos of one colour"},
)


@pytest.fixture(scope="module")
def model() -> FacetModel:
    torch.manual_seed(0)
    return network.create(TINY.model, [3, 2], "none").eval()


@pytest.fixture
def folder(tmp_path: Path, model: FacetModel) -> Path:
    checkpoint.save(tmp_path / "cap", model.state_dict(), PAGE)
    return tmp_path / "cap"


def edit_page(folder: Path, **changes: object) -> None:
    page = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(page | changes))


def test_a_checkpoint_comes_back_bit_for_bit_and_its_page_word_for_word(folder: Path, model: FacetModel) -> None:
    loaded, page = checkpoint.load(folder)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) and value.dtype == after[name].dtype for name, value in before.items())
    assert replace(page, weights_sha256="") == PAGE
    assert checkpoint.read(folder) == page
    assert not any(module.training for module in loaded.modules())


def test_a_model_in_channels_last_layout_is_saved_as_any_other(folder: Path, model: FacetModel, tmp_path: Path) -> None:
    other = network.create(TINY.model, [3, 2], "none")
    other.load_state_dict(model.state_dict())
    checkpoint.save(tmp_path / "other", other.to(memory_format=torch.channels_last).state_dict(), PAGE)
    assert sha256_of(tmp_path / "other" / "model.safetensors") == sha256_of(folder / "model.safetensors")


def test_half_a_checkpoint_is_half_the_size_and_within_a_thousandth(
    folder: Path, model: FacetModel, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "half", model.state_dict(), PAGE, half=True)
    loaded, _ = checkpoint.load(tmp_path / "half")
    # 84,000 weights, of which 4,000 in vectors, and the names.
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path / "half", folder)]
    assert sizes[0] < 0.6 * sizes[1]
    for name, value in loaded.state_dict().items():
        expected = model.state_dict()[name]
        assert value.dtype == expected.dtype
        # Half keeps 11 bits, 2 ** -11 = 0.0005; below 6e-5 it keeps fewer.
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-7)
        assert value.ndim > 1 or value.equal(expected)


def test_no_file_of_a_checkpoint_is_a_pickle_and_nothing_is_left_beside_them(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "model.safetensors"]
    weights = (folder / "model.safetensors").read_bytes()
    assert json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])  # the format's own JSON header
    assert json.loads((folder / "checkpoint.json").read_bytes())


def test_saving_again_replaces_both_files(folder: Path, model: FacetModel) -> None:
    checkpoint.save(folder, model.state_dict(), replace(PAGE, provenance={"data": "other photos"}), half=True)
    loaded, page = checkpoint.load(folder)
    assert page.provenance == {"data": "other photos"}
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, model: FacetModel) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the checkpoint in .*file: (Not a directory|File exists)"):
        checkpoint.save(tmp_path / "file", model.state_dict(), PAGE)


# What does not load


def test_weights_other_than_those_the_page_describes_are_refused(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is not the file that checkpoint\.json describes: its sha"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("heads.bias_K"), r"missing heads\.bias_K$"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected extra$"),
        (lambda state: state.update({"heads.bias_K": torch.zeros(4)}), r"heads\.bias_K has shape \[4\], not \[5\]$"),
        (
            lambda state: [state.update({f"module.{name}": state.pop(name)}) for name in list(state)],
            r"missing .*, and \d+ more$",
        ),
    ],
    ids=["missing", "unexpected", "shape", "prefix"],
)
def test_weights_that_do_not_fit_the_model_are_refused_with_the_keys_named(
    folder: Path, change: Callable[[dict[str, Tensor]], object], complaint: str
) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    edit_page(folder, weights_sha256=sha256_of(folder / "model.safetensors"))
    with pytest.raises(UserError, match=rf"model\.safetensors does not fit the model: {complaint}"):
        checkpoint.load(folder)


def test_weights_that_are_no_safetensors_file_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04garbage")
    edit_page(folder, weights_sha256=sha256_of(folder / "model.safetensors"))
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors: "):
        checkpoint.load(folder)


def test_a_checkpoint_without_its_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors"):
        checkpoint.load(folder)


def test_a_page_of_a_newer_version_asks_for_an_upgrade(folder: Path) -> None:
    edit_page(folder, version=2, surprise=True)
    with pytest.raises(
        UserError, match=r"has version 2, this one reads up to 1\nupgrade with: pip install --upgrade fa"
    ):
        checkpoint.read(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\xff\xfe", b"[]", b'{"version": "one"}', b'{"version": 1}', b'{"x":' + b"[" * 100_000],
    ids=["empty", "words", "binary", "list", "type", "short", "deep"],
)
def test_a_page_of_garbage_is_not_valid(folder: Path, content: bytes) -> None:
    (folder / "checkpoint.json").write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint\.json is not a valid checkpoint page: "):
        checkpoint.read(folder)


def test_a_page_whose_values_no_preset_allows_is_not_valid(folder: Path) -> None:
    page = json.loads((folder / "checkpoint.json").read_text())
    page["preset"]["phase1"]["batch"] = 0
    (folder / "checkpoint.json").write_text(json.dumps(page))
    with pytest.raises(UserError, match="is not a valid checkpoint page: batch must be 1 or more, got 0"):
        checkpoint.read(folder)


def test_a_folder_without_a_page_is_told_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot read .*: No such file or directory\ntrain one with: python -m train\.f"
    ):
        checkpoint.read(tmp_path)


# Where they are found


def test_checkpoints_are_found_sorted_in_their_folder_or_as_the_folder_itself(folder: Path) -> None:
    root = folder.parent
    (root / "arm").mkdir()
    (root / "arm" / "checkpoint.json").write_text("{}")
    (root / "notes").mkdir()
    assert list(checkpoint.find(root).items()) == [("arm", root / "arm"), ("cap", folder)]
    assert checkpoint.find(folder) == {"cap": folder}


def test_a_folder_of_no_checkpoints_is_told_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no checkpoint in .*\ntrain one with: python -m train\.fit --data examples/cl"
    ):
        checkpoint.find(tmp_path)

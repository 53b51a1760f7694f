"""Checkpoints of a small network: the same bits back, or an error that says what differs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from runtime.bundle import Attribute, Category, Preprocess, Routes
from runtime.errors import UserError
from runtime.files import sha256_of
from tests.train_parts import CATEGORY, TINY, TOPS, photos
from tests.train_parts import network as far
from train import calibrate, checkpoint, network
from train.calibrate import Gain
from train.checkpoint import Checkpoint
from train.metrics import Score
from train.network import FacetModel

ROUTER = Category(
    name="Router",
    attributes=(Attribute(name="Category", classes=("Cap", TOPS.name), output="Category"),),
)
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


# Killed between the steps of a save


class Killed(BaseException):
    """What no handler of errors catches, as SIGKILL."""


def killed_save(folder: Path, state: dict[str, Tensor], name: str, *, renamed: int) -> None:
    """A save of those weights, its page naming them, that is killed when so many files have taken their place."""
    replace_file, done = os.replace, list[None]()

    def until(source: Path, target: Path) -> None:
        if len(done) == renamed:
            raise Killed
        done.append(None)
        replace_file(source, target)

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(os, "replace", until)
        checkpoint.save(folder, state, replace(PAGE, provenance={"data": name}))


@pytest.mark.parametrize("second", [1, 3])
@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_whenever_saves_are_killed_a_whole_checkpoint_loads(
    folder: Path, model: FacetModel, first: int, second: int
) -> None:
    change_of = {PAGE.provenance["data"]: 0.0, "first": 1.0, "second": 2.0}
    before = PAGE.provenance["data"]
    for name, renamed in (("first", first), ("second", second)):
        bias_K = model.heads.bias_K.detach() + change_of[name]
        killed_save(folder, model.state_dict() | {"heads.bias_K": bias_K}, name, renamed=renamed)
        loaded, page = checkpoint.load(folder)
        found = page.provenance["data"]
        assert found in (before, name)
        assert loaded.heads.bias_K.equal(model.heads.bias_K + change_of[found])
        before = found
    # And the next save is as any.
    checkpoint.save(folder, model.state_dict(), PAGE)
    assert checkpoint.load(folder)[1].provenance == PAGE.provenance
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "model.safetensors"]


def test_what_a_killed_training_had_half_written_is_swept_by_the_next(folder: Path) -> None:
    (folder / ".resume.safetensors.abc.part").write_bytes(b"half")
    with checkpoint.held(folder):
        assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "model.safetensors"]


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
    ],
    ids=["missing", "unexpected", "shape"],
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
        UserError, match=r"has version 2, this one reads up to 1\nupgrade Facet: in its clone, git pull"
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


@pytest.mark.parametrize(
    ("temperatures", "complaint"),
    [
        ({"colour": 0.0}, "the temperature of 'colour' must be from 0.05 to 20, not 0"),
        ({"colour": -1.0}, "the temperature of 'colour' must be from 0.05 to 20, not -1"),
        ({"colour": 1e-320}, "the temperature of 'colour' must be from 0.05 to 20, not 1e-320"),
        ({"color": 1.5}, "a temperature is for 'color', which is no output; have: colour, shade"),
    ],
)
def test_a_page_with_temperatures_that_no_logits_can_have_is_not_valid(
    folder: Path, temperatures: dict[str, float], complaint: str
) -> None:
    edit_page(folder, temperatures=temperatures)
    with pytest.raises(UserError, match=f"is not a valid checkpoint page: {complaint}"):
        checkpoint.read(folder)


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no attribute": (lambda page: page["categories"][0]["attributes"].clear(), "its attributes must be there"),
    "two of one output": (
        lambda page: page["categories"][0]["attributes"][1].update(output="colour"),
        "each with an output of its own",
    ),
    "an output that is the graph's": (
        lambda page: page["categories"][0]["attributes"][0].update(output="images"),
        "attribute 'colour' has an output called 'images'",
    ),
    "an output of no name": (
        lambda page: page["categories"][0]["attributes"][0].update(output=""),
        "attribute 'colour' has an output called ''",
    ),
    "routes by nothing": (
        lambda page: page.update(routes={"attribute": "kind", "to": {}}),
        "it routes by 'kind', which is no attribute of its",
    ),
    "photos of another size": (
        lambda page: page["preprocess"].update(height=8),
        "its photos are not of its model's size",
    ),
    "a file to open": (
        lambda page: page["preset"]["model"].update(backbone_args={"checkpoint_path": "/etc/passwd"}),
        "its backbone takes an argument that none here does: 'checkpoint_path'",
    ),
    "a version before the first": (lambda page: page.update(version=0), "version 0"),
}


@pytest.mark.parametrize("change", list(CONTRADICTIONS))
def test_a_page_that_contradicts_itself_is_not_valid(folder: Path, change: str) -> None:
    edit, said = CONTRADICTIONS[change]
    page = json.loads((folder / "checkpoint.json").read_text())
    edit(page)
    (folder / "checkpoint.json").write_text(json.dumps(page))
    with pytest.raises(UserError, match=f"is not a valid checkpoint page: .*{said}"):
        checkpoint.read(folder)


# What tells two checkpoints apart


def test_the_identity_of_a_page_is_that_of_its_answers(folder: Path) -> None:
    page = checkpoint.read(folder)
    answers = calibrate.with_offsets(page.categories, {"colour": (0.0, 0.5, 0.5)})
    others = [
        replace(page, temperatures={"shade": 1.5}),
        replace(page, categories=answers),
        replace(page, categories=(msgspec.structs.replace(page.categories[0], name="Hat"),)),
        replace(page, weights_sha256="0" * 64),
        replace(page, preprocess=msgspec.structs.replace(page.preprocess, mean=(0.4, 0.4, 0.4))),
    ]
    assert len({other.identity for other in [page, *others]}) == 1 + len(others)
    assert page.head_temperatures == [1.0, 1.0]
    assert others[0].head_temperatures == [1.0, 1.5]
    # What is said of the checkpoint, and what stands for nothing, changes no answer.
    same = replace(page, metrics=(), provenance={}, slug="other", temperatures={"colour": 1.0})
    assert same.identity == page.identity


# A joint checkpoint, split


def joint(heads: str) -> tuple[FacetModel, Checkpoint]:
    """A router, caps and tops on one backbone, every head of its own making, with temperatures and offsets."""
    model, page = far("test_resnet", heads=heads)
    categories = tuple(
        Category(
            name=category.name,
            attributes=tuple(
                Attribute(name=a.name, classes=a.classes, output=f"{category.name}/{a.name}")
                for a in category.attributes
            ),
        )
        for category in (ROUTER, CATEGORY, TOPS)
    )
    gain = Gain(
        category="Cap",
        attribute="shade",
        labels=20,
        nll_before=1,
        nll_after=1,
        ece_before=0,
        ece_after=0,
        hm_before=1,
        hm_after=1,
    )
    model = network.picked(model, [1, 0, 1, 1, 1])
    for index in range(5):
        weight_KC = model.heads.rows_of(index)[-2]
        weight_KC.mul_(1 + index / 10)  # else several heads would be one and the same
    return model, replace(
        page,
        slug="joint",
        categories=calibrate.with_offsets(categories, {"Cap/colour": (0.0, 0.25, 0.5)}),
        routes=Routes(attribute="Category", to={"Cap": "Cap", TOPS.name: TOPS.name}),
        metrics=(replace(PAGE.metrics[0], category="Cap"), replace(PAGE.metrics[0], category=TOPS.name)),
        temperatures={"Cap/shade": 0.5, f"{TOPS.name}/colour": 1.5},
        gains=(gain, replace(gain, category=TOPS.name)),
        splits={"train": ("1", "2"), "val": ("3",)},
        weights_sha256="f" * 64,
    )


@torch.no_grad()
@pytest.mark.parametrize("heads", ["attention", "reference"])
def test_the_pieces_of_a_joint_checkpoint_answer_as_it_does(heads: str) -> None:
    model, page = joint(heads)
    inputs_BCHW = network.normalise(torch.from_numpy(photos(6)), model.config)

    def probabilities(model: FacetModel, page: Checkpoint) -> list[Tensor]:
        return [
            logits_BK.softmax(1) for logits_BK in network.tempered(model, page.head_temperatures)(inputs_BCHW).logits
        ]

    expected = probabilities(model, page)
    found = [probabilities(*piece) for piece in checkpoint.split(model, page)]
    assert [len(each) for each in found] == [1, 2, 2]
    for one, other in zip([one for each in found for one in each], expected, strict=True):
        # A smaller product of matrices may add up in another order.
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_each_piece_has_the_part_of_the_page_that_is_its_own() -> None:
    model, page = joint("attention")
    router, cap, tops = (piece for _, piece in checkpoint.split(model, page))
    assert [piece.slug for piece in (router, cap, tops)] == ["router", "cap", "women-tops-tunics"]
    assert router.categories == (ROUTER,)
    assert cap.categories == calibrate.with_offsets([CATEGORY], {"colour": (0.0, 0.25, 0.5)})
    assert tops.categories == (TOPS,)
    assert [piece.routes for piece in (router, cap, tops)] == [page.routes, None, None]
    assert [piece.temperatures for piece in (router, cap, tops)] == [{}, {"shade": 0.5}, {"colour": 1.5}]
    assert [score.category for score in cap.metrics] == [gain.category for gain in cap.gains] == ["Cap"]
    assert all(piece.splits == page.splits and piece.weights_sha256 == "f" * 64 for piece in (router, cap, tops))
    assert len({piece.identity for piece in (router, cap, tops, page)}) == 4


def test_the_pieces_share_the_backbone_in_memory() -> None:
    model, page = joint("attention")
    assert all(piece.backbone is model.backbone for piece, _ in checkpoint.split(model, page))


def test_a_category_that_routes_and_is_a_product_keeps_the_routes() -> None:
    model, page = joint("attention")
    routed = replace(page, categories=page.categories[1:], routes=Routes(attribute="shade", to={"dark": TOPS.name}))
    (_, cap), (_, tops) = checkpoint.split(network.picked(model, [1, 2, 3, 4]), routed)
    assert (cap.routes, tops.routes) == (routed.routes, None)


def test_a_checkpoint_of_one_category_is_its_own_only_piece(folder: Path) -> None:
    model, page = checkpoint.load(folder)
    assert checkpoint.split(model, page) == [(model, page)]


# Where they are found


def test_checkpoints_are_found_sorted_in_their_folder_or_as_the_folder_itself(folder: Path) -> None:
    root = folder.parent
    (root / "arm").mkdir()
    (root / "arm" / "checkpoint.json").write_text("{}")
    (root / "notes").mkdir()
    assert list(checkpoint.find(root).items()) == [("arm", root / "arm"), ("cap", folder)]
    assert checkpoint.find(folder) == {"cap": folder}


def test_a_folder_of_no_checkpoints_is_told_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint in .*\ntrain one with: python -m train\.fit --data DIR"):
        checkpoint.find(tmp_path)

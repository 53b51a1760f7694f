"""Weights of the published challenge entry, made here with its names and its own kind of backbone, and imported.

The entry's own files are not here: what is compared is its network with random weights.
"""

# B batch, C channels, H height, W width, K classes

from __future__ import annotations

import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime.errors import UserError
from runtime.files import sha256_of
from train import checkpoint, import_reference, taxonomy
from train.config import PRESETS

MEN, SAREES = taxonomy.read(taxonomy.SHIPPED)[:2]
CLASSES = [len(attribute.classes) for attribute in MEN.attributes]
State = dict[str, Tensor]
# Two implementations of the same float32 sums, in another order, on logits of some units.
CLOSE = 1e-4


class Entry(nn.Module):
    """The entry's network: Hugging Face's backbone, and heads in which pooling and flattening take up numbers."""

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_processor = nn.Sequential(nn.Conv2d(channels, 1024, 1), nn.GELU(), nn.Dropout(0.1))
        self.classifier_heads = nn.ModuleList(self.head(classes) for classes in CLASSES)

    @staticmethod
    def head(classes: int) -> nn.Sequential:
        grouped = [nn.Conv2d(width, 512, 3, padding=1, groups=32) for width in (1024, 512)]
        spatial = [grouped[0], nn.GELU(), grouped[1], nn.GELU()]
        gate = [nn.Linear(512, 128), nn.GELU(), nn.Linear(128, 512), nn.Sigmoid()]
        wide = [nn.Linear(512, 1024), nn.LayerNorm(1024), nn.GELU(), nn.Dropout(0.2)]
        narrow = [nn.Linear(1024, 512), nn.LayerNorm(512), nn.Sigmoid(), nn.Dropout(0.1)]
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(
            nn.Sequential(*spatial),
            nn.Sequential(*pooled, *gate),
            nn.Sequential(*pooled, *wide, *narrow, nn.Linear(512, classes)),
        )

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        map_BCHW = self.feature_processor(self.backbone(images_BCHW).last_hidden_state)
        answers = []
        for spatial, gate, classify in self.classifier_heads:
            seen_BCHW = spatial(map_BCHW)
            answers.append(classify(seen_BCHW * gate(seen_BCHW)[:, :, None, None]))
        return answers


def entry(depths: list[int], widths: list[int], *, act: str, eps: float) -> Entry:
    """An entry in eval mode of which every weight is drawn, so that no two could be exchanged unseen."""
    from transformers import ConvNextConfig, ConvNextModel

    torch.manual_seed(0)
    made = Entry(ConvNextModel(ConvNextConfig(depths=depths, hidden_sizes=widths, hidden_act=act)), widths[-1]).eval()
    for module in made.backbone.modules():
        if hasattr(module, "eps"):
            module.eps = eps
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("layer_scale_parameter"):
                parameter.uniform_(0.1, 1)  # as made, 1e-6, whole blocks would do nothing
            elif parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
            elif not name.startswith("backbone"):
                parameter.mul_(6)  # as made, all photos would look the same behind the sigmoids
    return made


def largest_difference(made: Entry, folder: Path) -> float:
    """Between the logits of an entry and those of the checkpoint made from it, on photos that it tells apart."""
    images_BCHW = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model, _ = checkpoint.load(folder)
    with torch.inference_mode():
        expected, found = made(images_BCHW), model(images_BCHW).logits
    assert [tuple(logits_BK.shape) for logits_BK in found] == [(3, count) for count in CLASSES]
    assert min(float(logits_BK.std(0).max()) for logits_BK in expected) > 100 * CLOSE
    return max(float((ours - theirs).abs().max()) for ours, theirs in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def small() -> Entry:
    # timm's smallest ConvNeXt, whose activation and epsilon are its own.
    return entry([1, 2, 4, 2], [24, 32, 48, 64], act="gelu_pytorch_tanh", eps=1e-5)


@pytest.fixture(autouse=True)
def small_preset(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's preset on that backbone, but for the test at full size."""
    if "small" in request.fixturenames:
        chosen = PRESETS["reference"]
        model = replace(chosen.model, backbone="test_convnext", size=64)
        monkeypatch.setitem(PRESETS, "reference", replace(chosen, model=model))


@pytest.fixture
def saved(small: Entry, tmp_path: Path) -> Callable[..., Path]:
    """Writes the small entry's weights, or what `change` makes of them, and gives the path."""

    def write(change: Callable[[State], object] = lambda state: state, **options: object) -> Path:
        torch.save(change(dict(small.state_dict())), tmp_path / "best_model.pth", **options)
        return tmp_path / "best_model.pth"

    return write


def run(path: Path, category: str = "Men Tshirts") -> int:
    return import_reference.main([str(path), "--category", category, "--out", str(path.parent / "checkpoints")])


# What it gives


@pytest.mark.parametrize("prefix", ["", "module."], ids=["bare", "DataParallel"])
def test_an_imported_checkpoint_answers_as_the_entry_does(
    saved: Callable[..., Path],
    small: Entry,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = saved(lambda state: OrderedDict((prefix + name, value) for name, value in state.items()))
    assert run(path) == 0
    folder = path.parent / "checkpoints" / "men-tshirts"
    scored = f"score it with: python -m train.evaluate {folder} --data DIR"
    assert capsys.readouterr().err == f"checkpoint: {folder}\n{scored}\n"
    difference = largest_difference(small, folder)
    print(f"largest difference {difference:.1e}")
    assert difference < CLOSE, difference


@pytest.mark.slow
def test_the_entry_at_its_real_size_answers_the_same_imported(tmp_path: Path) -> None:
    made = entry([3, 3, 27, 3], [128, 256, 512, 1024], act="gelu", eps=1e-6)
    assert sum(parameter.numel() for parameter in made.parameters()) == 95_658_253
    torch.save(nn.DataParallel(made).state_dict(), tmp_path / "best_model_c1.pth")
    assert run(tmp_path / "best_model_c1.pth") == 0
    difference = largest_difference(made, tmp_path / "checkpoints" / "men-tshirts")
    print(f"largest difference {difference:.1e}")
    assert difference < CLOSE, difference


def test_every_weight_of_the_entry_is_in_the_checkpoint_bit_for_bit(saved: Callable[..., Path], small: Entry) -> None:
    path = saved()
    run(path)
    model, page = checkpoint.load(path.parent / "checkpoints" / "men-tshirts")
    theirs = small.state_dict()
    ours = {import_reference.entry_name(name): value for name, value in model.state_dict().items()}
    assert ours.keys() == theirs.keys() and len(ours) == len(model.state_dict())
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    assert page.categories == (MEN,) and page.preset == PRESETS["reference"]
    assert (page.preprocess.height, page.preprocess.resize) == (64, "squash")
    assert page.provenance["imported"] == "best_model.pth"
    assert page.provenance["imported_sha256"] == sha256_of(path)


@pytest.mark.slow
def test_an_imported_checkpoint_becomes_a_graph(saved: Callable[..., Path], tmp_path: Path) -> None:
    from export import graph

    path = saved()
    run(path)
    made = graph.graph(*checkpoint.load(path.parent / "checkpoints" / "men-tshirts"))
    assert [output.name for output in made.graph.output] == [*(a.name for a in MEN.attributes), "features"]


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda state: {"model_state_dict": state, "epoch": 3}, {}),
        (lambda state: {"state_dict": state, "model": "convnext"}, {}),
        (lambda state: {"model": {f"module.{name}": value for name, value in state.items()}}, {}),
        (lambda state: {f"module.module.{name}": value for name, value in state.items()}, {}),
        (lambda state: {name: nn.Parameter(value) for name, value in state.items()}, {}),
        (lambda state: state, {"_use_new_zipfile_serialization": False}),
    ],
    ids=["model_state_dict", "state_dict", "model", "DataParallel twice", "parameters", "before torch 1.6"],
)
def test_weights_are_found_however_they_were_saved(
    saved: Callable[..., Path], small: Entry, change: Callable[[State], object], options: dict[str, bool]
) -> None:
    found = import_reference.read(saved(change, **options))
    theirs = small.state_dict()
    assert found.keys() == theirs.keys()
    assert all(value.equal(theirs[name]) for name, value in found.items())


def test_half_precision_weights_become_float32(saved: Callable[..., Path], small: Entry) -> None:
    path = saved(lambda state: {name: value.half() for name, value in state.items()})
    assert run(path) == 0
    model, _ = checkpoint.load(path.parent / "checkpoints" / "men-tshirts")
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    weight = small.state_dict()["feature_processor.0.weight"]
    assert model.neck[0].weight.equal(weight.half().float())


# What it refuses


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: state.pop("backbone.layernorm.bias"), r"missing backbone\.layernorm\.bias$"),
        (lambda state: state.update(extra=torch.zeros(1)), r"unexpected extra$"),
        (
            lambda state: state.update({"classifier_heads.1.2.10.bias": torch.zeros(5)}),
            r"classifier_heads\.1\.2\.10\.bias has shape \[5\], not \[2\]$",
        ),
        (
            lambda state: state.update({"module.backbone.layernorm.bias": state.pop("backbone.layernorm.bias")}),
            r"missing backbone\.layernorm\.bias, unexpected module\.backbone\.layernorm\.bias$",
        ),
    ],
    ids=["missing", "unexpected", "shape", "half a prefix"],
)
def test_weights_that_do_not_fit_are_refused_with_the_keys_named_as_the_file_has_them(
    saved: Callable[..., Path], capsys: pytest.CaptureFixture[str], change: Callable[[State], object], complaint: str
) -> None:
    path = saved(lambda state: [change(state), state][1])
    assert run(path) == 2
    assert re.search(rf"best_model\.pth does not fit the model: {complaint}", capsys.readouterr().err.strip())
    assert not (path.parent / "checkpoints").exists()


def test_weights_of_another_category_are_called_by_its_name(
    saved: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(saved(), SAREES.name) == 2
    said = capsys.readouterr().err
    assert "has heads of 4, 2, 2, 3, 2 classes: 'Men Tshirts', not 'Sarees'\n" in said
    assert said.endswith("name it with: --category 'Men Tshirts'\n")


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["archive", "before torch 1.6", "bare pickle", "beside weights"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    path, touched = tmp_path / "best_model.pth", tmp_path / "touched"
    bad = Touch(touched)
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(bad, protocol=2))
    else:
        content = {"state_dict": {"a": torch.zeros(1)}, "note": bad} if how == "beside weights" else bad
        torch.save(content, path, _use_new_zipfile_serialization=how != "before torch 1.6")
    assert run(path) == 2
    assert not touched.exists()
    said = capsys.readouterr().err
    assert f"{path} holds more than weights (posix.mkdir): opening it could run any code, so it was not opened" in said
    assert "torch.save(model.state_dict(), 'weights.pth')" in said
    assert not (tmp_path / "checkpoints").exists()


def test_that_pickle_does_run_where_code_is_let_in(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Touch(tmp_path / "touched")))
    assert (tmp_path / "touched").exists()


def test_a_whole_pickled_model_is_answered_with_how_to_save_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    assert run(tmp_path / "model.pth") == 2
    said = capsys.readouterr().err
    assert "holds more than weights (torch.nn.modules.linear.Linear)" in said
    assert "if you trust it, save its weights alone, where it was made, with: torch.save(model.state_dict()," in said


def damaged() -> bytes:
    content = io.BytesIO()
    torch.save({"a": torch.zeros(100)}, content)
    return content.getvalue()[:700]


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is text", damaged(), b"PK\x03\x04 no archive"], ids=["empty", "text", "cut", "zip"]
)
def test_a_file_of_another_kind_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    assert run(tmp_path / "weights.pth") == 2
    said = capsys.readouterr().err
    assert re.match(r"error: \S+weights\.pth (is not a whole file of torch\.save: \S|holds more than weights)", said)
    assert said.count("\n") == 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([torch.zeros(1)], "holds no weights by name, but a list"),
        ({}, "holds no weights by name, but a dict"),
        ({3: torch.zeros(1)}, "holds no weights by name, but a dict"),
        ({"a": torch.zeros(1), "epoch": 3}, "epoch is no weight, but a int"),
        ({"a": torch.zeros(1, dtype=torch.int8)}, "a is no weight, but a torch.int8"),
        ({"model": {"a": torch.zeros(1)}, "state_dict": {"a": torch.ones(1)}}, "holds more than one of model_state_d"),
    ],
    ids=["list", "empty", "numbered", "number", "integers", "two"],
)
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: object, complaint: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=re.escape(complaint)):
        import_reference.read(tmp_path / "weights.pth")


def test_numbers_of_numpy_beside_the_weights_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "accuracy": np.float64(0.5)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"holds more than weights \(numpy\S+scalar\)"):
        import_reference.read(tmp_path / "weights.pth")


def test_a_file_or_a_category_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.pth") == 2
    assert capsys.readouterr().err == (
        f"error: no such file: {tmp_path / 'none.pth'}\nname one that torch.save wrote, such as model.pth\n"
    )
    assert run(tmp_path / "none.pth", "Hats") == 2
    assert "no category 'Hats' in " in (said := capsys.readouterr().err)
    assert said.endswith("have: Men Tshirts, Sarees, Kurtis, Women Tshirts, Women Tops & Tunics\n")

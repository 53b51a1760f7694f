"""A checkpoint: model.safetensors and checkpoint.json, loaded exactly or not at all; no pickle anywhere."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runtime.bundle import PAGE as BUNDLE
from runtime.bundle import Attribute, Category, Preprocess, Routes, name_of, router_of, slug_of
from runtime.errors import UserError
from runtime.files import probe, refuse_pipe, replace_file, replacing, sha256_of
from runtime.locks import locked
from train.calibrate import COLDEST, HOTTEST, Gain
from train.config import Preset
from train.curves import Epoch
from train.metrics import Score

if TYPE_CHECKING:
    from torch import Tensor

    from train.network import FacetModel

VERSION = 1
PAGE = "checkpoint.json"
WEIGHTS = "model.safetensors"
NEXT_WEIGHTS = "model.next.safetensors"
UNFINISHED = "resume.safetensors"
"""What an interrupted training goes on from (resume.py)."""
# Of timm.create_model's: a page must not name files for it to open.
BACKBONE_ARGS = {"act_layer", "pad_type"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of checkpoint.json."""

    version: int = VERSION
    slug: str
    categories: tuple[Category, ...]
    """One, or several on one backbone, whose outputs are then named `<category>/<attribute>`."""
    preprocess: Preprocess
    routes: Routes | None
    preset: Preset
    metrics: tuple[Score, ...]
    """On the validation split."""
    temperatures: dict[str, float] = field(default_factory=dict)
    """By output: what the logits are divided by, so that probabilities are calibrated; 1 where there is none."""
    gains: tuple[Gain, ...] = ()
    """What calibration does, on validation photos that it was not fitted to."""
    history: tuple[Epoch, ...] = ()
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The ids of train.csv in each split: whoever evaluates this checkpoint knows what it was trained on."""
    provenance: dict[str, str]
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        outputs = [attribute.output for attribute in self.attributes]
        if not outputs or len(set(outputs)) != len(outputs):
            raise ValueError("its attributes must be there, each with an output of its own")
        if self.routes and not router_of(self.categories, self.routes):
            raise ValueError(f"it routes by {self.routes.attribute!r}, which is no attribute of its")
        if (self.preprocess.height, self.preprocess.width) != (self.preset.model.size, self.preset.model.size):
            raise ValueError(f"its photos are not of its model's size, {self.preset.model.size} px")
        if unknown := self.preset.model.backbone_args.keys() - BACKBONE_ARGS:
            raise ValueError(f"its backbone takes an argument that none here does: {min(unknown)!r}")
        for output, temperature in self.temperatures.items():
            if output not in outputs:
                raise ValueError(f"a temperature is for {output!r}, which is no output; have: {', '.join(outputs)}")
            if not COLDEST <= temperature <= HOTTEST:
                raise ValueError(
                    f"the temperature of {output!r} must be from {COLDEST:g} to {HOTTEST:g}, not {temperature}"
                )

    @property
    def name(self) -> str:
        """What a person calls it."""
        return name_of(self.categories)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Every attribute, in the order of the model's logits."""
        return tuple(attribute for category in self.categories for attribute in category.attributes)

    @property
    def head_temperatures(self) -> list[float]:
        """The temperature of every attribute, in that order, as `network.tempered` takes them."""
        return [self.temperatures.get(attribute.output, 1.0) for attribute in self.attributes]

    @property
    def identity(self) -> str:
        """SHA-256 of all that decides its answers; the weights alone leave out temperatures, offsets and classes."""
        decisive = (
            self.weights_sha256,
            self.head_temperatures,
            self.categories,
            self.preprocess,
            self.preset.model,
        )
        return hashlib.sha256(msgspec.json.encode(decisive, order="deterministic")).hexdigest()


class _VersionOnly(msgspec.Struct):
    version: int


class _WeightsOnly(msgspec.Struct):
    weights_sha256: str


def save(folder: Path, weights: Mapping[str, Tensor], page: Checkpoint, *, half: bool = False) -> None:
    """Write both files, so that a checkpoint already there stays whole until this one is.

    The weights are written beside the old ones, the page that names them replaces the old page, and only then do
    they take their own name. What a kill leaves between the last two steps, `load` finds and the next `save` ends.

    Args:
        weights: a FacetModel's state.
        half: store weight matrices as float16.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    if half:
        # Vectors stay: biases and BatchNorm statistics are small, and their digits count.
        state = {name: value.to(torch.float16) if value.ndim > 1 else value for name, value in state.items()}
    try:
        _end_unfinished(folder)
        with replacing(folder / NEXT_WEIGHTS) as beside:
            save_file(state, beside)
        written = replace(page, weights_sha256=sha256_of(folder / NEXT_WEIGHTS))
        replace_file(folder / PAGE, msgspec.json.format(msgspec.json.encode(written), indent=1) + b"\n")
        os.replace(folder / NEXT_WEIGHTS, folder / WEIGHTS)
    except (OSError, SafetensorError) as err:
        raise unwritable(folder, err) from err


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, for this training alone until it ends."""
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder, "training"))
        except OSError as err:
            raise unwritable(folder, err) from None
        for half in folder.glob(".*.part"):
            half.unlink()  # of a training that was killed while it wrote
        yield


def check_writable(folder: Path) -> None:
    """UserError unless a checkpoint can be written in `folder`: better known before training than after."""
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:
        raise unwritable(folder, ValueError("its name is not UTF-8")) from None
    try:
        probe(folder)
    except OSError as err:
        raise unwritable(folder, err) from None


def unwritable(folder: Path, err: Exception) -> UserError:
    """The error for a folder that takes no checkpoint."""
    reason = getattr(err, "strerror", None) or err
    if (folder / UNFINISHED).exists():
        return UserError(f"cannot write the checkpoint in {folder}: {reason}\nmend that, then go on with: --resume")
    return UserError(f"cannot write the checkpoint in {folder}: {reason}\nchoose another folder with: --out DIR")


def read(folder: Path) -> Checkpoint:
    """The page of the checkpoint in `folder`."""
    page = folder / PAGE
    try:
        refuse_pipe(page)
        content = page.read_bytes()
        version = msgspec.json.decode(content, type=_VersionOnly).version
        if version > VERSION:
            raise UserError(
                f"{page} has version {version}, this one reads up to {VERSION}\n"
                "upgrade Facet: in its clone, git pull, then pip install ."
            )
        if version < 1:
            raise ValueError(f"version {version}")
        checkpoint = msgspec.json.decode(content, type=Checkpoint)
        if checkpoint.slug != slug_of(checkpoint.slug):
            raise UserError(f"{page} has a slug that is no folder name: {checkpoint.slug!r}")
        return checkpoint
    except OSError as err:
        raise UserError(f"cannot read {page}: {err.strerror}\ntrain one with: python -m train.fit") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise UserError(f"{page} is not a valid checkpoint page: {err}") from None


def load(folder: Path) -> tuple[FacetModel, Checkpoint]:
    """The model in eval mode with its weights, and the page; UserError names the keys that do not match."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from train import network

    page = read(folder)
    path = folder / (NEXT_WEIGHTS if _is_unfinished(folder, page.weights_sha256) else WEIGHTS)
    try:
        if sha256_of(path) != page.weights_sha256:
            raise UserError(f"{path} is not the file that {PAGE} describes: its sha256 differs\ntrain it again")
        state = load_file(path)
    except (OSError, SafetensorError) as err:
        raise UserError(f"cannot read {path}: {err}") from None
    classes = [len(attribute.classes) for attribute in page.attributes]
    model = network.create(page.preset.model, classes, "none")
    network.require_equal_keys(model.state_dict(), state, path)
    model.load_state_dict(state)
    return model.eval(), page


def split(model: FacetModel, page: Checkpoint) -> list[tuple[FacetModel, Checkpoint]]:
    """A model and a page for each category of a joint checkpoint, which answer as it does; of any other, itself alone.

    The models share all but their heads with `model`. Outputs take their attributes' names, and the routes go with
    the category that has their attribute. Of the page, what is told by attribute is divided; `weights_sha256` names
    the weights that the piece is part of, `history` and `splits` are the whole's.
    """
    from train import network

    if len(page.categories) == 1:
        return [(model, page)]
    pieces, start = [], 0
    for piece in pages(page):
        count = len(piece.attributes)
        pieces.append((network.picked(model, range(start, start + count)), piece))
        start += count
    return pieces


def pages(page: Checkpoint) -> list[Checkpoint]:
    """The pages of those pieces."""
    if len(page.categories) == 1:
        return [page]
    router = router_of(page.categories, page.routes)
    return [_piece(page, category, page.routes if category is router else None) for category in page.categories]


def _piece(page: Checkpoint, category: Category, routes: Routes | None) -> Checkpoint:
    attributes = tuple(msgspec.structs.replace(each, output=each.name) for each in category.attributes)
    return replace(
        page,
        slug=slug_of(category.name),
        categories=(msgspec.structs.replace(category, attributes=attributes),),
        routes=routes,
        metrics=tuple(score for score in page.metrics if score.category == category.name),
        temperatures={
            each.name: page.temperatures[each.output]
            for each in category.attributes
            if each.output in page.temperatures
        },
        gains=tuple(gain for gain in page.gains if gain.category == category.name),
    )


def _is_unfinished(folder: Path, weights_sha256: str) -> bool:
    """Whether a kill came between the page, which names these weights, and the last step of `save`."""
    path = folder / NEXT_WEIGHTS
    return path.is_file() and sha256_of(path) == weights_sha256


def _end_unfinished(folder: Path) -> None:
    """The last step of a `save` that was killed before it: other weights are to come in the place of those."""
    try:
        named = msgspec.json.decode((folder / PAGE).read_bytes(), type=_WeightsOnly).weights_sha256
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return  # no page, or none that is worth keeping
    if _is_unfinished(folder, named):
        os.replace(folder / NEXT_WEIGHTS, folder / WEIGHTS)


def find(root: Path) -> dict[str, Path]:
    """Slug -> folder of every checkpoint directly under `root`, sorted; `root` may be a checkpoint itself."""
    if (root / PAGE).is_file():
        return {root.resolve().name: root}
    found = {page.parent.name: page.parent for page in sorted(root.glob(f"*/{PAGE}"))}
    if not found and any((folder / BUNDLE).is_file() for folder in (root, *root.glob("*"))):
        raise UserError(
            f"{root} holds bundles, which are made of checkpoints\nname the folder of those: --checkpoints DIR"
        )
    if not found:
        raise UserError(f"no checkpoint in {root}\ntrain one with: python -m train.fit --data DIR")
    return found

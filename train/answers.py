"""What a checkpoint or a bundle answers on the labelled photos of a split: computed once, read by table and report."""

# B batch, N rows, L attributes, H height, W width, K classes

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runtime import bundle, images
from runtime.bundle import Category, Preprocess
from runtime.errors import UserError, with_example
from runtime.fidelity import batch_of
from runtime.headers import PhotoError
from runtime.predictor import Predictor, decide
from runtime.terminal import Bar, progress
from train import checkpoint, data, metrics
from train.calibrate import tempered
from train.checkpoint import Checkpoint
from train.metrics import Score
from train.table import Table

if TYPE_CHECKING:
    import torch

    from train.network import FacetModel


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint or a bundle, opened: what it serves, where it comes from, and how it answers."""

    folder: Path
    slug: str
    categories: tuple[Category, ...]
    preprocess: Preprocess
    provenance: dict[str, str]
    probabilities: Callable[[np.ndarray], dict[str, np.ndarray]]
    """uint8 RGB images [B, H, W, 3] to float32 [B, K] by output, before any temperature of the page."""
    attention: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None
    """The same images to maps [B, H, W] by output, each summing to 1; None where there are none to read."""
    page: Checkpoint | None = None
    """None for a bundle."""
    whole_split: Callable[[Table, str], Found] | None = None
    """Answers for a split in one go, where the network is on a GPU; None elsewhere, and for a bundle."""
    artifact: dict[str, str] | None = None
    """Which file of a bundle answers, and on what; None for a checkpoint."""


class Lost(NamedTuple):
    """A photo that was left out."""

    path: Path
    reason: str
    """`not there` or `unreadable`."""
    detail: str = ""


class Found(NamedTuple):
    """What a model answers for the photos of a split."""

    rows: list[int]
    """Of the table, those whose photos could be read."""
    probabilities: dict[str, np.ndarray]
    """By output, [N, K]."""
    unreadable: list[Lost]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One category's photos of a split, what was declared of them and what the model says."""

    category: Category
    data_folder: Path
    split: str
    paths: tuple[Path, ...]
    """N photos, those that could be read."""
    labels_NL: np.ndarray
    """int64 class indices; MISSING where nobody typed one."""
    raw: tuple[np.ndarray, ...]
    """Probabilities [N, K], one array an attribute, as they leave the network or the graph."""
    probabilities: tuple[np.ndarray, ...]
    """The same divided by the page's temperatures: what is scored. A bundle's graph has done so already."""
    commonest: tuple[int, ...]
    """For each attribute, the class with the most training labels."""
    groups_N: np.ndarray
    """Whose photo each is, by any name: a sender's often show one item. By default each is a group of its own."""
    lost: tuple[Lost, ...]
    drawn_by: int | None = None
    """The seed that drew the split; None where train.csv gives it or the checkpoint has kept it."""

    @property
    def doubt(self) -> str:
        """What a split that was drawn anew may hold; empty where it was not drawn."""
        if self.drawn_by is None:
            return ""
        return (
            f"the split was drawn anew by seed {self.drawn_by}: photos that the model learnt from may be among these, "
            "unless it was trained with that seed on this very train.csv; a column split there would settle it"
        )

    def scores(self) -> list[Score]:
        """A score for each attribute that has a label at all."""
        return metrics.scores([self.category], self.probabilities, self.labels_NL, self.commonest)

    def decided(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the attribute at `index`: the class chosen for each row, int64 [N], and its probability [N]."""
        chosen = decide(self.probabilities[index], self.category.attributes[index].offsets)
        return np.array([label for label, _ in chosen], np.int64), np.array([share for _, share in chosen])


@contextmanager
def opened(folder: Path) -> Iterator[Model]:
    """The checkpoint or bundle in `folder`."""
    if (folder / bundle.PAGE).is_file():
        with Predictor.open(folder) as predictor:
            held = predictor.bundle
            yield Model(
                folder=folder,
                slug=held.slug,
                categories=held.categories,
                preprocess=held.preprocess,
                provenance=held.provenance,
                probabilities=predictor.probabilities,
                artifact={
                    "file": predictor.choice.artifact.file,
                    "precision": predictor.choice.artifact.precision,
                    "engine": predictor.choice.engine,
                },
            )
    elif (folder / checkpoint.PAGE).is_file():
        from train import processes

        with processes.joined() as device:
            yield _network(folder, device)
    else:
        raise with_example(
            f"neither {bundle.PAGE} nor {checkpoint.PAGE} in {folder}",
            "python -m train.evaluate examples/bundles/garment --data examples/clothing",
            "examples/clothing",
        )


def answers(model: Model, data_folder: Path, split: str, *, quiet: bool = False) -> Iterator[Answers]:
    """For each category that the model serves, its answers on a split of `data_folder`."""
    for category in model.categories:
        # Where the split was drawn and not given, another seed would score photos that were trained on.
        seed = data.seed_of(model.provenance)
        trained = model.page.splits if model.page else None
        table = data.read_for(data_folder, [category], seed=seed, trained=trained)
        rows = table.rows(split)
        if not len(rows):
            raise UserError(f"no labelled row of {category.name!r} in split {split!r} of {data_folder}")
        with progress(f"{category.name}, {split}", len(rows), quiet=quiet) as advance:
            if model.whole_split:
                found = model.whole_split(table, split)
                advance(len(rows))
            else:
                found = _in_line(model, table, rows, advance)
        raw = tuple(found.probabilities[attribute.output] for attribute in category.attributes)
        _refuse_what_is_no_number(category, raw)
        yield Answers(
            category=category,
            data_folder=data_folder,
            split=split,
            paths=tuple(table.paths[row] for row in found.rows),
            labels_NL=table.labels_NL[found.rows],
            raw=raw,
            probabilities=_calibrated(model, category, raw),
            commonest=tuple(table.commonest()),
            groups_N=table.groups[found.rows],
            lost=tuple(sorted([*_absent(table, split), *found.unreadable])),
            drawn_by=seed if table.drawn else None,
        )


def by_workers(network: FacetModel, page: Checkpoint, device: torch.device, table: Table, split: str) -> Found:
    """What training's own validation answers: photos decoded by workers, the network on a device in its precision."""
    from train.run import Run

    run = Run(
        model=network, table=table, spec=page.preprocess, preset=page.preset, seed=0, max_steps=None, device=device
    )
    probabilities, rows = run.answers(network, split)
    lost = sorted(run.unreadable)
    data.refuse_unreadable(lost, len(table.rows(split)))
    outputs = [attribute.output for attribute in page.attributes]
    return Found(
        rows.tolist(),
        dict(zip(outputs, probabilities, strict=True)),
        [Lost(path, "unreadable", _reason(path, page.preprocess)) for path in lost],
    )


def _in_line(model: Model, table: Table, rows: np.ndarray, advance: Bar) -> Found:
    """Each photo decoded by this process: on a CPU workers gain nothing beside a network that keeps every core busy,
    and cost 0.3 s to start, where the 145 validation photos of examples/clothing take a bundle 0.8 s."""
    parts: list[dict[str, np.ndarray]] = []
    kept: list[int] = []
    unreadable: list[Lost] = []
    batch = batch_of(model.preprocess.height, model.preprocess.width)
    for start in range(0, len(rows), batch):
        pixels = []
        for row in rows[start : start + batch]:
            try:
                pixels.append(images.load(table.paths[row], model.preprocess))
                kept.append(row)
            except PhotoError as err:
                unreadable.append(Lost(table.paths[row], "unreadable", str(err)))
        data.refuse_unreadable([lost.path for lost in unreadable], len(rows))
        if pixels:
            parts.append(model.probabilities(np.stack(pixels)))
        advance(len(rows[start : start + batch]))
    return Found(kept, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, unreadable)


def _reason(path: Path, spec: Preprocess) -> str:
    """Why a photo cannot be read, which the workers do not tell: there are few of them."""
    try:
        images.load(path, spec)
    except PhotoError as err:
        return str(err)
    return "at the first attempt"


def _absent(table: Table, split: str) -> list[Lost]:
    homes = zip(table.absent, table.absent_splits, strict=True)
    return [Lost(path, "not there") for path, home in homes if home == split]


def _calibrated(model: Model, category: Category, raw: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """An attribute without a temperature keeps its probabilities to the last digit."""
    temperatures = model.page.temperatures if model.page else {}
    return tuple(
        tempered(raw_NK, temperatures[attribute.output]) if attribute.output in temperatures else raw_NK
        for attribute, raw_NK in zip(category.attributes, raw, strict=True)
    )


def _refuse_what_is_no_number(category: Category, raw: tuple[np.ndarray, ...]) -> None:
    # Their argmax would be a class like any other, and a score would come of it.
    for attribute, raw_NK in zip(category.attributes, raw, strict=True):
        if not np.isfinite(raw_NK).all():
            raise UserError(f"the model answers {attribute.name!r} of {category.name!r} with NaN: train it again")


def _network(folder: Path, device: torch.device) -> Model:
    import torch

    from train.heads import AttentionHeads
    from train.network import normalise

    model, page = checkpoint.load(folder)
    heads = model.heads
    names = [attribute.output for attribute in page.attributes]
    on_gpu = device.type == "cuda"
    if on_gpu:
        model.to(device).to(memory_format=torch.channels_last)  # as training has it

    def inputs(images_BHWC: np.ndarray) -> torch.Tensor:
        return normalise(torch.from_numpy(images_BHWC).to(device), page.preset.model)

    def probabilities(images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            logits = model(inputs(images_BHWC)).logits
        return {name: logits_BK.softmax(1).cpu().numpy() for name, logits_BK in zip(names, logits, strict=True)}

    attention: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None
    if isinstance(heads, AttentionHeads):

        def attention(images_BHWC: np.ndarray) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                maps_LBHW = heads.attention(model.map(inputs(images_BHWC))).transpose(0, 1)
            return {name: map_BHW.cpu().numpy() for name, map_BHW in zip(names, maps_LBHW, strict=True)}

    return Model(
        folder=folder,
        slug=page.slug,
        categories=page.categories,
        preprocess=page.preprocess,
        provenance=page.provenance,
        probabilities=probabilities,
        attention=attention,
        page=page,
        whole_split=partial(by_workers, model, page, device) if on_gpu else None,
    )

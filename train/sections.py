"""What the report's page shows of a category and its attributes, in words, shares and pictures."""

# B batch, K classes

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from runtime import images
from train import charts, metrics, mistakes, pictures
from train.answers import Answers, Model
from train.findings import AttributeFindings, Calibration, Findings

if TYPE_CHECKING:
    from train.metrics import Score

# The split that calibration is fitted to.
FITTED = "val"
PAIRS = 8
# A larger matrix is no longer read, but searched.
LARGEST_MATRIX = 40
PHOTO_PIXELS = 208
ATTENTION_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Cell:
    photos: int
    share: float
    """Of the row."""
    right: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """The photos declared to be of one class."""

    name: str
    labels: int
    found: float
    """The share answered so."""
    cells: list[Cell]


@dataclass(frozen=True, kw_only=True)
class Pair:
    declared: str
    answered: str
    photos: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Diagram:
    title: str
    error: float
    dots: list[charts.Dot]
    summary: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """A mistake, with its photo."""

    photo: str
    overlay: str
    """Empty where the model has no attention to show."""
    file: str
    declared: str
    answered: str
    confidence: float
    declared_probability: float


@dataclass(frozen=True, kw_only=True)
class Attribute:
    anchor: str
    name: str
    classes: tuple[str, ...]
    score: Score
    hm_interval: tuple[float, float]
    rows: list[Row]
    confused: list[Pair]
    diagrams: list[Diagram]
    calibration: str
    cards: list[Card]


@dataclass(frozen=True, kw_only=True)
class Category:
    anchor: str
    name: str
    photos: int
    groups: int
    mean_hm: float
    mean_hm_interval: tuple[float, float]
    attributes: list[Attribute]
    averages: list[str]
    """The last row of the table."""
    unlabelled: list[str]


def category(model: Model, found: Findings, anchor: str) -> Category:
    attributes = [_attribute(model, found.answers, of, f"{anchor}-a{i}") for i, of in enumerate(found.attributes)]
    _, *averages, labels = metrics.table(found.scores)[-1]
    low, high = found.mean_hm_interval
    error = sum(of.after.error for of in found.attributes) / len(found.attributes)
    *figures, baseline = averages
    return Category(
        anchor=anchor,
        name=found.answers.category.name,
        photos=len(found.answers.paths),
        groups=found.groups,
        mean_hm=metrics.mean_hm(found.scores),
        mean_hm_interval=found.mean_hm_interval,
        attributes=attributes,
        averages=[*figures, f"{low:.3f}–{high:.3f}", baseline, f"{error:.3f}", labels],
        unlabelled=[attribute.name for attribute in found.unlabelled],
    )


def _attribute(model: Model, answers: Answers, found: AttributeFindings, anchor: str) -> Attribute:
    classes = found.attribute.classes
    return Attribute(
        anchor=anchor,
        name=found.attribute.name,
        classes=classes,
        score=found.score,
        hm_interval=found.hm_interval,
        rows=_rows(found) if len(classes) <= LARGEST_MATRIX else [],
        confused=[
            Pair(declared=classes[of.declared], answered=classes[of.answered], photos=of.photos, share=of.share)
            for of in mistakes.most_confused(found.confusion_KK, PAIRS)
        ],
        diagrams=[
            *([_diagram("before calibration", found.before)] if found.before else []),
            _diagram(_after(model, found), found.after),
        ],
        calibration=_calibration(model, answers, found),
        cards=_cards(model, answers, found),
    )


def _rows(found: AttributeFindings) -> list[Row]:
    rows = []
    for declared, counts_K in enumerate(found.confusion_KK.tolist()):
        labels = sum(counts_K)
        rows.append(
            Row(
                name=found.attribute.classes[declared],
                labels=labels,
                found=counts_K[declared] / max(1, labels),
                cells=[
                    Cell(photos=photos, share=photos / max(1, labels), right=declared == answered)
                    for answered, photos in enumerate(counts_K)
                ],
            )
        )
    return rows


def _diagram(title: str, of: Calibration) -> Diagram:
    summary = "; ".join(
        f"{bin.rows} at {bin.confidence:.0%} confidence, {bin.accuracy:.0%} of them right" for bin in of.bins
    )
    return Diagram(title=title, error=of.error, dots=charts.dots(of.bins), summary=summary)


def _after(model: Model, found: AttributeFindings) -> str:
    if model.page is None:
        return "as the bundle answers"
    return "after calibration" if found.before else "not calibrated"


def _calibration(model: Model, answers: Answers, found: AttributeFindings) -> str:
    if model.page is not None and found.temperature is None:
        return "No temperature was fitted for this attribute: its confidence is what the network says of itself."
    said = (
        f"Calibration divides the logits by {found.temperature:.3f}."
        if found.temperature is not None
        else "A bundle's graph has its temperature in it: only the answers after calibration can be seen."
    )
    if answers.split != FITTED:
        return said
    said += " It was fitted to the validation photos of the training: on others, ECE tends to be higher."
    for gain in model.page.gains if model.page else ():
        if (gain.category, gain.attribute) == (answers.category.name, found.attribute.name):
            before, after = f"{gain.ece_before:.3f}", f"{gain.ece_after:.3f}"
            said += f" With each of them left out of the fit that answers it, ECE goes from {before} to {after}."
    return said


def _cards(model: Model, answers: Answers, found: AttributeFindings) -> list[Card]:
    paths = [answers.paths[mistake.row] for mistake in found.worst]
    photos = [images.decode(path) for path in paths]
    overlays = [""] * len(photos)
    if model.attention:
        fitted = [images.fit(photo_HWC, model.preprocess) for photo_HWC in photos]
        for start in range(0, len(fitted), ATTENTION_BATCH):
            maps = model.attention(np.stack(fitted[start : start + ATTENTION_BATCH]))[found.attribute.output]
            overlays[start : start + ATTENTION_BATCH] = [pictures.overlay(map_HW) for map_HW in maps]
    classes = found.attribute.classes
    return [
        Card(
            photo=pictures.jpeg(photo_HWC, PHOTO_PIXELS),
            overlay=overlay,
            file=path.name,
            declared=classes[mistake.declared],
            answered=classes[mistake.answered],
            confidence=mistake.confidence,
            declared_probability=mistake.declared_probability,
        )
        for mistake, path, photo_HWC, overlay in zip(found.worst, paths, photos, overlays, strict=True)
    ]

"""What was made becomes part of a bundle: files first, then the page that names them, in one step."""

# N photos, H height, W width, C channels, K classes

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from export import artifacts, evidence, graph
from runtime import __version__, bundle, files
from runtime.bundle import Artifact, Bundle, Category, Golden, GoldenPhoto
from runtime.errors import UserError
from runtime.locks import locked
from runtime.terminal import note
from train.config import MISSING

if TYPE_CHECKING:
    import numpy as np

    from train.checkpoint import Checkpoint

GOLDEN_PHOTOS = 8
DIGITS = 6
SCRATCH = ".build."


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder to make files in, on the bundle's own disk, gone afterwards; UserError where none can be made."""
    try:
        with locked(folder, "build"):
            for left in folder.glob(f"{SCRATCH}*"):
                shutil.rmtree(left)  # by a build that was killed
            with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as made:
                yield Path(made)
    except OSError as err:
        if err.errno is None:  # not of a file
            raise
        raise UserError(f"cannot write in {folder}: {err.strerror}\nchoose another folder with: --out DIR") from err


def tidy(folder: Path) -> None:
    """What a killed build left in a bundle to which nothing is added, gone."""
    if any(folder.glob(f"{SCRATCH}*")) or bundle.strays(folder, bundle.load(folder)):
        with scratch(folder):
            for path in bundle.strays(folder, bundle.load(folder)):
                path.unlink()


def commit(folder: Path, page: Checkpoint, photos: evidence.Photos, made: Sequence[artifacts.Made]) -> None:
    """Add what was made to the bundle in `folder`; what the same checkpoint gave before stays, else it starts anew."""
    if not made:
        return
    for result in made:
        os.replace(result.path, folder / result.artifact.file)
    bundle.save(
        folder,
        Bundle(
            slug=page.slug,
            categories=page.categories,
            preprocess=page.preprocess,
            routes=page.routes,
            provenance={
                **page.provenance,
                "checkpoint": page.weights_sha256,
                "identity": page.identity,
                "facet-edge": __version__,
            },
            golden=_golden(folder, photos),
            artifacts=(*_earlier(folder, page, [result.artifact for result in made]), *(r.artifact for r in made)),
        ),
    )


def _earlier(folder: Path, page: Checkpoint, made: Sequence[Artifact]) -> list[Artifact]:
    """Artifacts that an earlier build made of the same weights and page, and that this one did not make again."""
    if not (folder / bundle.PAGE).exists():
        _tell_of_plans(folder, made)
        return []
    try:
        before = bundle.load(folder)
    except UserError as err:
        note(f"{str(err).splitlines()[0]}: it is replaced whole")
        _tell_of_plans(folder, made)
        return []
    if before.provenance.get("identity") != page.identity:
        if _taxonomy(before.categories) != _taxonomy(page.categories):
            had = "; ".join(f"{one.name}: {', '.join(a.name for a in one.attributes)}" for one in before.categories)
            note(f"{folder} had other attributes or classes ({had}): it is replaced whole")
        return []
    again = {kind(artifact) for artifact in made}
    return [kept for kept in before.artifacts if kind(kept) not in again and _is_whole(folder, kept)]


def _tell_of_plans(folder: Path, made: Sequence[Artifact]) -> None:
    """Say which plans go with the page that knew what they were built for."""
    if left := sorted({path.name for path in folder.glob("model.*.plan")} - {artifact.file for artifact in made}):
        note(
            f"plans that no page describes any more go: {', '.join(left)}\n"
            f"build them anew with: python -m export.engine {shlex.quote(str(folder))}"
        )


def _is_whole(folder: Path, artifact: Artifact) -> bool:
    try:
        bundle.checked_file(folder, artifact.file, artifact.sha256)
    except UserError as err:
        note(f"{str(err).splitlines()[0]}: it is left out")
        return False
    return True


def kind(artifact: Artifact) -> tuple[str, ...]:
    """What a bundle holds one of: a graph of a precision, whichever engines judged it, or a plan of a library's."""
    is_graph = artifact.file.endswith(".onnx")
    return (artifact.precision, artifact.target, *(() if is_graph else artifact.engines))


def _taxonomy(categories: Sequence[Category]) -> dict[str, dict[str, tuple[str, ...]]]:
    return {category.name: {one.name: one.classes for one in category.attributes} for category in categories}


def _golden(folder: Path, photos: evidence.Photos) -> Golden:
    """Some of the gate's photos, that show as many labels as few can, with PyTorch's answers to them.

    They are stored as the graph takes them, without loss: JPEG decoders and resizers differ from machine to machine by
    a level or two, which is more than the gate allows to float32.
    """
    seen = photos.evidence
    rows = golden_rows(seen.labels_NL, photos.table.kinds_N[photos.gate_rows], GOLDEN_PHOTOS)
    named: list[GoldenPhoto] = []
    for row in rows:
        content = _png(seen.photos_NHWC[row])
        sha256 = hashlib.sha256(content).hexdigest()
        path = folder / "golden" / f"{sha256[:12]}.png"
        files.replace_file(path, content)
        named.append(GoldenPhoto(file=f"golden/{path.name}", sha256=sha256))
    return Golden(
        photos=tuple(named),
        probabilities={
            name: tuple(tuple(round(float(value), DIGITS) for value in answers_NK[row]) for row in rows)
            for name, answers_NK in seen.reference.items()
            if name != graph.FEATURES
        },
    )


def golden_rows(labels_NL: np.ndarray, kinds_N: np.ndarray, count: int) -> Sequence[int]:
    """Rows for golden photos: greedily those of a category not shown yet, and that show the most labels so."""
    seen: set[tuple[int, int]] = set()
    kinds: set[int] = set()
    chosen: list[int] = []
    left = dict.fromkeys(range(len(labels_NL)))
    while left and len(chosen) < count:
        shown = {row: {(i, int(v)) for i, v in enumerate(labels_NL[row]) if v != MISSING} for row in left}
        best = max(left, key=lambda row: (kinds_N[row] not in kinds, len(shown[row] - seen), -row))
        seen |= shown[best]
        kinds.add(kinds_N[best])
        chosen.append(best)
        del left[best]
    return chosen


def _png(image_HWC: np.ndarray) -> bytes:
    import cv2

    done, encoded = cv2.imencode(".png", image_HWC[:, :, ::-1])
    assert done, "OpenCV without PNG"
    return encoded.tobytes()

"""What networks that did not learn from a training photo say of it: out_of_fold.safetensors beside a checkpoint."""

# N photos, L attributes, K classes

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from runtime.errors import UserError
from runtime.files import refuse_pipe, replacing, sha256_of
from runtime.validation import are_shares
from train.checkpoint import Checkpoint
from train.config import MISSING

FILE = "out_of_fold.safetensors"
PAGE = "page"
# What safetensors and numpy raise for types that numpy lacks, shapes that do not fit, and pages nested without end.
_NO_ARRAYS = (ValueError, IndexError, TypeError, AttributeError, RecursionError, MemoryError)
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Labels and answers, of the training photos of one model."""

    labels_NL: np.ndarray
    """int64 class indices; MISSING where a photo has none."""
    probabilities: Mapping[str, np.ndarray]
    """By output, float32 [N, K], calibrated."""
    made_of: str
    """What `write` was told."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True, kw_only=True)
class _Page:
    """What the file says of itself."""

    version: int
    weights_sha256: str
    """Of the checkpoint that it is for."""
    asked: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Category, name and classes of every attribute, in order."""
    made_of: str


def again(folder: Path) -> str:
    """What to type where the file beside the checkpoint is not, or no longer, of use."""
    return f"make it anew with: python -m train.crossfit --data DIR --checkpoints {shlex.quote(str(folder))}"


def write(
    folder: Path, page: Checkpoint, labels_NL: np.ndarray, probabilities: Mapping[str, np.ndarray], *, made_of: str
) -> None:
    """Put it beside the checkpoint of that page, in the place of what was there.

    Args:
        labels_NL: int, MISSING where a photo has none; the page's attributes in its order.
        probabilities: by output, [N, K].
        made_of: a digest of the data and the folds.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    told = _Page(version=VERSION, weights_sha256=page.weights_sha256, asked=_asked(page), made_of=made_of)
    arrays = {f"probabilities/{index}": probabilities[a.output] for index, a in enumerate(page.attributes)}
    arrays = {name: np.ascontiguousarray(one, np.float32) for name, one in arrays.items()}
    try:
        with replacing(folder / FILE) as beside:
            save_file(
                {"labels": np.ascontiguousarray(labels_NL, np.int16), **arrays},
                beside,
                {PAGE: msgspec.json.encode(told).decode()},
            )
    except (OSError, SafetensorError) as err:
        reason = getattr(err, "strerror", None) or err
        raise UserError(f"cannot write {folder / FILE}: {reason}\nmend that, then go on with: --resume") from err


def read(folder: Path, page: Checkpoint) -> OutOfFold | None:
    """What stands beside the checkpoint in `folder`, of the categories of its page; None where nothing does, or what
    does is of other weights: those that were trained there before.

    Args:
        page: the checkpoint's, or one of the pages that it is split into.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.exists():
        return None
    try:
        refuse_pipe(path)
        with safe_open(path, framework="np") as file:
            told = msgspec.json.decode((file.metadata() or {}).get(PAGE, ""), type=_Page)
            if told.version != VERSION:
                raise ValueError(f"version {told.version}")
            if told.weights_sha256 != page.weights_sha256:
                return None
            places = [told.asked.index(one) for one in _asked(page)]
            labels_NL = file.get_tensor("labels")
            if labels_NL.dtype != np.int16:
                raise ValueError(f"labels are int16, and these {labels_NL.dtype}")
            labels_NL = labels_NL[:, places].astype(np.int64)
            known_N = (labels_NL != MISSING).any(1)
            answers = {
                attribute.output: file.get_tensor(f"probabilities/{place}")[known_N]
                for attribute, place in zip(page.attributes, places, strict=True)
            }
        labels_NL = labels_NL[known_N]
        for attribute, labels_N in zip(page.attributes, labels_NL.T, strict=True):
            answers_NK, classes = answers[attribute.output], len(attribute.classes)
            if answers_NK.shape != (len(labels_NL), classes) or answers_NK.dtype != np.float32:
                raise ValueError(f"of {attribute.name}, it has {answers_NK.dtype} {list(answers_NK.shape)}")
            if not ((labels_N >= MISSING) & (labels_N < classes)).all() or not are_shares(answers_NK):
                raise ValueError(f"of {attribute.name}, it has labels or probabilities that are none")
    except (OSError, SafetensorError, msgspec.MsgspecError, *_NO_ARRAYS) as err:
        raise UserError(
            f"{path} is not what training photos were answered out of fold: {err}\n{again(folder)}, or remove it"
        ) from None
    return OutOfFold(labels_NL=labels_NL, probabilities=answers, made_of=told.made_of, sha256=sha256_of(path))


def _asked(page: Checkpoint) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    return tuple(
        (category.name, attribute.name, tuple(attribute.classes))
        for category in page.categories
        for attribute in category.attributes
    )

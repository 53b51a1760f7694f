"""What an audit's promises are made from: what a bundle's own served network answers to validation photos, and others
like it to training photos that they did not learn from."""

# N photos, L attributes, K classes, F features

from __future__ import annotations

import lzma
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle import Bundle, checked_file, rebuild
from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-3
"""That a probability may lie above 1: of networks in half precision."""
# What numpy and zipfile raise for files that are no arrays, packed in ways that nobody here does, or huge.
_NO_ARRAYS = (
    OSError,
    ValueError,
    LookupError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
MISSING = -1
"""The label of who has none, as training has it."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Labels and answers for one attribute."""

    labels_N: np.ndarray
    """int16 class indices, none of them MISSING."""
    probabilities_NK: np.ndarray
    """float32."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A uniform sample of the validation photos, none of which trained the network; and of training photos, answered
    by networks that did not learn from them."""

    answers: Mapping[str, Answers]
    """By output; of the photos that have a label of it."""
    features_NF: np.ndarray
    """float16, pooled, of the first of the validation photos."""
    kinds_N: np.ndarray
    """int16: the index of the category of each of those."""


def read(folder: Path, bundle: Bundle) -> Validation | None:
    """What the bundle in `folder` keeps of its validation photos; None where it keeps nothing, as older ones do."""
    import numpy as np

    if not bundle.validation:
        return None
    path = checked_file(folder, bundle.validation.file, bundle.validation.sha256)
    attributes = [attribute for category in bundle.categories for attribute in category.attributes]
    try:
        # What numpy has to say of strange files is no news to who serves a bundle.
        with warnings.catch_warnings(), np.load(path, allow_pickle=False) as kept:
            warnings.simplefilter("ignore")
            labels_NL, kinds_N = _of(kept["labels"], np.int16), _of(kept["kinds"], np.int16)
            joined, features_NF = _of(kept["probabilities"], np.float32), _of(kept["features"], np.float16)
    except _NO_ARRAYS as err:
        why = str(err).partition("\n")[0]
        raise UserError(f"{path} is not what a bundle keeps of validation photos: {why}\n{rebuild(folder)}") from None
    ends = np.cumsum([len(attribute.classes) for attribute in attributes])
    if (
        joined.ndim != 2
        or labels_NL.shape != (len(joined), len(attributes))
        or joined.shape[1] != ends[-1]
        or not are_shares(joined)
        or features_NF.ndim != 2
        or not np.isfinite(features_NF).all()
        or kinds_N.shape != features_NF.shape[:1]
        or not ((kinds_N >= 0) & (kinds_N < len(bundle.categories))).all()
        or any(not -1 <= column.min(initial=-1) <= column.max(initial=-1) < len(one.classes)
               for column, one in zip(labels_NL.T, attributes, strict=True))
    ):  # fmt: skip
        raise UserError(f"{path} is of other attributes than the bundle's page\n{rebuild(folder)}")
    columns = np.split(joined, ends[:-1], axis=1)
    answers = {}
    for attribute, labels_N, probabilities_NK in zip(attributes, labels_NL.T, columns, strict=True):
        known_N = labels_N != MISSING
        answers[attribute.output] = Answers(labels_N=labels_N[known_N], probabilities_NK=probabilities_NK[known_N])
    return Validation(answers=answers, features_NF=features_NF, kinds_N=kinds_N)


def are_shares(values: np.ndarray) -> bool:
    """Whether each could be a probability."""
    return bool(((values >= 0) & (values <= 1 + ROUNDING)).all())


def _of(values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    if values.dtype != dtype:
        raise ValueError(f"{dtype.__name__} is kept, and this is {values.dtype}")
    return values


def packed(
    labels_NL: np.ndarray, probabilities: Mapping[str, np.ndarray], features_NF: np.ndarray, kinds_N: np.ndarray
) -> bytes:
    """The file's content: the same for the same arrays.

    Args:
        labels_NL: int, MISSING where a photo has none; the bundle's attributes in its order.
        probabilities: by output, in that order; [N, K].
        features_NF: of the first of the photos.
        kinds_N: int, of as many.
    """
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        labels=labels_NL.astype(np.int16),
        probabilities=np.concatenate([one.astype(np.float32) for one in probabilities.values()], axis=1),
        features=features_NF.astype(np.float16),
        kinds=kinds_N.astype(np.int16),
    )
    return buffer.getvalue()

"""Whether photos still look to a network as its validation photos did."""

# N photos kept, M new, F features

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runtime import images
from runtime.bundle import rebuild
from runtime.errors import UserError
from runtime.fleet import Fleet
from runtime.headers import PhotoError
from runtime.predictor import BATCH, Predictor
from runtime.validation import Validation

if TYPE_CHECKING:
    import numpy as np

PERMUTATIONS = 999
LEVEL = 0.05
"""Of p-values that are called a drift."""
SAMPLE = 256
"""New photos that are looked at, of each category: as many as a bundle keeps."""
LEAST = 20
"""Photos on either side; of fewer nothing is said."""


class Drift(NamedTuple):
    """How far new photos are from those kept."""

    distance: float
    """MMD², 0 for photos of one distribution, at most 2."""
    p: float
    """How often photos dealt out at random are as far apart, above 0, 1 at most."""
    photos: int

    @property
    def found(self) -> bool:
        """Whether that is evidence enough."""
        return self.p <= LEVEL


def between(kept_NF: np.ndarray, new_MF: np.ndarray, *, seed: int = 0) -> Drift:
    """The maximum mean discrepancy between two sets of features, and its p-value by permutation.

    Gretton, Borgwardt, Rasch, Schölkopf, Smola: A Kernel Two-Sample Test (JMLR 2012), with a Gaussian kernel as wide as
    the median distance, the biased estimate, and permutations dealt out by `seed`.
    """
    import numpy as np

    both_NF = np.concatenate([kept_NF, new_MF]).astype(np.float64)
    squares_N = (both_NF**2).sum(1)
    far_NN = np.maximum(squares_N[:, None] + squares_N - 2 * both_NF @ both_NF.T, 0)
    apart = far_NN[np.triu_indices_from(far_NN, 1)]
    kernel_NN = np.exp(-far_NN / (float(np.median(apart)) or 1.0))
    weights_N = np.repeat([1 / len(kept_NF), -1 / len(new_MF)], [len(kept_NF), len(new_MF)])
    rng = np.random.default_rng(seed)
    dealt_PN = np.stack([weights_N, *(rng.permutation(weights_N) for _ in range(PERMUTATIONS))])
    found_P = np.einsum("pn,pn->p", dealt_PN @ kernel_NN, dealt_PN)
    # Rounding must not make of equals a difference.
    as_far = int((found_P[1:] >= found_P[0] - 1e-12).sum())
    return Drift(float(found_P[0]), (1 + as_far) / (1 + PERMUTATIONS), len(new_MF))


def of_categories(
    fleet: Fleet,
    kept: Mapping[Predictor, Validation | None],
    answered: Iterable[tuple[Path, str, str]],
    max_pixels: int,
) -> dict[str, Drift]:
    """For each category with photos enough, a sample of them beside those that its bundle keeps.

    Args:
        fleet: open.
        answered: the photos that were, each with its category and the router that told it.
    """
    seen: dict[str, list[Path]] = {}
    for path, *names in answered:
        for name in dict.fromkeys(names):
            seen.setdefault(name, []).append(path)
    found = {}
    for name, (predictor, category) in fleet.served.items():
        validation, paths = kept[predictor], seen.get(name, [])
        if validation is None or len(paths) < LEAST:
            continue
        its_own = validation.kinds_N == predictor.bundle.categories.index(category)
        # A router sees the photos of all categories, and was validated on them.
        kept_NF = validation.features_NF[its_own] if its_own.any() else validation.features_NF
        new_MF = features(predictor, sample(paths), max_pixels)
        if len(new_MF) and new_MF.shape[1] != kept_NF.shape[1]:
            raise UserError(
                f"{predictor.folder} keeps {kept_NF.shape[1]} features of a validation photo, where its network has "
                f"{new_MF.shape[1]}\n{rebuild(predictor.folder)}"
            )
        if min(len(kept_NF), len(new_MF)) >= LEAST:
            found[name] = between(kept_NF, new_MF)
    return found


def sample(paths: Sequence[Path]) -> list[Path]:
    """SAMPLE of them at most, drawn the same each time."""
    import numpy as np

    places = np.random.default_rng(0).permutation(len(paths))[:SAMPLE]
    return [paths[place] for place in sorted(places)]


def features(predictor: Predictor, paths: Sequence[Path], max_pixels: int = images.MAX_PIXELS) -> np.ndarray:
    """Of the photos that can be read, float32 [M, F]."""
    import numpy as np

    spec, parts, pixels = predictor.bundle.preprocess, [], []
    for place, path in enumerate(paths, 1):
        with suppress(PhotoError):
            pixels.append(images.load(path, spec, max_pixels=max_pixels))
        if pixels and (len(pixels) == BATCH or place == len(paths)):
            parts.append(predictor.probabilities(np.stack(pixels))["features"])
            pixels = []
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)

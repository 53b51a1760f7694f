"""The golden photos that travel with a bundle: any machine checks any artifact by them, without torch or data."""

# N photos, H height, W width, C channels

from __future__ import annotations

from dataclasses import replace
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import fidelity, images, plans
from runtime.bundle import Artifact, Bundle, Verdict, checked_file, rebuild
from runtime.errors import UserError
from runtime.fidelity import LIMITS, Answers, Limits
from runtime.headers import PhotoError

if TYPE_CHECKING:
    import numpy as np

# How seldom an artifact whose labels agree as often as its limit asks may be refused for what chance does to a few.
FALSE_ALARM = 0.01


def check(folder: Path, bundle: Bundle, artifact: Artifact, engine: str, hint: str = "") -> Verdict:
    """What the golden photos say of one artifact on one engine; `unrun` where it cannot be tried here.

    Every file is checked against the page before it is opened: a UserError names one that was changed.
    """
    import numpy as np

    path = checked_file(folder, artifact.file, artifact.sha256)
    photos_NHWC = _photos(folder, bundle)
    if misfit := plans.misfit(artifact, engine):
        return Verdict(engine=engine, hint=hint, state="unrun", reason=misfit)
    # Six digits, as they are kept: a hundredth of the narrowest limit.
    reference = {name: np.array(rows, np.float32) for name, rows in bundle.golden.probabilities.items()}
    attributes = [attribute for category in bundle.categories for attribute in category.attributes]
    limits = _for_few(LIMITS[artifact.precision], len(photos_NHWC) * len(attributes))

    def measured(answers: Answers) -> tuple[dict[str, float], str]:
        figures, reason = fidelity.compared(answers, reference, attributes, limits)
        if figures:
            figures["golden_photos"] = float(len(photos_NHWC))
        return figures, reason

    batch = artifact.profile.max_batch if artifact.profile else 0
    return fidelity.judge(path, artifact.precision, engine, hint, photos_NHWC, measured, batch=batch)


def _photos(folder: Path, bundle: Bundle) -> np.ndarray:
    """The golden photos as the graph takes them, uint8 RGB [N, H, W, 3]."""
    import numpy as np

    fitted = []
    for photo in bundle.golden.photos:
        path = checked_file(folder, photo.file, photo.sha256)
        try:
            fitted.append(images.load(path, bundle.preprocess))
        except PhotoError as err:
            raise UserError(f"golden photo {path}: {err}\n{rebuild(folder)}") from None
    if not fitted:
        raise UserError(f"{folder} has no golden photos to check it by\n{rebuild(folder)}")
    return np.stack(fitted)


def _for_few(limits: Limits, labels: int) -> Limits:
    """The same limits, with room for what chance does to so few labels; and for one, which may hang on a tie."""
    share, changed, likely = 1 - limits.agreement, 0, limits.agreement**labels
    while likely < 1 - FALSE_ALARM:
        changed += 1
        likely += comb(labels, changed) * share**changed * limits.agreement ** (labels - changed)
    return replace(limits, agreement=(labels - max(1, changed)) / labels)

"""How near an artifact on an engine here comes to PyTorch's answers: photo by photo, and in every slot of a batch."""

# N photos, K classes

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle import Attribute, Verdict
from runtime.engines import ENGINES, EngineOptions, open_engine
from runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from runtime.engines import Engine

# Photos that are tried in each other's company.
MIXED = 4
# Batches that are tried at once.
STREAMS = 2
# In the largest batch that the gate tries every slot of; predict takes fewer by itself, and more where it is told to.
# Of large photos fewer, since what an engine holds grows with their pixels.
BATCH, BATCH_PIXELS = 16, 16 * 224 * 224

# In what an engine says when the machine has too little memory, which says nothing of the artifact.
OF_THE_MACHINE = ("out of memory", "bad_alloc", "failed to allocate")
# Below such a spread of probabilities over photos, in root mean square, there is nothing to tell them apart by.
SAME = 1e-3
FEATURES = "features"
# Of features that are missing or no numbers: JSON has no infinity.
NOT_THERE = 1e6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far an artifact of one precision may stray from PyTorch."""

    probability: float
    """Largest difference of any probability of any photo; so, offsets apart, a label can change only where PyTorch's
    own two best were within twice this."""
    agreement: float
    """Smallest share of labels that stay, over all attributes; one alone may always change, of however few."""
    nrmse: float
    """Largest root mean square of the differences, over what sets PyTorch's own answers to the photos apart: of a
    network whose answers hardly differ, as one with random weights, the limits above would pass anything. It holds for
    the pooled features as well, which nothing else looks at."""
    slot: float
    """Largest difference of a probability between a photo alone and in a mixed batch, on one engine."""


LIMITS = {
    # Float addition in another order moves a probability by 1e-6; a wrong kernel or layout moves it far more.
    "fp32": Limits(probability=1e-4, agreement=0.999, nrmse=1e-2, slot=1e-4),
    # Half keeps 11 bits: over fifty layers some 2e-3 of a logit, and rounding may change with the batch's kernel.
    "fp16": Limits(probability=1e-2, agreement=0.98, nrmse=0.1, slot=5e-3),
    # Seven bits an activation. A value on a rounding edge falls either way with the batch's kernel.
    "int8": Limits(probability=0.35, agreement=0.85, nrmse=0.5, slot=5e-2),
}

# Labels of all attributes together from which on accuracy is judged: with fewer, chance alone moves it by points.
ENOUGH_LABELS = 500

Answers = Mapping[str, "np.ndarray"]
"""Float32 [N, K] by output name."""


def hints(engine: str, precision: str) -> tuple[str, ...]:
    """The ways in which an engine is tried, the first its own: an artifact is to pass in that one."""
    if engine == "openvino":
        # It would choose bfloat16 by itself where the processor has it: float32 gives every machine the same digits,
        # and bfloat16 between int8 layers is faster, at little cost beside that of int8.
        return ("f32", "bf16") if precision == "int8" else ("f32",)
    return ("", "float") if engine == "onnxruntime" and precision == "int8" else ("",)


def judge(
    path: Path,
    precision: str,
    engine: str,
    hint: str,
    photos_NHWC: np.ndarray,
    measure: Callable[[Answers], tuple[dict[str, float], str]],
    *,
    batch: int = 0,
) -> Verdict:
    """The verdict on one artifact on one engine; `unrun` where it cannot be tried, as without its device or memory.

    Args:
        batch: the largest that will be served, every slot of which is tried; by default what predict takes.
        measure: gives the figures of the artifact's answers to the photos, and what they break, or nothing. Without
            figures there is nothing that could be compared, and what it says is why.
    """
    if not ENGINES[engine].installed():
        return Verdict(engine=engine, hint=hint, state="unrun", reason="not installed where it was built")
    try:
        with open_engine(engine, path, EngineOptions(hint=hint)) as opened:
            timed = _Timed(opened)
            # First: engines may have a way of their own for one photo, which they leave once there were several.
            alone = _alone(timed, photos_NHWC)
            answers = _run(timed, photos_NHWC)
            slots = _slots(timed, photos_NHWC, answers, alone, batch or batch_of(*photos_NHWC.shape[1:3]))
        if ENGINES[engine].suffix == ".onnx":
            # As predict serves many photos: several batches at once, each on its share of the cores.
            with open_engine(engine, path, EngineOptions(hint=hint, streams=STREAMS)) as opened:
                slots = max(slots, _at_once(opened, photos_NHWC, answers))
    except UserError as err:
        return Verdict(engine=engine, hint=hint, state="unrun", reason=str(err).splitlines()[0])
    except Exception as err:  # noqa: BLE001  every engine has errors of its own, and one graph is not the build
        said = str(err).strip().splitlines() or [type(err).__name__]
        if isinstance(err, (MemoryError, OSError)) or any(word in str(err).lower() for word in OF_THE_MACHINE):
            return Verdict(engine=engine, hint=hint, state="unrun", reason=f"could not be tried: {said[0]}")
        return Verdict(engine=engine, hint=hint, state="refused", reason=f"cannot be run: {said[0]}")
    figures, reason = measure(answers)
    limit = LIMITS[precision].slot
    if figures:
        figures = figures | {"slot_difference": slots}
    if not reason and slots > limit:
        reason = f"a photo differs by {slots:.3g} between batch slots, limit {limit:g}"
    return Verdict(
        engine=engine,
        hint=hint,
        state="refused" if reason else "passed",
        reason=reason,
        figures={name: round(value, 6) for name, value in figures.items()},
        images_per_s=round(timed.images_per_s, 2),
    )


def compared(
    answers: Answers, reference: Answers, attributes: Sequence[Attribute], limits: Limits
) -> tuple[dict[str, float], str]:
    """The figures of the answers beside the reference's, and which limit they break; none where shapes differ."""
    for attribute in attributes:
        wanted = list(reference[attribute.output].shape)
        found = list(answers[attribute.output].shape) if attribute.output in answers else "missing"
        if found != wanted:
            return {}, f"output {attribute.output!r} is {found}, expected {wanted}"
    figures = differences(answers, reference, attributes)
    if FEATURES in reference:
        figures |= _strayed(answers, reference[FEATURES])
    return figures, complaint(figures, limits)


def differences(answers: Answers, reference: Answers, attributes: Sequence[Attribute]) -> dict[str, float]:
    """How far probabilities and labels are from the reference's: over all attributes, the labels also for each.

    `nrmse`, the root mean square error normalised by the standard deviation over photos, is left out where the
    photos' own answers are as good as the same.
    """
    import numpy as np

    pairs = [(attribute, answers[attribute.output], reference[attribute.output]) for attribute in attributes]
    gaps = [finite(np.abs(found - wanted)) for _, found, wanted in pairs]
    agreeing = [labels(found, attribute) == labels(wanted, attribute) for attribute, found, wanted in pairs]
    stayed = np.concatenate(agreeing)
    figures = {
        "probability_difference": float(max(gap.max() for gap in gaps)),
        "agreement": float(np.mean(stayed)),
        "changed": float(np.sum(~stayed)),
    }
    figures |= {
        f"agreement of {attribute.output}": float(np.mean(same))
        for attribute, same in zip(attributes, agreeing, strict=True)
    }
    spread = _rms([wanted - wanted.mean(0) for _, _, wanted in pairs])
    if spread >= SAME:
        figures["nrmse"] = _rms(gaps) / spread
    return figures


def _strayed(answers: Answers, wanted_NF: np.ndarray) -> dict[str, float]:
    """How far the pooled features are from the reference's, float32 [N, F], beside what sets photos apart."""
    import numpy as np

    spread = _rms([wanted_NF - wanted_NF.mean(0)])
    if FEATURES not in answers or answers[FEATURES].shape != wanted_NF.shape:
        return {"features_nrmse": NOT_THERE}
    if not spread:
        return {}
    gaps = np.nan_to_num(answers[FEATURES] - wanted_NF, nan=NOT_THERE, posinf=NOT_THERE, neginf=NOT_THERE)
    return {"features_nrmse": min(NOT_THERE, _rms([gaps]) / spread)}


def labels(probabilities_NK: np.ndarray, attribute: Attribute) -> np.ndarray:
    """The class that is served for each photo, int64 [N]."""
    import numpy as np

    from runtime.predictor import decide

    return np.array([index for index, _ in decide(probabilities_NK, attribute.offsets)], np.int64)


def complaint(figures: Mapping[str, float], limits: Limits) -> str:
    """Which limit the differences break and by how much; empty where they keep them."""
    if figures["probability_difference"] > limits.probability:
        return f"a probability differs by {figures['probability_difference']:.3g}, limit {limits.probability:g}"
    if figures["agreement"] < limits.agreement and figures["changed"] > 1:
        return f"{figures['agreement']:.1%} of labels agree, limit {limits.agreement:.1%}"
    if figures.get("nrmse", 0.0) > limits.nrmse:
        return f"answers stray by {figures['nrmse']:.2g} of what sets photos apart, limit {limits.nrmse:g}"
    if figures.get("features_nrmse", 0.0) > limits.nrmse:
        return f"features stray by {figures['features_nrmse']:.2g} of what sets photos apart, limit {limits.nrmse:g}"
    return ""


def finite(gaps: np.ndarray) -> np.ndarray:
    """Differences, a NaN or an infinity among them as 1.0, the largest that probabilities can have.

    A NaN would compare as no difference at all, and JSON, where the figures go, knows neither.
    """
    import numpy as np

    made: np.ndarray = np.nan_to_num(gaps, nan=1.0, posinf=1.0)
    return made


def batch_of(height: int, width: int) -> int:
    """How many photos of that size to take at a time."""
    return min(BATCH, max(MIXED, BATCH_PIXELS // (height * width)))


def _rms(arrays: Sequence[np.ndarray]) -> float:
    """The root mean square of all their numbers together."""
    import numpy as np

    return float(np.sqrt(np.mean(np.concatenate([array.ravel() for array in arrays]) ** 2)))


class _Timed:
    """The engine, and how fast it was at its fastest: its first batch pays for what it makes late."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.images_per_s = 0.0

    def infer(self, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        answers = self._engine.infer(photos_NHWC)
        self.images_per_s = max(self.images_per_s, len(photos_NHWC) / (time.perf_counter() - started))
        return answers


def _run(engine: _Timed, photos_NHWC: np.ndarray) -> dict[str, np.ndarray]:
    """Every photo's answers."""
    import numpy as np

    size = batch_of(*photos_NHWC.shape[1:3])
    parts = [engine.infer(photos_NHWC[start : start + size]) for start in range(0, len(photos_NHWC), size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _mixed(photos_NHWC: np.ndarray) -> np.ndarray:
    """Rows of the photos that are tried alone and in each other's company."""
    import numpy as np

    return np.linspace(0, len(photos_NHWC) - 1, min(MIXED, len(photos_NHWC))).astype(int)


def _alone(engine: _Timed, photos_NHWC: np.ndarray) -> list[Answers]:
    return [engine.infer(photos_NHWC[row : row + 1]) for row in _mixed(photos_NHWC)]


def _slots(engine: _Timed, photos_NHWC: np.ndarray, answers: Answers, alone: Sequence[Answers], batch: int) -> float:
    """The largest difference between a photo's answers in a batch, in each slot of others, and alone."""
    import numpy as np

    rows = _mixed(photos_NHWC)
    worst = max(_gap(one, 0, answers, row) for one, row in zip(alone, rows, strict=True))
    for turn in range(len(rows)):
        order = np.roll(rows, turn)
        together = engine.infer(photos_NHWC[order])
        worst = max(worst, *(_gap(together, slot, answers, row) for slot, row in enumerate(order)))
    # Every photo in the slot behind its own, and photos once more where a batch takes more than there are.
    order = np.roll(np.arange(batch) % len(photos_NHWC), 1)
    together = engine.infer(photos_NHWC[order])
    return max(worst, *(_gap(together, slot, answers, row) for slot, row in enumerate(order)))


def _at_once(engine: Engine, photos_NHWC: np.ndarray, answers: Answers) -> float:
    """The largest difference between a photo's answers while other batches are answered too, and before."""
    import numpy as np

    orders = [np.roll(_mixed(photos_NHWC), turn) for turn in range(STREAMS)]
    with ThreadPoolExecutor(STREAMS) as callers:
        found = list(callers.map(lambda order: engine.infer(photos_NHWC[order]), orders))
    return max(
        _gap(together, slot, answers, row)
        for together, order in zip(found, orders, strict=True)
        for slot, row in enumerate(order)
    )


def _gap(some: Answers, slot: int, others: Answers, index: int) -> float:
    import numpy as np

    probabilities = [name for name in some if name != FEATURES]
    return max(float(finite(np.abs(some[name][slot] - others[name][index])).max()) for name in probabilities)

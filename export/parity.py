"""The gate: does an artifact on an engine answer as PyTorch does, on real photos, in every slot of a batch?"""

# N photos, K classes

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle import Category, Verdict
from runtime.engines import ENGINES, EngineOptions, open_engine
from runtime.errors import UserError
from train.config import MISSING

if TYPE_CHECKING:
    import numpy as np

    from runtime.engines import Engine

BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far an artifact of one precision may stray from PyTorch."""

    probability: float
    """Largest difference of any probability of any photo; so a label can change only where PyTorch's own two best
    were within twice this."""
    agreement: float
    """Smallest share of labels that stay, over all attributes."""
    slot: float
    """Largest difference of a probability between a photo alone and in a mixed batch, on one engine."""
    hm_lost: float = 0.015
    """Largest fall of the mean HM, judged where there are labels enough to measure it."""


LIMITS = {
    # Float addition in another order moves a probability by 1e-6; a wrong kernel or layout moves it far more.
    "fp32": Limits(probability=1e-4, agreement=0.999, slot=1e-4),
    # Half keeps 11 bits: over fifty layers some 2e-3 of a logit, and rounding may change with the batch's kernel.
    "fp16": Limits(probability=2e-2, agreement=0.98, slot=5e-3),
    # Seven bits an activation. A value on a rounding edge falls either way with the batch's kernel.
    "int8": Limits(probability=0.35, agreement=0.85, slot=5e-2),
}
ENOUGH_LABELS = 500


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Real photos and PyTorch's answers to them."""

    categories: tuple[Category, ...]
    photos_NHWC: np.ndarray
    labels_NL: np.ndarray
    reference: Mapping[str, np.ndarray]
    """Float32 [N, K] by output name."""


def hints(engine: str, precision: str) -> tuple[str, ...]:
    """The ways in which an engine is tried."""
    if engine == "openvino":
        # It would choose bfloat16 by itself where the processor has it: float32 gives every machine the same digits.
        return ("f32",)
    return ("", "float") if engine == "onnxruntime" and precision == "int8" else ("",)


def judge(path: Path, precision: str, engine: str, hint: str, evidence: Evidence) -> Verdict:
    """The gate's verdict on one artifact on one engine; `unrun` where the engine or its device is not here."""
    if not ENGINES[engine].installed():
        return Verdict(engine=engine, hint=hint, state="unrun", reason="not installed where it was built")
    try:
        with open_engine(engine, path, EngineOptions(hint=hint)) as opened:
            answers, images_per_s = _run(opened, evidence.photos_NHWC)
            slots = _slots(opened, evidence.photos_NHWC, answers)
    except UserError as err:
        return Verdict(engine=engine, hint=hint, state="unrun", reason=str(err).splitlines()[0])
    except Exception as err:  # noqa: BLE001  every engine has a family of errors of its own, and one graph is not the build
        said = str(err).strip().splitlines() or [type(err).__name__]
        return Verdict(engine=engine, hint=hint, state="refused", reason=f"cannot be run: {said[0]}")
    figures = measure(answers, evidence) | {"slot_difference": slots}
    reason = complaint(figures, LIMITS[precision])
    return Verdict(
        engine=engine,
        hint=hint,
        state="refused" if reason else "passed",
        reason=reason,
        figures={name: round(value, 6) for name, value in figures.items()},
        images_per_s=round(images_per_s, 2),
    )


def measure(answers: Mapping[str, np.ndarray], evidence: Evidence) -> dict[str, float]:
    """Differences from PyTorch: of probabilities, of labels, and of the mean HM where there are labels."""
    import numpy as np

    from train import metrics

    names = [attribute.output for category in evidence.categories for attribute in category.attributes]
    pairs = [(answers[name], evidence.reference[name]) for name in names]
    gaps = [_finite(np.abs(found - wanted)) for found, wanted in pairs]
    agreeing = [found.argmax(1) == wanted.argmax(1) for found, wanted in pairs]
    commonest = [0] * len(names)

    def hm(outputs: Mapping[str, np.ndarray]) -> float:
        columns = [outputs[name] for name in names]
        return metrics.mean_hm(metrics.scores(evidence.categories, columns, evidence.labels_NL, commonest))

    return {
        "probability_difference": float(max(gap.max() for gap in gaps)),
        "mean_difference": float(np.mean([gap.mean() for gap in gaps])),
        "agreement": float(np.mean(np.concatenate(agreeing))),
        "hm": hm(answers),
        "hm_lost": hm(evidence.reference) - hm(answers),
        "labels": float((evidence.labels_NL != MISSING).sum()),
    }


def complaint(figures: Mapping[str, float], limits: Limits) -> str:
    """Which limit the figures break and by how much; empty where they keep them all."""
    if figures["probability_difference"] > limits.probability:
        return f"a probability differs by {figures['probability_difference']:.3g}, limit {limits.probability:g}"
    if figures["agreement"] < limits.agreement:
        return f"{figures['agreement']:.1%} of labels agree, limit {limits.agreement:.1%}"
    if figures["slot_difference"] > limits.slot:
        return f"a photo differs by {figures['slot_difference']:.3g} between batch slots, limit {limits.slot:g}"
    if figures["labels"] >= ENOUGH_LABELS and figures["hm_lost"] > limits.hm_lost:
        return f"the mean HM falls by {100 * figures['hm_lost']:.2f} points, limit {100 * limits.hm_lost:g}"
    return ""


def _run(engine: Engine, photos_NHWC: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """Every photo's answers, and images a second of the fastest batch."""
    import numpy as np

    parts, fastest = [], 0.0
    for start in range(0, len(photos_NHWC), BATCH):
        batch = photos_NHWC[start : start + BATCH]
        started = time.perf_counter()
        parts.append(engine.infer(batch))
        fastest = max(fastest, len(batch) / (time.perf_counter() - started))
    return {name: np.concatenate([part[name] for part in parts]) for name in engine.outputs}, fastest


def _slots(engine: Engine, photos_NHWC: np.ndarray, answers: Mapping[str, np.ndarray]) -> float:
    """The largest difference between a photo's answers in a batch, in each slot, and alone."""
    import numpy as np

    count = min(4, len(photos_NHWC))
    chosen = np.linspace(0, len(photos_NHWC) - 1, count).astype(int)
    worst = 0.0
    for turn in range(count):
        order = np.roll(chosen, turn)
        together = engine.infer(photos_NHWC[order])
        for slot, index in enumerate(order):
            worst = max(worst, _gap(together, slot, answers, index))
    for index in chosen:
        worst = max(worst, _gap(engine.infer(photos_NHWC[index : index + 1]), 0, answers, index))
    return worst


def _gap(some: Mapping[str, np.ndarray], slot: int, others: Mapping[str, np.ndarray], index: int) -> float:
    import numpy as np

    probabilities = [name for name in some if name != "features"]
    return max(float(_finite(np.abs(some[name][slot] - others[name][index])).max()) for name in probabilities)


def _finite(gaps: np.ndarray) -> np.ndarray:
    """Differences, a NaN or an infinity among them as 1.0, the largest that probabilities can have.

    A NaN would compare as no difference at all, and JSON, where the figures go, knows neither.
    """
    import numpy as np

    finite: np.ndarray = np.nan_to_num(gaps, nan=1.0, posinf=1.0)
    return finite


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

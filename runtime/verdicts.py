"""A verdict on every cell of a listing, by what validation photos allow to be promised."""

# N validation photos, K classes

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from runtime import promise
from runtime.bundle import Attribute, Category
from runtime.cells import Cell
from runtime.confusion import Confusion
from runtime.predictor import decide
from runtime.validation import Answers, Validation

if TYPE_CHECKING:
    import numpy as np

Verdict = Literal["agrees", "contradicts", "fills", "unsure", "unknown value", "error"]
LEAST_LABELS = 600
"""Of a class, else of the rest of its attribute, to be promised for by itself; what has fewer is promised for together
with the like of its category. Where a twentieth of a listing's values contradict, 90 % of them are shown to be wrong by
600 labels none of which is as odd."""


@dataclass(kw_only=True)
class Stratum:
    """What a promise is made for: a class, an attribute, or several that are too small by themselves."""

    names: list[str] = field(default_factory=list)
    odd: list[np.ndarray] = field(default_factory=list)
    """How improbable the labels of validation photos are, to the network and by its confusions: 0-1."""
    confidences: list[np.ndarray] = field(default_factory=list)
    right: list[np.ndarray] = field(default_factory=list)
    """bool: whether the predictions are the labels."""
    declared: array[float] = field(default_factory=lambda: array("d"))
    """How improbable what the listing declares is, as `odd`."""

    @property
    def labels(self) -> int:
        """How many validation labels there are."""
        return sum(map(len, self.odd))

    def add(self, odd_N: np.ndarray, confidences_N: np.ndarray, right_N: np.ndarray) -> None:
        self.odd.append(odd_N)
        self.confidences.append(confidences_N)
        self.right.append(right_N)


class Judged(NamedTuple):
    """A verdict, and what it is worth to look."""

    verdict: Verdict
    worth: float
    """The chance that a look mends the cell, 0-1."""


class Promise:
    """What may be said within one stratum at the precision asked for, once the whole listing is known."""

    def __init__(self, stratum: Stratum, precision: float) -> None:
        import numpy as np

        nothing = np.zeros(0)
        self.stratum = stratum
        null_N = np.concatenate([nothing, *stratum.odd])
        confidences_N = np.concatenate([nothing, *stratum.confidences])
        right_N = np.concatenate([nothing.astype(bool), *stratum.right])
        declared_M = np.frombuffer(stratum.declared) if stratum.declared else nothing
        self.cut = promise.cut(null_N, declared_M, precision)
        self.sure_from = promise.confident_from(confidences_N, right_N, precision)
        p_M = promise.p_values(null_N, declared_M)
        self.wrong = len(declared_M) * (1 - promise.share_right(p_M))
        """How many of the declared values are, as far as can be told."""
        self._odd_M = np.sort(declared_M)
        self._likely_M = self._chances(null_N) if len(null_N) else self._odd_M

    def chance(self, odd: float) -> float:
        """The share of wrong ones among declared values as odd as that."""
        import numpy as np

        at = min(int(np.searchsorted(self._odd_M, odd, side="left")), len(self._odd_M) - 1)
        return float(self._likely_M[at])

    def _chances(self, null_N: np.ndarray) -> np.ndarray:
        """For each declared value, the least odd first: one minus its q-value (Storey 2002)."""
        import numpy as np

        odd_M = self._odd_M[::-1]
        ranks_M = np.arange(1, len(odd_M) + 1)
        right = len(odd_M) - self.wrong
        false_M = promise.p_values(null_N, odd_M) * right / ranks_M
        q_M = np.minimum.accumulate(np.minimum(false_M, 1.0)[::-1])
        chances_M: np.ndarray = 1 - q_M
        return chances_M


class Verdicts:
    """Judges the cells of a listing once it has seen them all: what is odd hangs on the others, too."""

    def __init__(self) -> None:
        self.strata: dict[tuple[str, str, str], Stratum] = {}
        """By category, attribute and class; several share one."""
        self.promises: dict[tuple[str, str, str], Promise] = {}
        """The same; empty until they are made."""
        self._confusions: dict[tuple[str, str], tuple[Sequence[str], Confusion]] = {}

    def learn(self, name: str, category: Category, validation: Validation | None) -> None:
        """Take what validation photos tell of the category, which the listing calls `name`."""
        left = Stratum()
        for attribute in category.attributes:
            if validation is None:
                self.strata |= {(name, attribute.name, label): left for label in attribute.classes}
                left.names.append(attribute.name)
            else:
                self._learn(name, attribute, validation.answers[attribute.output], left)

    def _learn(self, name: str, attribute: Attribute, answers: Answers, left: Stratum) -> None:
        """Of one attribute, whose classes have strata of their own, or one together, or are `left` with other small
        ones."""
        import numpy as np

        keys = [(name, attribute.name, label) for label in attribute.classes]
        labels_N, probabilities_NK = answers.labels_N, answers.probabilities_NK
        decided = decide(probabilities_NK, attribute.offsets)
        predicted_N = np.array([index for index, _ in decided], np.int64)
        confidences_N = np.array([confidence for _, confidence in decided])
        confusion = Confusion(predicted_N, labels_N, len(keys))
        self._confusions[name, attribute.name] = attribute.classes, confusion
        probabilities_N = probabilities_NK[np.arange(len(labels_N)), labels_N].astype(float)
        odd_N = 1 - confusion.of_validation(probabilities_N, predicted_N, labels_N)
        right_N = predicted_N == labels_N
        counts_K = np.bincount(labels_N, minlength=len(keys))
        own_K = counts_K >= LEAST_LABELS
        # What is left must do for itself: a rare class beside a common one is judged with it.
        if 0 < counts_K[~own_K].sum() < LEAST_LABELS:
            own_K[:] = False
        for index in np.flatnonzero(own_K):
            stratum = self.strata[keys[index]] = Stratum(names=[f"{attribute.name} {attribute.classes[index]}"])
            of_prediction_N = predicted_N == index
            stratum.add(odd_N[labels_N == index], confidences_N[of_prediction_N], right_N[of_prediction_N])
        of_label_N, of_prediction_N = ~own_K[labels_N], ~own_K[predicted_N]
        # Classes of which no validation photo is: nothing can be promised of them, nor is any the worse for it.
        alone = of_label_N.sum() >= LEAST_LABELS or not of_label_N.any()
        small = Stratum() if alone else left
        small.names.append(attribute.name)
        small.add(odd_N[of_label_N], confidences_N[of_prediction_N], right_N[of_prediction_N])
        self.strata |= {key: small for key, own in zip(keys, own_K, strict=True) if not own}

    def see(self, cells: Iterable[Cell]) -> None:
        """Let the strata know what the listing declares."""
        for cell in cells:
            if cell.meant:
                self.strata[cell.category, cell.attribute, cell.meant].declared.append(self.odd(cell))

    def promise(self, precision: float) -> None:
        """Settle what may be said at that precision; the whole listing must have been seen."""
        made = {id(one): Promise(one, precision) for one in {id(one): one for one in self.strata.values()}.values()}
        self.promises = {key: made[id(one)] for key, one in self.strata.items()}

    def judge(self, cell: Cell) -> Judged:
        """The verdict on a cell: what is declared is judged among the like of it, and so is what is predicted."""
        sure_from = self.promises[cell.category, cell.attribute, cell.predicted].sure_from
        sure = sure_from is not None and cell.confidence >= sure_from
        if not cell.declared:
            return Judged("fills" if sure else "unsure", cell.confidence)
        if not cell.meant:
            return Judged("unknown value", 1.0)
        if cell.meant == cell.predicted:
            return Judged("agrees", 0.0)
        promise, odd = self.promises[cell.category, cell.attribute, cell.meant], self.odd(cell)
        # A photo of which the network knows only what it is not is more often strange than wrongly declared.
        contradicts = promise.cut is not None and odd >= promise.cut.at and sure
        return Judged("contradicts" if contradicts else "unsure", promise.chance(odd))

    def odd(self, cell: Cell) -> float:
        """How improbable what is declared is: 0-1."""
        known = self._confusions.get((cell.category, cell.attribute))
        if known is None:
            return 1 - cell.declared_confidence
        classes, confusion = known
        declared = [classes.index(label) for label in (cell.meant, *cell.also)]
        return 1 - confusion.tempered(cell.declared_confidence, classes.index(cell.predicted), declared)

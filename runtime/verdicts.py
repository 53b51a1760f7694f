"""A verdict on every cell of a listing, by what labelled photos allow to be promised."""

# N labelled photos, K classes

from __future__ import annotations

import math
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
class Values:
    """Of labelled photos or of a listing, each beside what the network predicts."""

    odd: array[float] = field(default_factory=lambda: array("d"))
    """How improbable each is, to the network and by its confusions: 0-1."""
    predicted: array[int] = field(default_factory=lambda: array("l"))
    """The place of the predicted class among all that are judged; -1 where that is the value itself."""
    confidences: array[float] = field(default_factory=lambda: array("d"))
    """Of the prediction."""

    def __len__(self) -> int:
        return len(self.odd)

    def add(self, odd: float, predicted: int, confidence: float) -> None:
        self.odd.append(odd)
        self.predicted.append(predicted)
        self.confidences.append(confidence)

    def contrary(self, sure_from_K: np.ndarray) -> np.ndarray:
        """How odd each is of which another class is surely predicted, and 0 of the others: float64 [N].

        Args:
            sure_from_K: by place, the least confidence that is enough; infinite where none is.
        """
        import numpy as np

        enough_N = np.append(sure_from_K, math.inf)[np.array(self.predicted, np.int64)]
        contrary_N: np.ndarray = np.where(np.array(self.confidences) >= enough_N, np.array(self.odd), 0.0)
        return contrary_N


@dataclass(kw_only=True)
class Stratum:
    """What a promise is made for: a class, an attribute, or several that are too small by themselves."""

    names: list[str] = field(default_factory=list)
    labels: Values = field(default_factory=Values)
    """Of labelled photos."""
    declared: Values = field(default_factory=Values)
    """Of the listing."""
    confidences: array[float] = field(default_factory=lambda: array("d"))
    """Of the predictions of its classes for labelled photos, with a label or another."""
    right: array[int] = field(default_factory=lambda: array("b"))
    """1 where such a prediction is the label."""

    def sure_from(self, precision: float) -> float | None:
        """The least confidence from which its predictions are right as often."""
        import numpy as np

        return promise.confident_from(np.array(self.confidences), np.array(self.right, bool), precision)


class Judged(NamedTuple):
    """A verdict, and what it is worth to look."""

    verdict: Verdict
    worth: float
    """The chance that a look mends the cell, 0-1."""


class Promise:
    """What may be said within one stratum at the precision asked for, once the whole listing is known.

    Args:
        sure_from: the least confidence of its own predictions that is enough; None where none is.
        sure_from_K: the same of every class, by place; infinite where none is.
    """

    def __init__(self, stratum: Stratum, precision: float, sure_from: float | None, sure_from_K: np.ndarray) -> None:
        import numpy as np

        self.stratum, self.sure_from = stratum, sure_from
        # What is improbable while nothing else is sure is a strange photo more often than a wrong value.
        labels, declared = stratum.labels, stratum.declared
        self.cut = promise.cut(labels.contrary(sure_from_K), declared.contrary(sure_from_K), precision)
        null_N, self._odd_M = np.array(labels.odd), np.sort(np.array(declared.odd))
        p_M = promise.p_values(null_N, self._odd_M)
        self.wrong = len(declared) * (1 - promise.share_right(p_M))
        """How many of the declared values are, as far as can be told."""
        self._likely_M = self._chances(null_N) if len(null_N) else self._odd_M

    def chance(self, odd: float) -> float:
        """The share of wrong ones among declared values that are as odd or odder."""
        import numpy as np

        at = min(int(np.searchsorted(self._odd_M, odd, side="left")), len(self._odd_M) - 1)
        return float(self._likely_M[at])

    def _chances(self, null_N: np.ndarray) -> np.ndarray:
        """For each declared value, the least odd first: one minus its q-value (Storey 2002)."""
        import numpy as np

        odd_M = self._odd_M[::-1]
        ranks_M, tests = np.arange(1, len(odd_M) + 1), max(len(odd_M), promise.LEAST_CELLS)
        right = tests * (1 - self.wrong / max(len(odd_M), 1))
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
        self._places: dict[tuple[str, str, str], int] = {}
        """Of each class among all that are judged."""

    def learn(self, name: str, category: Category, validation: Validation | None) -> None:
        """Take what labelled photos tell of the category, which the listing calls `name`."""
        left = Stratum()
        for attribute in category.attributes:
            keys = [(name, attribute.name, label) for label in attribute.classes]
            self._places |= {key: len(self._places) + index for index, key in enumerate(keys)}
            if validation is None:
                self.strata |= dict.fromkeys(keys, left)
                left.names.append(attribute.name)
            else:
                self._learn(keys, attribute, validation.answers[attribute.output], left)

    def _learn(
        self, keys: Sequence[tuple[str, str, str]], attribute: Attribute, answers: Answers, left: Stratum
    ) -> None:
        """Of one attribute: classes with labels enough have a stratum each, the rest one together, or with what is
        left of other attributes."""
        import numpy as np

        labels_N, probabilities_NK = answers.labels_N, answers.probabilities_NK
        decided = decide(probabilities_NK, attribute.offsets)
        predicted_N = np.array([index for index, _ in decided], np.int64)
        confusion = Confusion(predicted_N, labels_N, len(keys))
        self._confusions[keys[0][:2]] = attribute.classes, confusion
        probabilities_N = probabilities_NK[np.arange(len(labels_N)), labels_N].astype(float)
        odd_N = 1 - confusion.of_validation(probabilities_N, predicted_N, labels_N)
        counts_K = np.bincount(labels_N, minlength=len(keys))
        own_K = counts_K >= LEAST_LABELS
        # A class that is left over needs as many labels, and so takes those with labels enough along.
        if 0 < counts_K[~own_K].sum() < LEAST_LABELS:
            own_K[:] = False
        # Classes of which no labelled photo is: nothing can be promised of them, nor is any the worse for it.
        others = counts_K[~own_K].sum()
        small = left if 0 < others < LEAST_LABELS else Stratum()
        small.names.append(attribute.name)
        for key, own in zip(keys, own_K, strict=True):
            self.strata[key] = Stratum(names=[f"{attribute.name} {key[2]}"]) if own else small
        for label, (index, confidence), odd in zip(labels_N.tolist(), decided, odd_N.tolist(), strict=True):
            place = -1 if index == label else self._places[keys[index]]
            self.strata[keys[label]].labels.add(odd, place, confidence)
            predicted = self.strata[keys[index]]
            predicted.confidences.append(confidence)
            predicted.right.append(index == label)

    def see(self, cells: Iterable[Cell]) -> None:
        """Let the strata know what the listing declares."""
        for cell in cells:
            if cell.meant:
                agrees = cell.meant == cell.predicted
                place = -1 if agrees else self._places[cell.category, cell.attribute, cell.predicted]
                stratum = self.strata[cell.category, cell.attribute, cell.meant]
                stratum.declared.add(self.odd(cell), place, cell.confidence)

    def promise(self, precision: float) -> None:
        """Settle what may be said at that precision; the whole listing must have been seen."""
        import numpy as np

        each = {id(stratum): stratum for stratum in self.strata.values()}
        sure = {identity: stratum.sure_from(precision) for identity, stratum in each.items()}
        enough = [sure[id(self.strata[key])] for key in self._places]
        sure_from_K = np.array([math.inf if one is None else one for one in enough])
        made = {key: Promise(stratum, precision, sure[key], sure_from_K) for key, stratum in each.items()}
        self.promises = {key: made[id(stratum)] for key, stratum in self.strata.items()}

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

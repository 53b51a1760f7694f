"""What an audit found of each attribute, in numbers, and what it could not promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from runtime.cells import Cell
from runtime.drift import Drift
from runtime.promise import fewest_findings, labels_needed
from runtime.spreadsheet import plain
from runtime.terminal import count, print_table
from runtime.verdicts import Judged, Promise, Verdict

COLUMNS = (
    "category",
    "attribute",
    "declared",
    "agrees",
    "contradicts",
    "false_at_most",
    "unsure",
    "unknown_value",
    "empty",
    "fills",
    "errors_left",
    "minutes",
    "drift_p",
)
LOOK_S = 4.0
"""That a look takes: a photo, two words, a key."""
# Of columns that are not judged; and of their headers.
NAMED, LONGEST = 10, 40
COMMON_ERRORS = 0.1
"""The share of wrong values in a listing that a promise should do for."""


@dataclass(kw_only=True)
class Sums:
    """Of one attribute."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    empty: int = 0
    wrong: float = 0.0
    """How many of those that contradict are expected to be wrong."""


class Summary:
    """The sums of a listing, as its cells are judged."""

    def __init__(
        self,
        promises: Mapping[tuple[str, str, str], Promise],
        precision: float,
        drifts: Mapping[str, Drift],
    ) -> None:
        self.photos = self.failed = 0
        self.unasked: Counter[str] = Counter()
        """The headers of columns that say something of a photo, but not of an attribute of its category."""
        self.failure = ""
        """The first photo that was not answered, and why."""
        self.sums: dict[tuple[str, str], Sums] = {}
        self._precision = precision
        self._drifts = drifts
        self._promises: dict[tuple[str, str], dict[int, Promise]] = {}
        for (category, attribute, _), promise in promises.items():
            self._promises.setdefault((category, attribute), {})[id(promise)] = promise

    def add(self, cell: Cell, judged: Judged) -> None:
        """One more."""
        sums = self.sums.setdefault((cell.category, cell.attribute), Sums())
        sums.verdicts[judged.verdict] += 1
        sums.empty += not cell.declared
        sums.wrong += judged.worth if judged.verdict == "contradicts" else 0.0

    def rows(self) -> Iterator[list[str]]:
        """A row for each attribute, under COLUMNS."""
        for key, sums in sorted(self.sums.items()):
            verdicts = sums.verdicts
            contradicts, cells = verdicts["contradicts"], verdicts.total()
            false = sum(promise.cut.false for promise in self._promises[key].values() if promise.cut)
            yield [
                *map(plain, key),
                str(cells - sums.empty),
                str(verdicts["agrees"]),
                str(contradicts),
                str(min(contradicts, false)),
                str(verdicts["unsure"]),
                str(verdicts["unknown value"]),
                str(sums.empty),
                str(verdicts["fills"]),
                f"{self._left(key):.1f}",
                f"{(cells - verdicts['agrees']) * LOOK_S / 60:.1f}",
                f"{self._drifts[key[0]].p:.3f}" if key[0] in self._drifts else "",
            ]

    def _left(self, key: tuple[str, str]) -> float:
        """How many wrong values are expected among those that do not contradict: its part of what its strata have."""
        promises, sums = self._promises[key].values(), self.sums[key]
        together = sum(len(promise.stratum.declared) for promise in promises)
        known = sums.verdicts.total() - sums.empty - sums.verdicts["unknown value"]
        wrong = sum(promise.wrong for promise in promises) * known / max(together, 1)
        # No more than may be: those that neither agree nor contradict.
        open_ = known - sums.verdicts["agrees"] - sums.verdicts["contradicts"]
        return min(max(0.0, wrong - sums.wrong), open_)

    def unpromised(self) -> Iterator[str]:
        """Lines that say where the labelled photos are too few, or too often answered wrongly."""
        told = set()
        for key in sorted(self.sums):
            for identity, promise in self._promises[key].items():
                if identity in told:
                    continue
                told.add(identity)
                if not promise.stratum.labels and not promise.stratum.declared:
                    continue  # of classes that nobody declared here
                if lacking := self._lacking(promise):
                    names, labels = ", ".join(promise.stratum.names), len(promise.stratum.labels)
                    yield f"{key[0]}, {names}: unsure at {self._precision:g}: {labels} labels are {lacking}"

    def not_judged(self) -> Iterator[str]:
        """A line that names what the listing has beside attributes of the photos' categories."""
        if self.unasked:
            named = list(self.unasked.items())[:NAMED]
            columns = [
                f"{plain(header)[:LONGEST] or 'no header'} ({count(number, 'value')})" for header, number in named
            ]
            columns += [f"and {len(self.unasked) - NAMED} more"] if len(self.unasked) > NAMED else []
            yield f"not judged, being no attribute of the photo's category: {', '.join(columns)}"

    def drifted(self) -> Iterator[str]:
        """Lines that say whose photos are not like those that the promises rest on."""
        for name, drift in self._drifts.items():
            if drift.found:
                far = f"MMD² {drift.distance:.3f}, p = {drift.p:.3f}, {drift.photos} of them"
                yield (
                    f"{name}: the photos look otherwise than those of validation ({far}): what is promised may not "
                    "hold; train anew, with photos like them"
                )

    def _lacking(self, promise: Promise) -> str:
        needed = labels_needed(COMMON_ERRORS * (1 - self._precision))
        lacks = []
        if len(promise.stratum.labels) < needed:
            lacks.append(f"too few to call a value wrong ({needed} are needed where a tenth of a listing is wrong)")
        elif promise.cut is None and any(place >= 0 for place in promise.stratum.declared.predicted):
            fewest = fewest_findings(len(promise.stratum.labels), len(promise.stratum.declared), self._precision)
            few = f"too few to call fewer than {fewest} values wrong, or " if fewest > 1 else ""
            lacks.append(f"{few}too often as odd as what is declared")
        if promise.sure_from is None:
            lacks.append("too few, or too few answered rightly, to fill an empty cell")
        return "; ".join(lacks)

    def show(self) -> None:
        """The sums on the terminal."""
        rows = []
        for row in self.rows():
            cells = dict(zip(COLUMNS, row, strict=True))
            false = cells.pop("false_at_most")
            if cells["contradicts"] != "0":
                cells["contradicts"] += f" ({false} false at most)"
            rows.append(tuple(cells.values()))
        names = [name.replace("_", " ") for name in COLUMNS if name != "false_at_most"]
        print_table("", names, rows, below=[*self.not_judged(), *self.unpromised(), *self.drifted()])

"""The sums of an audit add up, and what could not be promised is said once."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.cells import Cell
from runtime.summary import COLUMNS, Summary
from runtime.verdicts import Judged, Promise, Stratum, Verdict


def cell(attribute: str = "colour", declared: str = "red") -> Cell:
    return Cell("Shirt", attribute, 1, declared, declared, "blue", "blue", 0.9, 0.1)


def summary(labels: int, *, right: bool = True, odd: int = 0, precision: float = 0.9) -> Summary:
    """Of two attributes that are promised for together; so many labels are as odd as what is wrong."""
    stratum = Stratum(names=["colour", "neck"])
    for value in np.append(np.ones(odd), np.linspace(0, 0.5, labels - odd)):
        stratum.labels.add(value, 0 if value == 1 else -1, 0.95)
    stratum.confidences.extend([0.95] * labels)
    stratum.right.extend([right] * labels)
    # Ten of each hundred are odder than any other label.
    for value in [*np.ones(10), *np.linspace(0, 0.5, 90)]:
        stratum.declared.add(value, 0 if value == 1 else -1, 0.95)
    promise = Promise(stratum, precision, stratum.sure_from(precision), np.array([0.9]))
    return Summary(
        {("Shirt", name, label): promise for name in ("colour", "neck") for label in ("red", "blue")}, precision, {}
    )


def rows(found: Summary) -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in found.rows()]


def test_verdicts_are_counted_by_attribute() -> None:
    found = summary(1000)
    verdicts: list[tuple[Verdict, str]] = [("agrees", "red")] * 5 + [("contradicts", "red")] * 2 + [("unsure", "red")]
    verdicts += [("fills", ""), ("fills", ""), ("unsure", ""), ("unknown value", "purple")]
    for verdict, declared in verdicts:
        found.add(cell(declared=declared), Judged(verdict, 0.9))
    found.add(cell("neck"), Judged("agrees", 0.0))
    colour, neck = rows(found)
    names = ("declared", "agrees", "contradicts", "unsure", "unknown_value", "empty", "fills")
    assert [colour[name] for name in names] == ["9", "5", "2", "2", "1", "3", "2"]
    assert colour["minutes"] == f"{7 * 4 / 60:.1f}"
    assert (neck["declared"], neck["minutes"]) == ("1", "0.0")


def test_errors_that_are_left_are_those_expected_without_those_found() -> None:
    found = summary(1000)
    for _ in range(10):
        found.add(cell(), Judged("contradicts", 1.0))
    for _ in range(90):
        found.add(cell(), Judged("agrees", 0.0))
    (colour,) = rows(found)
    assert (colour["contradicts"], float(colour["errors_left"])) == ("10", pytest.approx(0, abs=1))
    assert int(colour["false_at_most"]) <= 2


@pytest.mark.parametrize(
    ("labels", "right", "odd", "told"),
    [
        (1000, True, 0, []),
        (298, True, 0, ["too few to call a value wrong (299 are needed where a tenth of a listing is wrong)"]),
        (1000, False, 0, ["too few, or too few answered rightly, to fill an empty cell"]),
        (5000, True, 100, ["too few to call fewer than 3 values wrong, or too often as odd as what is declared"]),
    ],
)
def test_what_cannot_be_promised_is_told_once(labels: int, right: bool, odd: int, told: list[str]) -> None:
    found = summary(labels, right=right, odd=odd)
    for attribute in ("colour", "neck"):
        found.add(cell(attribute), Judged("agrees", 0.0))
    assert list(found.unpromised()) == [
        f"Shirt, colour, neck: unsure at 0.9: {labels} labels are {lacks}" for lacks in told
    ]

"""Which photos calibrate and judge."""

# N photos, L attributes

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.evidence import covering
from runtime.bundle import Attribute, Category
from train.config import MISSING
from train.table import Table


def table(labels_NL: np.ndarray, *, val: int = 0) -> Table:
    """All rows train but the last `val`."""
    rows = len(labels_NL)
    classes = tuple("abcdefghijklmnopqrst"[: labels_NL.max() + 1])
    names = [f"attribute {index}" for index in range(labels_NL.shape[1])]
    return Table(
        categories=(
            Category(
                name="Cap", attributes=tuple(Attribute(name=name, classes=classes, output=name) for name in names)
            ),
        ),
        routes=None,
        ids=tuple(map(str, range(rows))),
        paths=tuple(Path(f"{index}.jpg") for index in range(rows)),
        labels_NL=labels_NL,
        kinds_N=np.zeros(rows, np.int64),
        groups=np.arange(rows),
        splits=np.array(["train"] * (rows - val) + ["val"] * val, object),
        targets=(),
        absent=(),
    )


def test_every_class_that_so_many_can_show_is_shown_however_rare() -> None:
    labels_NL = np.zeros((1000, 2), np.int64)
    labels_NL[500:, 0] = 1
    labels_NL[[13, 700], 1] = [1, 2]
    chosen = covering(table(labels_NL), "train", 8)
    assert len(chosen) == len(set(chosen)) == 8
    assert {13, 700} <= set(chosen.tolist())
    # The two common classes of the first attribute have their turns too.
    assert len(set(labels_NL[chosen, 0])) == 2


def test_the_rows_are_of_the_split_in_order_and_spread_over_it() -> None:
    labels_NL = np.zeros((300, 1), np.int64)
    chosen = covering(table(labels_NL, val=100), "train", 7)
    assert chosen.tolist() == sorted(chosen)
    assert chosen.max() < 200
    assert np.diff([0, *chosen, 200]).max() < 80


@pytest.mark.parametrize(("count", "found"), [(3, 3), (10, 10), (50, 10)])
def test_there_are_as_many_as_asked_for_or_as_there_are(count: int, found: int) -> None:
    labels_NL = np.array([[index % 3, MISSING if index % 2 else 0] for index in range(10)])
    assert len(covering(table(labels_NL), "train", count)) == found

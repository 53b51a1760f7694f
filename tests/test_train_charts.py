"""Charts: points where their values belong, whatever a history holds."""

from __future__ import annotations

import math

import pytest

from train import charts
from train.curves import Epoch
from train.metrics import Score
from train.reliability import Bin


def epoch(phase: int, number: int, *, hm: float = 0.5, loss: float = 1.0, mmd: float = 0.0) -> Epoch:
    score = Score(
        category="Cap",
        attribute="colour",
        loss=loss / 2,
        accuracy=hm,
        weighted_f1=hm,
        micro_f1=hm,
        macro_f1=hm,
        hm=hm,
        baseline_hm=0.2,
        labels=6,
    )
    return Epoch(phase=phase, epoch=number, steps=3 * number, seconds=1, loss=loss, mmd=mmd, rate=0.01, scores=(score,))


def test_each_quantity_has_a_line_in_each_phase_that_has_it() -> None:
    history = [*(epoch(1, n, hm=n / 10, mmd=0.1) for n in (1, 2, 3)), *(epoch(2, n) for n in (0, 1, 2))]
    loss, mmd, hm = charts.learning_curves(history)
    assert [(line.name, len(line.points)) for line in loss.lines] == [
        ("training", 3),
        # Phase 2's start was evaluated, but no step had been taken.
        ("training", 2),
        ("validation", 3),
        ("validation", 3),
    ]
    assert [(line.name, len(line.points)) for line in mmd.lines] == [("training against target photos", 3)]
    assert [len(line.points) for line in hm.lines] == [3, 3]
    assert [name for *_, name in hm.phases] == ["phase 1", "phase 2"]
    # Phase 2 begins where phase 1 ended.
    assert hm.phases[0][1] == hm.phases[1][0]
    assert hm.best is not None
    assert hm.best[1] == "0.500"


def test_more_is_higher_and_later_is_further_right_within_the_drawing() -> None:
    *_, hm = charts.learning_curves([epoch(1, n, hm=n / 10) for n in range(1, 8)])
    (line,) = hm.lines
    assert [point.x for point in line.points] == sorted(point.x for point in line.points)
    assert [point.y for point in line.points] == sorted((point.y for point in line.points), reverse=True)
    assert all(charts.LEFT <= point.x <= charts.WIDTH - charts.RIGHT for point in line.points)
    assert all(charts.TOP <= point.y <= charts.HEIGHT - charts.BOTTOM for point in line.points)


def test_no_history_makes_no_chart() -> None:
    assert charts.learning_curves([]) == []


@pytest.mark.parametrize("values", [[0.5], [0.0], [1.0, 1.0], [1e-9, 2e-9], [3.0, 4e6], [math.nan, 0.3], [math.inf]])
def test_any_value_makes_a_chart_or_none(values: list[float]) -> None:
    for chart in charts.learning_curves([epoch(1, n + 1, loss=value) for n, value in enumerate(values)]):
        numbers = [number for line in chart.lines for point in line.points for number in point]
        assert all(math.isfinite(number) for number in numbers)
        assert 2 <= len(chart.up) <= 8
        assert len({tick.label for tick in chart.up}) == len(chart.up)


@pytest.mark.parametrize("epochs", [1, 2, 13, 480])
def test_epochs_are_ticked_in_whole_numbers_and_not_too_often(epochs: int) -> None:
    *_, hm = charts.learning_curves([epoch(1, n) for n in range(1, epochs + 1)])
    assert 1 <= len(hm.across) <= 9
    assert all(tick.label.isdecimal() for tick in hm.across)


def test_a_dot_lies_on_the_diagonal_where_confidence_is_right_and_its_area_is_its_rows() -> None:
    true, over = charts.dots([Bin(40, 0.5, 0.5), Bin(10, 1.0, 0.25)])
    assert (true.x, true.y, true.diagonal) == (charts.SQUARE / 2,) * 3
    assert (over.x, over.y, over.diagonal) == (charts.SQUARE, 0.75 * charts.SQUARE, 0)
    assert true.radius == pytest.approx(2 * over.radius)

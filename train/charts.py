"""Where the lines, dots and ticks of a chart stand, in the units of its drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from train import metrics
from train.curves import Epoch
from train.reliability import Bin

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 22, 30
SQUARE = 168
# Area by rows; the largest dot of a diagram has this radius.
LARGEST_DOT = 9
HEAVIEST_GAP = 14


class Point(NamedTuple):
    x: float
    y: float


class Tick(NamedTuple):
    at: float
    label: str


class Dot(NamedTuple):
    """One bin of a reliability diagram."""

    x: float
    y: float
    radius: float
    diagonal: float
    """The height at which it would stand if its confidence could be believed."""
    weight: float
    """Width of the line to there, by the share of the rows: the ink of all lines is the calibration error."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One quantity through one phase."""

    name: str
    style: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A quantity, or two of one unit, through the epochs of a training."""

    title: str
    summary: str
    """What it shows, for those who do not see it."""
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    phases: tuple[tuple[float, float, str], ...]
    """Where each phase begins and ends, and its name."""
    best: tuple[Point, str] | None = None

    @property
    def names(self) -> list[str]:
        """Of its quantities, each once."""
        return list(dict.fromkeys(line.name for line in self.lines))


def learning_curves(history: Sequence[Epoch]) -> list[Chart]:
    """Loss, MMD term and mean HM by epoch; a quantity that no epoch has is left out."""
    spans = _spans(history)
    training = [_value(epoch.loss) if epoch.steps else None for epoch in history]
    validation = [
        _value(sum(score.loss for score in epoch.scores) / len(epoch.scores)) if epoch.scores else None
        for epoch in history
    ]
    distance = [_value(epoch.mmd) if epoch.steps and epoch.mmd else None for epoch in history]
    hm = [_value(metrics.mean_hm(epoch.scores)) if epoch.scores else None for epoch in history]
    charts = [
        _chart("Loss", {"training": training, "validation": validation}, spans),
        _chart("MMD term, unweighted", {"training against target photos": distance}, spans),
        _chart("Mean HM on validation", {"mean HM": hm}, spans, marks_best=True),
    ]
    return [chart for chart in charts if chart.lines]


def dots(bins: Sequence[Bin]) -> list[Dot]:
    """A reliability diagram of SQUARE units a side, y downwards."""
    most, total = max(bin.rows for bin in bins), sum(bin.rows for bin in bins)
    return [
        Dot(
            SQUARE * bin.confidence,
            SQUARE * (1 - bin.accuracy),
            max(1.5, LARGEST_DOT * math.sqrt(bin.rows / most)),
            SQUARE * (1 - bin.confidence),
            max(0.6, HEAVIEST_GAP * bin.rows / total),
        )
        for bin in bins
    ]


class _Span(NamedTuple):
    """A phase in the history: which of its entries, and where they stand among all epochs."""

    phase: int
    entries: range
    at: list[int]


def _spans(history: Sequence[Epoch]) -> list[_Span]:
    spans: list[_Span] = []
    for index, epoch in enumerate(history):
        if not spans or spans[-1].phase != epoch.phase:
            begun = spans[-1].at[-1] if spans else 0
            spans.append(_Span(epoch.phase, range(index, index), []))
        at = begun + epoch.epoch
        spans[-1] = _Span(epoch.phase, range(spans[-1].entries.start, index + 1), [*spans[-1].at, at])
    return spans


def _chart(
    title: str, quantities: dict[str, list[float | None]], spans: Sequence[_Span], *, marks_best: bool = False
) -> Chart:
    values = [value for series in quantities.values() for value in series if value is not None]
    first = min((at for span in spans for at in span.at), default=0)
    last = max((at for span in spans for at in span.at), default=1)
    steps = _steps(min(values, default=0.0), max(values, default=1.0))
    x = _scale(first, max(last, first + 1), LEFT, WIDTH - RIGHT)
    y = _scale(steps[0], steps[-1], HEIGHT - BOTTOM, TOP)
    lines, placed = [], []
    for number, (name, series) in enumerate(quantities.items()):
        for span in spans:
            known = [(at, series[entry]) for at, entry in zip(span.at, span.entries, strict=True)]
            points = [(Point(x(at), y(value)), value) for at, value in known if value is not None]
            placed += points
            if points:
                lines.append(Line(name=name, style=f"line{number}", points=tuple(point for point, _ in points)))
    best = max(placed, key=lambda point: point[1], default=None) if marks_best else None
    return Chart(
        title=title,
        summary=_summary(quantities),
        lines=tuple(lines),
        across=tuple(Tick(x(at), str(at)) for at in _whole_steps(first, last)),
        up=tuple(Tick(y(at), f"{at:g}") for at in steps),
        phases=tuple((x(span.at[0]), x(span.at[-1]), f"phase {span.phase}") for span in spans),
        best=(best[0], f"{best[1]:.3f}") if best else None,
    )


def _summary(quantities: dict[str, list[float | None]]) -> str:
    def told(name: str, series: Sequence[float | None]) -> str:
        values = [value for value in series if value is not None]
        return f"{name} from {values[0]:.3g} to {values[-1]:.3g}, between {min(values):.3g} and {max(values):.3g}"

    return "; ".join(told(name, series) for name, series in quantities.items() if any(v is not None for v in series))


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _steps(low: float, high: float) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, three to seven of them."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - abs(low or 1.0) / 2, high + abs(high or 1.0) / 2
    power = 10 ** math.floor(math.log10((high - low) / 3))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _whole_steps(first: int, last: int) -> list[int]:
    steps = (power * factor for power in (10**digits for digits in range(9)) for factor in (1, 2, 5))
    step = next(step for step in steps if last - first <= 8 * step)
    return list(range(math.ceil(first / step) * step, last + 1, step))


def _value(number: float) -> float | None:
    return number if math.isfinite(number) else None

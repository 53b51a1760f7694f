"""Bars and curves as SVG pictures: the same text for the same figures, so that a check can tell if they are of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, LABELS, RIGHT = 860, 330, 70
ROW, GAP, HEAD = 20, 10, 34
SHADES = ("#2b6cb0", "#a0aec0", "#dd6b20", "#38a169")
ACROSS, PANEL_WIDTH, PANEL_HEIGHT = 4, 215, 170
PAD_LEFT, PAD_RIGHT, PAD_TOP, PAD_BOTTOM = 12, 22, 56, 26
"""Of a panel, what lies around the curve."""


class Part(NamedTuple):
    """A stretch of a bar."""

    value: float
    shade: int


class Bar(NamedTuple):
    """A row of a chart; without a part it is a heading."""

    label: str
    parts: tuple[Part, ...] = ()
    told: str = ""
    """Behind the bar."""


class Point(NamedTuple):
    """A place along a panel's width, and the figure there."""

    at: float
    label: str
    value: float


class Panel(NamedTuple):
    """One figure over one thing."""

    title: str
    unit: str
    points: tuple[Point, ...]
    most: float | None = None
    """What the height stands for; by default the largest of the figures."""


def chart(title: str, bars: Sequence[Bar], legend: Sequence[str] = ()) -> str:
    """An SVG picture on a transparent ground, in colours that show on light and dark pages."""
    longest = _longest(bars)
    lines: list[str] = []
    at = HEAD
    x = 0.0
    for index, name in enumerate(legend):
        lines.append(f'<rect x="{x:.0f}" y="{at - 10}" width="10" height="10" fill="{SHADES[index]}"/>')
        lines.append(_text(x + 14, at, name))
        x += 30 + 7 * len(name)
    at += 22 if legend else 0
    groups: list[float] = []
    for bar in bars:
        if not bar.parts:
            at += GAP
            lines.append(_text(0, at, bar.label, weight="bold"))
            groups.append(next(longest))
        else:
            lines.append(_text(12, at, bar.label))
            x = LABELS
            for part in bar.parts:
                width = (WIDTH - LABELS - RIGHT) * part.value / groups[-1]
                shade = SHADES[part.shade]
                lines.append(f'<rect x="{x:.1f}" y="{at - 11}" width="{width:.1f}" height="13" fill="{shade}"/>')
                x += width
            lines.append(_text(x + 6, at, bar.told))
        at += ROW
    return _picture(WIDTH, at + 4, title, lines)


def curves(title: str, panels: Sequence[Panel]) -> str:
    """The panels, some in a row, each from zero to its own largest figure."""
    lines: list[str] = []
    for index, panel in enumerate(panels):
        lines += _panel(panel, index % ACROSS * PANEL_WIDTH, HEAD + index // ACROSS * PANEL_HEIGHT)
    return _picture(ACROSS * PANEL_WIDTH, HEAD - (-len(panels) // ACROSS) * PANEL_HEIGHT, title, lines)


def _panel(panel: Panel, left: int, top: int) -> list[str]:
    first, last = panel.points[0].at, panel.points[-1].at
    most = panel.most or max(point.value for point in panel.points)
    floor = top + PANEL_HEIGHT - PAD_BOTTOM

    def place(point: Point) -> tuple[float, float]:
        across = (point.at - first) / (last - first)
        return (
            left + PAD_LEFT + across * (PANEL_WIDTH - PAD_LEFT - PAD_RIGHT),
            floor - point.value / most * (PANEL_HEIGHT - PAD_TOP - PAD_BOTTOM),
        )

    places = [place(point) for point in panel.points]
    right = left + PANEL_WIDTH - PAD_RIGHT
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    lines = [
        _text(left, top + 18, panel.title, size=12),
        _text(left, top + 33, panel.unit, size=11),
        f'<line x1="{left + PAD_LEFT}" y1="{floor}" x2="{right}" y2="{floor}" stroke="#a0aec0"/>',
        f'<polyline points="{drawn}" fill="none" stroke="{SHADES[0]}" stroke-width="2"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{SHADES[0]}"/>' for x, y in places),
    ]
    # The ends alone have their words: between them there may be no room.
    for point, (x, y) in ((panel.points[0], places[0]), (panel.points[-1], places[-1])):
        anchor = "start" if point is panel.points[0] else "end"
        x += -PAD_LEFT / 2 if anchor == "start" else PAD_RIGHT / 2
        lines.append(_text(x, floor + 15, point.label, size=11, anchor=anchor))
        # Below the curve where it rises from here: above, it would run through the figure.
        y += 15 if point is panel.points[0] and places[1][1] < y else -7
        lines.append(_text(x, y, f"{point.value:.4g}", size=11, anchor=anchor))
    return lines


def _longest(bars: Sequence[Bar]) -> Iterator[float]:
    """Of each group, which a heading begins, the length that its longest bar stands for."""
    group: list[float] = []
    for bar in [*bars[1:], Bar("")]:
        if bar.parts:
            group.append(sum(part.value for part in bar.parts))
        else:
            yield max(group, default=1.0)
            group = []


def _picture(width: int, height: int, title: str, lines: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif">'
    )
    words = [f"<title>{escape(title)}</title>", _text(0, 14, title, weight="bold")]
    return "\n".join([head, *words, *lines, "</svg>", ""])


def _text(x: float, y: float, words: str, *, weight: str = "normal", size: int = 13, anchor: str = "start") -> str:
    """Words whose line is at that height, in a grey that shows on light and dark pages."""
    return (
        f'<text x="{x:.1f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#718096">{escape(words)}</text>'
    )

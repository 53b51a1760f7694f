"""Bars as an SVG picture: the same text for the same figures, so that a check can tell whether it is of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, LABELS, RIGHT = 860, 330, 70
ROW, GAP, HEAD = 20, 10, 34
SHADES = ("#2b6cb0", "#a0aec0", "#dd6b20", "#38a169")


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


def chart(title: str, bars: Sequence[Bar], legend: Sequence[str] = ()) -> str:
    """An SVG picture on a transparent ground, in colours that show on light and dark pages."""
    longest = _longest(bars)
    lines = [_text(0, 14, title, weight="bold")]
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
    height = at + 4
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif">'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", *lines, "</svg>", ""])


def _longest(bars: Sequence[Bar]) -> Iterator[float]:
    """Of each group, which a heading begins, the length that its longest bar stands for."""
    group: list[float] = []
    for bar in [*bars[1:], Bar("")]:
        if bar.parts:
            group.append(sum(part.value for part in bar.parts))
        else:
            yield max(group, default=1.0)
            group = []


def _text(x: float, y: float, text: str, *, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-size="13" font-weight="{weight}" fill="#718096">{escape(text)}</text>'

"""The README's bars: as long as their figures, and well-formed whatever they are called."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from benchmarks.plots import LABELS, RIGHT, WIDTH, Bar, Part, chart


def test_bars_are_as_long_as_their_figures_beside_the_longest_of_their_group() -> None:
    bars = [
        Bar("one"),
        Bar("a", (Part(1, 0),), "1"),
        Bar("b", (Part(3, 1), Part(1, 2)), "4"),
        Bar("two"),
        Bar("c", (Part(100, 0),), "100"),
    ]
    drawn = chart("Bars", bars)
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)" height="13"', drawn)]
    room = WIDTH - LABELS - RIGHT
    assert widths == [room / 4, 3 * room / 4, room / 4, room]


def test_whatever_it_is_called_a_picture_is_one() -> None:
    drawn = chart("<&>", [Bar("a < b"), Bar('"q"', (Part(1, 0),), "&")], legend=("<x>",))
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "a < b" in "".join(root.itertext())

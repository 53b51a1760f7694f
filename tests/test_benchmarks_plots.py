"""The README's bars and curves: as long as their figures, and well-formed whatever they are called."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from benchmarks.plots import LABELS, RIGHT, WIDTH, Bar, Panel, Part, Point, chart, curves


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


def test_a_curve_goes_from_side_to_side_as_high_as_its_figures_beside_the_highest() -> None:
    points = (Point(0, "none", 1.0), Point(1, "one", 4.0), Point(4, "four", 2.0))
    drawn = curves("Curves", [Panel("over files", "ms", points)] * 5)
    first, *others = re.findall(r'<polyline points="([^"]+)"', drawn)
    (x0, y0), (x1, y1), (x4, y4) = [tuple(map(float, place.split(","))) for place in first.split()]
    floor = float(re.findall(r'<line [^>]*y1="(\d+)"', drawn)[0])
    # Coordinates are written to a tenth.
    assert abs((x1 - x0) / (x4 - x0) - 1 / 4) < 0.01
    assert abs((floor - y0) / (floor - y1) - 1 / 4) < 0.01
    assert abs((floor - y4) / (floor - y1) - 2 / 4) < 0.01
    # Four in a row, the fifth below the first.
    assert float(others[3].split(",")[0]) == x0 and others[3] != first
    assert "none" in drawn and "four" in drawn


def test_whatever_it_is_called_a_picture_is_one() -> None:
    drawn = chart("<&>", [Bar("a < b"), Bar('"q"', (Part(1, 0),), "&")], legend=("<x>",))
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "a < b" in "".join(root.itertext())

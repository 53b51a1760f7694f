"""Rounds in which everyone has a turn: those that count, and those taken again since others had the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from benchmarks.busy import Watch

Found = TypeVar("Found")

# Of the cores' time in a round. The rounds of a quiet machine lie 5 % apart by themselves; but a library that has all
# cores wait for each other loses far more than others take, and so makes whoever waits less look better.
SHARE = 0.05
AGAIN = 3
"""Rounds taken again at most: a machine that is never quiet is said to be busy, and not waited for."""


def taken(play: Callable[[int], Found], count: int) -> list[tuple[Found, float | None]]:
    """So many rounds, numbered from 1, each with the share of the cores' time that others had.

    Round 0 comes first and does not count: threads, memory and files are at hand from then on.
    """
    play(0)
    kept: list[tuple[Found, float | None]] = []
    again = AGAIN
    while len(kept) < count:
        watch = Watch()
        found = play(len(kept) + 1)
        others = watch.share()
        if others is not None and others > SHARE and again:
            again -= 1
        else:
            kept.append((found, others))
    return kept

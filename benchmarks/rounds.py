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

    Round 0 comes first and does not count: threads, memory and files are at hand from then on. One that others had too
    much of is played again at the end, and the quieter of the two is kept.
    """
    play(0)
    kept = [_watched(play, number) for number in range(1, count + 1)]
    for _ in range(AGAIN):
        worst = max(range(count), key=lambda index: kept[index][1] or 0.0)
        if (kept[worst][1] or 0.0) <= SHARE:
            break
        kept[worst] = min(kept[worst], _watched(play, worst + 1), key=lambda one: one[1] or 0.0)
    return kept


def _watched(play: Callable[[int], Found], number: int) -> tuple[Found, float | None]:
    watch = Watch()
    found = play(number)
    return found, watch.share()

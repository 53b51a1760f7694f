"""How much of the time given to a training is gone."""

from __future__ import annotations

import time


class Clock:
    """Counts the seconds of a phase, and says how much of a limit they are.

    A phase that is resumed starts with what it had spent: the limit is one on work, not on the calendar.
    """

    def __init__(self, limit_s: float | None = None, *, after_s: float = 0.0) -> None:
        """The limit of the phase, None for none, and what is left for the phases after it."""
        self.limit_s = limit_s
        self.after_s = after_s
        self.spent_s = 0.0
        self.reserve_s = 0.0
        """Kept back, for the evaluation that ends the phase, and for later ones that `after_s` is too short for."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return self.spent_s + time.monotonic() - self._started

    @property
    def gone(self) -> float:
        """The share of the limit that is spent, 0-1; 0 where there is no limit."""
        if self.limit_s is None:
            return 0.0
        return min(1.0, self.seconds / max(self.limit_s - self.reserve_s, 1e-9))

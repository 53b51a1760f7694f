"""How much of the time given to a training is gone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Clock:
    """Counts the seconds of a phase, and says how much of a limit they are.

    A phase that is resumed starts with what it had spent: the limit is one on work, not on the calendar.
    """

    limit_s: float | None = None
    """None for no limit."""
    spent_s: float = 0.0
    reserve_s: float = 0.0
    """Kept back, for the evaluation that ends the phase."""
    _started: float = field(default_factory=time.monotonic)

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

"""The clock of a phase."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from train import clock
from train.clock import Clock


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`time.now_s` is what the clock reads."""
    made = SimpleNamespace(now_s=100.0, monotonic=lambda: made.now_s)
    monkeypatch.setattr(clock, "time", made)
    return made


def test_without_a_limit_nothing_is_ever_gone(time: SimpleNamespace) -> None:
    made = Clock()
    time.now_s += 1e9
    assert (made.gone, made.seconds) == (0.0, 1e9)


def test_the_share_that_is_gone_counts_what_was_spent_before_and_ends_before_what_is_kept_back(
    time: SimpleNamespace,
) -> None:
    made = Clock(50.0)
    assert made.gone == 0.0
    made.spent_s, made.reserve_s = 10.0, 10.0
    time.now_s += 10
    assert (made.seconds, made.gone) == (20.0, 0.5)
    time.now_s += 1000
    assert made.gone == 1.0


def test_a_limit_that_was_over_before_it_began_is_gone(time: SimpleNamespace) -> None:
    made = Clock(-3.0)
    time.now_s += 0.1
    assert made.gone == 1.0

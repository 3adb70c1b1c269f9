"""GCRA: exact over time, forgiving to late timers, never stuck on a large amount."""

from __future__ import annotations

import math

import pytest

from rusty_agent.net.limits.pace import TOLERANCE_SECONDS, Pace


def served(pace: Pace, seconds: float, step: float = 0.001) -> int:
    """How often somebody who always wants to may go on within so many seconds."""
    count = 0
    for tick in range(round(seconds / step)):
        now = tick * step
        while pace.opens - now <= 0:
            pace.spend(1, now)
            count += 1
    return count


def test_it_keeps_the_rate_exactly() -> None:
    assert served(Pace(100), 3) == 300 + round(100 * TOLERANCE_SECONDS)


def test_late_timers_cost_nothing() -> None:
    assert served(Pace(100), 3, step=0.05) == pytest.approx(300 + 10, abs=5)


def test_what_was_not_used_is_not_saved_up() -> None:
    pace = Pace(100)
    pace.spend(1, 0)
    assert pace.opens - 100 <= 0
    count = 0
    while pace.opens - 100 <= 0:
        pace.spend(1, 100)
        count += 1
    assert count <= 11


def test_an_amount_larger_than_a_seconds_worth_passes_and_is_paid_for_afterwards() -> None:
    pace = Pace(100)
    assert pace.opens <= 0
    pace.spend(500, 0)
    assert pace.opens == pytest.approx(5 - TOLERANCE_SECONDS)
    pace.spend(-300, 0)  # the answer was shorter than estimated
    assert pace.opens == pytest.approx(2 - TOLERANCE_SECONDS)


def test_what_is_owed_is_paid_off_at_a_higher_rate() -> None:
    pace = Pace(100)
    pace.change(1, 0)
    pace.spend(60, 0)
    pace.change(100, 0)
    assert pace.opens == pytest.approx(0.6 - TOLERANCE_SECONDS)
    pace.change(1, 0)  # a lower one does not make it more
    assert pace.opens == pytest.approx(0.6 - TOLERANCE_SECONDS)


def test_without_a_rate_nothing_waits() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.spend(1e9, 0)
    assert pace.opens <= 0
    pace.change(10, 0)
    pace.spend(1, 0)
    assert not math.isnan(pace.opens)
    assert pace.opens <= 0.1


def test_a_doubted_rate_makes_no_pace_quicker_than_the_one_that_was_given() -> None:
    """An amount that takes a minute at the given rate takes no less because the endpoint says to go slower."""
    pace = Pace(1000)
    pace.change(833, 0, longest=30)
    pace.spend(60_000, 0)
    assert pace.opens == pytest.approx(60 - TOLERANCE_SECONDS)
    pace.spend(1, 10)
    assert pace.opens == pytest.approx(60, abs=0.2)


def test_what_is_given_back_at_a_slower_rate_opens_no_pace_before_the_one_that_was_given() -> None:
    """An estimate that was twice too high, at a rate that is doubted: what was really spent is paid for."""
    pace = Pace(1000)
    pace.change(100, 0, longest=30)
    pace.spend(10_000, 0)
    pace.spend(-5_000, 2)
    assert pace.opens == pytest.approx(5 - TOLERANCE_SECONDS)


def test_debts_of_a_doubted_rate_are_paid_at_the_given_one_when_it_returns() -> None:
    pace = Pace(1000)
    pace.change(1, 0, longest=30)
    pace.spend(60_000, 0)
    pace.change(1000, 1)
    assert pace.opens == pytest.approx(60 - TOLERANCE_SECONDS)

"""How much may be spent per second: the generic cell rate algorithm (GCRA, ITU-T I.371).

In: amounts and times. Out: how long to wait. Never touched: the clock, who waits.

One number holds the state: the time at which everything spent so far is paid for. An amount that costs more than is
left is let through and makes the others wait longer, so no amount is too large ever to pass. A second number is the
same time at the given rate: however a change of rate converts debts and refunds, the pace opens no earlier than that.
"""

from __future__ import annotations

import math

__all__ = ["Pace"]

TOLERANCE_SECONDS = 0.1
"""How much may be spent ahead: makes up for timers that fire late."""


class Pace:
    """Keeps to a rate.

    Args:
        rate: Units per second; infinite for no limit.
        tolerance: How many seconds' worth may be spent ahead.

    Attributes:
        given: The rate that it was made with.
        rate: The current rate, see `change`.
        longest: How far in the future it may open at most, in seconds; further if the given rate requires it.
        opens: The time from which the next amount may be spent.
    """

    def __init__(self, rate: float = math.inf, tolerance: float = TOLERANCE_SECONDS) -> None:
        self.rate = self.given = rate
        self.longest = math.inf
        self._tolerance = tolerance
        self.opens = -math.inf  # everything spent is paid for one tolerance after this
        self._least = -math.inf  # when it would open at the given rate

    def change(self, rate: float, now: float, longest: float = math.inf) -> None:
        """Go on at another rate, at most the given one; debts are paid off at the new rate."""
        self.longest = longest
        owed = self.opens + self._tolerance - now
        if owed > 0 and rate > self.rate:
            self.opens = max(self.opens + owed * self.rate / rate - owed, self._least)
        self.rate = rate

    def spend(self, amount: float, now: float) -> None:
        """Spend an amount; a negative one is a refund."""
        paid = now - self._tolerance
        least = self._least = (self._least if self._least > paid else paid) + amount / self.given
        opens = (self.opens if self.opens > paid else paid) + amount / self.rate
        if opens - now > self.longest:
            opens = now + self.longest
        self.opens = opens if opens > least else least

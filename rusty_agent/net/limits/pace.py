"""How much may be spent per second: the generic cell rate algorithm (GCRA, ITU-T I.371).

In: amounts and moments. Out: how long to wait. Never touched: the clock, who waits.

One number holds the state: the moment up to which everything that was spent is paid for. What costs more than is left
is let through and makes the others wait longer, so no amount is too large ever to pass. Another says the same
at the rate that was given: whatever a change makes of debts and of refunds, it opens no earlier than that.
"""

from __future__ import annotations

import math

__all__ = ["Pace"]

TOLERANCE_SECONDS = 0.1
"""How much may be spent ahead: makes up for timers that fire late."""


class Pace:
    """A rate that is kept.

    Args:
        rate: Units per second; infinite for no limit.
        tolerance: Seconds' worth that may be spent ahead.

    Attributes:
        given: The rate that it was made with.
        rate: The rate that is kept now, see `change`.
        longest: How far in the future it may open at most, in seconds; further, if the given rate says so.
        opens: The moment from which the next amount may be spent.
    """

    def __init__(self, rate: float = math.inf, tolerance: float = TOLERANCE_SECONDS) -> None:
        self.rate = self.given = rate
        self.longest = math.inf
        self._tolerance = tolerance
        self.opens = -math.inf  # what was spent is paid for up to a tolerance later
        self._least = -math.inf  # when it would open at the given rate

    def change(self, rate: float, now: float, longest: float = math.inf) -> None:
        """Go on at another rate, at most the given one; what is owed is paid off at the new one."""
        self.longest = longest
        owed = self.opens + self._tolerance - now
        if owed > 0 and rate > self.rate:
            self.opens = max(self.opens + owed * self.rate / rate - owed, self._least)
        self.rate = rate

    def spend(self, amount: float, now: float) -> None:
        """Spend an amount; a negative one is given back."""
        paid = now - self._tolerance
        least = self._least = (self._least if self._least > paid else paid) + amount / self.given
        opens = (self.opens if self.opens > paid else paid) + amount / self.rate
        if opens - now > self.longest:
            opens = now + self.longest
        self.opens = opens if opens > least else least

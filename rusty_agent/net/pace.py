"""How much may be spent per second: the generic cell rate algorithm (GCRA, ITU-T I.371).

In: amounts and moments. Out: how long to wait. Never touched: the clock, who waits.

One number holds the state: the moment up to which everything that was spent is paid for. What costs more than is left
is let through and makes the others wait longer, so no amount is too large ever to pass.
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
        rate: As given, see `change`.
    """

    def __init__(self, rate: float = math.inf, tolerance: float = TOLERANCE_SECONDS) -> None:
        self.rate = rate
        self._tolerance = tolerance
        self._paid_until = -math.inf

    def change(self, rate: float, now: float) -> None:
        """Go on at another rate; what is owed is paid off at the new one."""
        if self._paid_until > now and rate > self.rate:
            self._paid_until = now + (self._paid_until - now) * self.rate / rate
        self.rate = rate

    def wait(self, now: float) -> float:
        """Seconds until the next amount may be spent; not above 0 when it may be now."""
        return self._paid_until - self._tolerance - now

    def spend(self, amount: float, now: float) -> None:
        """Spend an amount; a negative one is given back."""
        self._paid_until = max(self._paid_until, now) + amount / self.rate

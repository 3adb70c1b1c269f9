"""The calls of one provider, and what they share: connections, limits, and what the endpoint has taught them.

In: prepared requests. Out: calls that have begun. Never touched: a call's attempts, what a request holds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .call import Call
from .net.attempt import Exchange
from .net.caller import Caller
from .net.guard import drop_closed
from .net.http.transport import Transport
from .net.retry import RetryBudget
from .policy import Limits
from .wire.refusal import Refusals

if TYPE_CHECKING:
    from .net.limits.limiter import Limiter

__all__ = ["Calls"]


class Calls:
    """The calls of one provider.

    Args:
        transport: What sends their requests.
        adapt: Whether they adapt to refusals.
        budget: How many retries they may begin with, see `RetryPolicy`.
        limits: What they keep to together on each loop, or None.

    Attributes:
        refusals: What the endpoint has refused; None where nobody adapts to that.
        budget: The retries that are left.
        under_way: Those that have not ended.
        limiters: The door of each loop on which one had to stand in line.
    """

    def __init__(self, transport: Transport, *, adapt: bool, budget: int | None, limits: Limits | None) -> None:
        self.transport = transport
        self.refusals = Refusals() if adapt else None
        self.budget = RetryBudget(budget)
        self.under_way: set[Call] = set()
        self.limiters: dict[asyncio.AbstractEventLoop, Limiter] = {}
        self._limits = limits

    def start(self, exchange: Exchange, caller: Caller | None = None) -> Call:
        """Begin a call: its clock runs from here. It stands in line if there are limits, or for a run."""
        limiter = None if caller is None and self._limits is None else self.limiter()
        return Call(asyncio.get_running_loop(), self, exchange, limiter, caller)

    def limiter(self) -> Limiter:
        """The door of the running loop."""
        loop = asyncio.get_running_loop()
        limiter = self.limiters.get(loop)
        if limiter is None:
            from .net.limits.limiter import Limiter  # most providers have none, and import that much less

            drop_closed(self.limiters)
            limiter = self.limiters[loop] = Limiter(self._limits or Limits(), loop)
        return limiter

    async def aclose(self) -> None:
        """Give up those that are under way, and close all connections, for good."""
        self.transport.closed = True  # first: whatever another thread begins meanwhile is given up, or finds this
        for call in list(self.under_way):
            call.close_from_anywhere()
        await self.transport.aclose()

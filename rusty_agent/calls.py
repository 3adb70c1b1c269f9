"""The calls of one provider, and what they share: connections, limits, and which parameters the endpoint refuses.

In: prepared requests. Out: calls that have begun. Never touched: the attempts of a call, the contents of a request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .call import Call
from .net.attempt import Request
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
        transport: Sends their requests.
        adapt: Whether they adapt when the endpoint refuses a parameter.
        budget: The points that their retries may use up, see `RetryPolicy`.
        limits: The limits that all calls on a loop keep to together, or None.

    Attributes:
        refusals: The parameters that the endpoint has refused; None if calls do not adapt.
        budget: What is left of the retry budget.
        under_way: The calls that have not ended.
        limiters: The limiter of each loop on which calls wait for their turn.
    """

    def __init__(self, transport: Transport, *, adapt: bool, budget: int | None, limits: Limits | None) -> None:
        self.transport = transport
        self.refusals = Refusals() if adapt else None
        self.budget = RetryBudget(budget)
        self.under_way: set[Call] = set()
        self.limiters: dict[asyncio.AbstractEventLoop, Limiter] = {}
        self._limits = limits

    def start(self, request: Request, caller: Caller | None = None) -> Call:
        """Begin a call and its clock. It waits in line if the provider has limits, or if it belongs to a run."""
        limiter = None if caller is None and self._limits is None else self.limiter()
        return Call(asyncio.get_running_loop(), self, request, limiter, caller)

    def limiter(self) -> Limiter:
        """The limiter of the running loop, made if there is none."""
        loop = asyncio.get_running_loop()
        limiter = self.limiters.get(loop)
        if limiter is None:
            from .net.limits.limiter import Limiter  # here, because most providers never need it

            drop_closed(self.limiters)
            limiter = self.limiters[loop] = Limiter(self._limits or Limits(), loop)
        return limiter

    async def aclose(self) -> None:
        """Give up the calls under way, and close all connections, for good."""
        self.transport.closed = True  # first: a call that another thread begins meanwhile is given up, or sees this
        for call in list(self.under_way):
            call.close_from_anywhere()
        await self.transport.aclose()

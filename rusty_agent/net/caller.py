"""Who stands in line at the door: a run of many prompts, or a call by itself.

In: that the run was stopped. Out: an end to its waits between two attempts; whether to give its endpoint up. Never
touched: the line itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import RunStoppedError, RustyAgentError

__all__ = ["Caller"]


class Caller:
    """Who waits: callers take turns at the door. A run of many prompts is one caller, a call by itself is another.

    Args:
        gives_up: Called with an attempt's error, and with the moment at which its prompt was begun (by
            `time.monotonic`): whether the endpoint has been away for too long to make another attempt.

    Attributes:
        asleep: What ends its waits between two attempts.
        in_flight: How many of its attempts are under way.
        rate_limited: How many of its attempts were answered with 429.
        stopped: Why the run was stopped, once it was: what still waits is turned away with it.
    """

    __slots__ = ("asleep", "gives_up", "in_flight", "rate_limited", "stopped")

    def __init__(self, gives_up: Callable[[RustyAgentError, float], bool] = lambda *_: False) -> None:
        self.gives_up = gives_up
        self.asleep: set[asyncio.Future[None]] = set()
        self.in_flight = 0
        self.rate_limited = 0
        self.stopped: RunStoppedError | None = None

    def check(self) -> None:
        """Raise what the run was stopped with, if it was: a `RunStoppedError`."""
        if self.stopped is not None:
            raise self.stopped.with_traceback(None)  # or each time it is raised would make it longer

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not longer than the run goes on; then raise what it was stopped with."""
        self.check()
        awake = asyncio.get_running_loop().create_future()
        self.asleep.add(awake)
        try:
            await asyncio.wait([awake], timeout=seconds)
        finally:
            self.asleep.discard(awake)
        self.check()

    def stop(self, error: RunStoppedError) -> None:
        """The run was stopped: nothing more is sent for it. The first reason stays."""
        self.stopped = self.stopped or error
        for awake in self.asleep:
            if not awake.done():
                awake.set_result(None)

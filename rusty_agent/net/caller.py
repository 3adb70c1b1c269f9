"""The party that waits in line for permits: a run of many prompts, or a single call.

In: that the run was stopped. Out: an end to its waits between two attempts; whether to give up on its endpoint. Never
touched: the line itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import RunStoppedError, RustyAgentError

__all__ = ["Caller"]


class Caller:
    """One party in line: callers take turns at the door. A run of many prompts is one caller, a single call another.

    Args:
        gives_up: Called with an attempt's error, and with the time at which its prompt was begun (by
            `time.monotonic`): whether the endpoint has been away for too long to make another attempt.

    Attributes:
        asleep: Futures that end its waits between two attempts.
        in_flight: How many of its attempts are under way.
        rate_limited: How many of its attempts were answered with 429.
        stopped: The error with which the run was stopped, once it was; calls that still wait are turned away with it.
    """

    __slots__ = ("asleep", "gives_up", "in_flight", "rate_limited", "stopped")

    def __init__(self, gives_up: Callable[[RustyAgentError, float], bool] = lambda *_: False) -> None:
        self.gives_up = gives_up
        self.asleep: set[asyncio.Future[None]] = set()
        self.in_flight = 0
        self.rate_limited = 0
        self.stopped: RunStoppedError | None = None

    def check(self) -> None:
        """Raise the `RunStoppedError` that the run was stopped with, if it was."""
        if self.stopped is not None:
            raise self.stopped.with_traceback(None)  # or the traceback would grow each time it is raised

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until the run is stopped; then raise the error that it was stopped with."""
        self.check()
        awake = asyncio.get_running_loop().create_future()
        self.asleep.add(awake)
        try:
            await asyncio.wait([awake], timeout=seconds)
        finally:
            self.asleep.discard(awake)
        self.check()

    def stop(self, error: RunStoppedError) -> None:
        """Stop the run: nothing more is sent for it. If called again, the first error stays."""
        self.stopped = self.stopped or error
        for awake in self.asleep:
            if not awake.done():
                awake.set_result(None)

"""The queue for permits: callers take turns, and each caller's requests keep their order, unless one may go in front.

In: who waits; how long the limiter (the door) stays closed. Out: permits, one after another. Never touched: what keeps
the door closed, what a permit allows.

Nothing polls: the line checks the door when it is told that something has changed, and at the time at which the door
will open by itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from ...errors import RunStoppedError
from ..caller import Caller

if TYPE_CHECKING:
    from .limiter import Limiter, Permit

__all__ = ["Line"]

_TOLD_SECONDS = 5.0  # a wait this long is worth a line in the log

logger = logging.getLogger("rusty_agent")


class Line:
    """The requests that wait at one door.

    Attributes:
        waiting: By caller, the turns to come and the size of each request; the first caller is next.
    """

    def __init__(self, door: Limiter, loop: asyncio.AbstractEventLoop) -> None:
        self._door = door
        self._loop = loop
        # An ordered dict: a plain one is slow to find its first item when many before it were removed.
        self.waiting: OrderedDict[Caller, deque[tuple[asyncio.Future[Permit], int]]] = OrderedDict()
        self._looking = False
        self._timer: asyncio.Handle | None = None  # uvloop gives no `TimerHandle` for what is due at once
        self._looks_at = math.inf

    async def wait(self, caller: Caller, size: int, *, again: bool = False) -> Permit:
        """Wait for a permit; with `again`, in front of the caller's other requests.

        Raises:
            RunStoppedError: The caller was stopped meanwhile.
        """
        turn: asyncio.Future[Permit] = self._loop.create_future()
        others = self.waiting.get(caller) or deque()
        (others.appendleft if again else others.append)((turn, size))
        self.waiting[caller] = others  # only now: the garbage collector, by freeing permits, may drop an empty queue
        self.look()
        try:
            permit = await turn
        except BaseException:
            self._looking = True  # else the garbage collector may drop them meanwhile, and this would drop the next
            try:
                self._drop_first(caller)  # or turns given up would stay until the line gets to them
            finally:
                self._looking = False
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().release()
            raise
        try:
            caller.check()  # it may have been stopped since it got its turn
        except RunStoppedError:
            permit.release()
            raise
        return permit

    def turn_away(self, caller: Caller, error: RunStoppedError) -> None:
        """End all waits of a caller with this error."""
        for turn, _ in self.waiting.pop(caller, ()):
            if not turn.done():
                turn.set_exception(error)

    def look(self) -> None:
        """Let in the requests that may go in, and look again when the door will open."""
        if self._looking:  # the garbage collector has closed something within this very step, which called this
            self._loop.call_soon(self.look)
            return
        self._looking = True
        try:
            self._let_in()
        finally:
            self._looking = False

    def _let_in(self) -> None:
        waiting, door = self.waiting, self._door
        while waiting:
            caller, queue = next(iter(waiting.items()))
            if not queue or queue[0][0].done():
                self._drop_first(caller)
                continue
            now = self._loop.time()
            wait = door.opens_in(now)
            if wait > 0:
                self._look_again(wait)
                return
            turn, size = queue.popleft()
            if queue:
                waiting.move_to_end(caller)  # behind the others
            else:
                del waiting[caller]
            turn.set_result(door.admit(caller, size, now))

    def _drop_first(self, caller: Caller) -> None:
        """Remove a caller's first turns as far as they were given up; and the caller, if it has none left."""
        queue = self.waiting.get(caller, ())
        while queue and queue[0][0].done():
            queue.popleft()
        if not queue:
            self.waiting.pop(caller, None)

    def _look_again(self, wait: float) -> None:
        if wait == math.inf:  # the next permit that comes back will call `look`
            return
        when = self._loop.time() + wait
        if when < self._looks_at:
            if self._timer is not None:
                self._timer.cancel()
            self._looks_at = when
            self._timer = self._loop.call_at(when, self._on_timer)
            if wait >= _TOLD_SECONDS:
                logger.debug("sending nothing for %.0f s: %s", wait, self._door.reason()[1])

    def _on_timer(self) -> None:
        self._timer = None
        self._looks_at = math.inf
        self.look()

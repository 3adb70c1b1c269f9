"""The line at a door: callers take turns, and within one caller the order is kept, but for who may go in front.

In: who waits; how long the door stays closed, from whoever keeps it. Out: permits, one after another. Never touched:
what holds the door, what a permit allows.

Nothing polls: the line looks at the door when it is told that something has changed, and at the moment at which time
alone will open it.
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

_TOLD_SECONDS = 5.0  # a wait of so long is worth a line in the log

logger = logging.getLogger("rusty_agent")


class Line:
    """Those who wait at one door.

    Attributes:
        waiting: The turns to come, with the length of each request, by caller; first the caller who is next.
    """

    def __init__(self, door: Limiter, loop: asyncio.AbstractEventLoop) -> None:
        self._door = door
        self._loop = loop
        # An ordered dict: of a plain one, to find the first is slow when many before it were taken out.
        self.waiting: OrderedDict[Caller, deque[tuple[asyncio.Future[Permit], int]]] = OrderedDict()
        self._looking = False
        self._timer: asyncio.Handle | None = None  # uvloop gives no `TimerHandle` for what is due at once
        self._looks_at = math.inf

    async def wait(self, caller: Caller, characters: int, *, again: bool = False) -> Permit:
        """Wait for a permit; with `again` in front of the caller's others.

        Raises:
            RunStoppedError: The caller was stopped meanwhile.
        """
        turn: asyncio.Future[Permit] = self._loop.create_future()
        others = self.waiting.get(caller) or deque()
        (others.appendleft if again else others.append)((turn, characters))
        self.waiting[caller] = others  # last: the garbage collector, when it frees places, may drop an empty queue
        self.look()
        try:
            permit = await turn
        except BaseException:
            self._looking = True  # else the garbage collector may drop them meanwhile, and this the next ones
            try:
                self._drop_first(caller)  # or all that give up would stay for as long as those before them wait
            finally:
                self._looking = False
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().release()
            raise
        try:
            caller.check()  # it may have been stopped between its turn and this moment
        except RunStoppedError:
            permit.release()
            raise
        return permit

    def turn_away(self, caller: Caller, error: RunStoppedError) -> None:
        """End the waiting of a caller with this error."""
        for turn, _ in self.waiting.pop(caller, ()):
            if not turn.done():
                turn.set_exception(error)

    def look(self) -> None:
        """Let in who may go in, and look again when time has passed."""
        if self._looking:  # the garbage collector has come by, and closed what was dropped, within this very step
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
            turn, characters = queue.popleft()
            if queue:
                waiting.move_to_end(caller)  # behind the others
            else:
                del waiting[caller]
            turn.set_result(door.admit(caller, characters, now))

    def _drop_first(self, caller: Caller) -> None:
        """Take out those who would be a caller's next but gave up; and the caller, if nobody of it is left."""
        queue = self.waiting.get(caller, ())
        while queue and queue[0][0].done():
            queue.popleft()
        if not queue:
            self.waiting.pop(caller, None)

    def _look_again(self, wait: float) -> None:
        if wait == math.inf:  # a permit that comes back will tell
            return
        when = self._loop.time() + wait
        if when < self._looks_at:
            if self._timer is not None:
                self._timer.cancel()
            self._looks_at = when
            self._timer = self._loop.call_at(when, self._on_timer)
            if wait >= _TOLD_SECONDS:
                logger.debug("nothing is sent for %.0f s: %s", wait, self._door.reason()[1])

    def _on_timer(self) -> None:
        self._timer = None
        self._looks_at = math.inf
        self.look()

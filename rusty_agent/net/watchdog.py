"""Time limits of attempts, all watched by one timer per loop; and a way to interrupt a task that waits.

In: when reading begins to wait, and when something arrives. Out: a call when a limit has passed. Never touched: what
is waited for.

Reading only notes the times and arms no timer: when the one timer fires, it checks them, and postpones itself while
something arrives. So a limit costs nothing per chunk, and next to nothing per attempt: a timer for each cost 30 µs.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import TYPE_CHECKING

from ..config import TimeLimits
from .guard import drop_closed

if TYPE_CHECKING:
    from .attempt import Attempt

__all__ = ["Interrupted", "Scope", "Watchdog"]

_SOON_SECONDS = 0.05  # when to check again a limit that passed while nothing was awaited, or while the loop was blocked


class _Ticker:
    """The one timer of a loop: it fires when the first of the watched limits may have passed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: set[Watchdog] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf
        self._late = False  # whether it last fired too late to judge

    def add(self, watchdog: Watchdog, due: float) -> None:
        """Watch, and check at `due` or earlier."""
        self._watched.add(watchdog)
        if due < self._next:
            self._arm(due)

    def discard(self, watchdog: Watchdog) -> None:
        """Watch no more; the timer stays armed, and finds out when it fires."""
        self._watched.discard(watchdog)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = due
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        late, self._next = now - self._next > _SOON_SECONDS, math.inf
        self._late = late and not self._late  # only once: limits also apply on a loop that is always late
        if self._late:  # the loop was blocked: data may have arrived that readers have yet to take
            self._arm(now + _SOON_SECONDS)
            return
        due = min((watchdog.look(now) for watchdog in list(self._watched)), default=math.inf)
        if due < self._next:  # an expired limit may have armed it already
            self._arm(max(due, now + 0.001))


_tickers: dict[asyncio.AbstractEventLoop, _Ticker] = {}


def _ticker(loop: asyncio.AbstractEventLoop) -> _Ticker:
    ticker = _tickers.get(loop)
    if ticker is None:
        drop_closed(_tickers)
        ticker = _tickers[loop] = _Ticker(loop)
    return ticker


class Watchdog:
    """Watches one attempt.

    Attributes:
        expired: Which limit passed and its length in seconds, once one has.
        content: The answer's content has begun.
        tail: How many seconds to wait without content once the answer has its finish reason; 0 before.
    """

    __slots__ = (
        "_attempt",
        "_deadline",
        "_loop",
        "_quiet",
        "_sent",
        "_ticker",
        "_time_limits",
        "_waiting_since",
        "_watched",
        "content",
        "expired",
        "tail",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: TimeLimits,
        deadline: float | None,
        attempt: Attempt,
    ) -> None:
        self._loop = loop
        self._time_limits = limits
        self._deadline = deadline
        self._attempt: Attempt | None = attempt
        self._sent: float | None = None
        self._ticker = _ticker(loop)
        self._watched = False
        self._waiting_since: float | None = None
        self._quiet = 0.0  # seconds that reads have waited since content came, without the current read
        self.expired: tuple[str, float] | None = None
        self.content = False
        self.tail = 0.0

    def start(self) -> None:
        """The attempt begins; only the deadline runs until something is awaited from the endpoint."""
        self._arm(self._loop.time())

    def waiting(self) -> None:
        """From now on, something is awaited from the endpoint."""
        now = self._waiting_since = self._loop.time()
        if self._sent is None:
            self._sent = now
            self.stop()
        if not self._watched:
            self._arm(now)

    def arrived(self, content: bool) -> None:
        """Something arrived: content, or bytes without any (pings, usage, most `RawChunk`s)."""
        if content:
            self._quiet = 0.0
            if not self.content:
                self.content = True
                self.stop()  # other limits apply from here on: the next wait arms the timer anew
        elif self._waiting_since is not None:
            self._quiet += self._loop.time() - self._waiting_since
        self._waiting_since = None

    def settle(self, tail: float) -> None:
        """The finish reason has come; or, if the tail is 0, the answer went on after all."""
        self.tail, self._quiet = tail, 0.0
        self.stop()  # the next wait arms the timer anew, for the tail

    def release(self) -> None:
        """Stop watching for good, and forget the attempt: else only the garbage collector could free the two."""
        self.stop()
        self._attempt = None

    def stop(self) -> None:
        """Stop watching until the next wait."""
        if self._watched:
            self._watched = False
            self._ticker.discard(self)

    def _due(self, now: float) -> tuple[float, str, float] | None:
        """The next limit to pass: when, which, its length. While nothing is awaited, `look` heeds only the deadline."""
        limits = self._time_limits
        total = None
        if self._deadline is not None and limits.total is not None:
            total = (self._deadline, "total", limits.total)
        if limits.idle is None and limits.first_token is None and limits.stall is None and not self.tail:
            return total
        due: list[tuple[float, str, float]] = [] if total is None else [total]
        waiting = now if self._waiting_since is None else self._waiting_since
        quiet = waiting - self._quiet  # since when, not counting the reader's own time between its reads
        if self.tail:
            due.append((quiet + self.tail, "tail", self.tail))
        if limits.idle is not None:
            due.append((waiting + limits.idle, "idle", limits.idle))
        if limits.first_token is not None and not self.content and self._sent is not None:
            due.append((self._sent + limits.first_token, "first_token", limits.first_token))
        if limits.stall is not None and self.content:
            due.append((quiet + limits.stall, "stall", limits.stall))
        return min(due, default=None)

    def _arm(self, now: float) -> None:
        due = self._due(now)
        if due is not None:
            self._watched = True
            self._ticker.add(self, due[0])

    def look(self, now: float) -> float:
        """End the wait if a limit has passed by now; return when to look again, infinite for never."""
        due = self._due(now)
        if due is None:
            return math.inf
        when, limit, seconds = due
        if self._waiting_since is None and limit != "total":  # nothing is awaited, so this limit is not running
            return max(when, now + _SOON_SECONDS)
        if when > now:
            return when
        self.expired = (limit, seconds)
        self.stop()
        if self._attempt is not None:
            self._attempt.stop_waiting()
        return math.inf


class Interrupted(Exception):
    """A scope was interrupted."""


class Scope:
    """A section of one task that can be interrupted from outside, like `asyncio.timeout` but at a fifth of its cost.

    It may be entered again after it was left.

    Raises:
        Interrupted: On leaving it, if it was interrupted; unless somebody else has cancelled the task too.
    """

    __slots__ = ("_cancelling", "_interrupted", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._interrupted = False

    def __enter__(self) -> None:
        task = self._task = asyncio.current_task(self._loop)
        assert task is not None, "coroutines of rusty_agent must run in asyncio tasks"
        self._cancelling = task.cancelling()
        self._interrupted = False

    def interrupt(self) -> None:
        """End the wait of the scope's task."""
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if (
            self._interrupted
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise Interrupted from error

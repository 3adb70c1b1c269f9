"""Closes the sessions and responses that are open on an event loop when that loop shuts down.

In: sessions and responses as they open. Out: nothing; they close with their loop, or with their provider. Never
touched: requests.

Each loop gets a suspended async generator: `asyncio.run`, or any other caller of `shutdown_asyncgens`, closes it while
the loop still runs, and its `finally` closes the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from .http.direct import Response

__all__ = ["Guard", "close_later", "dismiss_all", "drop_closed", "guard_of", "release"]

_LINGER_SECONDS = 0.25
_FOREVER_SECONDS = 10 * 365 * 86400.0


class Guard:
    """Watches over one loop.

    Attributes:
        sessions: Those not closed yet.
        responses: Those not released yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sessions: set[ClientSession] = set()
        self.responses: set[Response] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._loop = loop
        self._dismissed = False
        self._generator = self._stand()
        with suppress(StopIteration):  # run it up to its `yield`, which registers it with the loop
            self._generator.asend(None).send(None)

    async def _stand(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            _guards.pop(self._loop, None)
            if not self._dismissed:
                for response in list(self.responses):
                    release(response, self._loop)
                if self.sessions:
                    await asyncio.wait([asyncio.ensure_future(self.close(session)) for session in list(self.sessions)])

    async def close(self, session: ClientSession) -> None:
        """Close a session."""
        await session.close()
        self.sessions.discard(session)

    def close_soon(self, session: ClientSession) -> None:
        """Begin to close a session, on its loop. The loop's end may cancel this: then `_stand` closes it."""
        task = asyncio.ensure_future(self.close(session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def dismiss(self) -> None:
        """End without closing anything."""
        self._dismissed = True
        with suppress(StopIteration, RuntimeError):
            self._generator.aclose().send(None)


_guards: dict[asyncio.AbstractEventLoop, Guard] = {}
_T = TypeVar("_T")


def release(response: Response, loop: asyncio.AbstractEventLoop, *, linger: bool = False) -> None:
    """Finish with a response. Its connection closes now, unless its body has ended.

    Args:
        response: What `Transport.post` returned.
        loop: The running loop, the same as for `Transport.post`.
        linger: Give the body a moment to end, so that the connection can be kept.
    """
    guard = _guards.get(loop)  # None when the loop is shutting down
    if linger and guard is not None and not response.closed:
        loop.call_later(_LINGER_SECONDS, release, response, loop)
        return
    if guard is not None:
        guard.responses.discard(response)
    if not response.closed:
        response.close()


def drop_closed(by_loop: dict[asyncio.AbstractEventLoop, _T]) -> list[_T]:
    """Remove and return the entries of closed loops; other threads may be removing the same ones."""
    closed = [loop for loop in list(by_loop) if loop.is_closed()]
    return [left for loop in closed if (left := by_loop.pop(loop, None)) is not None]


def guard_of(loop: asyncio.AbstractEventLoop) -> Guard:
    """A loop's guard, which is made if there is none yet."""
    guard = _guards.get(loop)
    if guard is None:
        for left in drop_closed(_guards):
            left.dismiss()
        guard = _guards[loop] = Guard(loop)
        # This makes the loop hold the guard, and so everything that is open on it. In a forked child the parent's loops
        # are never destroyed (their threads' frames are lost, not unwound), so nothing is closed there: with epoll,
        # closing would remove the parent's sockets from the set that both processes share.
        loop.call_later(_FOREVER_SECONDS, guard.dismiss)
    return guard


def dismiss_all() -> None:
    """Forget everything that is open: the process ends, or it is a forked child and all of it is its parent's."""
    for guard in list(_guards.values()):
        guard.dismiss()


def close_later(sessions: dict[asyncio.AbstractEventLoop, ClientSession]) -> None:
    """Close sessions from any thread, each on its own loop."""
    for loop in list(sessions):
        session = sessions.pop(loop, None)  # another thread may be taking them too
        guard = _guards.get(loop)
        if guard is not None and session is not None and not session.closed:
            with suppress(RuntimeError):  # the loop closed in this moment
                loop.call_soon_threadsafe(guard.close_soon, session)

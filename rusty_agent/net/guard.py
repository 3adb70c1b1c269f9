"""Closes what is open on an event loop, when that loop shuts down.

In: sessions and responses as they open. Out: nothing; they close with their loop, or with their provider. Never
touched: requests.

An async generator stands guard on each loop: `asyncio.run`, and whoever else calls `shutdown_asyncgens`, closes it
before the loop goes, and so gives us the loop's last moment.
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
        sessions: All that are not closed yet.
        responses: All that are not released yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sessions: set[ClientSession] = set()
        self.responses: set[Response] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._loop = loop
        self._dismissed = False
        self._generator = self._stand()
        with suppress(StopIteration):  # run it to its yield, which registers it with the loop
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
        """Begin to close a session; runs on the loop, whose end may cancel it: then `_stand` does it again."""
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
    """Be done with a response. Its connection closes now, unless its body has ended.

    Args:
        response: What `Transport.post` returned.
        loop: The running loop, on which it did.
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
    """Take out what belongs to loops that are closed, and return it; other threads may be clearing the same ones."""
    closed = [loop for loop in list(by_loop) if loop.is_closed()]
    return [left for loop in closed if (left := by_loop.pop(loop, None)) is not None]


def guard_of(loop: asyncio.AbstractEventLoop) -> Guard:
    """A loop's guard, made if there is none yet."""
    guard = _guards.get(loop)
    if guard is None:
        for left in drop_closed(_guards):
            left.dismiss()
        guard = _guards[loop] = Guard(loop)
        # The loop holds the guard, and so all that is open. In a forked child a loop of the parent's is never destroyed
        # (its thread's frames are lost, not unwound), so nothing of it closes there: with epoll, that would take the
        # parent's sockets out of the set that both processes share.
        loop.call_later(_FOREVER_SECONDS, guard.dismiss)
    return guard


def dismiss_all() -> None:
    """Forget everything that is open: the process ends, or is a child to whose parent it belongs."""
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

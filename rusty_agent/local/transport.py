"""LocalTransport: `Transport` for an endpoint whose server is our own child process.

In: requests, as `Transport` takes them. Out: responses, once the model is loaded; if its process has ended, an error
that explains the broken connection. Never touched: HTTP itself.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TypeVar

from yarl import URL

from ..errors import RustyAgentError
from ..net.http.direct import Headers, Response
from ..net.http.transport import Transport
from .process import Child
from .server import LocalServer

__all__ = ["LocalTransport"]

T = TypeVar("T")

_DYING_SECONDS = 1.0  # how much later than its connections a process may end


class LocalTransport(Transport):
    """Starts the server with the first request; stops it when closed or dropped, or when the program ends."""

    shared = True

    def __init__(self, server: LocalServer) -> None:
        super().__init__()
        self.queues = True  # requests wait while the model loads
        self._server = server
        weakref.finalize(self, server.stop)

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            LocalModelError: It could not be loaded.
        """
        await self._running()

    async def post(
        self,
        url: URL,
        headers: Headers,
        body: bytes,
        loop: asyncio.AbstractEventLoop,
        *,
        connect: float | None,
        sending: Callable[[], None],
        anew: bool = False,
    ) -> Response:
        """Like `Transport.post`, to the port that the server listens on.

        Raises:
            LocalModelError: The model could not be loaded, or its process ended.
            RustyAgentError: As from `Transport.post`.
        """
        target = url
        try:
            if not self.closed:  # if it is closed, the base class raises
                target = url.with_port((await self._running()).port)
            sending()
            return await super().post(target, headers, body, loop, connect=connect, sending=sending, anew=anew)
        except RustyAgentError as error:
            del headers  # or a traceback with local variables would show the key in them
            told = await self.diagnose(error, target)
            if told is error:
                raise
            raise told from error

    async def diagnose(self, error: RustyAgentError, url: URL) -> RustyAgentError:
        """The error to raise for a broken connection: one that says how the process ended, if it has."""
        child = self._server.find(url.port)
        if child is None or self.closed or not await _in_a_thread(child.gone_within, _DYING_SECONDS):
            return error
        return child.error()

    async def aclose(self) -> None:
        """Close the connections and stop the server."""
        self._server.ask_to_end()  # first: the rest may be cancelled, or have to wait for a thread
        await super().aclose()
        await _in_a_thread(self._server.stop)

    async def _running(self) -> Child:
        child = self._server.child()
        if child.port is None:
            await asyncio.wrap_future(child.settled)
            if child.port is None:
                raise child.error()
        return child


async def _in_a_thread(function: Callable[..., T], *arguments: object) -> T:
    """Like `asyncio.to_thread`, but on this thread if Python starts no others, as after the end of the main thread."""
    try:
        running = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    except RuntimeError:
        return function(*arguments)
    return await running

"""LocalTransport: `Transport` for an endpoint whose server is our own child process.

In: requests, as `Transport` takes them. Out: what `Transport` gives, once the model is loaded; a broken connection is
explained if the model's process has ended. Never touched: HTTP itself.
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
from .process import ServerRun
from .server import LocalServer

__all__ = ["LocalTransport"]

T = TypeVar("T")

_DYING_SECONDS = 1.0  # how much later than its connections a process may end


class LocalTransport(Transport):
    """Starts the server with the first request, and stops it when it is closed or dropped, or with the program."""

    shared = True

    def __init__(self, server: LocalServer) -> None:
        super().__init__()
        self.queues = True  # for the model, while it loads
        self._server = server
        weakref.finalize(self, server.stop)

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            LocalModelError: It could not be.
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
        """As `Transport.post`, to wherever the server listens.

        Raises:
            LocalModelError: The model could not be loaded, or its process ended.
            RustyAgentError: As `Transport.post`.
        """
        target = url
        try:
            if not self.closed:  # one that is closed says so
                target = url.with_port((await self._running()).port)
            sending()
            return await super().post(target, headers, body, loop, connect=connect, sending=sending, anew=anew)
        except RustyAgentError as error:
            del headers  # or a traceback that shows local variables shows the key in them
            told = await self.diagnose(error, target)
            if told is error:
                raise
            raise told from error

    async def diagnose(self, error: RustyAgentError, url: URL) -> RustyAgentError:
        """The error to raise for a broken connection: how the process ended, if it has."""
        run = self._server.find(url.port)
        if run is None or self.closed or not await _in_a_thread(run.gone_within, _DYING_SECONDS):
            return error
        return run.error()

    async def aclose(self) -> None:
        """Close the connections and stop the server."""
        self._server.ask_to_end()  # first: whoever waits for the rest may be cancelled, or stand in line for a thread
        await super().aclose()
        await _in_a_thread(self._server.stop)

    async def _running(self) -> ServerRun:
        run = self._server.run()
        if run.port is None:
            await asyncio.wrap_future(run.settled)
            if run.port is None:
                raise run.error()
        return run


async def _in_a_thread(function: Callable[..., T], *arguments: object) -> T:
    """As `asyncio.to_thread`; where Python lends no thread any more, as once the main one has ended, on this one."""
    try:
        running = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    except RuntimeError:
        return function(*arguments)
    return await running

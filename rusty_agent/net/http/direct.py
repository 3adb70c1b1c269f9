"""One POST over aiohttp's pool and parser, without the session in between.

In: a connector, a target that was prepared once, headers and a body. Out: a `Reply`, whose headers are there and whose
body arrives. Never touched: redirects, cookies, retries, what the body means.

`ClientSession.post` costs 50 µs of the 87 that a request by hand takes on aiohttp: it builds a request object, merges
headers, cookies and timeouts that never change here, and starts a task that writes the body. What is left is what has
to happen: take a connection from the pool, write one block of bytes, wait for the parser. The session is used for all
that is not so plain (proxies, sessions of the caller's): both ways send the same bytes, which a test compares.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

__all__ = ["Headers", "Reply", "Response", "Target"]

_AUTOMATIC = ("Host", "Accept", "Accept-Encoding")  # what aiohttp would add to our headers by itself


class Headers(CIMultiDict[str]):
    """Headers of requests: in the form that aiohttp takes without converting, and without values in their repr.

    One of them is the key, and tracebacks may print local variables.
    """

    _head: tuple[Target, bytes] | None = None

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, "***"))

    def head(self, target: Target) -> bytes:
        """The beginning of a request with these headers, up to the number of its `Content-Length`; made once."""
        if self._head is None or self._head[0] is not target:
            self._head = target, target.head(self)
        return self._head[1]


class Reply:
    """An answer whose headers are there; what our code uses of aiohttp's `ClientResponse`, under the same names.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        content: The body as it arrives.
        url: Where it comes from.
        closed: The connection has been given back or closed.
    """

    __slots__ = ("_connection", "content", "headers", "status", "url")

    def __init__(
        self,
        url: URL,
        status: int,
        headers: CIMultiDictProxy[str],
        content: aiohttp.StreamReader,
        connection: aiohttp.connector.Connection,
    ) -> None:
        self.url = url
        self.status = status
        self.headers = headers
        self.content = content
        self._connection: aiohttp.connector.Connection | None = connection
        content.on_eof(self._give_back)

    @property
    def closed(self) -> bool:
        return self._connection is None

    def release(self) -> None:
        """Be done with it: what has not arrived of the body is not waited for."""
        self.close()

    def close(self) -> None:
        """Close the connection now, unless the body has ended; wake who waits for more of it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self.content.exception() is None:
                self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
            connection.close()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()


Response: TypeAlias = aiohttp.ClientResponse | Reply
"""An answer, whichever way its request has gone."""


class Target:
    """Where requests of one session to one URL go: prepared once, so that nothing is prepared for each."""

    def __init__(self, session: aiohttp.ClientSession, url: URL, read_buffer: int) -> None:
        self._url = url
        self._read_buffer = read_buffer
        # For the pool: it asks a request what connection it needs.
        self._request = ClientRequest(
            "POST", url, loop=asyncio.get_running_loop(), session=session, headers={}, ssl=True
        )
        self._line = f"POST {url.raw_path_qs} HTTP/1.1\r\n"
        self._automatic = [(name, self._request.headers[name]) for name in _AUTOMATIC if name in self._request.headers]

    def head(self, headers: CIMultiDict[str]) -> bytes:
        """The beginning of a request, see `Headers.head`."""
        lines = [self._line]
        lines += [f"{name}: {value}\r\n" for name, value in self._automatic if name not in headers]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        lines.append("Content-Length: ")
        return "".join(lines).encode()

    async def post(
        self, connector: aiohttp.BaseConnector, headers: Headers, body: bytes, timeout: aiohttp.ClientTimeout
    ) -> Reply:
        """Send a request, wait for the answer's headers.

        Raises:
            aiohttp.ClientError: As `ClientSession.post`.
            OSError: Likewise.
        """
        try:
            connection = await connector.connect(self._request, [], timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._url}") from error
        try:
            protocol, transport = connection.protocol, connection.transport
            if protocol is None or transport is None:
                raise aiohttp.ServerDisconnectedError
            protocol.set_response_params(read_until_eof=True, auto_decompress=True, read_bufsize=self._read_buffer)
            transport.write(b"%b%d\r\n\r\n%b" % (headers.head(self), len(body), body))
            while True:
                message, content = await protocol.read()
                if not 100 <= message.code < 200 or message.code == 101:
                    return Reply(self._url, message.code, message.headers, content, connection)
        except BaseException:
            connection.close()
            raise

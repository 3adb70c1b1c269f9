"""One POST over aiohttp's pool and parser, without the session in between.

In: a connector, a target that was prepared once, headers and a body. Out: a `Reply` with its headers, whose body is
still arriving. Never touched: redirects, cookies, retries, what the body means.

`ClientSession.post` costs 50 µs of the 87 that a request by hand takes on aiohttp: it builds a request object, merges
headers, cookies and timeouts that never change here, and starts a task that writes the body. This module only does what
it must: take a connection from the pool, write one block of bytes, wait for the parser. Less plain requests (proxies,
the caller's own sessions) go through the session. Both ways send the same bytes, which a test compares.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol, TypeAlias

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

__all__ = ["PARSING", "READING", "Headers", "Outbox", "Reply", "Response", "Target"]

# Gateways also pass on their providers' headers, under other names (litellm#25572): more than aiohttp's 128.
_MAX_HEADERS = 2**9
_MAX_HEADER_BYTES = 2**16  # gateways add policies and cookies beyond the 8,190 bytes that are aiohttp's default
_READ_BUFFER = 2**18  # bytes; at twice this, aiohttp's high-water mark, reading pauses (backpressure)

READING: dict[str, Any] = {
    "auto_decompress": False,  # aiohttp raises before the status can be read
    "read_bufsize": _READ_BUFFER,
    "max_line_size": _MAX_HEADER_BYTES,
    "max_field_size": _MAX_HEADER_BYTES,
    "max_headers": _MAX_HEADERS,
}
"""How an answer is read; also the options for aiohttp's sessions."""

PARSING: dict[str, Any] = {
    "timer": TimerNoop(),  # has no state, so one can serve all answers; else each would get its own
    "read_until_eof": True,
    **READING,
}
"""How aiohttp's parser reads an answer."""

_TOGETHER = 32  # the most requests to send together: more save nothing, and each waits for the others
_AUTOMATIC = ("Host", "Accept", "Accept-Encoding")  # headers that aiohttp would add to ours by itself


class Headers(CIMultiDict[str]):
    """Request headers in the form that aiohttp takes without converting, and without values in their repr.

    One of the values is the key, and tracebacks may print local variables.
    """

    _head: tuple[Target, bytes] | None = None

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, "***"))

    def head(self, target: Target) -> bytes:
        """The beginning of a request with these headers, up to the value of `Content-Length`; made once."""
        head = self._head  # read once: threads share these headers, and redirects may give each another target
        if head is None or head[0] is not target:
            head = self._head = target, target.head(self)
        return head[1]


class Reply:
    """An answer whose headers have arrived: the part of aiohttp's `ClientResponse` that we use, under the same names.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        content: The body as it arrives.
        url: Where it comes from.
        closed: The connection has been given back to the pool, or closed.
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

    def close(self) -> None:
        """Close the connection now, unless the body has ended; wake the task that waits for more of it."""
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
"""An answer, whichever way its request was sent."""


class Link(Protocol):
    """A connection, as needed for sending. While it is `idle`, anything that arrives answers no request of ours."""

    idle: bool
    transport: asyncio.Transport | None

    def close(self) -> None:
        """Close it now."""


class Outbox:
    """Collects the requests that one iteration of the loop makes, and sends them together at the start of the next.

    Sent one by one, between the work for other answers, each request would wake the endpoint separately, and each
    answer us: both would spend their time on waking. With 8 to 64 in flight on loopback, a request took 96 and 90 µs of
    CPU when sent one by one, and takes 68 and 72 µs when sent together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Link, bytes]] = deque()

    def put(self, link: Link, request: bytes) -> None:
        """Send a request soon. Its connection counts as idle until then, and may be closed meanwhile."""
        if not self._waiting:
            self._loop.call_soon(self._send_all)
        link.idle = True
        self._waiting.append((link, request))
        if len(self._waiting) >= _TOGETHER:
            self._send_all()

    def _send_all(self) -> None:
        requests, self._waiting = self._waiting, deque()
        link = None
        try:
            while requests:
                link, request = requests.popleft()
                _send_now(link, request)
        except BaseException as error:  # Ctrl-C: the rest would never be sent, and their callers would wait
            for other in (link, *(each for each, _ in requests)):
                if other is not None:
                    other.close()
            requests, request = deque(), b""  # they hold the key, and tracebacks may print this frame
            raise error.with_traceback(None) from None


def _send_now(link: Link, request: bytes) -> None:
    if link.transport is not None and not link.transport.is_closing():
        link.idle = False
        link.transport.write(request)


class _Asked(ClientRequest):
    """The request that the pool sees. It keeps its connection key, which aiohttp's would make anew for each request.

    No `cached_property`: before Python 3.12 all threads share its lock, and a forked child may find it held for ever.
    """

    connection_key: Any = None  # a plain attribute in place of aiohttp's property

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection_key = super().connection_key


class Target:
    """The destination of one session's requests to one URL: prepared once, so that no request has to."""

    def __init__(self, session: aiohttp.ClientSession, url: URL, outbox: Outbox) -> None:
        self._url = url
        self._outbox = outbox
        self._request = _Asked("POST", url, loop=asyncio.get_running_loop(), session=session, headers={}, ssl=True)
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
            aiohttp.ClientError: As from `ClientSession.post`.
            OSError: Likewise.
        """
        try:
            connection = await connector.connect(self._request, [], timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._url}") from error
        try:
            protocol = connection.protocol
            if protocol is None or protocol.transport is None:
                raise aiohttp.ServerDisconnectedError
            protocol.set_response_params(**PARSING)
            link: Any = protocol  # our own class, see `Connector`
            # A lone request need not wait for others; and on a new connection an answer may already be there.
            send = self._outbox.put if link.kept and len(connector._acquired) > 1 else _send_now
            send(link, b"%b%d\r\n\r\n%b" % (headers.head(self), len(body), body))
            while True:
                message, content = await protocol.read()
                if not 100 <= message.code < 200 or message.code == 101:
                    return Reply(self._url, message.code, message.headers, content, connection)
        except BaseException:
            connection.close()
            raise

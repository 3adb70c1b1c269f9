"""Connections: aiohttp's pool and protocol, taught what a client of language models needs.

In: requests that need a connection. Out: connections, and whether they are new. Never touched: requests and answers.
"""

from __future__ import annotations

import asyncio
import atexit
import encodings.idna  # noqa: F401 - connecting imports it; a fork during that import would leave the child waiting
import math
import os
import socket
import struct
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from yarl import URL

from ..guard import dismiss_all
from .direct import PARSING, Outbox, Target

__all__ = ["BoundedConnector", "Connector", "Dialing"]

_READ_BYTES = 2**16
"""The most that one read of a socket returns."""

_MAX_TARGETS = 16
_HEAD_END = b"\r\n\r\n"
_MOST_BEGUN = 2**17  # bytes: more than headers may take
_PROBES = [  # after 30 s of silence, one every 30 s; after 5 without a reply the connection is lost
    (getattr(socket, name), value)
    for name, value in {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 30, "TCP_KEEPCNT": 5}.items()
    if hasattr(socket, name)  # the first two are the same option, on Linux and on macOS
]
# No TCP_USER_TIMEOUT: it would also end requests that a living but busy server has not read yet.
_NO_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Dialing:
    """A task's request to the pool for a connection, and the outcome.

    Attributes:
        sending: Called by a bounded pool, in which requests may have to wait, when this one has its connection.
        anew: The task wants a new connection.
        failed: A new connection could not be made.
        taken: When the task got a kept connection, by the loop's clock; -inf if it got a new one, or if unknown.
    """

    __slots__ = ("anew", "failed", "sending", "taken")

    def __init__(self, sending: Callable[[], None], *, anew: bool) -> None:
        self.sending = sending
        self.anew = anew
        self.failed = False
        self.taken = -math.inf


_connectors: weakref.WeakSet[Connector] = weakref.WeakSet()


class _Protocol(ResponseHandler):
    """aiohttp's protocol, with these differences.

    * If the body's framing is broken, its reader gets an error too, and does not wait for ever: the C parser drops the
      body when it fails, and aiohttp closes the connection without telling the reader.
    * Closing takes effect at once. A transport's own `close()` first waits until everything written has been sent,
      which never happens if the endpoint does not read. The system would wait likewise, so it is told to reset the
      connection. TLS does not tell how much it has yet to send, so there an exchange that is cut short is always reset.
    * The valid beginning of an answer counts, even if the framing of what came with it is wrong: aiohttp's parser would
      drop all of it, so it would depend on TCP's segments whether a status, or a whole answer, is lost.
    * A connection that breaks after an answer has begun was alive, and its error says so: only if a connection was dead
      is the request sent again at once.
    * Data that nobody has asked for ends the connection: if it were kept, that data would become the answer to the next
      request, and each answer after it would go to the wrong caller.

    Attributes:
        idle: Whether the connection waits in the pool.
        kept: Whether it has waited there before: on a new one an answer may arrive before any request, as from a
            server that has too many connections.
    """

    idle = False
    kept = False
    _was_paused = False
    _in_body = False
    _begun = b""  # the bytes of an answer so far, while its body has not begun or is already whole

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # asyncio's: uvloop keeps one buffer for all reads
            # With asyncio's 256 KiB the C library maps new memory for each read, and returns it at once.
            transport.max_size = _READ_BYTES
        with suppress(OSError, AttributeError):  # a transport may not expose a socket
            # While a model thinks, nothing is sent, and after a minute or more NATs silently forget such connections.
            tcp = transport.get_extra_info("socket")
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _PROBES:
                tcp.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        if self.idle and data:  # without data, aiohttp only resumes reading
            self.close()
            return
        if self._in_body:
            ResponseHandler.data_received(self, data)  # `super()` takes twice as long, and this runs for each segment
        else:
            self._begun = self._begun + data if len(self._begun) < _MOST_BEGUN else b""
            ResponseHandler.data_received(self, data)
            if not self._bodiless() or (self._buffer and self._payload is not aiohttp.EMPTY_PAYLOAD):
                self._in_body, self._begun = True, b""  # the body may already be whole, and wait for its reader
        if self.idle and (self._buffer or self._tail):  # the data held the end of an answer, and more
            self.close()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        begun, self._begun = self._begun, b""
        if _HEAD_END in begun and isinstance(exc, HttpProcessingError) and not (self._in_body or self._buffer):
            self.set_response_params(**PARSING)
            transport, self.transport = self.transport, None  # already closed; asyncio's TLS transport breaks if again
            try:
                self._feed_apart(begun)
            finally:
                self.transport = transport
            return
        if begun and isinstance(exc, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            exc = aiohttp.ClientPayloadError("the answer ended in the middle of its headers")
        super().set_exception(exc, *cause)

    def _feed_apart(self, data: bytes) -> None:
        """Feed headers, including those of interim answers (1xx), and what follows them one after the other."""
        while data and self._exception is None and self._bodiless():
            head, end, data = data.partition(_HEAD_END)
            ResponseHandler.data_received(self, head + end)
        if data and self._exception is None:
            ResponseHandler.data_received(self, data)

    def _bodiless(self) -> bool:
        """Whether no body is being received: the headers are incomplete, or nothing is to follow them."""
        return self._payload is None or self._payload.is_eof()

    def pause_reading(self) -> None:
        self._was_paused = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **kwargs: Any) -> None:
        """Skip resuming if nothing was ever paused: aiohttp resumes, and parses nothing, after each read: 3 µs a chunk.

        After a pause its parser may need to be resumed more than once, so from then on nothing is skipped.
        """
        if self._was_paused:
            super().resume_reading(*args, **kwargs)

    def close(self) -> None:
        transport = self.transport
        if transport is not None:
            if transport.get_write_buffer_size() or (not self.idle and transport.get_extra_info("ssl_object")):
                with suppress(OSError, AttributeError):  # the socket may be gone already; TLS then shows none
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            with suppress(RuntimeError):  # the loop is closed: the socket is closed with the transport
                transport.abort()
        super().close()

    def abort(self) -> None:
        """Close: aiohttp's connector calls this for connections over TLS when it is closed itself."""
        self.close()

    @property
    def should_close(self) -> bool:
        """Whether it must not be kept, also because the endpoint answered before it had read the whole request."""
        return super().should_close or (self.transport is not None and self.transport.get_write_buffer_size() > 0)

    def connection_lost(self, exc: BaseException | None) -> None:
        body = self._payload
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("its HTTP framing is wrong"))


class _Lent(socket.socket):
    """A socket for uvloop: uvloop closes its file descriptor, the garbage collector must not.

    If a peer resets a connection before the TLS handshake, uvloop closes the descriptor, but the object keeps its
    number: when collected, it would close whatever connection has that number by then.
    """

    def __del__(self) -> None:
        self.detach()


class Connector(aiohttp.TCPConnector):
    """A pool that tells whether a request got a new connection, and that gives no warnings if it is never closed.

    Attributes:
        abandoned: It belongs to another process, or this process is ending.
        dialing: What tasks want, by task; not in a context variable, as tasks may share their context.
    """

    def __init__(self, **options: Any) -> None:
        self.abandoned = False
        self.dialing: dict[asyncio.Task[Any] | None, Dialing] = {}
        self._home = asyncio.get_running_loop()
        self._targets: dict[URL, Target] = {}
        self._outbox = Outbox(self._home)
        if not isinstance(self._home, asyncio.BaseEventLoop):
            options["socket_factory"] = lambda address: _Lent(*address[:3])
        super().__init__(**options)
        protocol: type[ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._home)
        _connectors.add(self)

    def target(self, session: aiohttp.ClientSession, url: URL) -> Target:
        """The target of requests to a URL. A pool has few: one, plus redirects or a local model's ports."""
        target = self._targets.get(url)
        if target is None:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            target = self._targets[url] = Target(session, url, self._outbox)
        return target

    async def _get(self, *args: Any, **kwargs: Any) -> Any:
        connection: Any = await super()._get(*args, **kwargs)
        if connection is None:
            return None
        dialing = self._dialing()
        if dialing.anew:  # the kept one, which may be dead, makes room for it, so their number does not grow
            connection.close()
            return None
        dialing.taken = self._home.time()
        connection.protocol.idle = False
        return connection

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        protocol.idle = protocol.kept = not should_close
        protocol._in_body, protocol._begun = False, b""
        if self._closed and not self.abandoned:  # aiohttp has closed all except those that still wait for a proxy
            protocol.close()
        super()._release(key, protocol, should_close=should_close)

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        dialing = self._dialing()
        dialing.failed = True
        connection = await super()._create_connection(*args, **kwargs)
        dialing.failed = False
        return connection

    def _dialing(self) -> Dialing:
        return self.dialing[asyncio.current_task(self._home)]

    @property
    def closed(self) -> bool:
        return self.abandoned or super().closed or self._home.is_closed()

    def __del__(self, *_: Any) -> None:
        """Do nothing: aiohttp would warn here, and close through a loop that may be gone, or the parent's."""


class BoundedConnector(Connector):
    """A pool in which requests may have to wait for a connection: it calls `Dialing.sending` when one has got it."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        try:
            connection = await super().connect(*args, **kwargs)
        except asyncio.CancelledError:
            self._release_waiter()  # it may have been this task's turn already, and aiohttp would wake nobody else
            raise
        self._dialing().sending()
        return connection

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        # The garbage collector may release one after aiohttp has looked for a free one and before it waits: nobody
        # would be woken.
        if should_close and not self.closed:
            self._home.call_soon(self._release_waiter)

    async def _create_connection(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        async with asyncio.timeout(timeout.sock_connect):  # includes DNS and proxies, which aiohttp does not limit
            return await super()._create_connection(req, traces, timeout)


def _abandon_all() -> None:
    """Forget every session: the process ends, or it is a forked child whose sockets and loops are its parent's."""
    for connector in list(_connectors):
        connector.abandoned = True
    dismiss_all()


atexit.register(_abandon_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)

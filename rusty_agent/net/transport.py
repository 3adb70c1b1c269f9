"""HTTP: the only door to aiohttp.

In: a URL, headers, a body and time limits. Out: an open response, or a typed error. Never touched: what the body
means, whether to retry.

Sessions belong to an event loop, never to a provider: a provider that is used from another loop opens another one.
A session is closed with its provider, or when its loop shuts down (an async generator that `asyncio.run` closes for
us stands guard), or, at the latest and silently, with the process. A forked child abandons what it inherited.
"""

from __future__ import annotations

import asyncio
import atexit
import encodings.idna  # noqa: F401 - connecting imports it; a fork in that moment would leave the child waiting
import io
import logging
import os
import socket
import ssl
import struct
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, TypeAlias
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from attrs import define, field
from yarl import URL

from .. import errors
from ..config import checked_proxy
from ..wire.failure import printable
from .direct import Headers, Reply, Target
from .guard import close_later, dismiss_all, find_guard, guard_of

__all__ = [
    "NETWORK_ERRORS",
    "Headers",
    "Response",
    "Transport",
    "TransportOptions",
    "network_error",
    "proxies_of_environment",
    "salvage",
]

Response: TypeAlias = aiohttp.ClientResponse | Reply
NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What reading from a `Response` may raise; `network_error` turns it into an error of ours."""

_MAX_REDIRECTS = 5
_READ_BUFFER = 2**18  # bytes buffered before the server is held back, at most twice this (aiohttp's high-water mark)
_MAX_TARGETS = 16
_LARGE = 2**20  # bytes of a body from which on aiohttp wants to send it in pieces
_NO_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
_KEEP_ALIVE = 30.0  # seconds; servers commonly close idle connections after 60 or more, uvicorn after 5

logger = logging.getLogger("rusty_agent")

_sending: ContextVar[Callable[[], None]] = ContextVar("rusty_agent_sending")
_made_connection: ContextVar[bool | None] = ContextVar("rusty_agent_made_connection", default=True)
"""Whether the request got a new connection; None asks for one."""

_connectors: weakref.WeakSet[_Connector] = weakref.WeakSet()


class _Protocol(ResponseHandler):
    """aiohttp's protocol; but where the body's framing is broken, its reader is told too, and does not wait for ever.

    The C parser forgets the body when it fails, and the connection is closed without a word to whoever reads.

    And what is closed is closed now: a transport's own `close()` first waits until all that is written has left,
    which is never if the endpoint does not read. The system would wait likewise, so it is told to reset the connection.
    """

    def close(self) -> None:
        transport = self.transport
        if transport is not None:
            if transport.get_write_buffer_size():
                with suppress(OSError):  # the connection may be gone already
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            transport.abort()
        super().close()

    @property
    def should_close(self) -> bool:
        """Whether it must not be kept: also if the endpoint answered before it had read the whole request."""
        return super().should_close or (self.transport is not None and self.transport.get_write_buffer_size() > 0)

    def connection_lost(self, exc: BaseException | None) -> None:
        body = self._payload
        super().connection_lost(exc)
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("its HTTP framing is wrong"))


class _Connector(aiohttp.TCPConnector):
    """A pool that tells whether a request got a new connection, and that makes no noise when it is forgotten."""

    def __init__(self, **options: Any) -> None:
        self.abandoned = False
        self._home = asyncio.get_running_loop()
        self._targets: dict[URL, Target] = {}
        super().__init__(**options)
        protocol: type[ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._home)
        _connectors.add(self)

    def target(self, session: aiohttp.ClientSession, url: URL) -> Target:
        """Where requests to a URL go; there are few in the life of a pool: one, redirects, a local model's ports."""
        target = self._targets.get(url)
        if target is None:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            target = self._targets[url] = Target(session, url, _READ_BUFFER)
        return target

    async def _get(self, *args: Any, **kwargs: Any) -> Any:
        return None if _made_connection.get() is None else await super()._get(*args, **kwargs)

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        _made_connection.set(True)
        return await super()._create_connection(*args, **kwargs)

    @property
    def closed(self) -> bool:
        return self.abandoned or super().closed or self._home.is_closed()

    def __del__(self, *_: Any) -> None:
        """aiohttp would warn here and close through a loop that may be gone, or the parent's."""


class _BoundedConnector(_Connector):
    """A pool in which requests may have to wait for a connection: it tells when one has got it."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        connection = await super().connect(*args, **kwargs)
        _sending.get()()
        return connection

    async def _create_connection(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        async with asyncio.timeout(timeout.sock_connect):  # for names and proxies too, which aiohttp does not limit
            return await super()._create_connection(req, traces, timeout)


def _abandon_all() -> None:
    """Forget every session: the process ends, or is a child whose sockets and loops are its parent's."""
    for connector in list(_connectors):
        connector.abandoned = True
    dismiss_all()


atexit.register(_abandon_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


@define(frozen=True)
class TransportOptions:
    """How to connect; see `AsyncProvider` for the meaning of each."""

    proxy: str | None = field(default=None, repr=False)
    trust_env: bool = False
    max_connections: int | None = None
    tls: ssl.SSLContext | None = None


class Transport:
    """The sessions of one provider, one for each loop that it is used from.

    Attributes:
        closed: No request can be sent any more.
        queues: Requests may have to wait for a connection.
    """

    def __init__(self, options: TransportOptions, session: aiohttp.ClientSession | None = None) -> None:
        self._options = options
        self._given = session
        self.queues = options.max_connections is not None and session is None
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self.closed = False
        weakref.finalize(self, close_later, self._sessions).atexit = False

    async def post(
        self, url: URL, headers: Headers, body: bytes, *, connect: float | None, sending: Callable[[], None]
    ) -> Response:
        """Send a request, wait for the response's headers.

        A pooled connection that turns out to be dead is replaced once, at once: servers close idle connections at any
        moment. `sending` is called when there is a connection to send on: with a bounded pool that may take long.

        Raises:
            RustyAgentError: The endpoint could not be reached or gave no HTTP answer.
        """
        session = self._session()
        timeout = _client_timeout(connect, self.queues)
        redirects = resent = 0
        if self.queues:
            _sending.set(sending)
        else:
            sending()
        while True:
            _made_connection.set(None if resent else self._given is not None)
            failure: errors.RustyAgentError | None = None
            try:
                proxy = self._proxy(url)
                connector = session.connector
                response: Response
                if proxy is None and isinstance(connector, _Connector):
                    response = await connector.target(session, url).post(connector, headers, body, timeout)
                else:
                    response = await session.post(
                        url,
                        data=body if len(body) < _LARGE else io.BytesIO(body),
                        headers=headers,
                        allow_redirects=False,
                        raise_for_status=False,
                        timeout=timeout,
                        proxy=proxy,
                    )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                fresh = _made_connection.get() or isinstance(error, aiohttp.ClientConnectorError)
                if not (fresh or resent or self.closed):
                    resent = 1
                    logger.debug("a kept connection was dead: the request is sent again")
                    continue
                failure = self._error(error, url, connect)
            except (*NETWORK_ERRORS, ValueError, RuntimeError) as error:
                failure = self._error(error, url, connect)
            except asyncio.CancelledError as error:
                raise error.with_traceback(None) from None  # aiohttp's frames hold the headers
            if failure is not None:  # raised here, without a cause: aiohttp's errors and frames hold the headers
                raise failure
            target = _same_origin_redirect(response, url)
            if target is None or redirects == _MAX_REDIRECTS:
                if not response.closed:
                    guard_of(asyncio.get_running_loop()).responses.add(response)
                return response
            response.release()
            redirects, url = redirects + 1, target

    def release(self, response: Response, *, linger: bool = False) -> None:
        """Be done with a response. Its connection closes now, unless its body has ended.

        Args:
            response: What `post` returned.
            linger: Give the body a moment to end, so that the connection can be kept.
        """
        guard = find_guard()
        if guard is None:  # the loop is shutting down
            response.close()
        else:
            guard.release(response, linger=linger)

    async def ready(self) -> None:
        """Wait until there is an endpoint. A hook: transports that start their own override it."""

    async def diagnose(self, error: errors.RustyAgentError, url: URL) -> errors.RustyAgentError:
        """The error to raise for a connection to `url` that broke in the middle of an answer. A hook, as `ready`."""
        return error

    async def aclose(self) -> None:
        """Close the session of this loop, and those of other loops as soon as they get to it."""
        self.closed = True
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        close_later(self._sessions)
        if session is not None:
            await guard_of(asyncio.get_running_loop()).close(session)

    def _session(self) -> aiohttp.ClientSession:
        if self.closed:
            raise _final("The provider is closed: make another one.")
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is not None and not session.closed:
            return session
        if self._given is not None:
            if self._given.closed:
                raise _final("The session that was given to the provider is closed.")
            return self._given
        return self._open_session(loop)

    def _open_session(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        for other in [other for other in list(self._sessions) if other.is_closed()]:
            self._sessions.pop(other, None)
        options = self._options
        session = aiohttp.ClientSession(
            connector=(_Connector if options.max_connections is None else _BoundedConnector)(
                limit=options.max_connections or 0,  # 0: no limit; aiohttp's own default of 100 throttles
                keepalive_timeout=_KEEP_ALIVE,
                ssl=options.tls or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # aiohttp's own default cuts streams after 5 minutes
            auto_decompress=True,
            read_bufsize=_READ_BUFFER,
            skip_auto_headers=("User-Agent",),
        )
        self._sessions[loop] = session
        guard_of(loop).sessions.add(session)
        return session

    def _proxy(self, url: URL) -> str | None:
        """The proxy to use. Not aiohttp's `trust_env`: it would read netrc too and refuse to mix that with a key."""
        if not self._options.trust_env:
            return self._options.proxy
        if self._options.proxy or proxy_bypass(url.host or ""):
            return self._options.proxy
        proxies = getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all")
        return proxy and checked_proxy(proxy)

    def _error(self, error: Exception, url: URL, connect: float | None) -> errors.RustyAgentError:
        if self.closed:
            return errors.APIConnectionError("The provider was closed while the request was under way.")
        return network_error(error, f"{url.host}:{url.port}", connect=connect)


def proxies_of_environment() -> list[str]:
    """Whatever `trust_env` may take for a proxy."""
    return list(getproxies().values())


@lru_cache(maxsize=64)
def _client_timeout(connect: float | None, bounded: bool) -> aiohttp.ClientTimeout:
    """With a bounded pool the wait for a free connection is no part of connecting."""
    if bounded:
        return aiohttp.ClientTimeout(total=None, sock_connect=connect)
    return aiohttp.ClientTimeout(total=None, connect=connect)


def _same_origin_redirect(response: Response, url: URL) -> URL | None:
    """Where a 307 or 308 points to, if that is the same origin: only there may the key and the prompt go."""
    location = response.headers.get("location") if response.status in (307, 308) else None
    if not location:
        return None
    try:
        target = url.join(URL(location))
        same = target.origin() == url.origin() and target.user is None
    except ValueError:
        return None
    return target if same else None


def network_error(error: BaseException, peer: str, *, connect: float | None = None) -> errors.RustyAgentError:
    """The error of ours for one of aiohttp's, or of the operating system's."""
    said = printable(str(error) or type(error).__name__)
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return errors.APITimeoutError(
            f"No connection to {peer} within {connect} s. Is the host up and reachable?",
            limit="connect",
            seconds=connect,
        )
    if isinstance(error, aiohttp.ClientError | HttpProcessingError) and "content-encoding" in said.lower():
        return errors.ResponseError(f"The answer of {peer} cannot be decompressed: {said}.")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError | ssl.SSLError):
        failed = errors.APIConnectionError(
            f"No secure connection to {peer}: {said}. Check the certificate or pass ssl."
        )
        failed.retryable = False
        return failed
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return errors.APIConnectionError(f"The proxy refused to connect to {peer}: HTTP {error.status}.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return errors.APIConnectionError(f"Cannot connect to {peer}: {said}. Check base_url and that the server runs.")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return errors.APIConnectionError(f"{peer} closed the connection without an answer.")
    if isinstance(error, HttpProcessingError):  # from aiohttp's parser in Python; that in C hides it
        said = printable(error.message)
        return errors.APIConnectionError(f"The connection to {peer} broke: its HTTP framing is wrong: {said}.")
    if isinstance(error, aiohttp.ClientResponseError):
        return errors.APIConnectionError(f"{peer} does not speak HTTP: {said}.")
    if isinstance(error, RuntimeError | ValueError):
        return _final(f"The request to {peer} could not be sent: {said}.")
    return errors.APIConnectionError(f"The connection to {peer} broke: {said}.")


def _final(message: str) -> errors.APIConnectionError:
    """An error that trying again does not help."""
    error = errors.APIConnectionError(message)
    error.retryable = False
    return error


def salvage(response: Response) -> bytes:
    """What had arrived when the connection broke: aiohttp raises before it hands its buffer out."""
    buffer = getattr(response.content, "_buffer", None)
    offset = getattr(response.content, "_buffer_offset", 0)
    return b"".join(buffer)[offset:] if buffer else b""

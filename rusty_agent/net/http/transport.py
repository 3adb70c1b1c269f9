"""The transport of one provider.

In: a URL, headers, a body and time limits. Out: an open response, or a typed error. Never touched: what the body
means, whether to retry.

A session belongs to one event loop: a provider that is used from another loop opens another session. A session is
closed with its provider, or when its loop shuts down (noticed by an async generator that `asyncio.run` closes, see
`guard.py`), or, at the latest and silently, with the process. A forked child abandons the sessions that it inherited.
"""

from __future__ import annotations

import asyncio
import io
import logging
import ssl as tls
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
from aiohttp import ClientSession
from yarl import URL

from ... import errors
from ...checks import checked_count, checked_kind
from ...config import checked_proxy
from ..guard import close_later, drop_closed, guard_of
from .direct import READING, Headers, Response
from .failures import NETWORK_ERRORS, network_error
from .pool import BoundedConnector, Connector, Dialing

__all__ = ["ClientSession", "Transport", "proxies_of_environment"]

_MAX_REDIRECTS = 5
_LARGE = 2**20  # bytes; aiohttp wants to send larger bodies in pieces
_DYING_SECONDS = 2.0  # a kept connection that is dead shows it within this time: a round trip, or a few
_SESSION_CLOSED = "The session that was given to the provider is closed."
_KEEP_ALIVE = 30.0  # seconds; servers commonly close idle connections after 60 or more, uvicorn after 5

logger = logging.getLogger("rusty_agent")


class Transport:
    """The sessions of one provider, one for each loop that it is used from; see `AsyncProvider` for the arguments.

    Attributes:
        shared: Copies of a provider share it, and such a provider cannot be pickled: its endpoint exists only once.
        closed: It was closed.
        queues: Requests may have to wait for a connection of our own pool.
        inflates: The session decompresses bodies itself, as one given by the caller may do.

    Raises:
        ValueError: The session, the TLS context or the number of connections is of a wrong kind.
    """

    shared = False

    def __init__(
        self,
        *,
        proxy: str | None = None,
        trust_env: bool = False,
        max_connections: int | None = None,
        ssl: tls.SSLContext | None = None,
        session: ClientSession | None = None,
    ) -> None:
        self._sessions: dict[asyncio.AbstractEventLoop, ClientSession] = {}
        if session is not None:
            checked_kind(session, ClientSession, "session")
        if ssl is not None:
            checked_kind(ssl, tls.SSLContext, "ssl")
        self._max_connections = checked_count(max_connections, "max_connections", optional=True)
        self._fixed_proxy = proxy
        self._trust_env = trust_env
        self._ssl = ssl
        self._given = session
        self.inflates = session is not None and session.auto_decompress
        self.queues = max_connections is not None and session is None
        pool = None if session is None else session.connector
        self._bounded = self.queues or (pool is not None and bool(pool.limit or pool.limit_per_host))
        self.closed = False

    @property
    def ended(self) -> bool:
        """Whether no request can be sent any more: the transport, or the session that it was given, was closed."""
        return self.closed or (self._given is not None and self._given.closed)

    def __del__(self) -> None:
        """Close the sessions. No `weakref.finalize`: it would hold the loops, and so all that they left pending."""
        close_later(getattr(self, "_sessions", {}))  # Ctrl-C may have interrupted the constructor

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
        """Send a request, wait for the response's headers.

        A pooled connection that turns out to be dead is replaced once, immediately: servers close idle connections at
        any moment. `sending` is called when only the endpoint is waited for: right away, or, with a bounded pool of our
        own, once the request has its connection, which may take long. `loop` is the running one: it is an argument
        because before Python 3.12 asking for it is a system call. With `anew` the request goes over a new connection:
        the last one failed or was silent, and others as old may do the same.

        Raises:
            RustyAgentError: The endpoint could not be reached or gave no HTTP answer.
        """
        try:
            session = self._session(loop)
        except BaseException:
            del headers, url  # or a traceback that shows local variables would show the key in them
            raise
        timeout = _client_timeout(connect, self._bounded)
        redirects = 0
        task = asyncio.current_task(loop)
        pool = session.connector if isinstance(session.connector, Connector) else None  # others tell nothing
        dialing = {} if pool is None else pool.dialing
        if not self.queues:
            sending()
        while True:
            dialed = dialing[task] = Dialing(sending, anew=anew)
            failure: errors.RustyAgentError | None = None
            try:
                response = await self._send(session, pool, url, headers, body, timeout)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                worked_on = loop.time() - dialed.taken > _DYING_SECONDS  # or the connection was new
                if not (worked_on or self.closed):
                    anew = True  # so this happens only once: a connection made for this request is fresh
                    logger.debug("a kept-alive connection was dead: sending the request again")
                    continue
                failure = self._error(error, url, connect, dialed)
            except (*NETWORK_ERRORS, ValueError, RuntimeError) as error:
                failure = self._error(error, url, connect, dialed)
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
                if not (isinstance(error, asyncio.CancelledError) and self._orphaned(task)):
                    del headers, url
                    raise error.with_traceback(None) from None  # aiohttp's frames hold the headers
                failure = errors.APIConnectionError(_SESSION_CLOSED, retryable=False)
            finally:
                del dialing[task]
            if failure is not None:  # raised out here, without a cause: aiohttp's errors and frames hold the headers
                del headers, url  # and so does this frame
                try:
                    raise failure
                finally:
                    del failure  # breaks the cycle of the error and this frame
            target = _same_origin_redirect(response, url)
            if target is None or redirects == _MAX_REDIRECTS:
                if not response.closed:
                    guard_of(loop).responses.add(response)
                return response
            response.close()
            redirects, url = redirects + 1, target

    def _send(
        self,
        session: ClientSession,
        pool: Connector | None,
        url: URL,
        headers: Headers,
        body: bytes,
        timeout: aiohttp.ClientTimeout,
    ) -> Awaitable[Response]:
        proxy = self._proxy(url)
        # For a large body over TLS, only aiohttp's own writer knows whether all of it has been sent.
        session_way = proxy is not None or (url.scheme == "https" and len(body) >= _LARGE)
        if pool is not None and not session_way:
            return pool.target(session, url).post(pool, headers, body, timeout)
        return session.post(
            url,
            data=body if len(body) < _LARGE else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
            raise_for_status=False,
            timeout=timeout,
            proxy=proxy,
        )

    async def ready(self) -> None:
        """Wait until there is an endpoint. A hook: transports that start their own server override it."""

    async def diagnose(self, error: errors.RustyAgentError, url: URL) -> errors.RustyAgentError:
        """The error to raise for a connection to `url` that broke in the middle of an answer. A hook, like `ready`."""
        return error

    async def aclose(self) -> None:
        """Close the session of this loop now, and those of other loops as soon as these loops get to it."""
        self.closed = True
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        close_later(self._sessions)
        if session is not None:
            await guard_of(asyncio.get_running_loop()).close(session)

    def _session(self, loop: asyncio.AbstractEventLoop) -> ClientSession:
        if self.closed:
            raise errors.APIConnectionError("The provider is closed: create a new one.", retryable=False)
        session = self._sessions.get(loop)
        if session is not None and not session.closed:
            return session
        if self._given is not None:
            if self._given.closed:
                raise errors.APIConnectionError(_SESSION_CLOSED, retryable=False)
            return self._given
        return self._open_session(loop)

    def _orphaned(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether only aiohttp has cancelled the task: a session that closes cancels tasks that wait for its pool."""
        return self._given is not None and self._given.closed and task is not None and not task.cancelling()

    def _open_session(self, loop: asyncio.AbstractEventLoop) -> ClientSession:
        drop_closed(self._sessions)
        session = ClientSession(
            connector=(Connector if self._max_connections is None else BoundedConnector)(
                limit=self._max_connections or 0,  # 0: no limit; aiohttp's own default of 100 throttles
                keepalive_timeout=_KEEP_ALIVE,
                ssl=self._ssl or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # aiohttp's own default cuts streams after 5 minutes
            skip_auto_headers=("User-Agent",),
            **READING,
        )
        self._sessions[loop] = session
        guard_of(loop).sessions.add(session)
        return session

    def _proxy(self, url: URL) -> str | None:
        """The proxy to use. Not aiohttp's `trust_env`: it would also read netrc, and refuse to mix that with a key."""
        if not self._trust_env or self._fixed_proxy or proxy_bypass_environment(f"{url.host}:{url.port}"):
            return self._fixed_proxy
        proxies = getproxies_environment()
        kind = url.scheme if proxies.get(url.scheme) else "all"
        proxy = proxies.get(kind)
        return proxy and checked_proxy(proxy, f"the environment's {kind}_proxy")

    def _error(self, error: Exception, url: URL, connect: float | None, dialed: Dialing) -> errors.RustyAgentError:
        error.__traceback__ = None  # its frames hold the callers, and aiohttp's framing errors hold each other
        proxy = self._proxy(url) if dialed.failed else None
        return network_error(error, url, connect=connect, proxy=URL(proxy) if proxy else None)


def proxies_of_environment() -> list[str]:
    """All proxies that `trust_env` may use."""
    return list(getproxies_environment().values())


@lru_cache(maxsize=64)
def _client_timeout(connect: float | None, bounded: bool) -> aiohttp.ClientTimeout:
    """aiohttp's form of the limit. With a bounded pool, waiting for a free connection does not count as connecting."""
    if bounded:
        return aiohttp.ClientTimeout(total=None, sock_connect=connect)
    return aiohttp.ClientTimeout(total=None, connect=connect)


def _same_origin_redirect(response: Response, url: URL) -> URL | None:
    """The target of a 307 or 308 if it has the same origin: the key and the prompt may go nowhere else."""
    location = response.headers.get("location") if response.status in (307, 308) else None
    if not location:
        return None
    try:
        target = url.join(URL(location))
        same = target.origin() == url.origin() and target.user is None and target != url
    except ValueError:
        return None
    return target if same else None

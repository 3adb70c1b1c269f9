"""Connection errors → typed errors.

In: what aiohttp or the operating system raised. Out: our own error, in words for the user. Never touched: the decision
to retry. aiohttp's errors, whose frames hold the headers, are never kept as a cause.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from ... import errors
from ...verdict import RETRIED_STATUSES
from ...wire.failure import PROXY_ADVICE
from ...wire.words import printable
from .direct import Response

__all__ = ["NETWORK_ERRORS", "network_error", "salvage"]

NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What reading from a `Response` may raise; `network_error` turns it into one of our errors."""

_REPR = (  # reprs in aiohttp's messages: a status 400 that no server sent, a system error, bytes from the wire
    r"<\w+: 400, message=['\"](.*?)\.?['\"]>|\b\w+Error\(\d+, '(.*?)'\)|b['\"](.*)['\"] \^"
)

_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_CHECK_PROXY = "proxy, or the environment if trust_env is set"

_GONE = "Connection closed."  # aiohttp's RuntimeError if it broke while nobody was reading; others mean misuse
_NO_TLS = "wrong.version.number|record.layer"  # what OpenSSL says about an answer that is not TLS at all
# … and if the endpoint wants another certificate from us: with TLS 1.3 in place of an answer, not in the handshake.
_NO_CLIENT = "alert.*(certificate|unknown.ca)"
_TLS_ERRORS = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, ssl.SSLError)


def network_error(
    error: BaseException, url: URL, *, connect: float | None = None, proxy: URL | None = None
) -> errors.RustyAgentError:
    """Our own error for one that aiohttp or the operating system raised on the way to `url`.

    Args:
        error: What was raised.
        url: Where the request goes.
        connect: The limit for connecting, in seconds.
        proxy: The proxy through which a connection could not be made, if any.
    """
    if isinstance(error, RuntimeError) and str(error) == _GONE:
        error = ConnectionResetError()
    cause = (_no_socket() if isinstance(error, aiohttp.ClientConnectorDNSError) else None) or error
    said = _said(cause)
    peer, check = _peer(error, url, proxy)
    if isinstance(cause, OSError) and cause.errno in _NO_FILES:  # it is not the endpoint's fault
        check = "how many files may be open (ulimit -n), or pass max_connections"
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        within = "" if connect is None else f" within {connect:g} s"
        said = f"No connection to {peer}{within}. Is the host up and reachable?"
        return errors.APITimeoutError(said, limit="connect", seconds=connect, sent=False)
    if isinstance(error, aiohttp.ClientError | HttpProcessingError) and "content-encoding" in said.lower():
        return errors.ResponseError(f"The answer from {peer} cannot be decompressed: {said}.")
    no_client = isinstance(cause, OSError) and re.search(_NO_CLIENT, said, re.IGNORECASE)
    if no_client or isinstance(error, _TLS_ERRORS):
        plain = re.search(_NO_TLS, said, re.IGNORECASE)
        advice = "It may speak plain http: check base_url." if plain else "Check the certificate or pass ssl."
        advice = "It wants a client certificate: pass ssl with one." if no_client else advice
        return errors.APIConnectionError(f"No secure connection to {peer}: {said}. {advice}", retryable=False)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _refused_by_proxy(error, peer, check)
    if isinstance(error, aiohttp.ClientConnectorError) or (proxy and isinstance(error, NETWORK_ERRORS)):
        return errors.APIConnectionError(f"Cannot connect to {peer}: {said}. Check {check}.", sent=False)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        hint = " It may have crashed, or speak https: see its log, or check base_url." if url.scheme == "http" else ""
        return errors.APIConnectionError(f"{peer} closed the connection without an answer.{hint}")
    if isinstance(error, HttpProcessingError):  # from aiohttp's Python parser; its C parser hides it
        return errors.APIConnectionError(f"The connection to {peer} broke: its HTTP framing is wrong: {said}.")
    if isinstance(error, aiohttp.ClientResponseError):
        return errors.APIConnectionError(f"{peer} does not speak HTTP: {said}.")
    if isinstance(error, RuntimeError | ValueError):
        return errors.APIConnectionError(f"The request to {peer} could not be sent: {said}.", retryable=False)
    return errors.APIConnectionError(f"The connection to {peer} broke: {said}.")


def _peer(error: BaseException, url: URL, proxy: URL | None) -> tuple[str, str]:
    """The peer that the request did not reach, and what to check."""
    peer = _address(url.host, url.port)
    if isinstance(error, aiohttp.ClientConnectorError) and (error.host, error.port) != (url.raw_host, url.port):
        return f"the proxy {_address(error.host, error.port)}", _CHECK_PROXY
    if proxy is not None and not isinstance(error, aiohttp.ClientHttpProxyError):
        return f"{peer} through the proxy {_address(proxy.host, proxy.port)}", _CHECK_PROXY
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return peer, "the network and the host in base_url"
    return peer, "base_url and that the server is running"


def _no_socket() -> OSError | None:
    """The error if no file descriptor is left for a socket: the C library then says that the name is unknown."""
    try:
        socket.socket().close()
    except OSError as error:
        return error if error.errno in _NO_FILES else None
    return None


def _address(host: str | None, port: int | None) -> str:
    return f"[{host}]:{port}" if host and ":" in host else f"{host}:{port}"


def _said(error: BaseException) -> str:
    """What went wrong, in the words of the first error: aiohttp's own message would name the peer once more."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    words = cause.message if isinstance(cause, HttpProcessingError | aiohttp.ClientResponseError) else None
    if isinstance(cause, aiohttp.ServerDisconnectedError) or (
        isinstance(cause, ConnectionResetError) and not cause.args
    ):
        words = "it closed the connection"  # for half an answer aiohttp gives no better reason
    elif isinstance(cause, OSError):
        words = cause.strerror
        if words and words.startswith("Connect call failed") and os.name == "posix":  # names the peer, not the reason
            words = os.strerror(cause.errno or 0)
        elif words and words.startswith("Can not write request body"):  # goes on with the URL and its query
            words = "it did not take the whole request"
    words = words or str(cause) or type(cause).__name__
    return re.sub(_REPR, r"\1\2\3", printable(str(words))).rstrip(".")


def _refused_by_proxy(error: aiohttp.ClientHttpProxyError, peer: str, check: str) -> errors.APIConnectionError:
    status, retryable = error.status, error.status in RETRIED_STATUSES
    # Tinyproxy sends 401 for a wrong password. What may pass is the endpoint's: the proxy could not reach it.
    advice = PROXY_ADVICE if status in (401, 407) else f"Check {check if retryable else _CHECK_PROXY}."
    said = f"HTTP {status} {printable(error.message)}".strip(" .")
    return errors.APIConnectionError(
        f"The proxy refused to connect to {peer}: {said}. {advice}", retryable=retryable, sent=False
    )


def salvage(response: Response, error: BaseException) -> bytes:
    """Take what had arrived when the connection broke: aiohttp raises before it hands out its buffer.

    The error's frames are dropped: they hold the answer, which holds the error, and the answer's reader.
    """
    error.__traceback__ = None
    buffer = getattr(response.content, "_buffer", None) or []
    data = b"".join(buffer)
    buffer.clear()
    return data

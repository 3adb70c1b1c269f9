"""What goes wrong on a connection: which error it is, and in which words."""

from __future__ import annotations

import errno
import os
import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.http_exceptions import BadHttpMessage, ContentEncodingError
from yarl import URL

from rusty_agent import errors
from rusty_agent.net.http.failures import network_error, salvage

HERE: Any = SimpleNamespace(host="h", port=80, ssl=True)
PROXY: Any = SimpleNamespace(host="p", port=3128, ssl=True)
CONNECT, RESPONSE = aiohttp.ClientConnectorError, aiohttp.ClientResponseError
REFUSED = OSError(errno.ECONNREFUSED, "Connect call failed ('1.2.3.4', 80)")  # the words are asyncio's
FULL = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
UNTRUSTED = aiohttp.ClientConnectorCertificateError(HERE, ssl.SSLCertVerificationError(1, "self-signed"))
UNKNOWN_CLIENT = aiohttp.ClientOSError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
UNWRITTEN = aiohttp.ClientOSError(errno.EPIPE, "Can not write request body for https://h/v1?code=s3cret")
CUT = "Not done: <TransferEncodingError: 400, message='Not enough.'>. ConnectionResetError(104, 'Reset by peer')"


def proxy_refuses(status: int) -> aiohttp.ClientHttpProxyError:
    return aiohttp.ClientHttpProxyError(HERE, (), status=status, message="No")


@pytest.mark.parametrize(
    ("error", "retryable", "sent", "said"),
    [
        (CONNECT(HERE, REFUSED), True, False, "Cannot connect to h:80: Connection refused. Check base_url and that"),
        (CONNECT(HERE, FULL), True, False, "Cannot connect to h:80: Too many open files. Check how many files"),
        (CONNECT(PROXY, REFUSED), True, False, "Cannot connect to the proxy p:3128: Connection refused. Check proxy"),
        (
            aiohttp.ClientConnectorDNSError(HERE, OSError(-2, "Unknown")),
            True,
            False,
            "h:80: Unknown. Check the network",
        ),
        (UNTRUSTED, False, True, "No secure connection to h:80: self-signed. Check the certificate or pass ssl."),
        (ssl.SSLError(1, "wrong version number"), False, True, "It may speak plain http: check base_url."),
        (proxy_refuses(407), False, False, "refused to connect to h:80: HTTP 407 No. Put the right user:password@"),
        (proxy_refuses(401), False, False, "refused to connect to h:80: HTTP 401 No. Put the right user:password@"),
        (proxy_refuses(403), False, False, "refused to connect to h:80: HTTP 403 No. Check proxy, or the environment"),
        (proxy_refuses(503), True, False, "refused to connect to h:80: HTTP 503 No. Check base_url and that the"),
        (UNKNOWN_CLIENT, False, True, "tlsv1 alert unknown ca. It wants a client certificate: pass ssl with"),
        (
            aiohttp.ClientOSError(1, "[SSL] bad record mac"),
            True,
            True,
            "The connection to h:80 broke: [SSL] bad record",
        ),
        (BadHttpMessage("Bad \x1b size"), True, True, r"h:80 broke: its HTTP framing is wrong: Bad \x1b size."),
        (RESPONSE(HERE, (), message="Bad line"), True, True, "h:80 does not speak HTTP: Bad line."),
        (aiohttp.ClientPayloadError(CUT), True, True, "h:80 broke: Not done: Not enough. Reset by peer."),
        (UNWRITTEN, True, True, "The connection to h:80 broke: it did not take the whole request."),
        (RuntimeError("Connection closed."), True, True, "The connection to h:80 broke: it closed the connection."),
        (RuntimeError("Closed"), False, True, "The request to h:80 could not be sent: Closed."),
        (ValueError("Newline"), False, True, "The request to h:80 could not be sent: Newline."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_was_raised_in_our_words(error: Exception, retryable: bool, sent: bool, said: str) -> None:
    told = network_error(error, URL("http://h/v1"))
    assert type(told) is errors.APIConnectionError
    assert (told.retryable, told.sent, told.__cause__) == (retryable, sent, None)  # whose frames hold the headers
    assert said in str(told)


@pytest.mark.parametrize(
    "error", [ContentEncodingError("Bad content-encoding: x"), aiohttp.ClientPayloadError("Bad Content-Encoding: x")]
)
def test_what_cannot_be_decompressed_is_an_answer_that_cannot_be_read(error: Exception) -> None:
    told = network_error(error, URL("http://h"))
    assert type(told) is errors.ResponseError
    assert str(told).startswith("The answer from h:80 cannot be decompressed: Bad ")


def test_a_proxy_is_named_without_its_password() -> None:
    told = network_error(aiohttp.ServerDisconnectedError(), URL("https://[::1]/"), proxy=URL("http://me:secret@p:3128"))
    assert str(told).startswith("Cannot connect to [::1]:443 through the proxy p:3128: it closed the connection.")
    late = network_error(TimeoutError(), URL("http://h"), connect=2)
    assert isinstance(late, errors.APITimeoutError)
    assert (late.limit, late.seconds, late.sent) == ("connect", 2, False)


def test_what_had_arrived_is_taken_once_and_the_error_lets_go_of_it() -> None:
    response: Any = SimpleNamespace(content=SimpleNamespace(_buffer=[b"da", b"ta"]))
    with pytest.raises(ConnectionResetError) as raised:
        raise ConnectionResetError
    assert salvage(response, raised.value) == b"data"
    assert raised.value.__traceback__ is None
    assert salvage(response, raised.value) == b""


@pytest.mark.parametrize(("limit", "said"), [(10.0, "within 10 s."), (0.25, "within 0.25 s."), (None, "to h:80.")])
def test_a_limit_is_told_as_it_was_given(limit: float | None, said: str) -> None:
    assert said in str(network_error(TimeoutError(), URL("http://h"), connect=limit))


@pytest.mark.parametrize(
    ("url", "hint"), [("http://h/v1", "or speak https: see its log, or check base_url."), ("https://h/v1", "answer.")]
)
def test_plain_http_to_a_port_of_https(url: str, hint: str) -> None:
    """Servers written in Python close such a connection and say nothing."""
    assert str(network_error(aiohttp.ServerDisconnectedError(), URL(url))).endswith(hint)

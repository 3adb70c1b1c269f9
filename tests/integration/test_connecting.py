"""Connections that do not come about: whose fault it is, and why, in words that help."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from rusty_agent import APIConnectionError, AsyncProvider, RetryPolicy, StreamInterruptedError, Timeout
from rusty_agent.net.http import failures
from rusty_agent.testing import Pause, Reset, answer, completion
from rusty_agent.testing.answers import events
from rusty_agent.wire.codec import dumps

from .faces import KEY, TLS, Face, NewLoop, Serve


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_variable_that_is_no_proxy_is_named(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "127.0.0.1:9")
    server = serve(answer(completion()))
    with pytest.raises(APIConnectionError, match=f"environment's {variable.lower()}"):
        face.generate(face.provider(server, trust_env=True))
    assert not server.requests


@contextmanager
def plain_http() -> Iterator[str]:
    """A host and port where whoever wants TLS gets an answer in the clear."""

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            while connection.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = threading.Thread(target=refuse)
        refusing.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        refusing.join()


def test_https_to_a_port_of_plain_http(face: Face) -> None:
    with plain_http() as address, pytest.raises(APIConnectionError, match="may speak plain http"):
        face.generate(face.provider(f"https://{address}/v1"))


def test_an_endpoint_that_wants_a_client_certificate_is_asked_once(face: Face) -> None:
    ours, theirs = ssl.create_default_context(cafile=TLS / "ca.pem"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(TLS / "server.pem")
    theirs.load_verify_locations(TLS / "ca.pem")
    theirs.verify_mode = ssl.CERT_REQUIRED
    asked = 0

    def refuse() -> None:  # as HAProxy does; by hand, since Python's sockets may reset the connection before the alert
        nonlocal asked
        while True:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                if not (data := connection.recv(65536)):
                    return
                asked += 1
                received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = theirs.wrap_bio(received, sent, server_side=True)
                refused = False
                while data:
                    received.write(data)
                    try:
                        tls.do_handshake()
                    except ssl.SSLWantReadError:
                        pass
                    except ssl.SSLError:
                        refused = True
                    connection.sendall(sent.read())
                    if refused:
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass
                        break
                    data = connection.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = threading.Thread(target=refuse)
        refusing.start()
        port = listener.getsockname()[1]
        retry = RetryPolicy(max_retries=1, base_delay=0.01)
        provider = face.provider(f"https://localhost:{port}/v1", ssl=ours, retry=retry)
        with pytest.raises(APIConnectionError, match=r"alert certificate required .* pass ssl with one") as caught:
            face.generate(provider)
        socket.create_connection(("127.0.0.1", port)).close()
        refusing.join()
    assert (asked, caught.value.attempts) == (1, 1)


def test_a_handshake_that_the_server_ends_says_so(face: Face) -> None:
    def leave() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        leaving = threading.Thread(target=leave)
        leaving.start()
        port = listener.getsockname()[1]
        with pytest.raises(APIConnectionError, match=f"Cannot connect to 127.0.0.1:{port}: it closed"):
            face.generate(face.provider(f"https://127.0.0.1:{port}/v1", retry=RetryPolicy(max_retries=0)))
        leaving.join()


def test_a_reset_in_mid_answer_is_told_in_words(face: Face, serve: Serve) -> None:
    server = serve(answer([*events("a")[:2], Pause(0.05), Reset()], framing="chunked"))
    error = face.stream(face.provider(server)).failure
    assert isinstance(error, StreamInterruptedError)
    assert "header. Connection reset by peer. The stream had not finished" in str(error)


@pytest.mark.parametrize(
    ("host", "said"), [("127.0.0.1", r"127\.0\.0\.1:1: Connection refused\. Check base_url"), ("[::1]", r"\[::1\]:1: ")]
)
def test_a_server_that_does_not_run_refuses_the_connection(face: Face, host: str, said: str) -> None:
    provider = face.provider(f"http://{host}:1/v1", retry=RetryPolicy(max_retries=0))
    with pytest.raises(APIConnectionError, match=f"Cannot connect to {said}"):
        face.generate(provider)


def test_a_process_that_may_open_no_more_files_is_told_so(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    provider = face.provider("http://127.0.0.1:1/v1", retry=RetryPolicy(max_retries=0))
    monkeypatch.setattr("aiohappyeyeballs.start_connection", full)
    with pytest.raises(APIConnectionError, match=r"Too many open files\. Check how many files may be open"):
        face.generate(provider)


@pytest.mark.parametrize("proxy", [None, "http://proxy.invalid:3128"])
def test_it_is_told_so_too_where_names_are_looked_up(
    face: Face, monkeypatch: pytest.MonkeyPatch, proxy: str | None
) -> None:
    """The C library says of any name that nobody knows it."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def unknown(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(failures, "socket", SimpleNamespace(socket=full))
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    provider = face.provider("http://llm.invalid/v1", proxy=proxy, retry=RetryPolicy(max_retries=0))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(APIConnectionError, match=r"Too many open files\. Check how many files may be open"):
        face.generate(provider)


def test_a_name_that_nobody_knows_may_be_a_network_that_is_down(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    provider = face.provider("http://llm.invalid/v1", retry=RetryPolicy(max_retries=0))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    said = r"llm.invalid:80: Name or service not known\. Check the network and the host in base_url\."
    with pytest.raises(APIConnectionError, match=said):
        face.generate(provider)


def test_a_proxy_that_is_not_there_is_named(face: Face, serve: Serve) -> None:
    server, proxy = serve(), serve()
    proxy.stop()
    provider = face.provider(server, proxy=proxy.url.removesuffix("/v1"), retry=RetryPolicy(max_retries=0))
    with pytest.raises(APIConnectionError, match=f"Cannot connect to the proxy 127.0.0.1:{proxy.port}: .* Check proxy"):
        face.generate(provider)
    assert server.requests == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "https://127.0.0.1:1/v1"])
def test_a_proxy_whose_name_is_unknown_is_named(face: Face, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    provider = face.provider(url, proxy="http://proxy.invalid:3128", retry=RetryPolicy(max_retries=0))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(APIConnectionError, match=r"Cannot connect to the proxy proxy.invalid:3128: .* Check proxy"):
        face.generate(provider)


def test_a_proxy_whose_certificate_is_wrong_is_named(face: Face) -> None:
    with plain_http() as proxy:
        provider = face.provider("http://127.0.0.1:1/v1", proxy=f"https://{proxy}")
        with pytest.raises(APIConnectionError, match=rf"No secure connection to the proxy {proxy}: \[SSL: "):
            face.generate(provider)


@pytest.mark.parametrize(("status", "attempts"), [(407, 1), (403, 1), (429, 2), (503, 2)])
async def test_a_proxy_that_refuses_for_good_is_not_asked_again(status: int, attempts: int) -> None:
    asked = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        retry = RetryPolicy(max_retries=1, base_delay=0.01)
        async with AsyncProvider("m", api_key=KEY, base_url="https://127.0.0.1:1/v1", proxy=proxy, retry=retry) as llm:
            with pytest.raises(APIConnectionError, match=f"The proxy refused .*: HTTP {status}") as caught:
                await llm.generate_text("hi")
    assert asked == attempts
    assert not caught.value.sent
    assert ("user:password@" in str(caught.value)) == (status == 407)


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        (b"", "Cannot connect to .*: it closed the connection"),
        (b"HTTP/1.1 200 Conn", "Cannot connect to .*: the answer ended in the middle of its headers"),
        (b"\x05\xff\r\n\r\n", r"Cannot connect to .*: Bad status line: [^']*: \\x05\\xff\. Check proxy"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "Cannot connect to .*: "),
        (None, "No connection to .* within 0.2 s"),
    ],
    ids=["nothing", "half an answer", "no HTTP", "a tunnel that ends", "silence"],
)
async def test_a_proxy_that_makes_no_connection_is_named(answered: bytes | None, said: str) -> None:
    left = asyncio.Event()

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # of one whose time is over before it has sent anything
            await reader.readuntil(b"\r\n\r\n")
        if answered is None:
            await reader.read()
        else:
            writer.write(answered)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        left.set()

    async with await asyncio.start_server(fail, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        timeout = Timeout(connect=0.2 if answered is None else 20)
        options: dict[str, Any] = {"timeout": timeout, "retry": RetryPolicy(max_retries=0)}
        llm = AsyncProvider("m", api_key=KEY, base_url="https://127.0.0.1:1/v1", proxy=f"http://{address}", **options)
        with pytest.raises(APIConnectionError, match=said) as caught:
            await llm.generate_text("hi")
        await left.wait()
    assert f"127.0.0.1:1 through the proxy {address}" in str(caught.value)
    assert not caught.value.sent


async def test_waiting_for_a_connection_of_a_full_session_is_no_failure_to_connect(serve: Serve) -> None:
    server = serve(answer(completion()), answer([Pause(0.3), dumps(completion())]))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        options: dict[str, Any] = {"session": session, "retry": RetryPolicy(max_retries=0)}
        async with AsyncProvider("m", api_key=KEY, base_url=server.url, **options) as llm:
            await llm.generate_text("hi")  # so that there is a connection, and nobody waits for anything else
            calls = (llm.generate_text("hi", timeout=Timeout(connect=0.1)) for _ in range(3))
            assert await asyncio.gather(*calls) == ["Hello world"] * 3
    assert server.connections == 1


async def test_a_long_line_that_is_no_http_takes_no_time_to_tell_of() -> None:
    async def answer_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"<A: 400, message='" * 3500 + b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer_nonsense, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with AsyncProvider("m", api_key=KEY, base_url=url, retry=RetryPolicy(max_retries=0)) as llm:
            began = time.perf_counter()
            with pytest.raises(APIConnectionError, match="framing is wrong"):
                await llm.generate_text("hi")
    assert time.perf_counter() - began < 3


def test_what_a_reset_handshake_leaves_closes_no_other_connection(new_loop: NewLoop) -> None:
    # The garbage collector warns of a socket before it closes what has its number: uvloop has closed its own.
    def reset() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

    async def ask() -> None:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with AsyncProvider("m", api_key=KEY, base_url=url, retry=RetryPolicy(max_retries=0)) as llm:
            answers = await asyncio.gather(*(llm.generate_text("hi") for _ in range(8)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {APIConnectionError}

    with socket.create_server(("127.0.0.1", 0)) as listener, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        resetting = threading.Thread(target=reset)
        resetting.start()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(ask())
        gc.collect()
        listener.shutdown(socket.SHUT_RDWR)
        resetting.join()
    assert not [str(each.message) for each in told if "unclosed <socket" in str(each.message)]

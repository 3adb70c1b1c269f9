"""The short way to the pool sends the bytes that aiohttp's session would send, and reads the same answers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from rusty_agent import AsyncProvider, RustyAgentError
from rusty_agent.net.http.transport import Transport
from rusty_agent.testing import Answer, FaultServer, Hang, Pause, answer, completion
from rusty_agent.wire.codec import dumps

from .faces import KEY
from .faults import ALL, Fault

Serve = Callable[..., FaultServer]


def session() -> aiohttp.ClientSession:
    """A session as the library's own would be; what is given by the caller goes the long way."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None), skip_auto_headers=["User-Agent"]
    )


def sent_bytes(short: bool, **options: Any) -> tuple[list[str], bytes]:
    """What arrives at a raw socket: the first line and the headers, sorted, and the body."""
    listener = socket.create_server(("127.0.0.1", 0))
    received = bytearray()

    def listen() -> None:
        connection, _ = listener.accept()
        with connection:
            while b"\r\n\r\n" not in received or not received.endswith(b"}"):
                received.extend(connection.recv(65536))
            body = dumps(completion())
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    thread = threading.Thread(target=listen)
    thread.start()

    async def main() -> None:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1?api-version=1"
        given = None if short else session()
        async with AsyncProvider("m", api_key=KEY, base_url=url, session=given, **options) as llm:
            assert await llm.generate_text("é", extra_headers={"x-later": "2"}) == "Hello world"
        if given is not None:
            await given.close()

    asyncio.run(main())
    thread.join()
    listener.close()
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    return sorted(line.title() for line in head.decode().replace(str(listener), "").split("\r\n")), body


@pytest.mark.parametrize(
    "headers", [{}, {"x-own": "1", "Accept": "application/json", "User-Agent": "me"}, {"x-odd": "grüße"}]
)
def test_both_ways_send_the_same(headers: dict[str, str]) -> None:
    short, long = sent_bytes(True, headers=headers), sent_bytes(False, headers=headers)
    hosts = [[line for line in lines if not line.startswith("Host: ")] for lines, _ in (short, long)]
    assert hosts[0] == hosts[1]
    assert len(short[0]) == len(hosts[0]) + 1  # and one Host each, whose port differs
    assert short[1] == long[1]
    assert any(line.startswith("Post /V1/Chat/Completions?Api-Version=1 ") for line in short[0])


async def outcome(server: FaultServer, given: aiohttp.ClientSession | None) -> tuple[str, Any]:
    """What a stream brings, and how it ends."""
    llm = AsyncProvider("m", api_key=KEY, base_url=server.url, session=given)
    pieces = []
    end: Any = None
    try:
        async for piece in llm.stream_text("hi"):
            pieces.append(piece)  # noqa: PERF401 - an error must find the others there
    except RustyAgentError as error:
        end = (type(error), error.partial_text, error.attempts)
    await llm.aclose()
    return "".join(pieces), end


def slow(fault: Fault) -> bool:
    """Whether it is about time; or about framing, which aiohttp's own protocol does not tell the reader of."""
    waits = (isinstance(step, Hang) or (isinstance(step, Pause) and step.seconds > 0.02) for step in fault.answer.steps)
    return any(waits) or fault.timeout is not None or "framing" in fault.name or "HTTP chunk" in fault.name


@pytest.mark.parametrize("fault", [fault for fault in ALL if not slow(fault)], ids=lambda fault: fault.name)
async def test_both_ways_read_the_same(serve: Serve, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTY_AGENT_REQUEST_TIMEOUT_SECS", "0.3")
    short = await outcome(serve(fault.answer), None)
    async with session() as given:
        long = await outcome(serve(fault.answer), given)
    assert short == long


async def test_a_connection_is_kept_between_calls(serve: Serve) -> None:
    server = serve()
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        for _ in range(3):
            await llm.generate_text("hi")
            assert "".join([piece async for piece in llm.stream_text("hi")]) == "Hello world"
            await asyncio.sleep(0.02)  # the end of the body may come a moment after the end mark
    assert server.connections == 1


async def test_interim_answers_are_passed_over(serve: Serve) -> None:
    body = dumps(completion())
    final = answer(body).steps
    server = serve(Answer((b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", *final)))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        assert await llm.generate_text("hi") == "Hello world"


async def test_few_targets_are_remembered(serve: Serve) -> None:
    server = serve()
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        transport: Transport = llm._transport
        for number in range(100):
            url = llm._url.with_query(n=str(number))
            transport.release(await transport.post(url, llm._requests.headers, b"{}", connect=1, sending=lambda: None))
        connector: Any = transport._session().connector
        assert len(connector._targets) <= 16

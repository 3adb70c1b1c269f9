"""The short way to the pool sends the bytes that aiohttp's session would send, and reads the same answers."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import ssl
import sys
import threading
import traceback
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from rusty_agent import APIConnectionError, AsyncProvider, ResponseError, RetryPolicy, RustyAgentError
from rusty_agent.net.guard import release
from rusty_agent.net.http.direct import PARSING, Outbox, Target
from rusty_agent.net.http.pool import _PROBES, Connector, _Protocol
from rusty_agent.net.http.transport import Transport
from rusty_agent.testing import Answer, FaultServer, Hang, Pause, answer, completion
from rusty_agent.testing.answers import Step, events
from rusty_agent.wire.codec import dumps

from ..events import soon
from .faces import KEY, TLS, NewLoop, Serve
from .faults import ALL, Fault


def session() -> aiohttp.ClientSession:
    """A session as the library's own would be; what is given by the caller goes the long way."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=["User-Agent"],
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
    framing = any(words in fault.name for words in ("framing", "HTTP chunk", "than it says", "fewer bytes"))
    return any(waits) or fault.timeout is not None or framing


@pytest.mark.parametrize("fault", [fault for fault in ALL if not slow(fault)], ids=lambda fault: fault.name)
async def test_both_ways_read_the_same(serve: Serve, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTY_AGENT_REQUEST_TIMEOUT_SECS", "3")
    short = await outcome(serve(fault.answer), None)
    async with session() as given:
        long = await outcome(serve(fault.answer), given)
    assert short == long


async def test_a_session_of_the_callers_decompresses_by_itself(serve: Serve) -> None:
    body = gzip.compress(BOM_UTF8 + dumps(completion()))  # which looks as if it were compressed still
    async with aiohttp.ClientSession() as given:
        assert await outcome(serve(answer(body, headers={"Content-Encoding": "gzip"})), given) == ("Hello world", None)


async def test_what_a_session_of_the_callers_cannot_decompress_is_told(serve: Serve) -> None:
    broken = answer(b"\x1f\x8b" + b"\0" * 40, headers={"Content-Encoding": "gzip"})
    async with aiohttp.ClientSession() as given:
        assert await outcome(serve(broken), given) == ("", (ResponseError, "", 1))


async def test_a_connection_is_kept_between_calls(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rusty_agent.net.guard._LINGER_SECONDS", 60)  # however late a body's end comes
    server = serve()
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        for _ in range(3):
            await llm.generate_text("hi")
            assert "".join([piece async for piece in llm.stream_text("hi")]) == "Hello world"
            (session,) = llm._calls.transport._sessions.values()
            connector = session.connector
            assert isinstance(connector, Connector)
            assert not connector.dialing  # or it would hold each task that ever made a call
            await soon(connector._conns.values)  # the body's end may come a moment after the end mark
    assert server.connections == 1


async def test_a_connection_whose_body_does_not_end_is_closed_soon(serve: Serve) -> None:
    server = serve(answer([*events("a"), Hang()], framing="cut"))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        assert (await llm.stream_text("hi").result()).text == "a"
        (session,) = llm._calls.transport._sessions.values()
        connector = session.connector
        assert isinstance(connector, Connector)
        assert connector._acquired
        await soon(lambda: not connector._acquired)


async def test_interim_answers_are_passed_over(serve: Serve) -> None:
    body = dumps(completion())
    final = answer(body).steps
    server = serve(Answer((b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", *final)))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        assert await llm.generate_text("hi") == "Hello world"


async def test_few_targets_are_remembered(serve: Serve) -> None:
    server = serve()
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        transport: Transport = llm._calls.transport
        loop = asyncio.get_running_loop()
        for number in range(100):
            url = llm._requests.config.url.with_query(n=str(number))
            response = await transport.post(url, llm._requests.headers, b"{}", loop, connect=1, sending=lambda: None)
            release(response, loop)
        connector: Any = transport._session(loop).connector
        assert len(connector._targets) <= 16


class Line:
    """A connection that is none."""

    def __init__(self, log: list[str], name: str, error: BaseException | None = None) -> None:
        self.idle = False
        self.closed = False
        self.name, self.log, self.error = name, log, error
        self.transport: Any = self

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        assert not self.idle
        if self.error is not None:
            raise self.error
        self.log.append(f"{self.name} {data.decode()}")

    def close(self) -> None:
        self.closed = True


async def test_requests_of_one_turn_are_sent_together_in_the_next() -> None:
    log: list[str] = []
    outbox, lines = Outbox(asyncio.get_running_loop()), [Line(log, name) for name in "abcd"]
    for line in lines:
        outbox.put(line, b"request")
    assert log == []
    assert all(line.idle for line in lines)
    lines[1].close()  # as by a cancellation: then there is nothing to send
    lines[2].transport = None
    await asyncio.sleep(0)
    assert log == ["a request", "d request"]
    outbox.put(lines[0], b"next")
    await asyncio.sleep(0)
    assert log[2:] == ["a next"]
    for _ in range(33):
        outbox.put(lines[0], b"of many")
    assert len(log) == 3 + 32  # they do not wait for more than that
    await asyncio.sleep(0)
    assert len(log) == 3 + 33


def test_an_interrupted_sending_leaves_nobody_waiting_and_no_key_in_its_frames() -> None:
    log: list[str] = []
    lines = [Line(log, "a"), Line(log, "b", KeyboardInterrupt()), Line(log, "c")]

    async def main() -> None:
        outbox = Outbox(asyncio.get_running_loop())
        for line in lines:
            outbox.put(line, KEY.encode())
        await asyncio.sleep(1)

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt) as caught:
        loop.run_until_complete(task)
    assert [line.closed for line in lines] == [False, True, True]
    assert log == [f"a {KEY}"]
    frames = list(traceback.walk_tb(caught.value.__traceback__))
    assert any(frame.f_code.co_name == "_send_all" for frame, _ in frames)
    theirs = [frame for frame, _ in frames if not frame.f_code.co_filename.endswith("test_direct.py")]
    assert not any(KEY in repr(frame.f_locals) for frame in theirs)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


async def test_what_arrives_before_a_request_has_left_is_no_answer_to_it() -> None:
    """A surplus answer on a kept connection, which comes in the very turn in which the connection is taken."""
    answers = iter(["one", "two", "three", "four", "five"])
    with FaultServer(lambda _: answer([Pause(0.02), dumps(completion(next(answers)))])) as server:
        async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
            assert sorted(await asyncio.gather(llm.generate_text("a"), llm.generate_text("b"))) == ["one", "two"]
            (session,) = llm._calls.transport._sessions.values()
            connector = session.connector
            assert isinstance(connector, Connector)
            first = asyncio.ensure_future(llm.generate_text("a"))  # alone: sent at once
            await asyncio.sleep(0)
            sent = set(connector._acquired)
            second = asyncio.ensure_future(llm.generate_text("b"))
            await asyncio.sleep(0)
            (protocol,) = set(connector._acquired) - sent
            body = dumps(completion("surplus"))
            protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            assert sorted(await asyncio.gather(first, second)) == ["four", "three"]


async def test_an_answer_that_waits_for_its_reader_is_held_once() -> None:
    """Of thousands that arrive at once, what they were parsed from would take as much memory again."""
    protocol = _Protocol(asyncio.get_running_loop())
    protocol.set_response_params(**PARSING)
    data = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    held = sys.getrefcount(data)
    protocol.data_received(data)
    assert sys.getrefcount(data) == held


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server of these coroutines, which reads on until its clients have gone; its URL."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        await serve(reader, writer)
        with suppress(OSError):
            await reader.read()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(to_the_end, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.wait([task for task in tasks if task is not None], timeout=10)


@pytest.mark.parametrize("pieces", [16_383, 16_384, 16_385, 17_000])
async def test_a_reader_that_was_held_back_reads_on(pieces: int) -> None:
    """aiohttp pauses at so many HTTP chunks that nobody has read, and its parser wants to be resumed twice."""

    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)

    first, second = (b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text for text in (b"a", b"b"))
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(chunk(first))
        await asyncio.sleep(0.05)  # by now it is read, and what comes next is not
        writer.write(chunk(b":x\n") * pieces)
        await asyncio.sleep(0.3)
        writer.write(chunk(second) + chunk(end) + b"0\r\n\r\n")

    async with serving(serve) as url, AsyncProvider("m", api_key=KEY, base_url=url) as llm:
        stream = llm.stream_text("x")
        text = await anext(stream)
        await asyncio.sleep(0.2)
        async with asyncio.timeout(10):
            async for piece in stream:
                text += piece
    assert text == "ab"


async def test_an_answer_that_was_there_before_the_question_is_heard() -> None:
    """A server with too many connections says so on accepting one; so it does to each of many requests at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"error":{"message":"too many connections"}}'
        head = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        writer.write_eof()

    once = RetryPolicy(max_retries=0)
    async with serving(serve) as url, AsyncProvider("m", api_key=KEY, base_url=url, retry=once) as llm:
        for _ in range(5):
            results = await llm.gather(["x"] * 10, return_exceptions=True)
            assert [getattr(result, "status_code", result) for result in results] == [503] * 10


ONCE = RetryPolicy(max_retries=0)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
TEXT = b'{"choices":[{"message":{"content":"foo"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
@pytest.mark.parametrize(
    ("raw", "text", "says"),
    [
        (OK + CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n0\r\n\r\n" % (len(TEXT), TEXT), "foo", ""),
        (OK + b"Content-Length: %d\r\n\r\n%b!" % (len(TEXT), TEXT), "foo", ""),
        (OK + CHUNKED + b"\r\nzz\r\n", "", "framing"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: %d\r\n\r\n%b!" % (len(TEXT), TEXT), "foo", ""),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 1\r\n\r\n{}", "", "HTTP 400"),
        (b"HTTP/1.1 204 None\r\n\r\n{}", "", "HTTP 204"),
        (b"HTTP/9 what\r\n\r\n" + TEXT, "", "HTTP"),
        (OK + b"Content-Length: many\r\n\r\n" + TEXT, "", "Content-Length"),
    ],
    ids=["end-twice", "longer", "no-chunk", "interim", "status", "no-content", "no-http", "no-length"],
)
async def test_how_broken_framing_arrives_makes_no_difference(raw: bytes, text: str, says: str, kept: bool) -> None:
    """Cut where the headers end, within that end, and not at all."""
    end = raw.rindex(b"\r\n\r\n", 0, raw.find(b"{") if b"{" in raw else len(raw))
    for cut in (0, end, end + 1, end + 3, end + 4):
        pieces: list[Step] = [raw[:cut], Pause(0.01), raw[cut:]] if cut else [raw]
        with FaultServer(answer([dumps(completion("before"))])) as server:
            async with AsyncProvider("m", api_key=KEY, base_url=server.url, retry=ONCE) as provider:
                if kept:
                    assert await provider.generate_text("hi") == "before"
                server.answer(Answer(tuple(pieces), close=True))
                if text:
                    assert await provider.generate_text("hi") == text
                else:
                    with pytest.raises(RustyAgentError, match=says):
                        await provider.generate_text("hi")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (OK + CHUNKED + b"\r\n%x\r\n%b\r\nzz\r\nfoo" % (len(TEXT), TEXT), "foo"),
        (OK + b"Content-Length: %d\r\n\r\n%bjunk\r\n\r\n" % (len(TEXT), TEXT), "foo"),
        (OK + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n" + TEXT, ""),
        (b"SSH-2.0-OpenSSH\r\n\r\nxx", ""),
        (OK + b"X: a\x00b\r\n\r\n", ""),
    ],
    ids=["chunk", "junk", "two-framings", "ssh", "header"],
)
async def test_broken_framing_over_tls(raw: bytes, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio's transport for TLS must not be closed twice."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            await reader.readuntil(b"}")
            writer.write(raw)
            await writer.drain()
            await reader.read()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
    trusted = ssl.create_default_context(cafile=TLS / "ca.pem")
    async with AsyncProvider("m", api_key=KEY, base_url=url, ssl=trusted, retry=ONCE) as provider:
        if text:
            assert await provider.generate_text("hi") == text
        else:
            with pytest.raises(APIConnectionError):
                await provider.generate_text("hi")
    server.close()
    await asyncio.sleep(0.01)
    assert not caplog.records


async def test_a_call_over_tls_is_cancelled_as_its_connection_breaks() -> None:
    """Its transport has forgotten the socket, and has yet to tell."""
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            await reader.readuntil(b"}")
            asked.set()
            await reader.read()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
    trusted = ssl.create_default_context(cafile=TLS / "ca.pem")
    async with AsyncProvider("m", api_key=KEY, base_url=url, ssl=trusted) as llm:
        call = asyncio.ensure_future(llm.generate_text("hi"))
        await asked.wait()
        connector: Any = llm._calls.transport._session(asyncio.get_running_loop()).connector
        (protocol,) = connector._acquired
        protocol.transport._ssl_protocol._transport.abort()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not connector._acquired
    server.close()
    await asyncio.sleep(0.05)  # the server's side of the connection ends too


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_connection_is_probed_while_it_is_silent(tls: bool, new_loop: NewLoop) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            await reader.readuntil(b"}")
            body = dumps(completion())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await reader.read()

    async def main() -> list[int]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "server.pem")
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context if tls else None)
        url = f"{'https' if tls else 'http'}://localhost:{server.sockets[0].getsockname()[1]}/v1"
        trusted = ssl.create_default_context(cafile=TLS / "ca.pem")
        async with AsyncProvider("m", api_key=KEY, base_url=url, ssl=trusted) as llm:
            await llm.generate_text("hi")
            connector: Any = llm._calls.transport._session(asyncio.get_running_loop()).connector
            (((protocol, _),),) = connector._conns.values()
            found = protocol.transport.get_extra_info("socket")
            options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
            options += [(socket.IPPROTO_TCP, option) for option, _ in _PROBES]
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Beyond it a request that fills the buffers of a server that is busy with others would be lost.
                assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
            values = [found.getsockopt(*option) for option in options]
        server.close()
        await asyncio.sleep(0.05)  # the server's side of the connection ends too
        return values

    with asyncio.Runner(loop_factory=new_loop) as runner:
        on, *times = runner.run(main())
    assert on
    assert times == [value for _, value in _PROBES]
    assert os.name != "posix" or len(times) == 3


def test_no_loop_waits_for_the_target_that_another_one_prepares(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is forked meanwhile would wait for ever: the other thread does not exist there."""
    key_of: Any = vars(ClientRequest)["connection_key"].fget
    preparing, go_on = threading.Event(), threading.Event()

    def slow_there(request: ClientRequest) -> Any:
        if threading.current_thread() is other:
            preparing.set()
            go_on.wait(10)
        return key_of(request)

    async def prepared() -> Any:
        async with session() as client:
            return Target(
                client, URL("http://127.0.0.1/v1"), Outbox(asyncio.get_running_loop())
            )._request.connection_key

    def prepare() -> None:
        assert asyncio.run(prepared()).host == "127.0.0.1"
        done.set()

    monkeypatch.setattr(ClientRequest, "connection_key", property(slow_there))
    done = threading.Event()
    other = threading.Thread(target=lambda: asyncio.run(prepared()), daemon=True)
    other.start()
    try:
        assert preparing.wait(10)
        threading.Thread(target=prepare, daemon=True).start()
        assert done.wait(5)
    finally:
        go_on.set()
        other.join(10)

"""Connections: pools, given sessions, proxies, and what may go wrong with them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import select
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import aiohttp
import pytest

from rusty_agent import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncProvider,
    AttemptReport,
    Provider,
    RetryPolicy,
    RustyAgentError,
    StreamInterruptedError,
    Timeout,
)
from rusty_agent.testing import Answer, Hang, Received, Reset, answer, completion, stream
from rusty_agent.testing.answers import events
from rusty_agent.wire.codec import dumps

from ..events import held, soon, until
from .faces import KEY, TLS, Face, NewLoop, Serve


async def test_no_more_connections_than_allowed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rusty_agent.net.guard._LINGER_SECONDS", 60)  # or one whose body ends late is replaced
    server = serve(stream("a", "b", gap=0.03))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, max_connections=3) as llm:
        texts = await asyncio.gather(*(llm.generate_text("hi", stream=True) for _ in range(12)))
    assert texts == ["ab"] * 12
    assert server.connections <= 3


async def test_many_connections_by_default(serve: Serve) -> None:
    server = serve(stream("a", "b", gap=0.3))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        await asyncio.gather(*(llm.generate_text("hi", stream=True) for _ in range(150)))
    assert server.connections > 100  # aiohttp's own limit


@pytest.mark.parametrize("by_proxy", [False, True])
def test_many_headers_and_long_ones(face: Face, serve: Serve, by_proxy: bool) -> None:
    """A gateway adds those of its provider to its own, and once more under other names (litellm#25572)."""
    headers = {f"llm_provider-{number}": "y" for number in range(300)} | {"content-security-policy": "z" * 20_000}
    server = serve(answer(completion("a"), headers=headers))
    if by_proxy:
        provider = face.provider("http://api.example/v1", proxy=server.url.removesuffix("/v1"))
    else:
        provider = face.provider(server)
    assert face.generate(provider) == "a"


async def test_a_given_session_is_used_and_not_closed(serve: Serve) -> None:
    server = serve()
    async with aiohttp.ClientSession(headers={"x-own": "1"}) as session:
        async with AsyncProvider("m", api_key=KEY, base_url=server.url, session=session) as llm:
            assert await llm.generate_text("hi") == "Hello world"
            assert [piece async for piece in llm.stream_text("hi")] == ["Hello", " world"]
        assert not session.closed
    assert server.requests[0].headers["x-own"] == "1"
    late = AsyncProvider("m", api_key=KEY, base_url=server.url, session=session)
    with pytest.raises(APIConnectionError, match="session"):
        await late.generate_text("hi")


async def test_a_given_session_s_connection_that_breaks_while_nobody_reads(serve: Serve) -> None:
    """aiohttp's reader then tells nothing but a RuntimeError."""
    begun = answer([events("a")[1]], framing="cut").steps
    seen = threading.Event()
    server = serve(held(Answer((*begun, b"zz\r\n"), close=True), seen.is_set, len(begun)))
    async with aiohttp.ClientSession() as session:
        opened = AsyncProvider("m", api_key=KEY, base_url=server.url, session=session).stream_text("hi")
        assert await anext(opened) == "a"
        seen.set()
        assert session.connector is not None
        (protocol,) = session.connector._acquired
        await soon(lambda: protocol.transport is None)
        with pytest.raises(StreamInterruptedError, match=r"The connection to .* broke") as raised:
            await anext(opened)
    assert raised.value.partial_text == "a"


async def test_reading_on_from_another_loop_is_not_taken_for_a_connection_that_broke(serve: Serve) -> None:
    server = serve(answer([events("a")[1], Hang()], framing="chunked"))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        opened = llm.stream_text("hi")
        assert await anext(opened) == "a"

        async def read_on() -> None:
            await anext(opened)

        with pytest.raises(StreamInterruptedError, match="attached to a different loop"):
            await asyncio.to_thread(asyncio.run, read_on())


async def test_reading_on_when_the_given_session_was_closed(serve: Serve) -> None:
    server = serve(answer([events("a")[1], Hang()], framing="chunked"))
    async with aiohttp.ClientSession() as session:
        llm = AsyncProvider("m", api_key=KEY, base_url=server.url, session=session)
        opened = llm.stream_text("hi")
        assert await anext(opened) == "a"
    with pytest.raises(StreamInterruptedError, match="session was closed") as raised:
        await anext(opened)
    assert raised.value.partial_text == "a"
    assert not raised.value.retryable


def test_calls_that_another_thread_begins_while_the_provider_is_closed(serve: Serve) -> None:
    """The pool cancelled what waited for a connection: a CancelledError that nobody had asked for."""
    server = serve(Answer((Hang(),)))
    llm = AsyncProvider("m", api_key=KEY, base_url=server.url, max_connections=1)
    begun: list[concurrent.futures.Future[Any]] = []

    class UnderWay(set[Any]):
        """Those that `aclose` finds; two more are begun behind its back, and the first takes the connection over."""

        def __iter__(self) -> Iterator[Any]:
            found = list(super().__iter__())
            begun.extend(asyncio.run_coroutine_threadsafe(llm.generate_text("hi"), loop) for _ in range(2))
            concurrent.futures.wait(begun[1:], 0.2)
            return iter(found)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        begun.append(asyncio.run_coroutine_threadsafe(llm.generate_text("hi"), loop))
        server.wait_for(1)
        llm._calls.under_way = UnderWay(llm._calls.under_way)
        asyncio.run(llm.aclose())
        for call in begun:
            with pytest.raises(RustyAgentError):
                call.result(10)
    finally:
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def test_a_given_session_is_closed_while_calls_wait_for_its_connection(serve: Serve) -> None:
    """aiohttp cancels whoever waits: a run of many prompts ended as if its own task had been cancelled."""
    queued = asyncio.Semaphore(0)

    async def tell(*_: Any) -> None:
        queued.release()

    trace = aiohttp.TraceConfig()
    trace.on_connection_queued_start.append(tell)
    server = serve(answer([events("a")[1], Hang()], framing="chunked"))
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
        llm = AsyncProvider("m", api_key=KEY, base_url=server.url, session=session)
        opened = llm.stream_text("hi")
        assert await anext(opened) == "a"
        waiting = asyncio.ensure_future(llm.gather(["hi", "hi"], return_exceptions=True))
        cancelled = asyncio.ensure_future(llm.generate_text("hi"))
        for _ in range(3):
            await queued.acquire()
        cancelled.cancel()
    for error in await waiting:
        assert isinstance(error, APIConnectionError)
        assert "The session that was given to the provider is closed." in str(error)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await opened.aclose()


@pytest.mark.parametrize("how", ["argument", "environment", "excluded", "excluded by its port"])
def test_requests_go_through_the_proxy_that_was_asked_for(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def script(request: Received) -> Answer:
        return answer(completion(f"asked for {request.path}"))

    proxy, server = serve(script), serve(script)
    address = proxy.url.removesuffix("/v1")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, address)
    port = server.url.removesuffix("/v1").rpartition(":")[2]
    excluded = {"excluded": "127.0.0.1", "excluded by its port": f"127.0.0.1:{port}"}.get(how, "")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, excluded)
    options: dict[str, Any] = {"proxy": address} if how == "argument" else {"trust_env": True}
    text = face.generate(face.provider(server, **options))
    if excluded:
        assert text == "asked for /v1/chat/completions"
    else:
        assert text == f"asked for {server.url}/chat/completions"
    assert face.generate(face.provider(server)) == "asked for /v1/chat/completions"  # only when asked


@pytest.mark.parametrize("query", ["", "?api-version=2024-06-01"])
def test_the_base_url_is_sent_as_it_is_with_its_query_behind_the_path(face: Face, serve: Serve, query: str) -> None:
    server = serve()
    face.generate(face.provider(f"{server.url}/deployments/a%2fb%41{query}"))
    assert server.requests[0].path == f"/v1/deployments/a%2fb%41/chat/completions{query}"


def test_a_script_for_rusty_agent_sdk(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every example of the seed's documentation, with only its import line changed."""
    server = serve()
    monkeypatch.setenv("OPENROUTER_API_KEY", "your-key")
    provider = Provider("openai/gpt-4o-mini", base_url=server.url)
    text = provider.generate_text("Say hello in one sentence.")
    print(text)  # noqa: T201
    for chunk in provider.stream_text("Count to 3."):
        print(chunk, end="", flush=True)  # noqa: T201
    assert capsys.readouterr().out == "Hello world\nHello world"
    assert repr(provider) == f"<Provider 'openai/gpt-4o-mini' at {server.url.removesuffix('/v1')}, key ***>"
    result = provider.generate_text("Hi", include_usage=True)
    assert (str(result), result.prompt_tokens, result.total_tokens) == ("Hello world", 3, 8)
    messages = [{"role": "user", "content": "Hi"}]
    asked = threading.Event()
    server.answer(held(stream("Hello", " world"), asked.is_set, 4))  # what its thread has read a stream tells at once
    opened = provider.stream_text(messages=messages, system_prompt="Be brief.", temperature=0.2, stop="\n", seed=1)
    before = opened.finish_reason
    asked.set()
    assert (before, "".join(opened), opened.finish_reason) == (None, "Hello world", "stop")
    with pytest.raises(RuntimeError):
        Provider("m", api_key="k", base_url=serve(answer(b"", status=400)).url).generate_text("Hi")
    with pytest.raises(ConnectionError):
        list(Provider("m", api_key="k", base_url="http://127.0.0.1:1/v1").stream_text("Hi"))
    monkeypatch.delenv("OPENROUTER_API_KEY")
    with pytest.raises(ValueError, match="OPENROUTER_API_KEY"):
        Provider("m")


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A server to which the system lets clients connect, and that reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def address(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}/v1"


LONG = "x" * 8_000_000  # more than the system buffers


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("how", ["cancel", "total", "first_token", "provider"])
def test_a_stalled_upload_is_closed_at_once(
    deaf: socket.socket, monkeypatch: pytest.MonkeyPatch, how: str, streamed: bool, new_loop: NewLoop
) -> None:
    monkeypatch.setattr("rusty_agent.net.guard._LINGER_SECONDS", 60)

    async def main() -> None:
        llm = AsyncProvider("m", api_key=KEY, base_url=address(deaf), retry=RetryPolicy(max_retries=0))
        limits = {"total": Timeout(total=0.5), "first_token": Timeout(first_token=0.5)}.get(how)
        call = llm.stream_text(LONG, timeout=limits).result() if streamed else llm.generate_text(LONG, timeout=limits)
        task = asyncio.ensure_future(call)
        client, _ = await asyncio.to_thread(deaf.accept)
        await asyncio.to_thread(client.recv, 1, socket.MSG_PEEK)  # it is sending
        if how == "cancel":
            task.cancel()
        elif how == "provider":
            await llm.aclose()
        with pytest.raises((asyncio.CancelledError, RustyAgentError)):
            await asyncio.wait_for(task, 10)
        with client:
            gone = select.poll()
            gone.register(client, select.POLLERR | select.POLLHUP)
            assert await asyncio.to_thread(gone.poll, 10_000)
        await asyncio.wait_for(llm.aclose(), 10)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("how", ["cancel", "provider"])
def test_a_stalled_upload_over_tls_is_closed_at_once(deaf: socket.socket, how: str, new_loop: NewLoop) -> None:
    ours, theirs = ssl.create_default_context(cafile=TLS / "ca.pem"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(TLS / "server.pem")

    def accept() -> ssl.SSLSocket:
        client = theirs.wrap_socket(deaf.accept()[0], server_side=True)
        client.recv(1)  # it is sending
        return client

    async def main() -> None:
        url = address(deaf).replace("http://127.0.0.1", "https://localhost")
        llm = AsyncProvider("m", api_key=KEY, base_url=url, ssl=ours, retry=RetryPolicy(max_retries=0))
        task = asyncio.ensure_future(llm.generate_text(LONG))
        with await asyncio.to_thread(accept) as client:
            if how == "cancel":
                task.cancel()
            else:
                await llm.aclose()
            with pytest.raises((asyncio.CancelledError, RustyAgentError)):
                await asyncio.wait_for(task, 10)
            gone = select.poll()
            gone.register(client, select.POLLERR | select.POLLHUP)
            assert await asyncio.to_thread(gone.poll, 10_000)
        await llm.aclose()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("bound", [None, 2])
async def test_a_proxy_that_does_not_answer_counts_as_connecting(deaf: socket.socket, bound: int | None) -> None:
    llm = AsyncProvider(
        "m",
        api_key=KEY,
        base_url="https://127.0.0.1:9/v1",
        proxy=address(deaf).removesuffix("/v1"),
        max_connections=bound,
        retry=RetryPolicy(max_retries=0),
    )
    with pytest.raises(APITimeoutError) as raised:
        await llm.stream_text("hi", timeout=Timeout(connect=0.1, total=5)).result()
    assert raised.value.limit == "connect"
    assert not raised.value.sent


def test_closing_the_provider_closes_a_connection_on_which_a_proxy_is_asked(
    deaf: socket.socket, new_loop: NewLoop
) -> None:
    async def main() -> None:
        proxy = address(deaf).removesuffix("/v1")
        llm = AsyncProvider("m", api_key=KEY, base_url="https://127.0.0.1:9/v1", proxy=proxy)
        task = asyncio.ensure_future(llm.generate_text("hi"))
        client, _ = await asyncio.to_thread(deaf.accept)
        with client:
            client.settimeout(10)
            assert (await asyncio.to_thread(client.recv, 2**16)).startswith(b"CONNECT")
            await llm.aclose()
            with pytest.raises(APIConnectionError):
                await asyncio.wait_for(task, 10)
            with suppress(ConnectionResetError):
                assert await asyncio.to_thread(client.recv, 1) == b""

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("bound", [None, 2])
async def test_a_name_server_that_does_not_answer_counts_as_connecting(
    monkeypatch: pytest.MonkeyPatch, bound: int | None
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(5) and [])
    llm = AsyncProvider(
        "m",
        api_key=KEY,
        base_url="http://nowhere.invalid/v1",
        max_connections=bound,
        retry=RetryPolicy(max_retries=0),
    )
    with pytest.raises(APITimeoutError) as raised:
        await llm.stream_text("hi", timeout=Timeout(connect=0.1, total=5)).result()
    answered.set()
    assert raised.value.limit == "connect"
    assert not raised.value.sent


def test_kept_connections_that_are_all_dead_cost_no_attempt(face: Face, serve: Serve) -> None:
    def script(request: Received) -> Answer:
        return Answer((Reset(),)) if request.connection <= 3 and len(server.requests) > 3 else whole

    server = serve(script)
    whole = held(answer(completion()), lambda: len(server.requests) >= 3)
    reports: list[AttemptReport] = []
    provider = face.provider(server, retry=RetryPolicy(on_attempt=reports.append))
    assert face.together(provider, 3) == ["Hello world"] * 3
    assert server.connections == 3
    server.answer(script)
    assert face.generate(provider) == "Hello world"
    assert [report.error for report in reports] == [None] * 4
    assert server.connections == 4


@pytest.mark.parametrize("begun", [False, True])
def test_a_retry_after_a_silence_does_not_take_the_next_dead_connection(face: Face, serve: Serve, begun: bool) -> None:
    """A network that has changed swallows what is sent on any of the old connections, and what was to come on them."""

    def script(request: Received) -> Answer:
        if request.connection > 3 or len(server.requests) <= 3:
            return whole
        return begins if begun and len(server.requests) == 4 else Answer((Hang(),))

    begins = answer([b": a model thinks\n\n", Hang()], framing="chunked")
    server = serve(script)
    whole = held(answer(completion()), lambda: len(server.requests) >= 3)
    reports: list[AttemptReport] = []
    provider = face.provider(server, max_connections=3, retry=RetryPolicy(base_delay=0.01, on_attempt=reports.append))
    assert face.together(provider, 3) == ["Hello world"] * 3
    del reports[:]
    outcome = face.stream(provider, timeout=Timeout(idle=1))
    assert (outcome.text, outcome.error) == ("Hello world", None)
    assert [report.number for report in reports] == [1, 2]
    assert server.connections == 4
    until(lambda: server.open_connections <= 3)


async def test_a_retry_after_a_refused_connection_takes_one_that_is_kept() -> None:
    """A server that is about to end takes no new connections, and serves those that there are."""
    refused = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"}]")
                await reader.read(100)
                if not server.is_serving():
                    await refused.wait()
                body = dumps(completion())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def report(attempt: AttemptReport) -> None:
        if attempt.error is not None:
            refused.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    retry = RetryPolicy(max_retries=9, base_delay=0.02, on_attempt=report)
    async with AsyncProvider("m", api_key=KEY, base_url=url, retry=retry) as llm:
        await llm.generate_text("hi")
        server.close()
        assert await llm.gather(["a", "b"], concurrency=2) == ["Hello world"] * 2
    assert refused.is_set()


@pytest.mark.parametrize("by", ["us", "aiohttp"])
def test_a_large_body(face: Face, serve: Serve, by: str) -> None:
    """aiohttp warns of large bodies, and warnings are errors here. Sent again, it must be whole again."""

    def script(request: Received) -> Answer:
        return Answer((Reset(),)) if len(server.requests) == 2 else answer(completion())

    server = serve(script)
    url, proxy = (server.url, None) if by == "us" else ("http://nowhere.invalid/v1", server.url.removesuffix("/v1"))
    provider = face.provider(url, proxy=proxy, retry=RetryPolicy(max_retries=0))
    prompt = "x" * 1_500_000
    for _ in range(2):
        assert face.generate(provider, prompt) == "Hello world"
    assert len(server.requests) == 3
    for request in server.requests:
        assert request.json["messages"][0]["content"] == prompt
        assert int(request.headers["content-length"]) == len(request.body)


def test_loops_that_are_over_are_let_go(serve: Serve) -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []
    llm = AsyncProvider("m", api_key=KEY, base_url=serve().url)

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await llm.generate_text("hi")

    for _ in range(5):
        asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops[:-1]] == [None] * 4


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_loop_that_is_closed_under_a_call_is_let_go(
    serve: Serve, caplog: pytest.LogCaptureFixture, new_loop: NewLoop
) -> None:
    server = serve(Answer((Hang(),)))
    loop = new_loop()
    call = loop.create_task(AsyncProvider("m", api_key=KEY, base_url=server.url).generate_text("hi"))
    while not server.requests:
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    gone = weakref.ref(loop)
    del loop, call
    asyncio.run(
        AsyncProvider("m", api_key=KEY, base_url=serve().url).generate_text("hi")
    )  # a loop's end is noticed then
    gc.collect()
    assert gone() is None
    assert server.requests[0].gone.wait(10)
    assert [record.getMessage().split("\n")[0] for record in caplog.records] == [
        "Task was destroyed but it is pending!"
    ]


async def test_a_connection_whose_request_was_not_read_is_not_kept(deaf: socket.socket) -> None:
    body = dumps({"error": {"message": "too long"}})
    clients: list[socket.socket] = []

    def refuse() -> None:
        clients.append(deaf.accept()[0])
        clients[-1].sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with AsyncProvider("m", api_key=KEY, base_url=address(deaf), timeout=2) as llm:
        for prompt in (LONG, "short"):
            refusing = asyncio.ensure_future(asyncio.to_thread(refuse))
            with pytest.raises(APIStatusError, match="too long"):
                await llm.generate_text(prompt)
            await refusing
    for client in clients:
        client.close()


@pytest.mark.parametrize("where", ["with the end of the answer", "while the connection is kept"])
def test_an_answer_nobody_asked_for_reaches_nobody(where: str) -> None:
    """Kept, it would answer the next request, and each later answer would go to the wrong caller."""
    connections = 0
    sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            for number in itertools.count(1):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
                good = whole_answer(f"answer {connections}.{number}")
                surplus = whole_answer("surplus") if connections == number == 1 else b""
                held = 5 if where.startswith("with") else 0
                writer.write(good[: len(good) - held])
                await asyncio.sleep(0.05)
                writer.write(good[len(good) - held :] + surplus)
                sent.set()

    async def main() -> list[str]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, AsyncProvider("m", api_key=KEY, base_url=url) as llm:
            answers = [await llm.generate_text("hi")]
            await sent.wait()
            await asyncio.sleep(0.05)
            return answers + [await llm.generate_text("hi") for _ in range(2)]

    assert asyncio.run(main()) == ["answer 1.1", "answer 2.1", "answer 2.2"]


def whole_answer(text: str) -> bytes:
    body = dumps(completion(text))
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ssl": "ca.pem"}, "ssl must be of type SSLContext, not str"),
        ({"adapt": "no"}, "adapt must be True or False, not str"),
        ({"trust_env": None}, "trust_env must be True or False, not NoneType"),
        ({"split_thinking": 1}, "split_thinking must be True or False, not int"),
        ({"pickle_key": "sk-1"}, "pickle_key must be True or False, not str"),
        ({"retry": 3}, "retry must be of type RetryPolicy, not int"),
        ({"limits": 3}, "limits must be of type Limits, not int"),
        ({"proxy": "proxy:3128", "trust_env": True}, "proxy must be http://host"),
    ],
)
def test_an_option_that_cannot_be_right_is_refused_at_once(face: Face, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        face.provider("http://127.0.0.1:1/v1", **options)


def test_a_session_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="session must be of type ClientSession, not object"):
        AsyncProvider("m", api_key=KEY, session=object())  # type: ignore[arg-type]


async def test_a_connection_error_goes_without_the_garbage_collector() -> None:
    async with AsyncProvider(
        "m", api_key="k", base_url="http://127.0.0.1:1/v1", retry=RetryPolicy(max_retries=0)
    ) as llm:
        kept = None
        gc.disable()
        try:
            try:
                await llm.generate_text("hi")
            except APIConnectionError as error:
                kept = weakref.ref(error)
            assert kept is not None
            await asyncio.sleep(0)
            assert kept() is None
        finally:
            gc.enable()

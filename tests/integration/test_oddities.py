"""Bugs that an attack on the library found, each with the test that would have."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import pickle
import time
from typing import Any

import aiohttp
import pytest

from rusty_agent import (
    APIConnectionError,
    APITimeoutError,
    AsyncProvider,
    AttemptReport,
    AuthenticationError,
    BadRequestError,
    Provider,
    ResponseError,
    RetryPolicy,
    StreamInterruptedError,
)
from rusty_agent.testing import Answer, FaultServer, Hang, Pause, Received, answer, completion, error, stream
from rusty_agent.testing.answers import Step, chunk, event, events
from rusty_agent.wire.codec import dumps

from .answers import STARTED
from .faces import KEY, Face, Serve
from .scripts import run


def llm_for(server: FaultServer, **options: Any) -> AsyncProvider:
    return AsyncProvider("m", api_key=KEY, base_url=server.url, **options)


def test_only_one_dead_connection_is_replaced_unseen(serve: Serve) -> None:
    """A server that dies of a request must not be sent it over every pooled connection."""
    warm = stream("a", "b", gap=0.02)
    server = serve(warm)

    async def main() -> None:
        async with llm_for(server, retry=RetryPolicy(max_retries=0)) as llm:
            await asyncio.gather(*(llm.generate_text("hi", stream=True) for _ in range(10)))
            server.answer(Answer((Pause(0.01),), close=True))
            with pytest.raises(ConnectionError):
                await llm.generate_text("hi")

    asyncio.run(main())
    assert len(server.requests) <= 12


def test_what_a_server_worked_on_is_not_sent_again_unseen(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that dies after a while has had the request: its connection was not dead before."""
    monkeypatch.setattr("rusty_agent.net.http.transport._DYING_SECONDS", 0.05)
    server = serve(answer(completion("a")))  # kept as soon as it is read
    reports: list[AttemptReport] = []
    provider = face.provider(server, retry=RetryPolicy(max_retries=0, on_attempt=reports.append))
    face.generate(provider)
    server.answer(Answer((Pause(0.5),), close=True))
    with pytest.raises(APIConnectionError):
        face.generate(provider)
    assert server.connections == 1
    assert len(server.requests) == 2
    assert [report.error is None for report in reports] == [True, False]


@pytest.mark.parametrize("status", [200, 400])
def test_headers_that_are_no_utf_8_can_be_written(face: Face, serve: Serve, status: int) -> None:
    body = dumps(completion("a"))
    head = b"HTTP/1.1 %d X\r\nx-request-id: r\xe9\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    provider = face.provider(serve(Answer((head + body,))))
    if status == 200:
        assert face.generate(provider, include_usage=True).request_id == "r\ufffd"
        return
    with pytest.raises(BadRequestError) as wrong:
        face.generate(provider)
    assert (wrong.value.request_id, wrong.value.headers["x-request-id"]) == ("r\ufffd", "r\ufffd")


def test_waiting_for_a_free_connection_is_no_silence_of_the_endpoint(serve: Serve) -> None:
    server = serve(stream("a", "b", gap=0.1))

    async def main() -> list[str]:
        async with llm_for(server, max_connections=1, timeout=1.2) as llm:  # the last one waits for 1.5 s
            results = await asyncio.gather(*(llm.stream_text("hi").result() for _ in range(4)))
            return [result.text for result in results]

    assert asyncio.run(main()) == ["ab"] * 4


def test_tasks_may_share_their_context(serve: Serve) -> None:
    """One waits for the endpoint, and times out; the other waits for the connection of the first, and does not."""
    server = serve(Answer((Hang(),)), stream("a"))

    async def main() -> list[Any]:
        async with llm_for(server, max_connections=1, retry=RetryPolicy(max_retries=0)) as llm:
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            tasks = [
                loop.create_task(llm.stream_text("hi", timeout=seconds).result(), context=context)
                for seconds in (1, 0.9)
            ]
            return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    first, second = asyncio.run(main())
    assert isinstance(first, APITimeoutError)
    assert second.text == "a"


def test_a_late_choice_is_waited_for(face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rusty_agent.wire.reply.TAIL_SECONDS", 0.1)
    late = {"choices": [{"index": 1, "delta": {"content": "one"}, "finish_reason": None}]}
    end = {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}
    body: list[Step] = [event(chunk({"content": "zero"})), event(chunk({}, "stop")), Pause(0.3)]
    body += [event(late), Pause(0.3), event(end), event("[DONE]")]
    outcome = face.events(face.provider(serve(answer(body, framing="chunked"))), extra_body={"n": 2})
    assert outcome.error is None
    assert [item.text for item in outcome.events if hasattr(item, "text")] == ["zero", "one"]


@pytest.mark.parametrize("framing", ["chunked", "cut"])
def test_a_choice_that_never_came(face: Face, serve: Serve, framing: str) -> None:
    body = [event(chunk({"content": "zero"})), event(chunk({}, "stop"))]
    outcome = face.stream(face.provider(serve(answer(body, framing=framing))), extra_body={"n": 2})
    assert isinstance(outcome.error, StreamInterruptedError)
    assert outcome.error.partial_text == outcome.text == "zero"


@pytest.mark.parametrize("text", ["My token", "token-abc123"], ids=["its-beginning", "whole"])
def test_text_is_not_masked(face: Face, serve: Serve, text: str) -> None:
    """What the caller saw is what the error carries, be it the key itself; the error's own words are masked."""
    last = b'data: {"error":{"message":"bad token-abc123"}}\n\n'
    server = serve(answer([event(chunk({"content": text})), last], framing="chunked"))
    outcome = face.stream(face.provider(server, api_key="token-abc123"))
    assert outcome.failure.partial_text == outcome.text == text
    assert "token-abc123" not in f"{outcome.failure} {vars(outcome.failure) | {'partial_text': ''}}"


def test_an_error_nested_without_end_closes_the_connection(face: Face, serve: Serve) -> None:
    nested = b'data: {"error":{"message":"m","x":' + b"[" * 1000 + b"]" * 1000 + b"}}\n\n"
    server = serve(answer([event(chunk({"content": "a"})), Pause(0.02), nested, Hang()], framing="cut"))
    assert face.stream(face.provider(server)).failure.partial_text == "a"
    assert server.requests[0].gone.wait(10)


@pytest.mark.parametrize(
    ("before", "held"),
    [([event({"x": 1})] * 10, True), ([event({"x": 1})] * 2000, False), ([event({"x": "y" * 2**21})], False)],
    ids=["few", "many", "large"],
)
def test_events_before_the_content_are_not_held_for_ever(
    face: Face, serve: Serve, before: list[bytes], held: bool
) -> None:
    """But once they are handed out nothing is replayed."""
    first = b"".join(before)
    server = serve(answer([first], framing="cut"))
    outcome = face.events(face.provider(server, retry=RetryPolicy(base_delay=0.001)))
    assert isinstance(outcome.error, StreamInterruptedError)
    assert outcome.error.attempts == len(server.requests) == (3 if held else 1)
    assert len(outcome.events) == (0 if held else len(before))
    whole = serve(answer([first, *events("a")], framing="chunked"))
    assert face.generate(face.provider(whole), stream=True) == "a"
    assert len(face.events(face.provider(whole)).events) == len(before) + 3


def test_aiohttp_without_its_extensions(serve: Serve) -> None:
    """Its parser in Python raises errors of another family."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = event(chunk({"content": "a"}))
    server = serve(Answer((head, b"%x\r\n%b\r\n" % (len(data), data), Pause(0.05), b"zz\r\n"), close=True))
    ended = run(
        server.url,
        """
        try:
            list(Provider("m", base_url=URL).stream_text("hi"))
        except RustyAgentError as error:
            print(type(error).__name__, repr(error.partial_text))
        """,
        before="os.environ['AIOHTTP_NO_EXTENSIONS'] = '1'",
    )
    assert (ended.out, ended.err) == ("StreamInterruptedError 'a'\n", "")


def test_a_finish_reason_with_every_chunk_is_no_end(face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rusty_agent.wire.reply.TAIL_SECONDS", 0.1)
    body: list[Step] = [event(chunk({"content": "a"}, "stop")), Pause(0.3), event(chunk({"content": "b"}, "stop"))]
    assert face.stream(face.provider(serve(answer(body, framing="chunked")))).text == "ab"


def test_a_status_counts_though_its_body_stalls(face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rusty_agent.net.attempt._ERROR_BODY_SECONDS", 0.2)
    server = serve(answer([b'{"error":{"message":"bad', Hang()], status=401, framing="cut"))
    outcome = face.stream(face.provider(server, timeout=0.1))
    assert isinstance(outcome.error, AuthenticationError)
    assert len(server.requests) == 1


def test_a_closed_stream_yields_nothing_more_and_is_no_end(face: Face, serve: Serve) -> None:
    """Whoever closes it within a loop over it leaves the loop too; another loop must not take it for a whole answer."""
    begun = answer([b"".join(events(*"abcdef"))], framing="chunked", headers={"X-Request-Id": f"it is {KEY}"})
    server = serve(error(503), begun)
    got: list[str] = []

    def read() -> None:
        blocking = face.provider(server).stream_text("hi")
        for piece in blocking:
            got.append(piece)
            blocking.close()

    async def main() -> None:
        opened = face.provider(server).stream_text("hi")
        async for piece in opened:
            got.append(piece)
            await opened.aclose()

    with pytest.raises(StreamInterruptedError, match="closed before its end") as raised:
        read() if face.name == "sync" else face.run(main)  # type: ignore[union-attr]
    assert got == ["a"]
    assert raised.value.partial_text == "abcdef"
    assert (raised.value.attempts, raised.value.request_id) == (2, "it is ***")


async def test_reading_on_after_a_break_is_no_end(serve: Serve) -> None:
    opened = llm_for(serve(stream("a", "b", gap=0.01))).stream_text("hi")
    async for _ in opened:
        break
    for read_on in (lambda: anext(opened), opened.result, opened.__anext__):
        with pytest.raises(StreamInterruptedError, match="closed before its end"):
            await read_on()


async def test_a_stream_that_was_closed_before_it_began_does_not_begin(serve: Serve) -> None:
    server = serve(stream("a"))
    opened = llm_for(server).stream_text("hi")
    await opened.aclose()
    for read in (opened.open, opened.__anext__, opened.result):
        with pytest.raises(StreamInterruptedError, match="closed before its end"):
            await read()
    assert server.requests == []


async def test_a_cancelled_read_is_no_end(serve: Serve) -> None:
    opened = llm_for(serve(STARTED)).stream_text("hi")
    assert await anext(opened) == "a"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(opened), 0.05)
    with pytest.raises(StreamInterruptedError) as raised:
        await anext(opened)
    assert raised.value.partial_text == "a"


async def test_a_second_reader_does_not_disturb_the_first(serve: Serve) -> None:
    opened = llm_for(serve(stream("a", "b", gap=0.1))).stream_text("hi")
    first = asyncio.ensure_future(opened.result())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        async for _ in opened:
            pass
    assert (await first).text == "ab"


async def test_a_session_that_raises_for_status(serve: Serve) -> None:
    reports: list[AttemptReport] = []
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        llm = llm_for(serve(error(401)), session=session, retry=RetryPolicy(on_attempt=reports.append))
        with pytest.raises(AuthenticationError):
            await llm.generate_text("hi")
    assert len(reports) == 1


def test_keys_in_headers_are_masked_and_not_pickled(face: Face, serve: Serve) -> None:
    secret = "azure-key-0123456789"
    provider = face.provider(serve(error(401, f"bad {secret}")), headers={"api-key": secret, "x-title": "mine"})
    raised = face.stream(provider).failure
    assert secret not in f"{raised} {vars(raised)}"
    assert secret.encode() not in pickle.dumps(provider)
    assert b"mine" in pickle.dumps(provider)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip"])
def test_a_compression_that_cannot_be_undone(face: Face, serve: Serve, encoding: str) -> None:
    server = serve(answer(b"\x00garbage\xff", headers={"Content-Encoding": encoding}))
    assert isinstance(face.stream(face.provider(server)).failure, ResponseError)
    assert len(server.requests) == 1


def test_base_urls_with_a_host_beyond_ascii() -> None:
    assert "xn--bcher-kva.example" in repr(Provider("m", api_key=KEY, base_url="http://bücher.example:81/v1"))
    with pytest.raises(ValueError, match="base_url"):
        Provider("m", api_key=KEY, base_url="http://" + "ü" * 100 + ".example/v1")


def test_streams_do_not_copy(face: Face, serve: Serve) -> None:
    opened = face.provider(serve()).stream_text("hi")
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(opened)


async def test_a_hook_may_close_the_provider(serve: Serve) -> None:
    server = serve(error(503, headers={"Retry-After": "50"}), answer(completion()))

    def hook(_: AttemptReport) -> None:
        for call in list(llm._calls.under_way):
            call.close()

    llm = llm_for(server, retry=RetryPolicy(on_attempt=hook))
    began = time.monotonic()
    with pytest.raises(StreamInterruptedError):
        await llm.generate_text("hi")
    assert time.monotonic() - began < 10


def test_models_of_an_odd_type_are_the_endpoints_to_refuse(face: Face, serve: Serve) -> None:
    def script(request: Received) -> Answer:
        return error(400, f"model: {request.json['model']}")

    assert "['a']" in str(face.stream(face.provider(serve(script)), extra_body={"model": ["a"]}).failure)

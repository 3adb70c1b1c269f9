"""Time limits, through both faces; those that need no fault of the answer's own are here, the rest in the table."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from rusty_agent import APITimeoutError, AsyncProvider, RetryPolicy, ServerError, Timeout
from rusty_agent.testing import Answer, Hang, Pause, answer, completion, error, stream
from rusty_agent.testing.answers import Step, chunk, event, events
from rusty_agent.wire.codec import dumps

from .faces import KEY, Face, NewLoop, Serve

ONCE = RetryPolicy(max_retries=0)


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a server that never accepts: its queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        for client in waiting:
            client.close()


def test_a_connection_that_is_not_made_in_time_is_given_up(face: Face, deaf: str) -> None:
    began = time.monotonic()
    with pytest.raises(APITimeoutError) as raised:
        face.generate(face.provider(deaf), timeout=Timeout(connect=0.2), retry=ONCE)
    assert (raised.value.limit, raised.value.seconds) == ("connect", 0.2)
    assert isinstance(raised.value, TimeoutError)
    assert isinstance(raised.value, ConnectionError)
    assert 0.2 <= time.monotonic() - began < 5


@pytest.mark.parametrize("streamed", [False, True])
def test_the_environment_limits_the_whole_call_or_the_silence(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setenv("RUSTY_AGENT_REQUEST_TIMEOUT_SECS", "1")
    monkeypatch.setenv("RUSTY_AGENT_MAX_RETRIES", "0")
    slow = stream(*"abcdefgh" * 2, gap=0.07)  # longer than the limit in all, never silent for as long
    if streamed:
        assert face.stream(face.provider(serve(slow))).text == "abcdefgh" * 2
        outcome = face.stream(face.provider(serve(answer([events("a")[1], Hang()], framing="cut"))))
        assert isinstance(outcome.error, APITimeoutError)
        assert (outcome.error.limit, outcome.text) == ("idle", "a")
        assert "max_tokens" not in outcome.error.message
    else:
        with pytest.raises(APITimeoutError) as raised:
            face.generate(face.provider(serve(stream(*"abcdefgh" * 8, gap=0.04))))
        assert raised.value.limit == "total"
        assert "max_tokens" in raised.value.message


def test_total_covers_retries_and_waits(face: Face, serve: Serve) -> None:
    server = serve(error(503), Answer((Hang(),)))
    began = time.monotonic()
    with pytest.raises(APITimeoutError) as raised:
        face.generate(face.provider(server), timeout=Timeout(total=1), retry=RetryPolicy(base_delay=0.01))
    assert (raised.value.limit, raised.value.attempts) == ("total", 2)
    assert raised.value.message.startswith("Timed out: the answer did not arrive within 1 s (total limit).")
    assert 1 <= time.monotonic() - began < 5


def test_none_switches_a_limit_off(face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTY_AGENT_REQUEST_TIMEOUT_SECS", "0.1")
    late = answer([Pause(0.3), dumps(completion("late"))], framing="chunked")
    assert face.generate(face.provider(serve(late)), timeout=Timeout(total=None)) == "late"
    quiet = answer([Pause(0.3), *events("late")], framing="chunked")
    assert face.stream(face.provider(serve(quiet)), timeout=Timeout(idle=None)).text == "late"


def test_a_slow_reader_is_no_silent_server(serve: Serve) -> None:
    """Time that the caller takes between two pieces counts against no limit but the total."""
    from rusty_agent import Provider

    server = serve(stream("a", "b", "c", gap=0.02))
    provider = Provider("m", api_key="k" * 8, base_url=server.url, timeout=Timeout(idle=0.9, stall=0.9))
    pieces = []
    for piece in provider.stream_text("hi"):
        pieces.append(piece)
        time.sleep(1 if piece == "a" else 0)
    assert pieces == ["a", "b", "c"]


def test_a_loop_that_stood_still_is_no_silent_server(serve: Serve, new_loop: NewLoop) -> None:
    """What came while something else kept the loop busy has come."""
    server = serve(stream(*"abcdefghijklmnopqrst", gap=0.05))

    async def main() -> str:
        llm = AsyncProvider("m", api_key=KEY, base_url=server.url, timeout=Timeout(idle=0.8, stall=0.8))
        asyncio.get_running_loop().call_later(0.2, time.sleep, 0.9)
        return (await llm.stream_text("hi").result()).text

    with asyncio.Runner(loop_factory=new_loop) as running:
        assert running.run(main()) == "abcdefghijklmnopqrst"


def test_a_silence_ends_on_a_loop_that_is_always_late(serve: Serve, new_loop: NewLoop) -> None:
    server = serve(answer([events("a")[1], Hang()], framing="cut"))

    async def keep_busy() -> None:
        while True:
            time.sleep(0.12)
            await asyncio.sleep(0)

    async def main() -> None:
        llm = AsyncProvider("m", api_key=KEY, base_url=server.url, timeout=Timeout(idle=0.3))
        busy = asyncio.create_task(keep_busy())
        with pytest.raises(APITimeoutError):
            await llm.stream_text("hi").result()
        busy.cancel()

    with asyncio.Runner(loop_factory=new_loop) as running:
        began = time.monotonic()
        running.run(main())
        assert time.monotonic() - began < 10


PING = event({"type": "ping"})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})


def test_a_slow_reader_of_events_without_content_is_no_silent_server(serve: Serve) -> None:
    """Only the time that reads waited counts, all of them together."""
    from rusty_agent import Provider

    pings: list[Step] = [PING, Pause(0.02)] * 4
    server = serve(answer([event(chunk({"content": "a"})), *pings, *events("b")], framing="chunked"))
    provider = Provider("m", api_key="k" * 8, base_url=server.url, timeout=Timeout(stall=0.6))
    seen = 0
    for _ in provider.stream_text("hi").events():
        seen += 1
        time.sleep(0.15)
    assert seen == 1 + 4 + 3


@pytest.mark.parametrize("noise", [b": hi\n\n", PING, USAGE], ids=["comments", "pings", "usage"])
def test_the_tail_after_the_finish_reason_is_not_waited_for_long(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch, noise: bytes
) -> None:
    monkeypatch.setattr("rusty_agent.wire.reply.TAIL_SECONDS", 0.2)
    tail: list[Step] = [Pause(0.03), noise] * 400
    unended = answer([*events("a", usage=False, done=False), *tail, Hang()], framing="cut")
    began = time.monotonic()
    outcome = face.stream(face.provider(serve(unended)))
    assert (outcome.pieces, outcome.error, outcome.stream.finish_reason) == (["a"], None, "stop")
    assert 0.15 < time.monotonic() - began < 6


def test_pings_do_not_hold_an_answer_open_whose_finish_reason_came_with_its_text(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rusty_agent.wire.reply.DOUBTFUL_TAIL_SECONDS", 0.2)
    last = event(chunk({"content": "b"}, "stop"))
    pings: list[Step] = [Pause(0.03), b": hi\n\n"] * 400
    unended = answer([event(chunk({"content": "a"})), last, *pings, Hang()], framing="cut")
    began = time.monotonic()
    outcome = face.stream(face.provider(serve(unended)))
    assert ("".join(outcome.pieces), outcome.error, outcome.stream.finish_reason) == ("ab", None, "stop")
    assert 0.15 < time.monotonic() - began < 6


def test_the_body_of_an_error_does_not_outlast_the_call(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rusty_agent.net.attempt._ERROR_BODY_SECONDS", 60)
    provider = face.provider(serve(answer([b'{"error":{"message":"busy', Hang()], status=503, framing="cut")))
    began = time.monotonic()
    with pytest.raises(ServerError, match="busy"):
        face.generate(provider, timeout=Timeout(total=0.2))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("timeout", "advice"),
    [
        (0.2, "Timeout(idle=…) if the endpoint is just slow."),
        (Timeout(first_token=0.2), "Timeout(first_token=…) if the endpoint is just slow."),
    ],
)
def test_the_limit_to_raise_is_named(face: Face, serve: Serve, timeout: Timeout | float, advice: str) -> None:
    server = serve(answer([Hang()], framing="chunked", content_type="text/event-stream"))
    error = face.stream(face.provider(server, retry=ONCE), timeout=timeout).failure
    assert isinstance(error, APITimeoutError)
    assert error.message.endswith(advice)

"""The views of one stream: they share a position, and none of them takes a part of an answer for the whole."""

from __future__ import annotations

import asyncio
import builtins
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest

from rusty_agent import (
    AsyncProvider,
    AsyncTextStream,
    Finish,
    Limits,
    NotFoundError,
    Provider,
    RetryPolicy,
    StreamInterruptedError,
    TextDelta,
)
from rusty_agent.sync import stream as module
from rusty_agent.sync.bridge import Crossing
from rusty_agent.sync.stream import TextStream
from rusty_agent.testing import FaultServer
from rusty_agent.testing.answers import Answer, Hang, Pause, answer, chunk, event, events, stream

from ..events import held, until
from .answers import STARTED
from .faces import Serve

KEY = "k" * 8
OWN_END = "closed before its end"


def sent(*arrivals: str, gap: float = 0.05) -> Answer:
    """An answer whose texts, a letter a piece, come in as many arrivals; the last brings the end, too."""
    letters = "".join(arrivals)
    first, *pieces = events(*letters, usage=False)
    parts: list[Any] = []
    at = 0
    for number, arrival in enumerate(arrivals, 1):
        end = at + len(arrival) if number < len(arrivals) else len(pieces)
        parts += [first + b"".join(pieces[at:end]), Pause(gap)]
        at, first = end, b""
    return answer(parts[:-1], framing="chunked")


def blocking(server: FaultServer) -> TextStream:
    return Provider("m", api_key=KEY, base_url=server.url).stream_text("hi")


def asynchronous(server: FaultServer) -> AsyncTextStream:
    return AsyncProvider("m", api_key=KEY, base_url=server.url).stream_text("hi")


async def test_a_view_goes_on_where_another_has_stopped(serve: Serve) -> None:
    server = serve(sent("ab", "cd"))
    opened = asynchronous(server)
    view = aiter(opened)
    got = [await anext(view), await anext(opened), await anext(opened)]
    assert got + [piece async for piece in view] == list("abcd")
    opened = asynchronous(server)
    assert [[piece, await anext(opened)] async for piece in opened] == [["a", "b"], ["c", "d"]]


async def test_a_stream_says_how_far_it_is(serve: Serve) -> None:
    opened = asynchronous(serve(held(sent("ab", "cd"), lambda: False, 2)))
    assert repr(opened) == "<AsyncTextStream new, 0 characters so far>"
    await anext(opened)
    assert repr(opened) == "<AsyncTextStream open, 2 characters so far>"
    await opened.aclose()
    assert repr(opened) == "<AsyncTextStream closed, 2 characters so far>"
    unread = asynchronous(serve(sent("ab")))
    await unread.aclose()
    assert repr(unread) == "<AsyncTextStream closed, 0 characters so far>"


def test_a_blocking_stream_says_how_far_it_is(serve: Serve) -> None:
    told = threading.Event()
    server = serve(held(sent("ab", "cd"), told.is_set, 2))
    opened = blocking(server)
    next(opened)
    assert repr(opened) == "<TextStream open, 2 characters so far>"
    told.set()
    assert opened.result().text == "abcd"
    assert repr(opened) == "<TextStream closed, 4 characters so far>"
    server.answer(Answer((Hang(),)))
    left = blocking(server)
    left.close()
    assert repr(left) == "<TextStream closed, 0 characters so far>"


def test_a_blocking_view_goes_on_where_another_has_stopped(serve: Serve) -> None:
    opened = blocking(serve(sent("ab", "cd")))
    view, typed = iter(opened), opened.events()
    assert [next(view), next(opened), next(opened)] == list("abc")
    assert getattr(next(typed), "text", None) == "d"
    assert list(view) == []


async def test_after_its_result_a_stream_is_empty(serve: Serve) -> None:
    opened = asynchronous(serve(sent("ab", "cd")))
    view = aiter(opened)
    assert await anext(view) == "a"
    assert (await opened.result()).text == "abcd"
    assert [piece async for piece in view] == [piece async for piece in opened] == []


def test_after_its_result_a_blocking_stream_is_empty(serve: Serve) -> None:
    opened = blocking(serve(sent("ab", "cd")))
    view = iter(opened)
    assert next(view) == "a"
    assert opened.result().text == "abcd"
    assert list(view) == list(opened) == []
    assert list(opened.events()) == []
    opened.close()
    assert list(opened) == []


def test_after_a_failed_result_the_error_comes_first(serve: Serve) -> None:
    opened = blocking(serve(answer([b"".join(events(*"ab")[:3])], framing="chunked")))
    for read in (opened.result, lambda: next(opened), lambda: list(opened.events())):
        with pytest.raises(StreamInterruptedError, match="before it was complete"):
            read()


def test_whoever_reads_while_a_stream_is_being_closed_sees_no_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = blocking(serve(sent("abc")))
    assert next(opened) == "a"
    seen: list[object] = []
    cancelling: list[object] = []

    def cancel(crossing: object) -> None:
        cancelling.append(crossing)
        if len(cancelling) == 1:  # whoever finds it closed closes it, too
            with pytest.raises(StreamInterruptedError, match=OWN_END):
                seen.append(next(opened))

    monkeypatch.setattr(Crossing, "cancel", cancel)  # as another thread in the middle of it
    opened.close()
    assert cancelling
    assert seen == []


async def test_closing_in_the_moment_the_answer_arrives_is_no_end() -> None:
    """Another task closes the stream when its end has arrived, and nobody has been given any of it."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(events(*"abc"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await asyncio.sleep(0.02)
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        for _ in range(turns):
            await asyncio.sleep(0)
        await opened.aclose()
        writer.close()

    for turns in range(6):  # noqa: B007 - `serve` takes it
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            async with AsyncProvider("m", api_key=KEY, base_url=url) as llm:
                opened = llm.stream_text("hi")
                with pytest.raises(StreamInterruptedError, match=OWN_END):
                    async with opened:
                        await opened.open()
                    [piece async for piece in opened]


@pytest.mark.parametrize("typed", [False, True], ids=["text", "events"])
async def test_a_view_whose_reading_took_too_long_does_not_end(serve: Serve, typed: bool) -> None:
    """As in a relay that sends a sign of life whenever nothing has come for a while."""
    opened = asynchronous(serve(STARTED))
    view: Any = opened.events() if typed else aiter(opened)
    await anext(view)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(view), 0.05)
    for _ in range(2):
        with pytest.raises(StreamInterruptedError, match="abandoned"):
            await anext(view)


async def test_a_view_that_was_closed_does_not_end(serve: Serve) -> None:
    opened = asynchronous(serve(stream("a", "b", gap=0.05)))
    unused: Any = opened.events()
    await unused.aclose()  # nothing was read in it: it closes nothing
    view: Any = opened.events()
    async with aclosing(view):
        await anext(view)
    with pytest.raises(StreamInterruptedError, match=OWN_END):
        [event async for event in view]


def test_a_blocking_view_that_was_closed_or_has_failed_does_not_end(serve: Serve) -> None:
    opened = blocking(serve(stream("a", "b", gap=0.05)))
    view: Any = opened.events()
    with closing(view):
        next(view)
    with pytest.raises(StreamInterruptedError, match=OWN_END):
        list(view)
    failing = iter(blocking(serve(answer([event(chunk({"content": "a"}))], framing="chunked"))))
    for _ in range(2):
        with pytest.raises(StreamInterruptedError, match="before it was complete"):
            list(failing)


def test_reading_on_the_loop_s_own_thread_is_refused(serve: Serve) -> None:
    server = serve(stream("a", "b", gap=0.1))
    provider = Provider("m", api_key=KEY, base_url=server.url)
    opened, items = provider.stream_text("hi"), provider.map(["one", "two"], concurrency=1)
    next(items)
    refused: list[str] = []

    def hook(_: object) -> None:
        for read in (lambda: next(opened), opened.result, lambda: list(opened), lambda: next(items)):
            with pytest.raises(RuntimeError, match="own event loop thread") as raised:
                read()
            refused.append(str(raised.value))

    calling = Provider("m", api_key=KEY, base_url=server.url, retry=RetryPolicy(on_attempt=hook))
    assert calling.generate_text("hi", stream=True) == "ab"
    assert len(refused) == 4
    assert "".join(opened) == "ab"  # which was not disturbed
    assert [item.index for item in items] == [1]


@pytest.mark.parametrize("ending", ["end", "close"])
def test_of_two_threads_one_reads(serve: Serve, ending: str) -> None:
    silent = answer([b": hi\n\n", Hang()], framing="chunked")
    outcomes: list[object] = []
    opened = blocking(serve(held(stream("a"), lambda: outcomes) if ending == "end" else silent))

    def read() -> None:
        try:
            outcomes.append("".join(opened))
        except Exception as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: outcomes)  # one was refused
    if ending == "close":
        opened.close()
    for thread in threads:
        thread.join(10)
    assert sorted(map(str, outcomes)) == sorted(
        map(str, [RuntimeError, "a" if ending == "end" else StreamInterruptedError])
    )


def test_an_arrival_that_ctrl_c_has_lost_is_no_part_of_a_whole(serve: Serve) -> None:
    interrupted: list[KeyboardInterrupt] = []

    class Interrupting(list[Any]):
        def clear(self) -> None:
            if not interrupted:
                interrupted.append(KeyboardInterrupt())
                raise interrupted[0]
            super().clear()

    opened = blocking(serve(sent("ab", "cd")))
    opened._arrived = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        next(opened)
    with pytest.raises(StreamInterruptedError, match=OWN_END):
        list(opened)


@pytest.mark.parametrize(("step", "at"), [("iter", "the arrival"), ("type", "b"), ("TextDelta", "b")])
def test_what_ctrl_c_has_lost_of_the_last_arrival_is_not_its_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, step: str, at: str
) -> None:
    """It comes as a step of the reading returns, and only then."""

    def interrupted(given: Any) -> Any:
        if given == at or (at == "the arrival" and given):
            patched.undo()
            raise KeyboardInterrupt
        return getattr(builtins, step, TextDelta)(given)

    opened = blocking(serve(sent("ab")))
    view = opened.events() if step == "TextDelta" else iter(opened)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, step, interrupted, raising=False)
        list(view)
    with pytest.raises(StreamInterruptedError, match=OWN_END):
        list(opened)


def test_an_error_that_is_raised_again_and_again_does_not_grow(serve: Serve) -> None:
    opened = blocking(serve(answer(b"", status=404)))
    lengths = set()
    for _ in range(3):
        with pytest.raises(NotFoundError) as raised:
            next(opened)
        lengths.add(len(raised.traceback))
    assert len(lengths) <= 2  # the first time it comes from the other thread


def test_a_hook_that_cancels_its_task_cuts_the_stream_off(serve: Serve) -> None:
    def cancel(_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    llm = Provider("m", api_key=KEY, base_url=serve(sent("ab", "cd")).url)
    with pytest.raises(StreamInterruptedError, match=OWN_END):
        list(llm.stream_text("hi", retry=RetryPolicy(on_attempt=cancel)))


class InterruptedLock:
    """The handler of a signal raises as it is taken."""

    def acquire(self, blocking: bool = True) -> bool:
        raise TimeoutError


@pytest.mark.parametrize("many", [False, True])
def test_an_interrupt_as_reading_begins_leaves_nobody_waiting_for_another_thread(serve: Serve, many: bool) -> None:
    server = serve(*[sent("a", "b")] * many, sent("a", "b", gap=9))
    provider = Provider("m", api_key=KEY, base_url=server.url)
    reader: Any = provider.map(["a", "b"], concurrency=1, stream=True) if many else provider.stream_text("hi")
    next(reader)
    server.wait_for(1 + many)  # the next prompt is under way
    reader._reading = InterruptedLock()
    with pytest.raises(TimeoutError):
        next(reader)
    with pytest.raises(RuntimeError if many else StreamInterruptedError, match="before its end"):
        next(reader)
    assert server.requests[-1].gone.wait(10)


@pytest.fixture
def interrupt() -> Iterator[Callable[[type[BaseException]], None]]:
    """Let a signal handler raise this in a moment, as those do that limit the time of what they interrupt."""

    def soon(kind: type[BaseException]) -> None:
        def handler(*_: object) -> None:
            raise kind("mine")

        signal.signal(signal.SIGUSR1, handler)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    before = signal.getsignal(signal.SIGUSR1)
    yield soon
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("kind", [TimeoutError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("read", [list, next, TextStream.result, lambda opened: list(opened.events())])
def test_an_error_of_a_signal_handler_closes_a_blocking_stream(
    serve: Serve, interrupt: Callable[..., None], read: Callable[[TextStream], object], kind: type[BaseException]
) -> None:
    silent = answer([event(chunk({"content": "a"})), Hang()], content_type="text/event-stream", framing="cut")
    server = serve(silent)
    provider = Provider("m", api_key=KEY, base_url=server.url, limits=Limits(in_flight=1))
    opened = provider.stream_text("hi")
    assert next(opened) == "a"
    with pytest.raises(kind, match="mine"):
        interrupt(kind)
        read(opened)
    assert server.requests[0].gone.wait(10)
    for _ in range(2):
        with pytest.raises(StreamInterruptedError, match=OWN_END):
            next(opened)
    server.answer(stream("b"))
    assert provider.generate_text("hi", stream=True, timeout=5) == "b"


async def test_leaving_a_loop_at_its_last_event_cuts_nothing_off(serve: Serve) -> None:
    opened = asynchronous(serve(sent("ab", "c")))
    async with aclosing(opened.events()) as view:  # type: ignore[type-var]
        async for seen in view:
            if isinstance(seen, Finish):
                break
    assert (await opened.result()).text == "abc"
    assert [piece async for piece in opened] == []


def test_leaving_a_blocking_loop_at_its_last_event_cuts_nothing_off(serve: Serve) -> None:
    opened = blocking(serve(sent("ab", "c")))
    for seen in opened.events():
        if isinstance(seen, Finish):
            break
    assert opened.result().text == "abc"
    assert list(opened) == []


def test_a_stream_that_was_never_made_is_dropped_without_a_word() -> None:
    """As by a Ctrl-C within its constructor."""
    for kind in (AsyncTextStream, TextStream):
        kind.__new__(kind)  # a complaint in its `__del__` would fail the test


async def test_a_stream_whose_end_has_come_takes_no_place(serve: Serve) -> None:
    """`Finish` is the last event: nobody has to ask for one more, or to drop the stream."""
    server = serve(sent("a", "b"), answer({"choices": [{"message": {"content": "next"}, "finish_reason": "stop"}]}))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, limits=Limits(in_flight=1)) as llm:
        opened = llm.stream_text("hi")
        read = opened.events()
        while not isinstance(await anext(read), Finish):
            pass
        async with asyncio.timeout(5):
            assert await llm.generate_text("hi") == "next"
        assert (await opened.result()).text == "ab"

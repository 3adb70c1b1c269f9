"""Whatever makes a caller go, the server sees the connection close at once and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from rusty_agent import (
    APIConnectionError,
    APIStatusError,
    AsyncProvider,
    AttemptReport,
    Limits,
    Provider,
    RetryPolicy,
    RustyAgentError,
    StreamInterruptedError,
    TextStream,
)
from rusty_agent.net.limits.limiter import Limiter, Permit
from rusty_agent.testing import Answer, FaultServer, Hang, Pause, answer, error, stream
from rusty_agent.testing.answers import events

from ..events import soon, until
from .answers import FAILS_LATE, STARTED
from .faces import Serve

SILENT = Answer((Hang(),))
ENDLESS = stream(*"abcdefghijklmnopqrstuvwxyz" * 20, gap=0.01)


def provider(server: FaultServer) -> AsyncProvider:
    return AsyncProvider("m", api_key="k" * 8, base_url=server.url, retry=RetryPolicy(max_retries=0))


@pytest.fixture(autouse=True)
def _no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is closed only when its moment of lingering is over is closed too late."""
    monkeypatch.setattr("rusty_agent.net.guard._LINGER_SECONDS", 60)


def in_a_cycle(thing: Any) -> list[Any]:
    """What only the garbage collector ends, once nobody else holds it."""
    cycle = [thing]
    cycle.append(cycle)
    return cycle


async def saw_close(server: FaultServer) -> None:
    """The server must see its last client go."""
    gone = await asyncio.to_thread(server.requests[-1].gone.wait, 5)
    assert gone, "the connection stayed open"
    assert len(asyncio.all_tasks()) == 1  # this test's own


async def break_off(llm: AsyncProvider) -> None:
    opened = llm.stream_text("hi")
    async for _ in opened:
        break


async def break_off_events(llm: AsyncProvider) -> None:
    opened = llm.stream_text("hi")
    async for _ in opened.events():
        break


async def close(llm: AsyncProvider) -> None:
    opened = llm.stream_text("hi")
    await anext(opened)
    await opened.aclose()
    await opened.aclose()


async def leave_the_block(llm: AsyncProvider) -> None:
    async with llm.stream_text("hi") as opened:
        await anext(opened)


async def drop_the_reference(llm: AsyncProvider) -> None:
    opened = llm.stream_text("hi")
    await anext(opened)
    del opened


async def raise_in_the_loop(llm: AsyncProvider) -> None:
    with pytest.raises(ZeroDivisionError):
        async for _ in llm.stream_text("hi"):
            1 / 0  # noqa: B018


async def read(llm: AsyncProvider, begun: Callable[[], object]) -> None:
    async for _ in llm.stream_text("hi"):
        begun()


async def cancel_the_task(llm: AsyncProvider) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(read(llm, begun.set))
    await begun.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def time_out(llm: AsyncProvider) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:

            def begun() -> None:
                if limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + 0.05)

            await read(llm, begun)


async def fail_in_a_task_group(llm: AsyncProvider) -> None:
    begun = asyncio.Event()

    async def fail() -> None:
        await begun.wait()
        await asyncio.sleep(0.05)
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(read(llm, begun.set))
            group.create_task(fail())


async def close_the_provider(llm: AsyncProvider) -> None:
    opened = llm.stream_text("hi")
    await anext(opened)
    await llm.aclose()
    with pytest.raises(StreamInterruptedError):
        async for _ in opened:
            pass


@pytest.mark.parametrize(
    "leave",
    [
        break_off,
        break_off_events,
        close,
        leave_the_block,
        drop_the_reference,
        raise_in_the_loop,
        cancel_the_task,
        time_out,
        fail_in_a_task_group,
        close_the_provider,
    ],
    ids=lambda leave: leave.__name__,
)
@pytest.mark.parametrize("script", [STARTED, ENDLESS], ids=["waiting", "streaming"])
async def test_leaving_in_mid_stream(
    serve: Serve, leave: Callable[[AsyncProvider], Awaitable[None]], script: Answer
) -> None:
    server = serve(script)
    llm = provider(server)
    await leave(llm)
    await saw_close(server)


SAYS_BUSY = answer(b'{"error": {"message": "try again", "code": 503}}')
REFUSES = answer(b'{"error": {"message": "unsupported parameter", "param": "temperature", "code": 400}}')
BREAKS = Answer((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",), close=True)
IS_NO_HTTP = Answer((b"garbage\r\n\r\n",), close=True)


@pytest.mark.parametrize(
    "first", [SAYS_BUSY, REFUSES, BREAKS, IS_NO_HTTP], ids=["busy", "refuses", "breaks", "is no HTTP"]
)
async def test_dropping_a_stream_that_has_failed_before_needs_no_garbage_collector(serve: Serve, first: Answer) -> None:
    """The frames of what had failed, which from Python 3.12 on hold all that waited for it, are held by nobody."""
    server = serve(first, STARTED)
    reports: list[AttemptReport] = []
    llm = AsyncProvider("m", api_key="k" * 8, base_url=server.url, retry=RetryPolicy(1, 0, on_attempt=reports.append))
    gc.disable()
    try:
        opened = llm.stream_text("hi", temperature=0.5)
        await opened.open()
        del opened
        await saw_close(server)
    finally:
        gc.enable()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "last", [SAYS_BUSY, REFUSES, error(500), FAILS_LATE], ids=["busy", "refuses", "status", "late"]
)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_stream_that_has_failed_needs_no_garbage_collector(serve: Serve, last: Answer, times: int) -> None:
    """It keeps its error for whoever reads on; and an error holds, by its traceback, all that it came through."""
    llm = provider(serve(last))
    gc.disable()
    try:
        opened = llm.stream_text("hi")
        for _ in range(times):
            with suppress(APIStatusError):
                await opened.result()
        kept: list[weakref.ref[Any]] = [weakref.ref(opened), weakref.ref(opened._call)]
        del opened
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()


async def test_a_stream_that_was_closed_and_read_on_needs_no_garbage_collector(serve: Serve) -> None:
    llm = provider(serve(STARTED))
    gc.disable()
    try:
        opened = llm.stream_text("hi")
        await opened.open()
        await opened.aclose()
        with suppress(StreamInterruptedError):
            await opened.result()
        kept = weakref.ref(opened)
        del opened
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("last", [SAYS_BUSY, error(500)], ids=["busy", "status"])
async def test_an_error_and_its_call_need_no_garbage_collector(serve: Serve, last: Answer) -> None:
    llm = provider(serve(last))
    gc.disable()
    try:
        for ask in (llm.generate_text, lambda prompt: llm.gather([prompt])):
            try:
                await ask("hi")
            except APIStatusError as raised:
                kept = weakref.ref(raised)
            assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("by", ["cancel", "timeout", "provider"])
async def test_leaving_before_the_headers(serve: Serve, by: str, streamed: bool) -> None:
    server = serve(SILENT)
    llm = provider(server)
    call = llm.stream_text("hi").result() if streamed else llm.generate_text("hi")
    task = asyncio.ensure_future(call)
    await asyncio.to_thread(server.wait_for, 1)
    if by == "provider":
        await llm.aclose()
    elif by == "cancel":
        task.cancel()
    with pytest.raises({"cancel": asyncio.CancelledError, "timeout": TimeoutError, "provider": APIConnectionError}[by]):
        await (asyncio.wait_for(task, 0.05) if by == "timeout" else task)
    await saw_close(server)


async def test_closing_a_stream_whose_first_token_another_task_awaits(serve: Serve) -> None:
    server = serve(SILENT)
    opened = provider(server).stream_text("hi")
    task = asyncio.ensure_future(opened.result())
    await asyncio.to_thread(server.wait_for, 1)
    await opened.aclose()
    with pytest.raises(StreamInterruptedError):
        await task
    await saw_close(server)


async def test_closing_a_stream_that_another_task_reads_is_no_end(serve: Serve) -> None:
    server = serve(STARTED)
    opened = provider(server).stream_text("hi")
    assert await anext(opened) == "a"
    task = asyncio.ensure_future(anext(opened))
    await asyncio.sleep(0.02)
    await opened.aclose()
    with pytest.raises(StreamInterruptedError, match="abandoned") as raised:
        await task
    assert raised.value.partial_text == "a"


async def test_reading_on_behind_a_time_limit_of_ones_own_tells_what_has_ended_the_stream(serve: Serve) -> None:
    opened = provider(serve(STARTED)).stream_text("hi")
    assert await anext(opened) == "a"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(opened), 0.01)
    with pytest.raises(StreamInterruptedError, match=r"a task that read it was cancelled, as by asyncio\.wait_for"):
        await anext(opened)


async def test_only_one_task_may_read(serve: Serve) -> None:
    opened = provider(serve(STARTED)).stream_text("hi")
    assert await anext(opened) == "a"
    task = asyncio.ensure_future(anext(opened))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(opened)
    await opened.aclose()
    with pytest.raises(StreamInterruptedError):
        await task


@pytest.mark.parametrize("by", ["cancel", "provider", "stream"])
async def test_leaving_during_backoff(serve: Serve, by: str) -> None:
    server = serve(error(503), error(503, headers={"Retry-After": "30"}))
    llm = AsyncProvider("m", api_key="k" * 8, base_url=server.url)
    opened = llm.stream_text("hi")
    task = asyncio.ensure_future(opened.result())
    await asyncio.to_thread(server.wait_for, 2)
    await asyncio.sleep(0.05)
    if by == "cancel":
        task.cancel()
    elif by == "provider":
        await llm.aclose()
    else:
        await opened.aclose()
    with pytest.raises((asyncio.CancelledError, RustyAgentError)) as raised:
        await asyncio.wait_for(task, 10)
    assert not isinstance(raised.value, RustyAgentError) or raised.value.attempts == 2
    assert len(server.requests) == 2
    assert len(asyncio.all_tasks()) == 1


async def test_leaving_the_queue_for_a_connection(serve: Serve) -> None:
    server = serve(STARTED)
    llm = AsyncProvider("m", api_key="k" * 8, base_url=server.url, max_connections=1)
    holding = llm.stream_text("hi")
    await anext(holding)
    waiting = asyncio.ensure_future(llm.generate_text("hi"))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert server.connections == 1
    await holding.aclose()
    await saw_close(server)


async def test_leaving_the_queue_when_it_is_ones_turn_leaves_it_to_the_next(serve: Serve) -> None:
    server = serve(STARTED, stream("fine"))
    llm = AsyncProvider("m", api_key="k" * 8, base_url=server.url, max_connections=1)
    holding, called, waiting = (llm.stream_text("hi") for _ in range(3))
    await anext(holding)
    leaving = asyncio.ensure_future(called.result())
    staying = asyncio.ensure_future(waiting.result())
    await asyncio.sleep(0.05)
    await holding.aclose()  # the connection is free: the first in the queue is called
    await called.aclose()  # it goes before it has heard that
    assert (await asyncio.wait_for(staying, 10)).text == "fine"
    with pytest.raises(StreamInterruptedError):
        await leaving


async def test_a_cancelled_call_may_be_followed_by_another(serve: Serve) -> None:
    server = serve(SILENT, stream("fine"))
    llm = provider(server)
    cancelled = asyncio.ensure_future(llm.generate_text("hi"))
    await asyncio.to_thread(server.wait_for, 1)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await llm.generate_text("hi", stream=True) == "fine"


def test_the_blocking_face_closes_too(serve: Serve) -> None:
    server = serve(STARTED)
    blocking = Provider("m", api_key="k" * 8, base_url=server.url)

    def by_break() -> None:
        for _ in blocking.stream_text("hi"):
            break

    def by_break_of_a_held_stream() -> None:
        held.append(blocking.stream_text("hi"))
        for _ in held[-1]:
            break
        with pytest.raises(StreamInterruptedError, match="a loop over it was left") as raised:
            next(held[-1])
        assert raised.value.partial_text == "a"

    def by_close() -> None:
        held.append(blocking.stream_text("hi"))
        assert next(held[-1]) == "a"
        held[-1].close()
        with pytest.raises(StreamInterruptedError, match="abandoned"):
            list(held[-1])

    def by_with() -> None:
        with blocking.stream_text("hi") as opened:
            assert next(opened) == "a"

    def by_garbage() -> None:
        opened = blocking.stream_text("hi")
        assert next(opened) == "a"
        cycle = in_a_cycle(opened)
        del opened, cycle
        gc.collect()

    def by_garbage_on_the_loop() -> None:
        from rusty_agent.sync.thread import loop_thread

        box = [blocking.stream_text("hi")]
        assert next(box[0]) == "a"
        dropped = threading.Event()
        loop_thread().loop.call_soon_threadsafe(box.clear)
        loop_thread().loop.call_soon_threadsafe(dropped.set)
        dropped.wait(2)

    held: list[TextStream] = []
    for leave in (by_break, by_break_of_a_held_stream, by_close, by_with, by_garbage, by_garbage_on_the_loop):
        leave()
        assert server.requests[-1].gone.wait(5), leave.__name__


def test_closing_a_blocking_provider_ends_the_calls_of_other_threads(serve: Serve) -> None:
    server = serve(SILENT)
    blocking = Provider("m", api_key="k" * 8, base_url=server.url)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            blocking.generate_text("hi")
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    server.wait_for(1)
    blocking.close()
    thread.join(10)
    assert [type(error) for error in raised] == [StreamInterruptedError]
    with pytest.raises(APIConnectionError, match="closed"):
        blocking.generate_text("hi")


async def test_closing_a_stream_in_the_step_in_which_more_arrives_is_no_end(serve: Serve) -> None:
    server = serve(
        answer([events("a")[1], Pause(0.1), events("b")[1], Hang()], content_type="text/event-stream", framing="cut")
    )
    first, second = provider(server).stream_text("hi"), provider(server).stream_text("hi")
    assert (await anext(first), await anext(second)) == ("a", "a")

    async def close_when_the_first_goes_on() -> None:
        await anext(first)
        await second.aclose()

    closing = asyncio.ensure_future(close_when_the_first_goes_on())
    await asyncio.sleep(0)
    reading = asyncio.ensure_future(second.result())
    await asyncio.sleep(0)
    time.sleep(0.3)  # so that both arrivals come in one step of the loop
    with pytest.raises(StreamInterruptedError, match="abandoned") as raised:
        await reading
    assert raised.value.partial_text.startswith("a")
    with pytest.raises(StreamInterruptedError, match="abandoned"):
        await anext(second)
    await closing
    await first.aclose()


@pytest.mark.parametrize("read", [list, TextStream.result, TextStream.open], ids=["list", "result", "open"])
@pytest.mark.parametrize("script", [SILENT, STARTED], ids=["silent", "started"])
def test_closing_a_blocking_stream_that_another_thread_reads_is_no_end(
    serve: Serve, script: Answer, read: Callable[[TextStream], object]
) -> None:
    server, text = serve(script), "a" if script is STARTED else ""
    opened = Provider("m", api_key="k" * 8, base_url=server.url).stream_text("hi")
    if script is STARTED and read is TextStream.open:
        read(opened)  # it has nothing more to wait for afterwards
        read = next
        assert next(opened) == "a"

    def close() -> None:
        until(lambda: server.requests and opened.partial_text == text)
        time.sleep(0.05)
        opened.close()

    threading.Thread(target=close).start()
    with pytest.raises(StreamInterruptedError, match="abandoned") as raised:
        read(opened)
    assert raised.value.partial_text == text
    with pytest.raises(StreamInterruptedError, match="abandoned"):
        next(opened)


def test_closing_a_blocking_stream_while_more_arrives_is_no_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Provider("m", api_key="k" * 8, base_url=serve(STARTED).url).stream_text("hi")
    arrival = opened._handover.get

    def get() -> object:
        deltas = arrival()
        opened.close()  # as another thread may, between the arrival and the moment when it is looked at
        return deltas

    monkeypatch.setattr(opened._handover, "get", get)
    with pytest.raises(StreamInterruptedError, match="abandoned"):
        list(opened)


def test_closing_a_blocking_stream_before_its_first_step(serve: Serve) -> None:
    """The loop stands still, so that the stream is closed before it has begun; its reader must not wait for ever."""
    from rusty_agent.sync.thread import loop_thread

    go_on = loop_thread().hold()
    opened = Provider("m", api_key="k" * 8, base_url=serve(STARTED).url).stream_text("hi")
    threading.Timer(0.05, opened.close).start()
    threading.Timer(0.1, go_on).start()
    with pytest.raises(StreamInterruptedError, match="abandoned"):
        next(opened)


def test_a_loop_that_was_left_closes_the_connection_although_its_event_loop_stands_still(serve: Serve) -> None:
    """As between two inputs of a terminal that awaits, or two runs of an `asyncio.Runner`."""
    server = serve(STARTED)
    with asyncio.Runner() as runner:
        runner.run(break_off(AsyncProvider("m", api_key="k" * 8, base_url=server.url)))
        assert server.requests[0].gone.wait(5)


async def test_a_stream_that_the_garbage_collector_closes_disturbs_no_step_of_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that which gives a place to the next: its place would be counted as free while it is being given."""
    llm = AsyncProvider("m", api_key="k" * 8, base_url=serve(STARTED).url, limits=Limits(in_flight=2))
    dropped, closed, *waiting = (llm.stream_text("hi") for _ in range(5))
    await dropped.open()
    await closed.open()
    cycle = in_a_cycle(dropped)
    opening = [asyncio.ensure_future(opened.open()) for opened in waiting]
    await asyncio.sleep(0)
    admit = Limiter.admit

    def collect_and_admit(*given: Any) -> Permit:
        gc.collect()
        return admit(*given)

    monkeypatch.setattr(Limiter, "admit", collect_and_admit)
    gc.disable()
    del dropped, cycle
    try:
        await closed.aclose()
        await asyncio.gather(*opening[:2])
    finally:
        gc.enable()
    assert llm._calls.limiter().in_flight == 2
    assert not opening[2].done()
    await llm.aclose()
    with pytest.raises(StreamInterruptedError):
        await opening[2]


async def test_a_connection_that_the_garbage_collector_frees_while_a_call_begins_to_wait_for_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(STARTED, answer({"choices": [{"message": {"content": "yes"}}]}))
    llm = AsyncProvider("m", api_key="k" * 8, base_url=server.url, max_connections=1)
    dropped = llm.stream_text("hi")
    await dropped.open()
    cycle = in_a_cycle(dropped)
    available = aiohttp.BaseConnector._available_connections

    def look_and_collect(*given: Any) -> int:
        found = available(*given)
        gc.collect()
        return found

    monkeypatch.setattr(aiohttp.BaseConnector, "_available_connections", look_and_collect)
    gc.disable()
    del dropped, cycle
    try:
        assert await asyncio.wait_for(llm.generate_text("hi"), 5) == "yes"
    finally:
        gc.enable()
    await llm.aclose()


async def test_a_connection_that_the_garbage_collector_frees_while_a_call_waits_for_it_once_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes on at once takes the connection that it has given back, though another was told of it."""
    yes = answer({"choices": [{"message": {"content": "yes"}}]})
    server = serve(STARTED, Answer((Pause(0.1), *yes.steps)), Answer((Hang(),)), yes)
    llm = AsyncProvider("m", api_key="k" * 8, base_url=server.url, max_connections=2)
    dropped = llm.stream_text("hi")
    await dropped.open()
    held = in_a_cycle(dropped)
    available = aiohttp.BaseConnector._available_connections

    def look_and_collect(*given: Any) -> int:
        nonlocal held
        found = available(*given)
        held = []
        gc.collect()
        return found

    async def ask_twice() -> None:
        await llm.generate_text("short")
        monkeypatch.setattr(aiohttp.BaseConnector, "_available_connections", look_and_collect)
        await llm.generate_text("long")

    gc.disable()
    del dropped
    try:
        twice = asyncio.ensure_future(ask_twice())
        await soon(lambda: len(server.requests) == 2)
        assert await asyncio.wait_for(llm.generate_text("hi"), 5) == "yes"
        assert len(server.requests) == 4
    finally:
        gc.enable()
        monkeypatch.undo()
    twice.cancel()
    await llm.aclose()


def test_a_stream_that_outlives_its_loop_is_forgotten(serve: Serve) -> None:
    llm = provider(serve(STARTED))
    held = []

    async def main() -> None:
        held.append(llm.stream_text("hi"))
        await anext(held[0])

    asyncio.run(main())
    held.clear()
    gc.collect()
    assert llm._calls.under_way == set()


async def test_a_read_that_is_dropped_asks_nothing_of_the_answer(serve: Serve) -> None:
    """With a loop that was closed under it: the garbage collector may have finished with the text before."""
    async with provider(serve(STARTED)) as llm:
        opened = llm.stream_text("hi")
        await anext(opened)
        reading = opened._arrival()
        reading.send(None)
        opened._decoder.assembler.pieces.close()
        reading.close()

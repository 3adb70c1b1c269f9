"""How a run of many prompts ends: by its last item, by leaving, closing, failing, or a rule."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import time
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import (
    AsyncProvider,
    AttemptReport,
    AuthenticationError,
    BadRequestError,
    Limits,
    MapItem,
    Progress,
    Provider,
    RetryPolicy,
    RunStoppedError,
    RustyAgentError,
    run_batch,
)
from rusty_agent.sync.bridge import Crossing
from rusty_agent.testing import Answer, Received, answer, error

from ..events import held, soon, until
from .faces import KEY, AsyncFace, Face, Serve
from .prompts import echo, gather, items


def test_the_first_error_ends_gather_and_what_is_under_way(face: Face, serve: Serve) -> None:
    server = serve(lambda request: held(echo(request), lambda: len(server.requests) == 4))
    provider = face.provider(server)
    with pytest.raises(BadRequestError) as caught:
        gather(face, provider, ["hang 0", "a", "bad 2", "hang 3"])
    assert caught.value.__notes__ == ["This was prompt 2 of gather."]
    for request in server.wait_for(4):
        if b"hang" in request.body:
            assert request.gone.wait(10)


@pytest.mark.parametrize("many", [True, False])
def test_a_wrong_key_stops_the_run_at_once(face: Face, serve: Serve, many: bool) -> None:
    server = serve(error(401, "wrong key"))
    provider = face.provider(server)
    prompts = [f"p{number}" for number in range(500)]
    if many:
        results = gather(face, provider, prompts, concurrency=8, return_exceptions=True)
        kinds = [type(result) for result in results]
        assert set(kinds) == {AuthenticationError, RunStoppedError}
        assert len(results) == 500
        assert all(len(traceback.extract_tb(result.__traceback__)) < 20 for result in results)  # one error, many times
        assert kinds.count(AuthenticationError) == len(server.requests) <= 8
        stopped = {(one.done, one.failed) for one in results if isinstance(one, RunStoppedError)}
        assert stopped == {(0, len(server.requests))}  # in the end, not when it was stopped
    else:
        with pytest.raises(RunStoppedError, match="refuses the key") as caught:
            items(face, provider, prompts, concurrency=8)
        assert caught.value.reason == "authentication"
        assert isinstance(caught.value.__cause__, AuthenticationError)
        assert len(server.requests) <= 8


def test_who_waits_for_a_turn_when_a_run_is_stopped_has_made_no_attempt(face: Face, serve: Serve) -> None:
    server = serve(error(401))
    reports: list[AttemptReport] = []
    provider = face.provider(server, limits=Limits(in_flight=1), retry=RetryPolicy(on_attempt=reports.append))
    gather(face, provider, ["a", "b", "c"], return_exceptions=True)
    assert [type(report.error) for report in reports] == [AuthenticationError]
    assert len(server.requests) == 1


def test_a_used_up_quota_stops_the_run_and_is_not_retried(face: Face, serve: Serve) -> None:
    server = serve(error(429, "pay", code="insufficient_quota"))
    with pytest.raises(RunStoppedError, match="nothing left to spend"):
        items(face, face.provider(server), (f"p{number}" for number in range(100)), concurrency=4)
    assert len(server.requests) <= 4


def test_a_stopped_run_does_not_sit_out_its_waits(face: Face, serve: Serve) -> None:
    def script(request: Received) -> Answer:
        busy = request.json["messages"][-1]["content"] == "busy"
        return error(429, "wait", headers={"retry-after": "30"}) if busy else error(401, "wrong key")

    began = time.monotonic()
    with pytest.raises(RunStoppedError, match="refuses the key") as caught:
        items(face, face.provider(serve(script)), ["busy", "key", "busy"], concurrency=3, ordered=False)
    assert time.monotonic() - began < 10
    assert caught.value.duration is None


def test_too_many_failures_stop_the_run_after_what_is_done(face: Face, serve: Serve) -> None:
    seen: list[MapItem] = []
    provider = face.provider(serve(echo))
    prompts = [*["a"] * 10, *["bad"] * 5, *["b"] * 500]
    if isinstance(face, AsyncFace):

        async def main() -> None:
            async for item in provider.map(prompts, concurrency=1, max_failures=2):
                seen.append(item)  # noqa: PERF401 - the error must find the others there

        with pytest.raises(RunStoppedError, match="max_failures"):
            face.run(main)
    else:
        with pytest.raises(RunStoppedError, match="max_failures"):
            seen.extend(provider.map(prompts, concurrency=1, max_failures=2))
    assert [item.index for item in seen] == list(range(13))
    assert all((item.result is None) != (item.error is None) for item in seen)


async def test_a_provider_that_is_closed_meanwhile_stops_the_run(serve: Serve) -> None:
    """Or an endless run would go on for ever, and take one prompt after another only to fail it."""
    llm = AsyncProvider("m", api_key=KEY, base_url=serve(echo).url)
    seen = []
    with pytest.raises(RunStoppedError, match="its provider was closed") as caught:
        async for item in llm.map(repeat("a"), concurrency=4):
            seen.append(item.error)
            if len(seen) == 10:
                await llm.aclose()
    assert caught.value.reason == "interrupt"
    assert seen[:10] == [None] * 10
    assert len(seen) < 200
    results = await llm.gather(["a"] * 100, concurrency=4, return_exceptions=True)
    assert [type(result) for result in results].count(RunStoppedError) >= 96


def test_leaving_early_closes_what_is_under_way(face: Face, serve: Serve) -> None:
    server = serve(echo)
    prompts = (f"hang {number}" if number else "a" for number in range(100))
    found = items(face, face.provider(server), prompts, 1, concurrency=8, ordered=False)
    assert [item.input for item in found] == ["a"]
    for request in server.wait_for(1):
        if b"hang" in request.body:
            assert request.gone.wait(10)


async def test_a_run_whose_reading_was_cancelled_does_not_end(serve: Serve) -> None:
    """As in a loop that shows a sign of life whenever nothing has come for a while."""
    async with AsyncProvider("m", api_key=KEY, base_url=serve(echo).url) as llm:
        items = llm.map(["one", "two", "hang"], concurrency=1)
        assert [(await anext(items)).index, (await anext(items)).index] == [0, 1]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 0.1)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="before its end"):
                await anext(items)
        await items.aclose()
        left = llm.map(["one"])
        await left.aclose()
        with pytest.raises(RuntimeError, match="before its end"):
            await anext(left)


def test_a_run_that_was_left_or_stopped_does_not_end(serve: Serve) -> None:
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    items: Any = provider.map(["one", "two"], concurrency=1)
    assert next(items).index == 0
    items.close()
    with pytest.raises(RuntimeError, match="before its end"):
        next(items)
    items = provider.map(["one"])
    assert [item.index for item in items] == [0]
    items.close()  # it had ended
    assert list(items) == []
    stopped = provider.map(["bad one", "two"], concurrency=1, max_failures=0)
    with pytest.raises(RunStoppedError):
        list(stopped)
    with pytest.raises(RuntimeError, match="before its end"):
        next(stopped)


async def test_a_run_that_was_stopped_or_has_ended_is_closed_without_a_word(serve: Serve) -> None:
    async with AsyncProvider("m", api_key=KEY, base_url=serve(echo).url) as llm:
        stopped = llm.map(["bad", *["a"] * 9], concurrency=1, max_failures=0)
        assert (await anext(stopped)).error is not None
        await stopped.aclose()
        ended = llm.map(["one"])
        assert [item.index async for item in ended] == [0]
        await ended.aclose()
        assert [item async for item in ended] == []


def test_closing_a_blocking_run_that_another_thread_reads(serve: Serve) -> None:
    server = serve(echo)
    items: Any = Provider("m", api_key=KEY, base_url=server.url).map(["one", "hang", "two"], ordered=False)
    seen: list[MapItem] = []
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: seen.extend(items))
        hanging = next(request for request in server.wait_for(3) if b"hang" in request.body)
        until(lambda: len(seen) == 2 and items._reading.locked())
        with pytest.raises(RuntimeError, match="read by another thread"):
            next(items)
        assert not reading.done()
        items.close()
        with pytest.raises(RuntimeError, match="before its end"):
            reading.result(10)
    assert hanging.gone.wait(10)


def test_closing_a_blocking_run_as_another_thread_begins_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    items: Any = Provider("m", api_key=KEY, base_url=serve(echo).url).map(["hang"])

    def crossing(*given: Any) -> Any:
        items.close()
        return Crossing(*given)

    monkeypatch.setattr("rusty_agent.sync.many.Crossing", crossing)
    with pytest.raises(RuntimeError, match="before its end"):
        next(items)


def test_the_items_of_a_run_do_not_copy(face: Face, serve: Serve) -> None:
    run = face.provider(serve(echo)).map(["one", "two"])
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(run)


def test_the_items_of_a_blocking_run_are_a_generator(serve: Serve) -> None:
    items = Provider("m", api_key=KEY, base_url=serve(echo).url).map(["one", "two"], concurrency=1)
    assert isinstance(items, Generator)
    assert next(items).index == 0
    with pytest.raises(LookupError, match="mine"):
        items.throw(LookupError("mine"))
    with pytest.raises(RuntimeError, match="before its end"):
        next(items)


async def test_closing_a_run_that_another_task_reads_is_refused(serve: Serve) -> None:
    refused = threading.Event()
    server = serve(lambda request: held(echo(request), refused.is_set))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        items: Any = llm.map(["one", "two"])

        async def read() -> list[int]:
            return [item.index async for item in items]

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.05)
        for leave in (items.aclose, lambda: items.athrow(LookupError())):
            with pytest.raises(RuntimeError, match="read by another task"):
                await leave()
        refused.set()
        assert await reading == [0, 1]


def test_an_iterator_that_fails(face: Face, serve: Serve) -> None:
    def prompts() -> Iterator[str]:
        yield from ("a", "b")
        raise LookupError("no more")

    seen = []
    provider = face.provider(serve(echo))
    with pytest.raises(LookupError, match="no more"):
        seen += items(face, provider, prompts())
    assert seen == []


def test_an_iterator_that_fails_with_the_end_of_another_does_not_end(face: Face, serve: Serve) -> None:
    def prompts() -> Iterator[str]:
        yield from ("a", "b")
        raise StopAsyncIteration

    with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
        items(face, face.provider(serve(echo)), prompts())


async def test_nothing_is_left_behind(serve: Serve) -> None:
    async with AsyncProvider("m", api_key=KEY, base_url=serve(echo).url, limits=Limits(in_flight=4)) as provider:
        async for item in provider.map((f"p{number}" for number in range(100)), concurrency="auto"):
            if item.index == 50:
                break
        async with asyncio.timeout(5):
            while asyncio.all_tasks() != {asyncio.current_task()}:
                await asyncio.sleep(0.01)
        (door,) = provider._calls.limiters.values()
        assert (door.in_flight, door._line.waiting, provider._calls.under_way) == (0, {}, set())


async def test_cancelling_gather_gives_everything_back(serve: Serve) -> None:
    server = serve(echo)
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as provider:
        gathering = asyncio.ensure_future(provider.gather([f"hang {number}" for number in range(50)], concurrency=10))
        requests = await asyncio.to_thread(server.wait_for, 10)
        gathering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gathering
        (door,) = provider._calls.limiters.values()
        assert (door.in_flight, provider._calls.under_way) == (0, set())
        for request in requests:
            assert request.gone.wait(10)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("how", ["gather", "map", "prompts"])
def test_whoever_exits_in_a_blocking_run_ends_that_run_only(serve: Serve, how: str, kind: type[BaseException]) -> None:
    """In a task of the background loop, which would end with it, and with all calls of other threads."""
    server = serve(echo)

    def leave(_: object) -> None:
        raise kind

    async def prompts() -> AsyncIterator[str]:
        yield "hang"
        await asyncio.to_thread(server.wait_for, 2)
        leave(None)

    provider = Provider("m", api_key=KEY, base_url=server.url)
    leaving = Provider("m", api_key=KEY, base_url=server.url, retry=RetryPolicy(on_attempt=leave))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(provider.generate_text, "slow")
        server.wait_for(1)
        with pytest.raises(kind):
            if how == "gather":
                leaving.gather(["hang", "a", "b"])
            else:
                list(provider.map(prompts()) if how == "prompts" else leaving.map(["hang", "a", "b"]))
        assert other.result(5) == "slow"
    assert provider.gather(["a", "b"]) == ["a", "b"]
    for request in server.requests:
        assert b"hang" not in request.body or request.gone.wait(10)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_whoever_exits_while_progress_is_told_ends_the_blocking_run(serve: Serve, kind: type[BaseException]) -> None:
    def leave(_: Progress) -> None:
        raise kind

    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    with pytest.raises(kind):
        for _ in provider.map(repeat("endless"), progress=leave):
            pass
    assert provider.generate_text("on") == "on"


@contextmanager
def let_go(llm: AsyncProvider) -> Iterator[Callable[[], bool]]:
    """Without the garbage collector: tells whether the provider is gone."""
    kept = weakref.ref(llm)
    del llm
    gc.disable()
    try:
        yield lambda: kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("end", ["whole", "left", "progress fails"])
async def test_a_provider_that_is_dropped_after_a_run_goes_without_the_garbage_collector(
    serve: Serve, end: str
) -> None:
    """And with it a local model, and the memory that it takes."""

    def fail(progress: Progress) -> None:
        raise ZeroDivisionError

    llm = AsyncProvider("m", api_key=KEY, base_url=serve(echo).url)
    with let_go(llm) as gone:
        with suppress(ZeroDivisionError):
            async for _ in llm.map(["a", "b"], progress=fail if end == "progress fails" else False):
                if end == "left":
                    break
        del llm
        await soon(gone)


@pytest.mark.parametrize(
    "bad",
    [
        error(400, "no"),
        error(400, "unsupported parameter: temperature"),
        answer(b"\x1f\x8b\x08" + bytes(20), headers={"Content-Encoding": "gzip"}),
    ],
    ids=["refused", "refused without a parameter, too", "not to be decompressed"],
)
async def test_a_provider_that_is_dropped_goes_while_the_errors_of_its_run_are_kept(serve: Serve, bad: Answer) -> None:
    """Their frames would hold it, and all of each call: 25 KB a prompt, and what was sent twice."""
    llm = AsyncProvider("m", api_key=KEY, base_url=serve(bad).url)
    with let_go(llm) as gone:
        failed, _ = await llm.gather(["a", "b"], temperature=0.5, return_exceptions=True)
        del llm
        await soon(gone)
        assert isinstance(failed, RustyAgentError)
        assert (failed.__traceback__, failed.__context__) == (None, None)


async def test_a_provider_that_is_dropped_after_a_batch_goes_without_the_garbage_collector(
    serve: Serve, tmp_path: Path
) -> None:
    llm = AsyncProvider("m", api_key=KEY, base_url=serve(echo).url)
    with let_go(llm) as gone:
        await run_batch(["a", "b"], tmp_path / "out.jsonl", llm)
        del llm
        await soon(gone)


async def test_a_provider_that_is_dropped_after_a_cancelled_run_goes_without_the_garbage_collector(
    serve: Serve,
) -> None:
    server = serve(echo)
    llm = AsyncProvider("m", api_key=KEY, base_url=server.url)
    with let_go(llm) as gone:
        run = asyncio.create_task(llm.gather(["hang", "hang"]))
        del llm
        await asyncio.to_thread(server.wait_for, 2)
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()
        del run
        await soon(gone)

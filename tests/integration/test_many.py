"""`map` and `gather` through both faces, over real connections."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import pickle
import sqlite3
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from itertools import repeat
from typing import Any

import pytest

from rusty_agent import (
    APIConnectionError,
    AsyncProvider,
    AuthenticationError,
    BadRequestError,
    Limits,
    MapItem,
    Progress,
    Provider,
    RateLimitError,
    RetryPolicy,
    RunStoppedError,
    Timeout,
)
from rusty_agent.testing import Answer, FaultServer, Hang, Pause, Received, answer, completion, error, stream
from rusty_agent.wire.codec import dumps

from .faces import KEY, AsyncFace, Face

Serve = Callable[..., FaultServer]


def echo(request: Received) -> Answer:
    """Answer with the prompt; «bad …» is refused, «hang …» never answered, «slow …» after a while."""
    text = request.json["messages"][-1]["content"]
    if text.startswith("bad"):
        return error(400, f"{text} is refused")
    if text.startswith("hang"):
        return Answer((Hang(),))
    if request.json.get("stream"):
        return stream(text[:1], text[1:])
    whole = dumps(completion(text))
    return answer([Pause(0.5), whole] if text.startswith("slow") else whole)


def gather(face: Face, provider: Any, prompts: Any, **options: Any) -> Any:
    made = provider.gather(prompts, **options)
    return face.run(lambda: made) if isinstance(face, AsyncFace) else made


def items(face: Face, provider: Any, prompts: Any, limit: int = -1, **options: Any) -> list[MapItem]:
    """The items of a run, or the first few of them."""
    if not isinstance(face, AsyncFace):
        seen = []
        for item in provider.map(prompts, **options):
            seen.append(item)
            if len(seen) == limit:
                break
        return seen

    async def main() -> list[MapItem]:
        seen = []
        async with aclosing(provider.map(prompts, **options)) as run:
            async for item in run:
                seen.append(item)
                if len(seen) == limit:
                    break
        return seen

    found: list[MapItem] = face.run(main)
    return found


def test_gather_keeps_the_order(face: Face, serve: Serve) -> None:
    prompts = [f"p{number}" for number in range(150)]
    assert gather(face, face.provider(serve(echo)), prompts, concurrency=20) == prompts


def test_gather_takes_every_kind_of_prompt(face: Face, serve: Serve) -> None:
    server = serve(echo)
    conversation = [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}]
    one_by_one = iter(["a", conversation, {"prompt": "c", "temperature": 0, "max_tokens": 7}])
    results = gather(face, face.provider(server), one_by_one, include_usage=True, temperature=0.5)
    assert [result.text for result in results] == ["a", "b", "c"]
    assert [result.total_tokens for result in results] == [8, 8, 8]
    sent = sorted((request.json for request in server.requests), key=lambda body: str(body["messages"][-1]["content"]))
    assert [body["temperature"] for body in sent] == [0.5, 0.5, 0]
    assert sent[1]["messages"] == conversation
    assert [body.get("max_tokens") for body in sent] == [None, None, 7]


def test_fields_of_extra_body_are_laid_over_each_other(face: Face, serve: Serve) -> None:
    server = serve(echo)
    prompts = [{"prompt": "a", "extra_body": {"top_k": 1}}, "b"]
    gather(face, face.provider(server), prompts, extra_body={"top_k": 5, "min_p": 0.1}, concurrency=1)
    assert [(request.json["top_k"], request.json["min_p"]) for request in server.requests] == [(1, 0.1), (5, 0.1)]


def test_gather_streams_underneath(face: Face, serve: Serve) -> None:
    server = serve(echo)
    assert gather(face, face.provider(server), ["ab", "cd"], stream=True) == ["ab", "cd"]
    assert all(request.json["stream_options"] == {"include_usage": True} for request in server.requests)


def test_the_first_error_ends_gather_and_what_is_under_way(face: Face, serve: Serve) -> None:
    server = serve(echo)
    provider = face.provider(server)
    with pytest.raises(BadRequestError) as caught:
        gather(face, provider, ["hang 0", "a", "bad 2", "hang 3"])
    assert caught.value.__notes__ == ["This was prompt 2 of gather."]
    for request in server.wait_for(4):
        if b"hang" in request.body:
            assert request.gone.wait(1)


def test_errors_in_their_places(face: Face, serve: Serve) -> None:
    results = gather(face, face.provider(serve(echo)), ["a", "bad 1", "c", 3, ""], return_exceptions=True)
    assert results[0::2] == ["a", "c", ""]
    assert isinstance(results[1], BadRequestError)
    assert isinstance(results[3], ValueError)
    assert "int" in str(results[3])


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
    else:
        with pytest.raises(RunStoppedError, match="refuses the key") as caught:
            items(face, provider, prompts, concurrency=8)
        assert caught.value.reason == "authentication"
        assert isinstance(caught.value.__cause__, AuthenticationError)
        assert len(server.requests) <= 8


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
    with pytest.raises(RunStoppedError, match="refuses the key"):
        items(face, face.provider(serve(script)), ["busy", "key", "busy"], concurrency=3, ordered=False)
    assert time.monotonic() - began < 10


def test_too_many_failures_stop_the_run_after_what_is_done(face: Face, serve: Serve) -> None:
    seen: list[MapItem] = []
    provider = face.provider(serve(echo))
    prompts = [*["a"] * 10, *["bad"] * 5, *["b"] * 500]
    if isinstance(face, AsyncFace):

        async def main() -> None:
            async for item in provider.map(prompts, concurrency=4, max_failures=2):
                seen.append(item)  # noqa: PERF401 - the error must find the others there

        with pytest.raises(RunStoppedError, match="max_failures"):
            face.run(main)
    else:
        with pytest.raises(RunStoppedError, match="max_failures"):
            seen.extend(provider.map(prompts, concurrency=4, max_failures=2))
    assert [item.index for item in seen] == list(range(len(seen)))
    assert 13 <= len(seen) < 40
    assert all((item.result is None) != (item.error is None) for item in seen)


def test_map_yields_in_order_or_as_they_finish(face: Face, serve: Serve) -> None:
    def slow_first(request: Received) -> Answer:
        text = request.json["messages"][-1]["content"]
        if text == "p0":
            time.sleep(0.1)  # the server has one thread: the others wait too, but are read before
        return answer(dumps(completion(text)))

    provider = face.provider(serve(echo))
    found = items(face, provider, (f"p{number}" for number in range(100)), concurrency=16)
    assert [item.index for item in found] == list(range(100))
    assert [str(item.result) for item in found] == [item.input for item in found]
    found = items(face, provider, (f"p{number}" for number in range(100)), concurrency=16, ordered=False)
    assert sorted(item.index for item in found) == list(range(100))


def test_leaving_early_closes_what_is_under_way(face: Face, serve: Serve) -> None:
    server = serve(echo)
    prompts = (f"hang {number}" if number else "a" for number in range(100))
    found = items(face, face.provider(server), prompts, 1, concurrency=8, ordered=False)
    assert [item.input for item in found] == ["a"]
    for request in server.wait_for(1):
        if b"hang" in request.body:
            assert request.gone.wait(1)


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


def test_closing_a_blocking_run_that_another_thread_reads(serve: Serve) -> None:
    server = serve(echo)
    items: Any = Provider("m", api_key=KEY, base_url=server.url).map(["one", "hang", "two"], ordered=False)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, items)
        hanging = next(request for request in server.wait_for(3) if b"hang" in request.body)
        time.sleep(0.1)
        with pytest.raises(RuntimeError, match="read by another thread"):
            next(items)
        assert not reading.done()
        items.close()
        with pytest.raises(RuntimeError, match="before its end"):
            reading.result(2)
    assert hanging.gone.wait(2)


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
    async with AsyncProvider("m", api_key=KEY, base_url=serve(echo).url) as llm:
        items: Any = llm.map(["slow", "two"])

        async def read() -> list[int]:
            return [item.index async for item in items]

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.05)
        for leave in (items.aclose, lambda: items.athrow(LookupError())):
            with pytest.raises(RuntimeError, match="read by another task"):
                await leave()
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


def test_an_asynchronous_iterator(face: Face, serve: Serve) -> None:
    async def prompts() -> AsyncIterator[str]:
        for number in range(20):
            await asyncio.sleep(0)
            yield f"p{number}"

    provider = face.provider(serve(echo))
    assert [str(item.result) for item in items(face, provider, prompts())] == [f"p{number}" for number in range(20)]
    assert gather(face, provider, prompts()) == [f"p{number}" for number in range(20)]


@pytest.mark.parametrize("prompts", ["one", b"one", {"prompt": "one"}])
def test_one_prompt_is_not_many(face: Face, serve: Serve, prompts: Any) -> None:
    provider = face.provider(serve(echo))
    with pytest.raises(ValueError, match="prompts must be many"):
        gather(face, provider, prompts)
    with pytest.raises(ValueError, match="prompts must be many"):
        items(face, provider, prompts)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "many"}, "concurrency"),
        ({"max_failures": -1}, "max_failures"),
        ({"max_error_rate": 2}, "max_error_rate"),
        ({"price": (1, -1)}, "output"),
        ({"price": 0.5}, "price must be two numbers"),
        ({"price": (1,)}, "price must be two numbers"),
        ({"progress": "loud"}, "progress"),
        ({"temperature": -1}, "temperature"),
        ({"timeout": -5}, "timeout"),
        ({"retry": 3}, "retry"),
    ],
)
def test_wrong_options_are_told_before_anything_is_sent(
    face: Face, serve: Serve, options: dict[str, Any], word: str
) -> None:
    server = serve(echo)
    provider = face.provider(server)
    with pytest.raises(ValueError, match=word):
        provider.map(["a"], **options)  # already here, not when it is iterated over
    with pytest.raises(ValueError, match=word):
        gather(face, provider, ["a"], **options)
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ordered", "; what else an endpoint takes goes into extra_body"),
        ("drain", ""),
        ("concurency", "concurrency"),
        ("return_exception", "return_exceptions"),
        ("prompt", "prompts"),
        ("temprature", "temperature"),
        ("top_k", "goes into extra_body"),
    ],
)
def test_gather_takes_no_other_arguments(face: Face, serve: Serve, name: str, hint: str) -> None:
    provider = face.provider(serve(echo))
    with pytest.raises(TypeError, match=f"^gather takes no argument '{name}'.*{hint}"):
        gather(face, provider, ["a"], **{name: True})
    if name != "ordered":
        with pytest.raises(TypeError, match=f"^map takes no argument '{name}'"):
            provider.map(["a"], **{name: True})


def test_progress_tells_and_its_errors_end_the_run(face: Face, serve: Serve) -> None:
    provider = face.provider(serve(echo))
    told: list[Progress] = []
    gather(face, provider, ["a", "b", "bad"], progress=told.append, price=(1, 2), return_exceptions=True)
    last = told[-1]
    assert (last.done, last.failed, last.total, last.prompt_tokens, last.completion_tokens) == (2, 1, 3, 6, 10)
    assert last.cost == pytest.approx(26e-6)
    assert last.ttft_p50 is None

    def broken(_: Progress) -> None:
        raise LookupError("of the caller's own")

    with pytest.raises(LookupError, match="of the caller's own"):
        gather(face, provider, ["a"], progress=broken)


def test_limits_hold_for_all_calls_of_a_provider(face: Face, serve: Serve) -> None:
    """A pace of 50 a second, 5 of which may come early: 20 calls take 0.3 s."""
    server = serve(echo)
    provider = face.provider(server, limits=Limits(requests_per_minute=3000))
    began = time.monotonic()
    gather(face, provider, ["a"] * 10)
    for _ in range(10):
        face.generate(provider)
    assert time.monotonic() - began >= 0.25


def test_waiting_for_a_turn_is_not_counted_as_the_calls_time(face: Face, serve: Serve) -> None:
    provider = face.provider(serve(echo), limits=Limits(requests_per_minute=600), timeout=Timeout(total=0.3))
    results = gather(face, provider, ["a"] * 8, include_usage=True)  # the last one waits 0.6 s
    assert all(result.duration < 0.3 for result in results)


def test_a_stream_holds_its_place_until_it_ends(face: Face, serve: Serve) -> None:
    server = serve(echo)
    provider = face.provider(server, limits=Limits(in_flight=1))
    assert face.stream(provider, "ab").text == "ab"
    assert face.stream(provider, "hello", limit=1).text == "h"
    assert face.generate(provider, "c") == "c"  # the stream that was left has given its place back


def test_refusals_for_rate_cost_neither_the_retries_nor_the_row(face: Face, serve: Serve) -> None:
    """Six refusals in a row, with two retries allowed: a call that stands in line is sent back, and gets through."""
    refusal = error(429, "later", headers={"retry-after-ms": "10"})
    server = serve(*[refusal] * 6, echo)
    provider = face.provider(server, retry=RetryPolicy(max_retries=2, base_delay=0.001))
    (result,) = gather(face, provider, ["a"], include_usage=True)
    assert (result.text, result.attempts) == ("a", 7)
    server.answer(*[refusal] * 6, echo)
    with pytest.raises(RateLimitError):
        face.generate(provider)  # a single call without limits is not that patient
    server.answer(*[refusal] * 6, echo)
    with pytest.raises(RateLimitError):
        gather(face, provider, ["a"], retry=RetryPolicy(max_retries=0))


def test_a_server_that_restarts_costs_no_prompt(face: Face, serve: Serve) -> None:
    """With two retries within 20 ms: what cannot even be sent waits for its return."""

    def slow(request: Received) -> Answer:
        return Answer((Pause(0.005), *echo(request).steps))

    first = FaultServer(slow)
    returned: list[FaultServer] = []

    def restart() -> None:
        first.wait_for(50)
        first.stop()
        time.sleep(0.5)
        returned.append(FaultServer(slow, port=first.port).__enter__())

    with first:
        provider = face.provider(first, retry=RetryPolicy(max_retries=2, base_delay=0.01))
        restarting = threading.Thread(target=restart)
        restarting.start()
        try:
            assert gather(face, provider, ["a"] * 200, concurrency=8) == ["a"] * 200
        finally:
            restarting.join()
            for server in returned:
                server.stop()
        assert len(returned[0].requests) >= 100


@pytest.mark.parametrize("status", [502, 503])
def test_a_gateway_whose_server_restarts_costs_no_prompt(status: int, face: Face) -> None:
    """With two retries within 20 ms, as if there were no gateway."""
    away: list[float] = []

    def through_a_gateway(request: Received) -> Answer:
        if len(server.requests) == 50:
            away.append(time.monotonic())
        if away and time.monotonic() - away[0] < 0.5:
            return error(status)
        return Answer((Pause(0.005), *echo(request).steps))

    server = FaultServer(through_a_gateway)
    with server:
        provider = face.provider(server, retry=RetryPolicy(max_retries=2, base_delay=0.01))
        assert gather(face, provider, ["a"] * 200, concurrency=8) == ["a"] * 200
        assert len(server.requests) > 220


def test_rows_have_their_retries_whatever_became_of_others(face: Face, serve: Serve) -> None:
    """A single call may run out of a provider's budget; a run would fail most of its rows in a moment's outage."""
    server = serve(*[error(500)] * 12, echo)
    provider = face.provider(server, retry=RetryPolicy(max_retries=3, base_delay=0.001, budget=5))
    assert gather(face, provider, ["a"] * 12, concurrency=12) == ["a"] * 12


def test_a_call_by_itself_does_not_wait_for_a_server_to_return(face: Face, serve: Serve) -> None:
    server = serve(echo)
    provider = face.provider(server, limits=Limits(in_flight=2), retry=RetryPolicy(max_retries=2, base_delay=0.001))
    assert face.generate(provider, "a") == "a"
    server.stop()
    began = time.monotonic()
    with pytest.raises(APIConnectionError) as caught:
        face.generate(provider, "b")
    assert caught.value.attempts <= 3
    assert time.monotonic() - began < 2


def test_a_server_that_never_was_there_is_not_waited_for(face: Face, serve: Serve) -> None:
    server = serve(echo)
    provider = face.provider(server, retry=RetryPolicy(max_retries=2, base_delay=0.001))
    server.stop()
    began = time.monotonic()
    errors = gather(face, provider, ["a"] * 20, return_exceptions=True)
    assert {(type(error), error.attempts, error.sent) for error in errors} == {(APIConnectionError, 3, False)}
    assert time.monotonic() - began < 2


def test_a_refused_parameter_is_learned_once(face: Face, serve: Serve) -> None:
    def picky(request: Received) -> Answer:
        if "seed" in request.json:
            return error(400, "Unsupported parameter: seed", param="seed")
        return echo(request)

    results = gather(face, face.provider(serve(picky)), ["a", "b"], seed=1, include_usage=True, concurrency=1)
    assert all("seed" in result.warnings[0] for result in results)


async def test_nothing_is_left_behind(serve: Serve) -> None:
    async with AsyncProvider("m", api_key=KEY, base_url=serve(echo).url, limits=Limits(in_flight=4)) as provider:
        async for item in provider.map((f"p{number}" for number in range(100)), concurrency="auto"):
            if item.index == 50:
                break
        await asyncio.sleep(0.01)
        (door,) = provider._limiters.values()
        assert (door.in_flight, door._line.waiting, provider._calls) == (0, {}, set())
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_progress_tells_of_its_own_run(serve: Serve) -> None:
    server = serve(echo)
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as provider:
        other = asyncio.ensure_future(provider.gather([f"hang {number}" for number in range(3)]))
        await asyncio.to_thread(server.wait_for, 3)
        told: list[Progress] = []
        await provider.gather(["a"], progress=told.append)
        assert (told[-1].done, told[-1].in_flight) == (1, 0)
        other.cancel()
        await asyncio.wait([other])


async def test_cancelling_gather_gives_everything_back(serve: Serve) -> None:
    server = serve(echo)
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as provider:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await provider.gather([f"hang {number}" for number in range(50)], concurrency=10)
        (door,) = provider._limiters.values()
        assert (door.in_flight, provider._calls) == (0, set())
        for request in server.wait_for(10):
            assert request.gone.wait(1)


def test_every_loop_has_a_door_of_its_own(serve: Serve) -> None:
    provider = AsyncProvider("m", api_key=KEY, base_url=serve(echo).url, limits=Limits(in_flight=2))
    for _ in range(3):
        assert asyncio.run(provider.gather(["a", "b", "c"])) == ["a", "b", "c"]
    assert len(provider._limiters) == 1


def test_a_generator_of_a_blocking_caller_runs_on_its_own_thread(serve: Serve) -> None:
    """SQLite refuses cursors on other threads; and what blocks here must not block the loop."""
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    context = contextvars.ContextVar("context", default="none")
    context.set("mine")
    threads = set()
    with sqlite3.connect(":memory:") as database:
        database.execute("create table prompts (text)")
        database.executemany("insert into prompts values (?)", [(f"p{number}",) for number in range(200)])

        def prompts() -> Iterator[str]:
            for (text,) in database.execute("select text from prompts"):
                threads.add((threading.get_ident(), context.get()))
                yield text

        assert [str(item.result) for item in provider.map(prompts())] == [f"p{number}" for number in range(200)]
        assert provider.gather(prompts()) == [f"p{number}" for number in range(200)]
    database.close()
    assert threads == {(threading.get_ident(), "mine")}


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
        assert b"hang" not in request.body or request.gone.wait(2)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_whoever_exits_while_progress_is_told_ends_the_blocking_run(serve: Serve, kind: type[BaseException]) -> None:
    def leave(_: Progress) -> None:
        raise kind

    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    with pytest.raises(kind):
        for _ in provider.map(repeat("endless"), progress=leave):
            pass
    assert provider.generate_text("on") == "on"


def test_prompts_may_come_from_another_call(serve: Serve) -> None:
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    prompts = (provider.generate_text(f"p{number}") for number in range(5))
    assert [str(item.result) for item in provider.map(prompts)] == [f"p{number}" for number in range(5)]


def test_a_prompt_is_sent_before_the_next_one_is_there(serve: Serve) -> None:
    server = serve(echo)
    provider = Provider("m", api_key=KEY, base_url=server.url)

    def prompts() -> Iterator[str]:
        for number in range(3):
            server.wait_for(number)
            yield f"p{number}"

    assert [str(item.result) for item in provider.map(prompts(), concurrency=4)] == ["p0", "p1", "p2"]


def test_prompts_are_taken_only_as_fast_as_they_are_worked_off(serve: Serve) -> None:
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    taken = 0

    def prompts() -> Iterator[str]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield f"p{number}"

    for item in provider.map(prompts(), concurrency=4, ordered=False):
        if item.index == 20:
            break
        time.sleep(0.005)
    assert taken < 21 + 4 * 2 + 4 + 64  # under way, waiting here, and taken ahead


def test_blocking_runs_from_many_threads(serve: Serve) -> None:
    provider = Provider("m", api_key=KEY, base_url=serve(echo).url)
    found: dict[int, list[str]] = {}

    def work(number: int) -> None:
        found[number] = [str(item.result) for item in provider.map(f"{number}-{n}" for n in range(30))]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [f"{number}-{n}" for n in range(30)] for number in range(8)}


@pytest.mark.parametrize("prompts", [["a", "b"], [{"prompt": "a"}]], ids=["strings", "dicts"])
def test_shared_messages_do_not_replace_prompts(serve: Serve, prompts: list[Any]) -> None:
    server = serve(echo)
    shared = [{"role": "user", "content": "shared"}]
    provider = Provider("m", api_key=KEY, base_url=server.url)
    with pytest.raises(ValueError, match="instead of this one"):
        provider.gather(prompts, messages=shared)
    assert not server.requests
    own = [[{"role": "user", "content": "own"}], {"temperature": 0}]
    assert provider.gather(own, messages=shared) == ["own", "shared"]


def test_an_answer_is_never_masked(serve: Serve) -> None:
    """Keys may be words: LM Studio's is `lm-studio`."""
    text = "Install it with `pip install lm-studio`."
    body = {**completion(text), "note": "the key lm-studio"}
    provider = Provider("m", api_key="lm-studio", base_url=serve(answer(dumps(body))).url)
    result = provider.generate_text("hi", include_usage=True)
    assert result.text == result.raw["choices"][0]["message"]["content"] == text
    assert result.raw["note"] == "the key ***"

"""Many prompts at the door: limits, refusals, and endpoints that are away for a moment."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing

import pytest

from rusty_agent import (
    APIConnectionError,
    AsyncProvider,
    BadRequestError,
    Limits,
    MapItem,
    Progress,
    RateLimitError,
    RetryPolicy,
    Timeout,
)
from rusty_agent.testing import Answer, FaultServer, Hang, Pause, Received, answer, completion, error
from rusty_agent.testing.answers import events

from ..events import held
from .faces import KEY, Face, Serve
from .prompts import echo, gather


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
    provider = face.provider(serve(echo), limits=Limits(requests_per_minute=300), timeout=Timeout(total=0.8))
    results = gather(face, provider, ["a"] * 8, include_usage=True)  # the last one waits 1.3 s
    assert all(result.duration < 0.8 for result in results)


def test_a_stream_holds_its_place_until_it_ends(face: Face, serve: Serve) -> None:
    server = serve(echo)
    provider = face.provider(server, limits=Limits(in_flight=1))
    assert face.stream(provider, "ab").text == "ab"
    assert face.stream(provider, "hello", limit=1).text == "h"
    assert face.generate(provider, "c") == "c"  # the stream that was left has given its place back


async def test_a_stream_that_is_left_has_cost_the_tokens_that_were_estimated(serve: Serve) -> None:
    """Nobody tells what it has cost. If that were nothing, a relay whose readers leave would go on without a pace."""
    server = serve(answer([events("a")[1], Hang()], framing="chunked"))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, limits=Limits(tokens_per_minute=60_000)) as llm:
        opened = llm.stream_text("x" * 40_000)  # 10,000 tokens or so, of 1,000 a second
        assert await anext(opened) == "a"
        await opened.aclose()
        assert llm._calls.limiter()._rates.tokens.opens - asyncio.get_running_loop().time() > 5


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

    def until_it_stops(request: Received) -> Answer:
        return Answer((Hang(),)) if len(first.requests) > 50 else slow(request)

    first = FaultServer(until_it_stops)
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
        assert len(returned[0].requests) >= 150


@pytest.mark.parametrize("status", [502, 503])
def test_a_gateway_whose_server_restarts_costs_no_prompt(
    status: int, face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two retries within 90 ms, as if there were no gateway."""
    # By chance one call could use up both before the answers have come that were under way when it began.
    monkeypatch.setattr("backoff.full_jitter", lambda longest: longest)
    away: list[float] = []

    def through_a_gateway(request: Received) -> Answer:
        if len(server.requests) == 50:
            away.append(time.monotonic())
        if away and (time.monotonic() - away[0] < 0.5 or len(server.requests) < 54):
            return error(status)
        return Answer((Pause(0.005), *echo(request).steps))

    server = FaultServer(through_a_gateway)
    with server:
        provider = face.provider(server, retry=RetryPolicy(max_retries=2, base_delay=0.03))
        assert gather(face, provider, ["a"] * 200, concurrency=8) == ["a"] * 200
        assert len(server.requests) > 200 + 3


def test_rows_have_their_retries_whatever_became_of_others(face: Face, serve: Serve) -> None:
    """A single call may run out of a provider's budget; a run would fail most of its rows in a moment's outage."""
    together = held(error(500), lambda: len(server.requests) >= 12)  # or one row could get more of them than it may
    server = serve(*[together] * 12, echo)
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
    assert time.monotonic() - began < 10


def test_a_server_that_never_was_there_is_not_waited_for(face: Face, serve: Serve) -> None:
    server = serve(echo)
    provider = face.provider(server, retry=RetryPolicy(max_retries=2, base_delay=0.001))
    server.stop()
    began = time.monotonic()
    errors = gather(face, provider, ["a"] * 20, return_exceptions=True)
    assert {(type(error), error.attempts, error.sent) for error in errors} == {(APIConnectionError, 3, False)}
    assert time.monotonic() - began < 10


def test_a_refused_parameter_is_learned_once(face: Face, serve: Serve) -> None:
    def picky(request: Received) -> Answer:
        if "seed" in request.json:
            return error(400, "Unsupported parameter: seed", param="seed")
        return echo(request)

    results = gather(face, face.provider(serve(picky)), ["a", "b"], seed=1, include_usage=True, concurrency=1)
    assert all("seed" in result.warnings[0] for result in results)


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


async def test_progress_tells_no_limit_of_auto_that_another_run_has_asked_for(serve: Serve) -> None:
    told: list[Progress] = []
    provider = AsyncProvider("m", api_key=KEY, base_url=serve(echo).url)
    async with provider, aclosing(provider.map(["a", "b"], concurrency=1000)) as other:
        await anext(other)
        await provider.gather(["a"], concurrency="auto", progress=told.append)
    assert told[-1].limit == 256


def test_every_loop_has_a_door_of_its_own(serve: Serve) -> None:
    provider = AsyncProvider("m", api_key=KEY, base_url=serve(echo).url, limits=Limits(in_flight=2))
    for _ in range(3):
        assert asyncio.run(provider.gather(["a", "b", "c"])) == ["a", "b", "c"]
    assert len(provider._calls.limiters) == 1


async def test_the_time_of_a_failed_prompt_is_without_standing_in_line(serve: Serve) -> None:
    """As that of an answered one is."""
    server = serve(Answer((Pause(0.4), *answer(completion("a")).steps)), error(400))
    reports: list[Progress] = []
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, limits=Limits(in_flight=1)) as llm:
        items = llm.map(["a", "b"], concurrency=2, progress=reports.append)
        await asyncio.sleep(0.2)  # which is no part of the run either
        began = time.monotonic()
        first, second = [item async for item in items]
        took = time.monotonic() - began
    assert first.result is not None
    assert first.result.duration is not None
    assert first.result.duration >= 0.4
    assert isinstance(second.error, BadRequestError)
    assert second.error.duration is not None
    assert 0.4 <= reports[-1].elapsed <= took
    assert first.result.duration + second.error.duration <= took  # one after the other


def test_no_answer_takes_less_than_no_time(serve: Serve) -> None:
    """uvloop's clock tells milliseconds only, and a quick answer takes less: its wait would be told as longer."""
    uvloop = pytest.importorskip("uvloop")
    server = serve(echo)

    async def main() -> list[MapItem]:
        async with AsyncProvider("m", api_key=KEY, base_url=server.url, limits=Limits(in_flight=1)) as llm:
            return [item async for item in llm.map(["a"] * 200, concurrency=8)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        items = runner.run(main())
    assert min(item.result.duration or 0 for item in items if item.result is not None) > 0

"""The door: who goes in when, on a clock that only the tests move."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rusty_agent.errors import APIConnectionError, APITimeoutError, BadRequestError, RateLimitError, ServerError
from rusty_agent.net.caller import Caller
from rusty_agent.net.limits.limiter import CEILING, Limiter

from .door import limit, now, on, settle, too_many, unreached


@on()
async def test_without_limits_everybody_goes_in_at_once(door: Limiter) -> None:
    permits = [await door.acquire(Caller(), 100) for _ in range(1000)]
    assert (door.in_flight, door.limit, now()) == (1000, None, 0)
    for permit in permits:
        permit.release()
        permit.release()  # once more does nothing
    assert door.in_flight == 0


@on(in_flight=2)
async def test_in_flight(door: Limiter) -> None:
    caller = Caller()
    first = await door.acquire(caller, 0)
    await door.acquire(caller, 0)
    third = asyncio.ensure_future(door.acquire(caller, 0))
    await settle()
    assert not third.done()
    first.release()
    await settle()
    assert third.done()
    assert (door.in_flight, door.limit) == (2, 2)


@on()
async def test_callers_are_counted_by_themselves(door: Limiter) -> None:
    one, other = Caller(), Caller()
    permits = [await door.acquire(one, 0), await door.acquire(one, 0), await door.acquire(one, 0)]
    await door.acquire(other, 0)
    assert (one.in_flight, other.in_flight) == (3, 1)
    permits[0].failed(too_many())
    permits[1].succeeded({}, None)
    permits[2].release()
    permits[2].release()  # once more does nothing
    assert (one.in_flight, one.rate_limited, other.in_flight, other.rate_limited) == (0, 1, 1, 0)


@pytest.mark.parametrize("status", [429, 498, 503, 529])
@pytest.mark.parametrize("headers", [{}, {"x-should-retry": "false"}], ids=["again", "never"])
@on()
async def test_retry_after_closes_the_gate_for_everybody(door: Limiter, headers: dict[str, str], status: int) -> None:
    kind = RateLimitError if status == 429 else ServerError
    permit, other = await door.acquire(Caller(), 0), await door.acquire(Caller(), 0)
    permit.failed(kind("no", status_code=status, retry_after=3.0, headers=headers))
    other.failed(kind("no", status_code=status, retry_after=1.0))  # a shorter wait does not open it
    await door.acquire(Caller(), 0)
    assert now() == 3


@pytest.mark.parametrize(
    "error",
    [
        BadRequestError("no", status_code=400, retry_after=3.0),
        ServerError("no", status_code=500, retry_after=3.0),
        RateLimitError("no", status_code=429, code="insufficient_quota", retry_after=3.0),
        APIConnectionError("no"),
    ],
)
@on()
async def test_other_failures_close_nothing(door: Limiter, error: Any) -> None:
    (await door.acquire(Caller(), 0)).failed(error)
    await door.acquire(Caller(), 0)
    assert now() == 0


@on(in_flight=1)
async def test_a_refusal_holds_its_place_for_a_round_trip(door: Limiter) -> None:
    caller = Caller()
    permit = await door.acquire(caller, 0)
    await asyncio.sleep(0.2)
    permit.succeeded({}, None)  # an answer takes 0.2 s
    refused = await door.acquire(caller, 0)
    refused.failed(too_many())
    assert door.in_flight == 1
    await door.acquire(caller, 0)
    assert now() == pytest.approx(0.4)


@on(tokens_per_minute=60_000)
async def test_the_tokens_of_what_was_refused_are_there_for_the_next_at_once(door: Limiter) -> None:
    """They do not wait, as its place does, until a round trip is over."""
    first = await door.acquire(Caller(), 0)
    await asyncio.sleep(2)
    first.succeeded({}, None)
    large = await door.acquire(Caller(), 400_000)
    waiting = asyncio.ensure_future(door.acquire(Caller(), 0))
    await settle()
    assert not waiting.done()
    large.failed(too_many())
    await settle()
    assert waiting.done()


@on(in_flight=1)
async def test_how_long_places_were_held_in_a_run_that_was_refused_is_nothing_to_calls_after_it(door: Limiter) -> None:
    with door.adapting():
        first = await door.acquire(Caller(), 0)
        await asyncio.sleep(1)
        first.succeeded({}, None)
        while door._adaptive.rest < 16:
            (await door.acquire(Caller(), 0)).failed(too_many())
            await asyncio.sleep(20)
    began = now()
    for _ in range(2):
        (await door.acquire(Caller(), 0)).failed(too_many())
    await door.acquire(Caller(), 0)
    assert now() - began < 3


@on()
async def test_adapting_ends_with_the_run_and_is_remembered(door: Limiter) -> None:
    assert door.ceiling == CEILING
    with door.adapting():
        assert limit(door) == 16
        (await door.acquire(Caller(), 0)).failed(too_many())
        await asyncio.sleep(0.01)
    assert limit(door) is None
    with door.adapting(500):
        assert limit(door) == 1
    with door.adapting():
        assert limit(door) == 1


@pytest.mark.parametrize("adapting", [True, False])
@on()
async def test_a_refusal_that_is_pending_when_a_run_ends_is_settled(door: Limiter, adapting: bool) -> None:
    """Else the limit would never grow again."""
    permit = await door.acquire(Caller(), 0)
    await asyncio.sleep(0.2)
    permit.succeeded({}, None)
    permit = await door.acquire(Caller(), 0)
    if adapting:
        with door.adapting():
            permit.failed(too_many())
    else:
        permit.failed(too_many())
    await asyncio.sleep(1)
    with door.adapting():
        before = limit(door)
        for _ in range(50):
            permits = [await door.acquire(Caller(), 0) for _ in range(limit(door) or 0)]
            await asyncio.sleep(0.2)
            for permit in permits:
                permit.succeeded({}, None)
        assert (limit(door) or 0) > (before or 0)


@pytest.mark.parametrize(("quickest", "rises"), [(5.0, True), (1.0, False)], ids=["a slow model", "a queue"])
@on()
async def test_answers_that_take_half_their_time_are_a_queue_if_some_came_much_sooner(
    door: Limiter, quickest: float, rises: bool
) -> None:
    with door.adapting():
        permit = await door.acquire(Caller(), 0)
        await asyncio.sleep(quickest)
        permit.succeeded({}, None, 10.0)
        before = limit(door) or 0
        for _ in range(5):
            permits = [await door.acquire(Caller(), 0) for _ in range(before)]
            await asyncio.sleep(5)
            for permit in permits:
                permit.succeeded({}, None, 10.0)
        assert ((limit(door) or 0) > before) == rises


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (too_many(), True),
        (too_many(headers={"x-should-retry": "false"}), True),  # which is about this request alone
        (RateLimitError("no", status_code=429, code="insufficient_quota"), False),
        (RateLimitError("Request too large", status_code=429), False),
    ],
)
@on()
async def test_what_does_not_pass_by_itself_is_no_sign_of_too_many(
    door: Limiter, error: RateLimitError, passes: bool
) -> None:
    with door.adapting():
        before = limit(door) or 0
        permits = [await door.acquire(Caller(), 0) for _ in range(before)]
        for permit in permits:
            permit.failed(error)
        await asyncio.sleep(1)
        assert ((limit(door) or 0) < before) == passes


@on(in_flight=18)
async def test_the_steps_end_when_all_that_may_be_are_let_in(door: Limiter) -> None:
    """What was spent at their rate is owed no more: else the door stayed closed for 11 s with two places empty."""
    with door.adapting():
        permits = [await door.acquire(Caller(), 0) for _ in range(16)]
        await asyncio.sleep(300)
        permits.pop().succeeded({}, None)
        permits.append(await door.acquire(Caller(), 0))
        permits.pop(0).succeeded({}, None)
        permits.pop(0).succeeded({}, None)
        assert door.limit == 18
        await door.acquire(Caller(), 0)
        assert now() == 300


@on()
async def test_a_run_that_says_how_many_takes_no_steps_while_none_is_refused(door: Limiter) -> None:
    caller = Caller()
    with door.adapting(16):
        for permit in [await door.acquire(caller, 0) for _ in range(16)]:
            await asyncio.sleep(0.01)
            permit.succeeded({}, None)
        assert all(door.try_acquire(caller, 0) for _ in range(16))


@on(in_flight=4)
async def test_the_steps_end_also_where_two_runs_want_more_than_may_be(door: Limiter) -> None:
    with door.adapting(), door.adapting():
        permits = [await door.acquire(Caller(), 0) for _ in range(4)]
        await asyncio.sleep(300)
        for permit in permits:
            permit.succeeded({}, None)
            await door.acquire(Caller(), 0)
        assert now() == 300


@on()
async def test_a_run_that_says_how_many_raises_the_ceiling_of_others_by_nothing(door: Limiter) -> None:
    """Whichever of them begins first."""
    caller = Caller()
    with door.adapting(), door.adapting(16):
        for _ in range(12):
            for permit in [await door.acquire(caller, 0) for _ in range(limit(door) or 0)]:
                permit.succeeded({}, None)
        assert limit(door) == CEILING


@on()
async def test_the_steps_of_a_run_end_with_it(door: Limiter) -> None:
    with door.adapting():
        for _ in range(3):
            permit = await door.acquire(Caller(), 0)
            await asyncio.sleep(100)
            permit.succeeded({}, None)
    began = now()
    for _ in range(100):
        await door.acquire(Caller(), 0)
    assert now() == began


@on()
async def test_a_wait_that_is_too_long_makes_nobody_wait(door: Limiter) -> None:
    (await door.acquire(Caller(), 0)).failed(too_many(86_400.0), 120.0)
    await door.acquire(Caller(), 0)
    assert now() == 0


@on()
async def test_one_slow_answer_does_not_slow_the_next_ones(door: Limiter) -> None:
    with door.adapting():
        permit = await door.acquire(Caller(), 0)
        await asyncio.sleep(60)
        permit.succeeded({}, None)
        began = now()
        for _ in range(100):
            permit = await door.acquire(Caller(), 0)
            await asyncio.sleep(0.01)
            permit.succeeded({}, None)
        assert now() - began < 5


@on(in_flight=5)
async def test_the_users_own_limit_bounds_what_is_found_out(door: Limiter) -> None:
    assert door.ceiling == 5
    with door.adapting(100):
        assert limit(door) == 5


@on()
async def test_a_gateway_without_its_server_lowers_the_limit_as_a_refusal_does(door: Limiter) -> None:
    """One such answer may be the request's own fault; of several in a row it is not."""
    with door.adapting():
        permits = [await door.acquire(Caller(), 0) for _ in range(10)]
        before = limit(door) or 0
        permits.pop().failed(ServerError("bad gateway", status_code=502))
        permits.pop().failed(ServerError("bad gateway", status_code=502))
        await asyncio.sleep(0.1)
        assert limit(door) == before
        permits.pop().failed(ServerError("bad gateway", status_code=502))
        await asyncio.sleep(0.1)
        assert 0 < (limit(door) or 0) < before


@on(in_flight=1)
async def test_an_attempt_that_came_too_late_gives_its_place_back_at_once(door: Limiter) -> None:
    (await door.acquire(Caller(), 0)).failed(APITimeoutError("late", limit="idle", seconds=1))
    await door.acquire(Caller(), 0)
    assert (door.in_flight, now()) == (1, 0)


@pytest.mark.parametrize(("kind", "falls"), [("total", True), ("connect", False)])
@on()
async def test_many_answers_that_come_too_late_lower_the_limit(door: Limiter, kind: str, falls: bool) -> None:
    """What was never sent is no answer."""
    with door.adapting():
        before = limit(door) or 0
        for permit in [await door.acquire(Caller(), 0) for _ in range(before)]:
            permit.failed(APITimeoutError("late", limit=kind, seconds=1))
        assert ((limit(door) or 0) < before) == falls


@on()
async def test_the_door_knows_what_passes(door: Limiter) -> None:
    (await door.acquire(Caller(), 0)).failed(unreached())
    assert not door.will_pass(unreached())
    (await door.acquire(Caller(), 0)).succeeded({}, None)
    (await door.acquire(Caller(), 0)).failed(unreached())
    assert door.will_pass(unreached())
    await asyncio.sleep(31)
    assert not door.will_pass(unreached())


@on()
async def test_what_answers_in_one_go_make_room_for_is_not_sent_in_one_go(door: Limiter) -> None:
    """All of a burst is on its way before the first refusal is heard: it would be refused as a whole."""
    caller = Caller()
    with door.adapting():
        permits = [await door.acquire(caller, 0) for _ in range(limit(door) or 0)]
        await asyncio.sleep(0.2)
        for permit in permits:
            permit.succeeded({}, None)
        assert (limit(door) or 0) > len(permits)
        at_once = 0
        while door.try_acquire(caller, 0) is not None:
            at_once += 1
        assert 1 <= at_once < len(permits) / 2

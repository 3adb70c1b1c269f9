"""The paces of requests and tokens, as those who wait at the door find them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from rusty_agent.errors import APIConnectionError, RateLimitError, ServerError
from rusty_agent.net.caller import Caller
from rusty_agent.net.limits.limiter import Limiter
from rusty_agent.types import Usage

from .door import now, on, too_many


@on(requests_per_minute=6000)
async def test_the_pace_of_requests(door: Limiter) -> None:
    times = []
    for _ in range(40):
        (await door.acquire(Caller(), 0)).release()
        times.append(now())
    assert times[10] == 0  # a tenth of a second's worth may come early
    assert times[-1] == pytest.approx(0.28, abs=0.02)


@on(tokens_per_minute=60000)
async def test_the_pace_of_tokens_is_corrected_by_the_usage(door: Limiter) -> None:
    permit = await door.acquire(Caller(), 4000)  # estimated: 1000 tokens of prompt, 256 of answer
    permit.succeeded({}, Usage(100, 20, 120))
    await door.acquire(Caller(), 4000)
    assert now() == pytest.approx(0.02, abs=0.01)  # 120 tokens at 1000 a second, of which 0.1 s may come early
    assert door._rates._estimate.answer == pytest.approx(256 - 23.6)
    await door.acquire(Caller(), 0)  # 100 tokens for 4000 characters: that is known from the answer
    assert now() == pytest.approx(0.02 + 0.33, abs=0.02)


@pytest.mark.parametrize(
    "error", [RateLimitError("no", status_code=429), ServerError("no", status_code=500), APIConnectionError("no")]
)
@on(tokens_per_minute=60000)
async def test_a_request_that_failed_cost_no_tokens_but_those_it_tells_of(door: Limiter, error: Any) -> None:
    permit = await door.acquire(Caller(), 400_000)
    permit.failed(error)
    permit = await door.acquire(Caller(), 400_000)
    assert now() == 0
    broken = APIConnectionError("cut", usage=Usage(900, 100, 1000))
    permit.failed(broken)
    await door.acquire(Caller(), 0)
    assert now() == pytest.approx(0.9, abs=0.02)


@on(tokens_per_minute=60000)
async def test_images_do_not_count_as_text_for_long(door: Limiter) -> None:
    (await door.acquire(Caller(), 1_000_000)).succeeded({}, Usage(800, 10, 810))
    for _ in range(5):
        await door.acquire(Caller(), 1_000_000)
    assert now() < 10  # as text it would be four minutes each


@on(tokens_per_minute=60000)
async def test_nonsense_of_one_answer_does_not_shut_the_door(door: Limiter) -> None:
    (await door.acquire(Caller(), 10)).succeeded({}, Usage(10**12, 10**12, 2 * 10**12))
    before = await door.acquire(Caller(), 10)
    before.failed(ServerError("no", status_code=500))
    since = now()
    await door.acquire(Caller(), 10)
    assert now() - since < 301


@on(requests_per_minute=600)
async def test_headers_may_lower_the_pace_and_never_raise_it(door: Limiter) -> None:
    caller = Caller()
    (await door.acquire(caller, 0)).succeeded({"x-ratelimit-limit-requests": "60000"}, None)
    assert door._rates.requests.rate == 10  # the user's
    (await door.acquire(caller, 0)).failed(too_many(headers={"x-ratelimit-limit-requests": "60"}))
    assert door._rates.requests.rate == 1


@on()
async def test_a_pace_that_headers_have_lowered_is_raised_as_soon_as_they_do(door: Limiter) -> None:
    (await door.acquire(Caller(), 0)).succeeded({"x-ratelimit-limit-requests": "1"}, None)
    (await door.acquire(Caller(), 0)).succeeded({"x-ratelimit-limit-requests": "60000"}, None)
    began = now()
    for _ in range(100):
        (await door.acquire(Caller(), 0)).succeeded({"x-ratelimit-limit-requests": "60000"}, None)
    assert now() - began < 1


@pytest.mark.parametrize("header", ["x-ratelimit-limit-requests", "x-ratelimit-limit-tokens"])
@pytest.mark.parametrize("again", [False, True], ids=["once", "always"])
@on()
async def test_a_header_that_is_nonsense_stops_nobody(door: Limiter, header: str, again: bool) -> None:
    """What was said once is forgotten; what is said each time is tried twice a minute."""
    (await door.acquire(Caller(), 4000)).succeeded({header: "0.001"}, None)
    for _ in range(3):
        (await door.acquire(Caller(), 4000)).succeeded({header: "0.001"} if again else {}, None)
    assert now() == pytest.approx(60 if again else 30, abs=1)
    began = now()
    if not again:
        for _ in range(100):
            (await door.acquire(Caller(), 4000)).succeeded({}, None)
    assert now() == began


@on(requests_per_minute=60)
async def test_the_users_own_pace_is_even_also_where_the_endpoint_names_it(door: Limiter) -> None:
    moments = []
    for _ in range(20):
        (await door.acquire(Caller(), 0)).succeeded({"x-ratelimit-limit-requests": "60"}, None)
        moments.append(now())
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert min(gaps[1:]) == pytest.approx(1, abs=0.01)


@on(tokens_per_minute=60000)
async def test_a_usage_that_is_nonsense_costs_minutes_at_most(door: Limiter) -> None:
    (await door.acquire(Caller(), 0)).succeeded({}, Usage(10**18, 1, 10**18))
    await door.acquire(Caller(), 0)
    assert now() < 301

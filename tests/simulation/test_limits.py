"""Runs against simulated endpoints, in virtual time: how much of what is possible is reached, how much is wasted.

Everything but the socket is the library's own code. Each endpoint knows the best that a fixed setting could reach.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rusty_agent import Limits

from .virtual import (
    Batching,
    Capacity,
    Endpoint,
    Flapping,
    PartlyIll,
    Queueing,
    RateLimited,
    Restarting,
    Said,
    Tailed,
    Windowed,
    forever,
    provider,
    run,
    work_off,
)

pytestmark = pytest.mark.usefixtures("untraced")

Say = Callable[[RateLimited, bool], dict[str, str]] | None


@pytest.fixture(autouse=True)
def _the_same_dice() -> Iterator[None]:
    state = random.getstate()
    random.seed(1)
    yield
    random.setstate(state)


def milliseconds(endpoint: RateLimited, taken: bool) -> dict[str, str]:
    """How long until there is one more."""
    wait = max(1.0, (1 - endpoint.level) / endpoint.rate * 1000)
    return {} if taken else {"retry-after-ms": f"{wait:.0f}"}


def seconds(endpoint: RateLimited, taken: bool) -> dict[str, str]:
    return {} if taken else {"retry-after": "1"}


def openai(endpoint: RateLimited, taken: bool) -> dict[str, str]:
    used = endpoint.burst - endpoint.level
    return {
        "x-ratelimit-limit-requests": f"{endpoint.rate * 60:.0f}",
        "x-ratelimit-remaining-requests": f"{endpoint.rate * 60 - used:.0f}",
        "x-ratelimit-reset-requests": f"{used / endpoint.rate:.3f}s",
        **milliseconds(endpoint, taken),
    }


def limit_alone(endpoint: RateLimited, taken: bool) -> dict[str, str]:
    return {"x-ratelimit-limit-requests": f"{endpoint.rate * 60:.0f}", **seconds(endpoint, taken)}


def by_the_second(endpoint: RateLimited, taken: bool) -> dict[str, str]:
    return {
        "x-ratelimit-limit": f"{endpoint.rate:.0f}",
        "x-ratelimit-remaining": f"{endpoint.level:.0f}",
        "x-ratelimit-reset": "1",
        **milliseconds(endpoint, taken),
    }


@pytest.mark.parametrize(
    ("say", "wasted"),
    [(None, 0.10), (milliseconds, 0.05), (seconds, 0.05), (openai, 0.05), (limit_alone, 0.05), (by_the_second, 0.05)],
)
def test_a_hidden_rate_limit(say: Say, wasted: float) -> None:
    """100 requests a second with a burst of one second; 256 may be in flight."""
    endpoint = RateLimited(say=say)
    assert run(work_off(endpoint, 1500, concurrency="auto")) == 0
    assert endpoint.throughput >= 95
    assert endpoint.wasted <= wasted


@pytest.mark.parametrize("say", [None, milliseconds, seconds])
def test_a_fixed_concurrency_that_is_far_too_high(say: Say) -> None:
    """The user's number is where it begins; no row is lost, and the rate is kept."""
    endpoint = RateLimited(say=say)
    assert run(work_off(endpoint, 1500, concurrency=256)) == 0
    assert endpoint.throughput >= 95
    assert endpoint.wasted <= 0.2  # most of it at the very first moment


@pytest.mark.parametrize("concurrency", ["auto", 64])
def test_so_few_a_minute_that_one_at_once_is_too_many(concurrency: Any) -> None:
    """Ten in each minute, as free accounts have, and no word on when there will be more."""
    endpoint = Windowed(rate=10 / 60, window=60)
    assert run(work_off(endpoint, 150, concurrency=concurrency)) == 0
    assert endpoint.wasted <= 0.6  # 0.92 if it is tried as often as it answers


def test_a_limit_that_counts_what_it_refuses() -> None:
    """Whoever goes on asking is never let in again."""
    endpoint = Windowed(rate=0.5, window=60, counts_refused=True)
    assert run(work_off(endpoint, 300, concurrency="auto")) == 0
    assert endpoint.throughput >= 0.6 * 0.5


def test_the_users_own_pace_wastes_nothing() -> None:
    endpoint = RateLimited()
    assert run(work_off(endpoint, 1500, concurrency=256, limits=Limits(requests_per_minute=6000))) == 0
    assert endpoint.throughput >= 97
    assert endpoint.refused == 0


@pytest.mark.parametrize(("capacity", "status"), [(4, 429), (20, 429), (20, 498), (20, 503), (60, 429)])
def test_a_fixed_capacity(capacity: int, status: int) -> None:
    endpoint = Capacity(forever(capacity), status=status)
    assert run(work_off(endpoint, capacity * 100, concurrency="auto")) == 0
    assert endpoint.throughput >= 0.9 * capacity / endpoint.latency


@pytest.mark.parametrize(("capacity", "wasted"), [(1, 0.25), (2, 0.14), (4, 0.08)])
def test_a_small_capacity_is_tried_less_and_less_often(capacity: int, wasted: float) -> None:
    """An answer takes ten seconds, a refusal none: with each round trip a try, half of all requests were refused."""
    endpoint = Capacity(forever(capacity), latency=10)
    assert run(work_off(endpoint, capacity * 100, concurrency="auto")) == 0
    assert endpoint.throughput >= 0.95 * capacity / endpoint.latency
    assert endpoint.wasted <= wasted


@pytest.mark.parametrize(("rate", "burst"), [(5, 5), (20, 10), (20, 2)])
def test_a_rate_limit_with_a_small_burst_where_answers_are_long(rate: float, burst: float) -> None:
    """The first second's burst is refused, and that tells nothing of how many may be under way: 50, or 200."""
    endpoint = RateLimited(rate=rate, burst=burst, latency=10)
    assert run(work_off(endpoint, round(rate * 200), concurrency="auto")) == 0
    late = [moment for moment in endpoint.served if moment > 100]
    assert len(late) / (late[-1] - 100) >= 0.55 * rate  # 0.1 to 0.4 if it is sent as soon as a place is free
    assert endpoint.wasted <= 0.03


def test_a_later_run_begins_with_no_burst_where_one_was_refused() -> None:
    """What an earlier run has found out of the endpoint is its pace, too: a burst would cut the limit each time."""
    endpoint = RateLimited(rate=20, burst=20, latency=5)

    async def main() -> list[float]:
        llm, loop, ends = provider(endpoint), asyncio.get_running_loop(), [0.0]
        for _ in range(8):
            await llm.gather(list(map(str, range(200))), concurrency="auto")
            ends.append(loop.time())
        return ends

    ends = run(main())
    assert (ends[-1] - ends[1]) / 7 < 1.5 * (200 / 20 + 5)  # 43 s, where each run began with all at once


def test_a_later_run_begins_with_no_more_than_was_tried() -> None:
    """Three prompts with 256 at once tell nothing of 256 at once: of those, 80 came too late."""
    endpoint = Queueing(rate=3)

    async def main() -> list[str | Exception]:
        llm = provider(endpoint)
        await llm.gather(["a", "b", "c"], concurrency=256)
        return await llm.gather(list(map(str, range(300))), concurrency="auto", return_exceptions=True)

    assert set(run(main())) == {"yes"}


def test_a_later_run_of_quick_prompts_does_not_keep_the_steps_of_slow_ones() -> None:
    """With one place, and five minutes for an answer, the second of the quick ones went 100 s after the first."""
    endpoint = Capacity(forever(1), latency=300)

    async def main() -> float:
        llm, loop = provider(endpoint), asyncio.get_running_loop()
        await llm.gather(list(map(str, range(6))), concurrency="auto", timeout=10_000)
        endpoint.latency, began = 0.5, loop.time()
        await llm.gather(list(map(str, range(20))), concurrency="auto")
        return loop.time() - began

    assert run(main()) < 20


@pytest.mark.parametrize(("capacity", "servers", "least"), [(20, 20, 0.8), (60, 20, 0.8), (20, 10, 0.65)])
def test_one_ill_server_of_many_costs_little(capacity: int, servers: int, least: float) -> None:
    """A third of the throughput was left, when its refusals were taken for load, and of ten servers a sixth."""
    endpoint = PartlyIll(capacity, 1 / servers)
    assert run(work_off(endpoint, capacity * 200, concurrency="auto")) == 0
    assert endpoint.throughput >= least * capacity / endpoint.latency


def test_a_capacity_that_changes() -> None:
    phases = [20, 60, 30, 40]

    def capacity(now: float) -> float:
        return phases[min(int(now / 12), len(phases) - 1)]

    endpoint = Capacity(capacity)
    best = sum(phases) / len(phases) / endpoint.latency
    run(work_off(endpoint, round(best * 48), concurrency="auto"))
    assert endpoint.throughput >= 0.9 * best


@pytest.mark.parametrize("concurrency", ["auto", 64])
@pytest.mark.parametrize("seconds", [3, 25])
@pytest.mark.parametrize("broken", [502, 503])
def test_an_endpoint_that_restarts_is_soon_filled_again(concurrency: Any, seconds: float, broken: int) -> None:
    """What it bears has not changed; the answers counted are those of the first minute after."""
    endpoint = Restarting(latency=5, away=62, back=62 + seconds, broken=broken)
    assert run(work_off(endpoint, 64 * 32, concurrency=concurrency, limits=Limits(in_flight=64))) == 0
    late = [moment for moment in endpoint.served if endpoint.back < moment < endpoint.back + 60]
    assert len(late) >= 0.5 * 60 * 64 / endpoint.latency


@pytest.mark.parametrize("concurrency", ["auto", 64])
@pytest.mark.parametrize(("period", "latency"), [(10, 1), (60, 1), (20, 3), (2, 0.2)])
def test_an_endpoint_that_is_away_half_of_the_time(concurrency: Any, period: float, latency: float) -> None:
    """Each absence halved what it was taken to bear, until of 64 at once one was left."""
    endpoint = Flapping(period, latency)
    run(work_off(endpoint, 4000, concurrency=concurrency))
    assert endpoint.throughput >= 0.5 * 64 / latency / 2


@pytest.mark.parametrize("before", [60, 200])
@pytest.mark.parametrize(("latency", "refusal_latency"), [(3, 0.002), (10, 0.002), (10, 3), (20, 0.5)])
def test_an_endpoint_that_has_room_for_a_single_one_left(latency: float, refusal_latency: float, before: int) -> None:
    """All others are refused meanwhile, so that it was taken for away, and filled again with each answer."""
    endpoint = Capacity(lambda now: 64 if now < before else 1, latency, status=503, refusal_latency=refusal_latency)
    assert run(work_off(endpoint, round(64 * 0.76 * before / latency) + 250, concurrency="auto")) == 0
    assert endpoint.refused <= 450


def test_a_batching_endpoint_is_filled_although_it_gets_slower() -> None:
    endpoint = Batching(width=64)
    assert run(work_off(endpoint, 5000, concurrency="auto")) == 0
    assert endpoint.throughput >= 0.9 * 64 / endpoint.latency


def test_an_endpoint_that_queues_gets_no_more_than_it_answers_in_time() -> None:
    """The default limit of 60 s; 256 at 3 a second would take 85."""
    endpoint = Queueing(rate=3)
    assert run(work_off(endpoint, 1500, concurrency="auto")) == 0
    assert endpoint.throughput >= 0.95 * 3
    assert endpoint.peak < 180


def test_an_endpoint_that_is_slow_by_itself_is_filled() -> None:
    """Each answer takes some 25 s of the 60 that it may take, however many there are."""
    endpoint = Capacity(forever(10_000), latency=25)
    assert run(work_off(endpoint, 2560, concurrency="auto")) == 0
    assert endpoint.peak == 256


@pytest.mark.parametrize("concurrency", ["auto", 256])
def test_an_endpoint_that_queues_and_becomes_slower(concurrency: Any) -> None:
    """Some come too late, but not for ever."""
    endpoint = Queueing(rate=20)

    async def main() -> int:
        asyncio.get_running_loop().call_later(60, setattr, endpoint, "rate", 1.5)
        return await work_off(endpoint, 3000, concurrency=concurrency)

    assert run(main()) < 700
    assert len(endpoint.served) > 2300


def test_slow_start_reaches_a_high_ceiling_within_two_seconds() -> None:
    endpoint = Capacity(forever(10_000))
    run(work_off(endpoint, 6000, concurrency="auto", limits=Limits(in_flight=400)))
    assert endpoint.peak == 400
    late = [moment for moment in endpoint.served if moment > 1.5]
    assert len(late) / (late[-1] - 1.5) >= 0.9 * 400 / endpoint.latency


@pytest.mark.parametrize("ordered", [True, False])
def test_a_tail_of_slow_answers_costs_little(ordered: bool) -> None:
    """One answer in twenty takes ten times as long. The end of the run, where all wait for the last ones, is long."""
    endpoint = Tailed()

    async def main() -> list[int]:
        items = provider(endpoint).map(map(str, range(8000)), concurrency=32, ordered=ordered)
        return [item.index async for item in items]

    assert sorted(run(main())) == list(range(8000))
    assert endpoint.throughput >= 0.92 * 32 / (endpoint.latency * 1.45)


@pytest.mark.parametrize("places", [1, 2, 4])
def test_no_place_is_left_empty_where_all_are_taken_and_none_was_refused(places: int) -> None:
    """As on one's own machine: there is no burst to be afraid of, and answers of uneven length come as they like."""
    endpoint = Tailed()
    assert run(work_off(endpoint, 1000, concurrency="auto", limits=Limits(in_flight=places))) == 0
    mean = endpoint.latency * (1 + 9 * 0.05)
    assert endpoint.throughput >= 0.95 * places / mean


@pytest.mark.parametrize(
    ("say", "late"), [(None, 0.05), (None, 5.0), (milliseconds, 5.0), (openai, 0.05), (openai, 5.0)]
)
@pytest.mark.parametrize("seed", [1, 2, 3])  # one that tries more often than the other takes more: luck must not last
def test_two_clients_that_share_a_limit(say: Say, late: float, seed: int) -> None:
    """They know nothing of each other; the shares are those of the second half of 40 seconds."""
    random.seed(seed)
    endpoint = RateLimited(say=say)
    shares = run(_two(endpoint, late, 40))
    assert 0.4 <= shares[0] / sum(shares) <= 0.6
    assert endpoint.throughput >= 95


async def _two(endpoint: Endpoint, late: float, until: float) -> list[int]:
    loop = asyncio.get_running_loop()
    answers = [0, 0]

    async def client(number: int) -> None:
        await asyncio.sleep(late * number)
        prompts = (str(n) for n in range(10**9))
        async for item in provider(endpoint).map(prompts, concurrency="auto", ordered=False):
            answers[number] += loop.time() > until / 2 and item.error is None
            if loop.time() > until:
                return

    await asyncio.gather(client(0), client(1))
    return answers


class _Refusing(Endpoint):
    """Refuses all, for load, and forbids to send a request again."""

    last = 0.0

    def answer(self, now: float) -> Said:
        self.last = now
        return Said(0.002, 429, {"x-should-retry": "false"})


@pytest.mark.parametrize("concurrency", ["auto", 64])
def test_prompts_do_not_burn_at_an_endpoint_that_has_only_refused(concurrency: Any) -> None:
    """Each of them fails with its refusal: nothing but the door slows the run down."""
    endpoint = _Refusing()
    assert run(work_off(endpoint, 100, concurrency=concurrency)) == 100
    assert endpoint.last > 4  # half a second for each in the end

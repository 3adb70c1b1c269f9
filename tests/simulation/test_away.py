"""How long a run waits for an endpoint that serves nobody, however many prompts take turns at it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rusty_agent import APITimeoutError, Limits, RetryPolicy, RunStoppedError, Timeout

from .virtual import Capacity, Endpoint, Said, forever, provider, run, work_off


class _Hole(Endpoint):
    """Swallows what is sent to it, as a firewall does."""

    async def handle(self) -> Said:
        await asyncio.sleep(10)
        raise APITimeoutError("no connection", limit="connect", seconds=10, sent=False)


class _Full(Endpoint):
    """Turns all away."""

    def answer(self, now: float) -> Said:
        return Said(0.002, 429)


class _Twice(Endpoint):
    """Turns the third and the fourth away."""

    def __init__(self, **headers: str) -> None:
        super().__init__()
        self.headers = headers

    def answer(self, now: float) -> Said:
        return Said(1, 429, self.headers) if len(self.served) == 2 and self.refused < 2 else Said(1)


@pytest.fixture(autouse=True)
def _virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("stop_rule", "call"):
        monkeypatch.setattr(f"rusty_agent.{module}.monotonic", lambda: asyncio.get_running_loop().time())


async def stopped_after(endpoint: Endpoint, concurrency: Any) -> tuple[float, str]:
    """Seconds until the run is stopped, and with what."""
    with pytest.raises(RunStoppedError) as stopped:
        await work_off(endpoint, 5000, concurrency=concurrency)
    return asyncio.get_running_loop().time(), str(stopped.value)


@pytest.mark.parametrize("concurrency", ["auto", 64])
@pytest.mark.parametrize(
    ("endpoint", "said"), [(_Hole, "could not be reached for 10 min"), (_Full, "turned all requests away for 10 min")]
)
def test_a_run_waits_ten_minutes(endpoint: type[Endpoint], said: str, concurrency: Any) -> None:
    """Not until one of its prompts has failed for good: of 256 that take turns none would for hours."""
    seconds, why = run(stopped_after(endpoint(), concurrency))
    assert 600 <= seconds < 640
    assert said in why


async def first_error(endpoint: Endpoint) -> float:
    """Seconds until `gather` raises."""
    with pytest.raises(APITimeoutError):
        await provider(endpoint).gather([str(number) for number in range(64)])
    return asyncio.get_running_loop().time()


def test_the_first_error_of_an_endpoint_that_never_answers_does_not_wait_for_the_other_prompts() -> None:
    """A call by itself makes three attempts of ten seconds. Those of 64, each behind all others, took ten minutes."""
    assert run(first_error(_Hole())) < 60


@pytest.mark.parametrize("concurrency", ["auto", 64])
def test_an_endpoint_that_serves_some_is_not_away(concurrency: Any) -> None:
    """Answers may take a quarter of an hour, while others are turned away."""
    endpoint = Capacity(forever(4), latency=900)
    assert run(work_off(endpoint, 100, concurrency=concurrency, timeout=Timeout(total=None))) == 0
    assert endpoint.refused


def test_a_long_wait_that_was_asked_for_and_kept_is_no_absence() -> None:
    endpoint = _Twice(**{"retry-after": "900"})
    assert run(work_off(endpoint, 5, concurrency=1, retry=RetryPolicy(max_retry_after=3600))) == 0
    assert (endpoint.refused, endpoint.served[-1] > 1800) == (2, True)


def test_a_pace_of_five_requests_an_hour_is_no_absence() -> None:
    endpoint = _Twice()
    assert run(work_off(endpoint, 5, concurrency=1, limits=Limits(requests_per_minute=5 / 60))) == 0
    assert endpoint.refused == 2

"""What a tally counts, and what it makes of it over time; on a clock that the tests turn."""

from __future__ import annotations

import gc
import sys
from itertools import pairwise
from types import FrameType
from typing import Any

import attrs
import pytest

from rusty_agent.errors import APITimeoutError, RateLimitError, ServerError, StreamInterruptedError
from rusty_agent.progress.price import Price
from rusty_agent.progress.tally import Tally
from rusty_agent.types import Usage

from .errors import raised


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def row(tally: Tally, number: int = 1, *, prompt: int = 100, completion: int = 50) -> None:
    for _ in range(number):
        tally.succeeded(latency=0.5, ttft=None, usage=Usage(prompt, completion), attempts=1)


def run(tally: Tally, clock: Clock, seconds: int, per_second: int) -> None:
    for _ in range(seconds):
        clock.now += 1
        row(tally, per_second)
        tally.sample()


# -- counting


def test_every_outcome_is_counted(clock: Clock) -> None:
    tally = Tally(total=10, gauges=lambda: (5, 8, 2), clock=clock)
    tally.skipped = 3
    tally.succeeded(latency=2.0, ttft=0.5, usage=Usage(100, 31), attempts=1)
    tally.succeeded(latency=1.0, ttft=None, usage=None, attempts=3)
    tally.failed(raised(RateLimitError("x", status_code=429), 0.1, attempts=3))
    clock.now += 4
    progress = tally.snapshot()
    assert (progress.done, progress.failed, progress.skipped, progress.total) == (2, 1, 3, 10)
    assert (progress.in_flight, progress.limit, progress.rate_limited) == (5, 8, 2)
    assert (progress.finished, progress.retries, progress.elapsed) == (3, 4, 4.0)
    assert (progress.prompt_tokens, progress.completion_tokens) == (100, 31)
    assert (progress.latency_p50, progress.latency_p99) == (1.0, 2.0)
    assert (progress.ttft_p50, progress.ttft_p99) == (0.5, 0.5)
    assert (tally.latency.count, tally.failure_latency.count, tally.ttft.count) == (2, 1, 1)


def test_one_slow_row_of_many_is_beyond_the_99th_percentile() -> None:
    tally = Tally()
    for slow in (*[1] * 199, 8):
        tally.succeeded(latency=2.0 * slow, ttft=0.5 * slow, usage=None, attempts=1)
    progress = tally.snapshot()
    assert (progress.latency_p99, progress.ttft_p99) == pytest.approx((2.0, 0.5), rel=0.01)


def test_why_nothing_moves_is_told_while_nothing_does(clock: Clock) -> None:
    asked: list[float] = []

    def reason() -> str | None:
        asked.append(clock.now)
        return "the pace" if len(asked) == 1 else None

    tally = Tally(total=10, reason=reason, clock=clock)
    start = clock.now
    told = []
    for seconds in (1.0, 3.9, 0.1, 2.0):
        clock.now += seconds
        told.append(tally.snapshot().stalled)
    assert told == [None, None, "nothing for 5 s (the pace)", "nothing for 7 s"]
    assert asked == [start + 5, start + 7]
    row(tally)
    assert tally.snapshot().stalled is None
    clock.now += 6
    assert tally.snapshot().stalled == "nothing for 6 s"
    tally.close()
    assert tally.snapshot().stalled is None


def test_the_beginning_has_no_figures_yet(clock: Clock) -> None:
    progress = Tally(total=10, price=Price(1, 1), clock=clock).snapshot()
    assert progress.requests_per_second == progress.prompt_tokens_per_second == 0
    unknown = ("latency_p50", "latency_p99", "ttft_p50", "ttft_p99", "cost", "projected_cost", "eta", "limit")
    assert [getattr(progress, name) for name in unknown] == [None] * len(unknown)


def test_time_per_token_is_measured_where_a_stream_had_more_than_one() -> None:
    tally = Tally()
    tally.succeeded(latency=2.0, ttft=0.5, usage=Usage(10, 31), attempts=1)
    for ttft, usage in ((None, Usage(10, 31)), (0.5, Usage(10, 1)), (0.5, None)):
        tally.succeeded(latency=9.0, ttft=ttft, usage=usage, attempts=1)
    assert tally.time_per_token.count == 1
    assert tally.time_per_token.sum == pytest.approx(1.5 / 30)


def test_failures_are_told_apart_by_kind_and_status() -> None:
    tally = Tally()
    for error in (
        RateLimitError("x", status_code=429),
        ServerError("x", status_code=500),
        ServerError("x", status_code=503),
        ServerError("y", status_code=503),
        APITimeoutError("x"),
        ValueError("x"),
    ):
        tally.failed(error)
    assert tally.failures == {
        "RateLimitError 429": 1,
        "ServerError 500": 1,
        "ServerError 503": 2,
        "APITimeoutError": 1,
        "ValueError": 1,
    }
    assert tally.failure_messages["ServerError 503"] == "y"
    assert tally.failure_messages.keys() == tally.failures.keys()
    assert (tally.snapshot().retries, tally.failure_latency.count) == (0, 0)


def test_tokens_of_a_failed_row_were_paid_for() -> None:
    tally = Tally(price=Price(1, 2))
    tally.failed(StreamInterruptedError("x", usage=Usage(1_000_000, 500_000)))
    assert tally.cost == pytest.approx(2.0)


# -- rates and time left


def test_a_rate_is_of_the_last_ten_seconds(clock: Clock) -> None:
    tally = Tally(total=1000, clock=clock)
    run(tally, clock, 30, per_second=2)
    run(tally, clock, 10, per_second=20)
    progress = tally.snapshot()
    assert progress.requests_per_second == pytest.approx(20)
    assert progress.prompt_tokens_per_second == pytest.approx(2000)
    assert progress.completion_tokens_per_second == pytest.approx(1000)
    assert progress.eta == pytest.approx((1000 - 260) / 20)


@pytest.mark.parametrize(("rows", "seconds", "rate"), [(8, 0.25, 32), (100, 50, 2)])
def test_a_rate_before_the_first_sample_is_of_the_whole(clock: Clock, rows: int, seconds: float, rate: float) -> None:
    tally = Tally(clock=clock)
    row(tally, rows)
    clock.now += seconds
    assert tally.snapshot().requests_per_second == pytest.approx(rate)


def test_rows_of_an_earlier_run_count_into_no_rate_and_no_projection(clock: Clock) -> None:
    tally = Tally(total=1000, price=Price(1, 0), clock=clock)
    tally.skipped, tally.failed_earlier = 880, 20
    run(tally, clock, 1, per_second=20)
    progress = tally.snapshot()
    assert progress.requests_per_second == pytest.approx(20)
    assert progress.eta == pytest.approx(4)
    assert progress.projected_cost == pytest.approx(100 * 100 / 1e6)


def test_few_rows_in_ten_seconds_do_not_shake_the_time_left(clock: Clock) -> None:
    tally = Tally(total=20, clock=clock)
    for second in range(100):  # one row each 25 s: mostly none in the last 10 s
        run(tally, clock, 1, per_second=1 if second % 25 == 24 else 0)
    run(tally, clock, 12, per_second=0)
    progress = tally.snapshot()
    assert progress.requests_per_second == 0
    assert progress.eta == pytest.approx(16 * 112 / 4)


def test_a_late_total_is_taken_up(clock: Clock) -> None:
    tally = Tally(clock=clock)
    run(tally, clock, 1, per_second=20)
    assert tally.snapshot().eta is None
    tally.total = 60
    assert tally.snapshot().eta == pytest.approx(2)
    tally.total = 10  # less than there were
    assert tally.snapshot().eta == 0


def test_the_time_left_is_no_less_than_the_last_rows_have_taken_already(clock: Clock) -> None:
    tally = Tally(total=102, clock=clock)
    run(tally, clock, seconds=10, per_second=10)
    for seconds in (60, 120):
        clock.now += 60
        tally.sample()
        assert tally.snapshot().eta == pytest.approx(seconds)
    tally.failed(raised(ServerError("x", status_code=500), 130.0))
    assert tally.snapshot().eta == pytest.approx(130 / 101)


def test_the_end_stops_the_clock_and_tells_the_rates_of_the_whole(clock: Clock) -> None:
    tally = Tally(total=120, clock=clock)
    run(tally, clock, 20, per_second=5)
    run(tally, clock, 20, per_second=1)
    clock.now += 0.5
    tally.close()
    clock.now += 1000
    tally.close()
    progress = tally.snapshot()
    assert (progress.elapsed, progress.eta) == (40.5, 0)
    assert progress.requests_per_second == pytest.approx(120 / 40.5)
    assert (tally.series[-1].elapsed, tally.series[-1].finished) == (40.5, 120)


def test_a_run_that_was_stopped_has_no_time_left(clock: Clock) -> None:
    tally = Tally(total=120, clock=clock)
    run(tally, clock, 10, per_second=5)
    assert tally.snapshot().eta == pytest.approx(14)
    tally.close()
    assert tally.snapshot().eta is None


# -- cost


def test_cost_goes_on_as_the_mean_of_what_has_finished() -> None:
    tally = Tally(total=100, price=Price(0.15, 0.60))
    row(tally, 4, prompt=1000, completion=500)
    tally.failed(raised(APITimeoutError("x"), 1.0))
    progress = tally.snapshot()
    assert progress.cost == tally.cost == pytest.approx(4 * 0.00045)
    assert progress.projected_cost == pytest.approx(4 * 0.00045 / 5 * 100)


@pytest.mark.parametrize(
    ("price", "total", "usage", "known"),
    [
        (None, 10, Usage(1, 1), (False, False)),
        (Price(1, 1), 10, None, (False, False)),  # an endpoint that tells no tokens is not free
        (Price(1, 1), None, Usage(1, 1), (True, False)),
        (Price(0, 0), 10, Usage(1, 1), (True, True)),
    ],
    ids=["no-price", "no-tokens", "no-total", "free"],
)
def test_what_is_unknown_is_no_zero(
    price: Price | None, total: int | None, usage: Usage | None, known: tuple[bool, bool]
) -> None:
    tally = Tally(total=total, price=price)
    tally.succeeded(latency=1, ttft=None, usage=usage, attempts=1)
    progress = tally.snapshot()
    assert (progress.cost is not None, progress.projected_cost is not None) == known


# -- samples


def test_a_sample_holds_the_counts_of_its_moment(clock: Clock) -> None:
    tally = Tally(gauges=lambda: (7, 9, 0), clock=clock)
    row(tally, 3)
    tally.failed(ValueError("x"))
    clock.now += 1
    tally.sample()
    assert attrs.astuple(tally.series[-1]) == (1.0, 4, 1, 7, 9, 300, 150)


def test_samples_that_come_too_early_are_ignored(clock: Clock) -> None:
    tally = Tally(clock=clock)
    for _ in range(100):
        clock.now += 0.2
        tally.sample()
    assert len(tally.series) == 21
    assert len(tally._recent) <= 12


@pytest.mark.parametrize("hours", [1, 30])
def test_a_long_run_has_a_series_of_bounded_length_and_even_steps(clock: Clock, hours: int) -> None:
    tally = Tally(clock=clock)
    for second in range(hours * 3600):
        clock.now = 1000.0 + second + 1 + (second % 3) * 0.001  # a timer's jitter
        tally.sample()
        assert len(tally.series) <= 600
    steps = {round(b.elapsed - a.elapsed) for a, b in pairwise(tally.series)}
    assert len(tally.series) >= 300
    assert len(steps) <= 2  # the start, and the one interval that all have come to
    assert tally.series[0].elapsed == 0
    assert len(tally._recent) <= 12


def test_counting_a_row_is_constant_work(untraced: None) -> None:
    tally, usage = Tally(price=Price(1, 1)), Usage(100, 50)

    def instructions() -> int:
        made = 0

        def count(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal made
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            made += event == "opcode"
            return count

        sys._getframe().f_trace_opcodes = True  # in 3.12 settrace shows instructions only if a frame has asked before
        gc.disable()  # or those of some `__del__` would be counted, too
        sys.settrace(count)
        tally.succeeded(latency=0.5, ttft=0.1, usage=usage, attempts=1)
        sys.settrace(None)
        gc.enable()
        return made

    first = instructions()
    for _ in range(2000):
        tally.succeeded(latency=0.5, ttft=0.1, usage=usage, attempts=1)
    assert 100 < instructions() <= first < 1000

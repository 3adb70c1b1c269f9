"""Figures as people read them, and the line that tells how a run goes."""

from __future__ import annotations

import attrs
import pytest

from rusty_agent.progress.figures import clock, dollars, line, quantity, seconds
from rusty_agent.progress.tally import Progress

EXAMPLE = Progress(
    done=1200,
    failed=3,
    skipped=0,
    total=20_000,
    in_flight=64,
    limit=80,
    retries=9,
    rate_limited=7,
    elapsed=3.1,
    requests_per_second=412.3,
    prompt_tokens=9000,
    completion_tokens=36_000,
    prompt_tokens_per_second=3100.0,
    completion_tokens_per_second=12_000.0,
    latency_p50=0.15,
    latency_p99=0.42,
    ttft_p50=None,
    ttft_p99=None,
    cost=0.42,
    projected_cost=7.0,
    eta=45.4,
)

NOTHING = attrs.evolve(
    EXAMPLE,
    done=0,
    failed=0,
    total=None,
    in_flight=0,
    limit=None,
    rate_limited=0,
    requests_per_second=0.0,
    prompt_tokens=0,
    completion_tokens=0,
    latency_p50=None,
    latency_p99=None,
    cost=None,
    projected_cost=None,
    eta=None,
)


def test_a_line_tells_the_important_first() -> None:
    assert line(EXAMPLE) == (
        "1,200/20,000 done, 3 failed, 64 in flight (limit 80), 412 req/s, ETA 0:45, $0.42 of ~$7.00, 7 × 429, "
        "3.1k tok/s in, 12k out, p50 0.15 s, p99 0.42 s"
    )


def test_parts_without_a_value_are_left_out() -> None:
    assert line(NOTHING) == "0 done"
    assert line(attrs.evolve(NOTHING, in_flight=4)) == "0 done, 4 in flight"
    assert line(attrs.evolve(NOTHING, total=5, done=2)) == "2/5 done, 0 req/s"
    assert line(attrs.evolve(NOTHING, cost=0.42)) == "0 done, $0.42"


def test_a_run_that_stands_still_says_so_before_its_figures() -> None:
    stalled = attrs.evolve(NOTHING, failed=2, in_flight=4, stalled="nothing for 7 s (a reason)")
    assert line(stalled).startswith("0 done, 2 failed, nothing for 7 s (a reason), 4 in flight")


def test_a_resumed_run_tells_what_was_done_earlier() -> None:
    assert line(attrs.evolve(NOTHING, total=20_000, skipped=1000)) == "1,000/20,000 done (1,000 earlier)"


def test_what_failed_for_good_earlier_is_not_done() -> None:
    mixed = attrs.evolve(NOTHING, total=60, skipped=30, failed_earlier=20)
    assert line(mixed) == "30/60 done (30 earlier), 20 failed for good earlier"
    assert line(attrs.evolve(NOTHING, total=60, failed_earlier=60)) == ("0/60 done, 60 failed for good earlier")


def test_the_end_has_no_time_left_and_no_projection() -> None:
    ended = attrs.evolve(NOTHING, total=2, done=2, cost=7.0, projected_cost=7.0, eta=0.0)
    assert line(ended) == "2/2 done, 0 req/s, $7.00"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (quantity(0), "0"),
        (quantity(0.042), "0.042"),
        (quantity(0.96), "1.0"),
        (quantity(4.2), "4.2"),
        (quantity(9.96), "10"),
        (quantity(412.4), "412"),
        (quantity(999.6), "1.0k"),
        (quantity(3100), "3.1k"),
        (quantity(12_345), "12k"),
        (quantity(999_700), "1.0M"),
        (quantity(5.4e9), "5.4G"),
        (quantity(5.4e13), "54000G"),
        (seconds(0.0008), "0.8 ms"),
        (seconds(0.015), "15 ms"),
        (seconds(0.0996), "0.10 s"),
        (seconds(0.15), "0.15 s"),
        (seconds(9.994), "9.99 s"),
        (seconds(9.996), "10.0 s"),
        (seconds(12.34), "12.3 s"),
        (seconds(99.96), "100 s"),
        (seconds(1234.5), "1,234 s"),
        (dollars(0), "$0.00"),
        (dollars(0.42), "$0.42"),
        (dollars(0.00996), "$0.01"),
        (dollars(0.0042), "$0.0042"),
        (dollars(0.00001), "<$0.0001"),
        (dollars(1234.5), "$1,234.50"),
        (clock(45), "0:45"),
        (clock(59.7), "1:00"),
        (clock(727), "12:07"),
        (clock(3723), "1:02:03"),
        (clock(360_000), "100:00:00"),
    ],
)
def test_figures(text: str, expected: str) -> None:
    assert text == expected

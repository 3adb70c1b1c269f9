"""A run's summary: every figure where it belongs, nothing secret, nothing that JSON cannot hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rusty_agent import __version__
from rusty_agent.batch.summary import covers, is_summary, summary
from rusty_agent.errors import APITimeoutError, RateLimitError
from rusty_agent.progress.price import Price
from rusty_agent.progress.tally import Tally
from rusty_agent.types import Usage
from rusty_agent.wire.codec import dumps
from tests.unit.progress.errors import raised

OWNER: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "base_url": "https://example.com/v1",
    "started": 1_700_000_000.0,
    "ended": 1_700_000_010.5,
    "output": "out.jsonl",
}
FAILED = 3  # of the rows of the run below


def run() -> Tally:
    now = 0.0
    tally = Tally(total=20, price=Price(1, 2), gauges=lambda: (0, 8, 3), clock=lambda: now)
    tally.skipped = 5
    for number in range(1, 9):
        tally.succeeded(latency=number / 10, ttft=0.05, usage=Usage(1000, 500), attempts=2)
    tally.failed(raised(RateLimitError("one", status_code=429), 2.0, attempts=3))
    for message in ("one", "two\n\x1b " + "x" * 1000):
        tally.failed(raised(APITimeoutError(message), 60.0, attempts=3))
    now = 10.0
    tally.close()
    return tally


def test_every_figure() -> None:
    whole = summary(
        run(),
        **OWNER,
        stopped="the error rate passed 20 %",
        bad_lines=4,
        finish_reasons={"stop": 5, "length": 2, None: 1},
        input="in.jsonl",
    )
    distributions = {name: whole.pop(name) for name in list(whole) if name.endswith("_s") and name != "duration_s"}
    assert whole == {
        "version": __version__,
        "model": "gpt-4o-mini",
        "base_url": "https://example.com/v1",
        "input": "in.jsonl",
        "output": "out.jsonl",
        "started": "2023-11-14T22:13:20.000Z",
        "ended": "2023-11-14T22:13:30.500Z",
        "stopped": "the error rate passed 20 %",
        "duration_s": 10.0,
        "rows": {"total": 20, "done": 8, "failed": 3, "skipped": 5, "failed_earlier": 0, "bad_lines": 4},
        "rows_per_second": 1.1,
        "retries": 14,
        "rate_limited": 3,
        "failures": {"APITimeoutError": 2, "RateLimitError 429": 1},
        "failure_messages": {"APITimeoutError": f"two \\x1b {'x' * 291}…", "RateLimitError 429": "one"},
        "finish_reasons": {"stop": 5, "length": 2, "none": 1},
        "truncated": 2,
        "tokens": {"prompt": 8000, "completion": 4000},
        "tokens_per_second": {"prompt": 800.0, "completion": 400.0},
        "cost_usd": 0.016,
    }
    assert set(distributions) == {"latency_s", "failure_latency_s", "ttft_s", "time_per_output_token_s"}
    latency = distributions["latency_s"]
    assert list(latency) == ["count", "mean", "min", "p50", "p90", "p95", "p99", "max"]
    assert latency == pytest.approx(
        {"count": 8, "mean": 0.45, "min": 0.1, "p50": 0.4, "p90": 0.8, "p95": 0.8, "p99": 0.8, "max": 0.8}, rel=0.01
    )
    assert distributions["failure_latency_s"]["max"] == 60.0
    assert distributions["time_per_output_token_s"]["min"] == pytest.approx(0.05 / 499, abs=1e-6)


def test_it_is_json_to_the_letter() -> None:
    for tally in (run(), Tally(), Tally(price=Price(1, 1))):
        whole = summary(tally, **OWNER, finish_reasons={None: 1})
        assert json.loads(json.dumps(whole, allow_nan=False)) == whole


@pytest.mark.parametrize(
    "earlier", [b"", b"\0\0", b"null", b"[]", b"{}", b'{"stopped":null,"rows":{}}', b'{"stopped":null,"rows":3}']
)
def test_what_is_no_summary_covers_nothing(earlier: bytes) -> None:
    whole = summary(run(), **OWNER)
    assert is_summary(dumps(whole))
    assert covers(dumps(whole), whole, FAILED)
    assert not is_summary(earlier)
    assert not covers(earlier, whole, FAILED)


@pytest.mark.parametrize(("total", "kept"), [(19, False), (20, True), (21, True), (None, False)])
def test_a_summary_covers_what_it_has_tried(total: int | None, kept: bool) -> None:
    """Whatever counted as skipped when it was written."""
    whole = summary(run(), **OWNER)
    earlier = {**whole, "rows": {**whole["rows"], "total": total, "skipped": 99}}
    assert covers(dumps(earlier), whole, FAILED) == kept
    assert not covers(dumps({**earlier, "stopped": "budget"}), whole, FAILED)
    assert not covers(dumps(earlier), whole, FAILED - 1)
    assert not covers(dumps({**earlier, "rows": {**earlier["rows"], "bad_lines": 1}}), whole, FAILED)


def test_a_run_without_a_row_measured_nothing() -> None:
    now = 5.0
    tally = Tally(clock=lambda: now)
    tally.close()
    whole = summary(tally, **OWNER)
    assert whole["rows"] == {"total": None, "done": 0, "failed": 0, "skipped": 0, "failed_earlier": 0, "bad_lines": 0}
    assert (whole["duration_s"], whole["rows_per_second"], whole["cost_usd"], whole["stopped"]) == (0, 0, None, None)
    assert whole["latency_s"] is whole["ttft_s"] is None

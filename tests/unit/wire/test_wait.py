"""What endpoints say of waiting, beside the headers: those are tested with the errors that they come with."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.wire.codec import dumps
from rusty_agent.wire.failure import heed, in_band, status_error
from rusty_agent.wire.wait import in_object, in_words

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Limit 300000, Used 286751, Requested 16144. Please try again in 579ms. Visit https://x", 0.579),
        ("Used 0, Requested ~12903. Please try again in 50.597142857s.", 50.597142857),
        ("on tokens per day (TPD): Limit 100000. Please try again in 9m38.016s. Need more?", 578.016),
        ("exceeded token rate limit. Please retry after 86400 seconds. Please contact", 86_400.0),
        ("Please retry in 33.5s.", 33.5),
        ("exceeded for UserByModelByDay. Please wait 41265 seconds before retrying", 41_265.0),
        ("max request concurrency: 3, please try again after 1 seconds", 1.0),
        ("Try again in 1 minute", 60.0),
        ("Try again in 6h0m0s", 21_600.0),
        ("Please try again in 7 days", 604_800.0),
        ("You have exhausted your API Request Quota. Retry after: 21 seconds.", 21.0),
        ("Please wait about 2 minutes", 120.0),
        ("You have exhausted your capacity on this model. Your quota will reset after 161h39m41s.", 581_981.0),
        ("Your limit will reset at 2026-08-01 10:03:40", None),
        ('litellm.RateLimitError: VertexAIException - {"error": {"details": [{"retryDelay": "17.5s"}]}}', 17.5),
        ("Error code: 429 - [{'error': {'details': [{'retryDelay': '17s'}]}}]", 17.0),
        (r"{\"retryDelay\":\"17s\"}", 17.0),
        ("Please try again in 20 s.", 20.0),
        ("Please try again in 3 months", None),
        ("Please try again in 500 milliseconds", None),
        ("Please try again later.", None),
        ("wait 5", None),
        ("Limit 3 s", None),
    ],
)
def test_words_may_tell_how_long_to_wait(message: str, seconds: float | None) -> None:
    assert in_words(message) == (None if seconds is None else pytest.approx(seconds))


def test_words_count_for_a_429_alone_and_after_the_headers() -> None:
    body = dumps({"error": {"message": "Please try again in 20s."}})
    assert status_error(429, {}, body, now=NOW).retry_after == 20
    assert status_error(429, {"retry-after": "3"}, body, now=NOW).retry_after == 3
    assert status_error(503, {}, body, now=NOW).retry_after is None
    inside = in_band({"error": {"message": "Please try again in 20s.", "code": 429}})
    heed(inside, {}, NOW)
    assert inside.retry_after == 20


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1800000060000", 60.0),
        (1800000060000, 60.0),
        ("1800000060", 60.0),
        ("1700000000000", 0.0),
        ("60", None),
        ("soon", None),
        (None, None),
    ],
)
def test_openrouter_tells_when_a_limit_is_over(reset: Any, seconds: float | None) -> None:
    headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    error = {"message": "Rate limit exceeded: free-models-per-day", "code": 429, "metadata": {"headers": headers}}
    assert in_object(error, NOW) == seconds
    assert status_error(429, {}, dumps({"error": error, "user_id": "u"}), now=NOW).retry_after == seconds


@pytest.mark.parametrize("clock", ["07:00:00", "09:00:00"])
def test_moments_are_measured_by_the_endpoints_clock(clock: str) -> None:
    """Ours may be an hour off: it stands still while a virtual machine sleeps."""
    date = {"date": f"Fri, 15 Jan 2027 {clock} GMT"}
    reset = int(NOW) + 3600 * (int(clock[:2]) - 8) + 42
    body = dumps({"error": {"message": "m", "code": 429, "metadata": {"headers": {"X-RateLimit-Reset": reset * 1000}}}})
    assert status_error(429, {"retry-after": str(reset)} | date, b"", now=NOW).retry_after == 42
    assert status_error(429, date, body, now=NOW).retry_after == 42


def test_openrouter_tells_the_seconds_of_an_upstream_limit() -> None:
    metadata = {"raw": "x is rate-limited upstream", "retry_after_seconds": 11, "retry_after_seconds_raw": 10.918}
    assert in_object({"metadata": metadata}, NOW) == 11


@pytest.mark.parametrize("metadata", [None, "m", {"headers": None}, {"headers": ["h"]}, {"raw": "x"}])
def test_metadata_without_headers(metadata: Any) -> None:
    assert in_object({"metadata": metadata}, NOW) is None


@pytest.mark.parametrize("header", ["1800000042", "1800000042000"])
def test_a_header_that_tells_the_moment_instead_of_the_seconds(header: str) -> None:  # openclaw/clawhub#407
    assert status_error(429, {"retry-after": header}, b"", now=NOW).retry_after == 42.0

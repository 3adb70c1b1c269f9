"""Headers about rate limits, as providers send them, and the distrust with which they are read."""

from __future__ import annotations

import math
import time

import pytest

from rusty_agent.wire.ratelimit import RateLimits

INF = math.inf


def read(*responses: dict[str, str]) -> tuple[float, float]:
    limits = RateLimits()
    for headers in responses:
        limits.read(headers, 0.0)
    return limits.requests, limits.tokens


def openai(limit: str, remaining: str, reset: str, kind: str = "requests") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": limit,
        f"x-ratelimit-remaining-{kind}": remaining,
        f"x-ratelimit-reset-{kind}": reset,
    }


@pytest.mark.parametrize(
    ("headers", "requests", "tokens"),
    [
        ({}, INF, INF),
        ({"content-type": "application/json", "x-request-id": "1"}, INF, INF),
        # OpenAI: by the minute; the reset is the time until it is full again
        (openai("10000", "9999", "6ms"), 10000 / 60, INF),
        (openai("500", "499", "120ms") | openai("200000", "199982", "5ms", "tokens"), 500 / 60, 200000 / 60),
        # Groq: requests by the day, which is a quota and no pace; tokens by the minute
        (openai("14400", "14370", "2m59.56s") | openai("18000", "17997", "7.66s", "tokens"), INF, 18000 / 60),
        (openai("14400", "14398", "12s"), INF, INF),
        # Azure, when it knows nothing
        (openai("-1", "-1", "-1"), INF, INF),
        (openai("0", "0", "0"), INF, INF),
        # Azure and GitHub Models name the period, and round a reset to nothing
        (
            openai("20000", "19999", "3")
            | openai("2000000", "1999967", "0", "tokens")
            | {"x-ratelimit-renewalperiod-requests": "60", "x-ratelimit-renewalperiod-tokens": "60"},
            20000 / 60,
            2000000 / 60,
        ),
        (openai("10", "9", "0") | {"x-ratelimit-renewalperiod-requests": "10"}, 1, INF),
        (openai("1000", "999", "1") | {"x-ratelimit-renewalperiod-requests": "86400"}, INF, INF),
        (openai("50", "49", "0") | {"x-ratelimit-renewalperiod-requests": "0"}, 50, INF),
        # Anthropic: moments in time, which its clock and ours may disagree on
        (
            {
                "anthropic-ratelimit-requests-limit": "4000",
                "anthropic-ratelimit-requests-remaining": "3999",
                "anthropic-ratelimit-requests-reset": "2026-11-24T12:00:00Z",
                "anthropic-ratelimit-tokens-limit": "400000",
                "anthropic-ratelimit-input-tokens-limit": "300000",
                "anthropic-ratelimit-output-tokens-limit": "100000",
            },
            4000 / 60,
            400000 / 60,
        ),
        # Mistral and Cerebras name the period
        ({"x-ratelimit-limit-req-minute": "60", "x-ratelimit-limit-tokens-minute": "6000"}, 1, 100),
        ({"x-ratelimit-limit-requests-day": "1000", "x-ratelimit-limit-requests-second": "5"}, 5, INF),
        # Together: by the second
        ({"x-ratelimit-limit": "10", "x-ratelimit-remaining": "9", "x-ratelimit-reset": "1"}, 10, INF),
        # whose whole seconds must not be computed with: 2 of 100 in a second would look like a limit by the minute
        ({"x-ratelimit-limit": "100", "x-ratelimit-remaining": "98", "x-ratelimit-reset": "1"}, 100, INF),
        # the IETF's drafts
        ({"ratelimit-limit": "100;w=60", "ratelimit-remaining": "50", "ratelimit-reset": "30"}, 100 / 60, INF),
        ({"ratelimit-policy": '"default";q=100;w=10', "ratelimit": '"default";r=50;t=3'}, 10, INF),
        # nothing but the limit: by the minute, as OpenAI documents it
        ({"x-ratelimit-limit-requests": "6000"}, 100, INF),
        ({"X-RateLimit-Limit-Requests": "6000"}, 100, INF),
        # numbers as people write them, and several in one
        ({"x-ratelimit-limit-requests": "10,000"}, 10000 / 60, INF),
        ({"x-ratelimit-limit-requests": "5, 6000"}, 100, INF),
        ({"ratelimit-limit": "10, 10;w=1, 50;w=60"}, 50 / 60, INF),
        ({"ratelimit-limit": '10, 10;w=1;name="a,b", 100;w=60'}, 100 / 60, INF),
        ({"ratelimit-policy": '"daily";q=1000;w=86400,"burst";q=100;w=60'}, 100 / 60, INF),
        ({"ratelimit-policy": '"tok";q=6000;qu="tokens";w=60, "req";q=60;w=60'}, 1, 100),
        ({"ratelimit-limit": "100", "ratelimit-policy": "100;w=3600", "ratelimit-reset": "30"}, INF, INF),
        # several windows: each holds (Mistral, SambaNova, Cerebras, Kong)
        ({"x-ratelimit-limit-tokens-minute": "6000", "x-ratelimit-limit-tokens-month": "1000000000"}, INF, 100),
        ({"x-ratelimit-limit-requests-day": "400", "x-ratelimit-limit-requests": "20"}, 20 / 60, INF),
        (
            {
                "x-ratelimit-limit-requests-minute": "5",
                "x-ratelimit-limit-requests-hour": "150",
                "x-ratelimit-limit-requests-day": "2400",
                "x-ratelimit-limit-tokens-minute": "30000",
                "x-ratelimit-limit-tokens-day": "1000000",
            },
            5 / 60,
            500,
        ),
        ({"X-RateLimit-Limit-Minute": "10", "X-RateLimit-Limit-Second": "5"}, 10 / 60, INF),
        # a second that is over
        ({"x-ratelimit-limit": "50", "x-ratelimit-remaining": "49", "x-ratelimit-reset": "0"}, 50, INF),
        ({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "60", "x-ratelimit-reset": "0"}, 1, INF),
        # limits of something else, or of longer than a minute
        ({"x-ratelimit-limit-concurrent-requests": "10"}, INF, INF),
        ({"x-ratelimit-limit-images": "5", "x-ratelimit-limit-requests": "6000"}, 100, INF),
        ({"x-ratelimit-limit-requests-week": "100", "x-ratelimit-limit-tokens-month": "1000"}, INF, INF),
        ({"ratelimit-limit": "100;w=0"}, INF, INF),
        ({"ratelimit-policy": '"at once";q=3;w=1;qu="concurrent-requests", "all";q=60;w=60;qu="requests"'}, 1, INF),
        ({"ratelimit-policy": '"size";q=3000;w=60;qu="content-bytes"'}, INF, INF),
        # nonsense
        ({"x-ratelimit-requests": "7"}, INF, INF),
        ({"x-ratelimit-bucket": "7", "x-ratelimit-limit-requests": "60"}, 1, INF),
        ({"x-ratelimit-limit-requests": "lots"}, INF, INF),
        ({"x-ratelimit-limit-requests": "nan"}, INF, INF),
        ({"ratelimit-policy": "60;w=²"}, 1, INF),
        ({"x-ratelimit-limit-requests": "9" * 400}, INF, INF),
        ({"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "soon"}, 1, INF),
        ({"x-ratelimit-limit-requests": "60", "x-ratelimit-reset-requests": "5s later"}, 1, INF),
    ],
)
def test_what_is_made_of_headers(headers: dict[str, str], requests: float, tokens: float) -> None:
    assert read(headers) == pytest.approx((requests, tokens))


def test_nonsense_without_end_takes_no_time() -> None:
    began = time.perf_counter()
    for value in ("9" * 60_000, "1h" * 30_000, " " * 60_000, "1" + ",000" * 15_000):
        for name in ("limit", "remaining", "reset"):
            read({f"x-ratelimit-{name}-requests": value})
    assert time.perf_counter() - began < 1  # minutes, if it is looked for a number's end from each digit


def test_a_reset_is_never_longer_than_its_period() -> None:
    """A burst of a second's worth looks like a limit by the second until a reset says otherwise."""
    assert read(openai("6000", "50", "0.5s"))[0] == 6000
    assert read(openai("6000", "50", "0.5s"), openai("6000", "10", "40s"))[0] == 100
    assert read(openai("6000", "10", "40s"), openai("6000", "50", "0.5s"))[0] == 100


def test_a_period_of_more_than_a_minute_is_a_quota_and_no_pace() -> None:
    assert read(openai("1000", "10", "3h20m0s"))[0] == INF


def test_what_an_endpoint_says_no_more_is_forgotten() -> None:
    limits = RateLimits()
    limits.read({"x-ratelimit-limit-requests": "60", "x-ratelimit-limit-tokens": "60"}, 100.0)
    limits.read({"x-ratelimit-limit-tokens": "60"}, 109.0)
    assert (limits.requests, limits.tokens) == (1, 1)
    limits.read({"x-ratelimit-limit-tokens": "60"}, 111.0)
    assert (limits.requests, limits.tokens) == (INF, 1)
    limits.read({"x-ratelimit-limit-tokens": "soon"}, 122.0)
    assert (limits.requests, limits.tokens) == (INF, INF)


def test_an_endpoint_may_change_its_mind() -> None:
    assert read({"x-ratelimit-limit-requests": "600"}, {"x-ratelimit-limit-requests": "60"})[0] == 1

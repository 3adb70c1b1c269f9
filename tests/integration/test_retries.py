"""When a call is tried again, how long it waits, and when it gives up, through both faces."""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from typing import Any

import pytest

from rusty_agent import (
    APIConnectionError,
    APITimeoutError,
    AttemptReport,
    BadRequestError,
    Limits,
    RateLimitError,
    RetryPolicy,
    ServerError,
    StreamInterruptedError,
    Timeout,
)
from rusty_agent.testing import Answer, Pause, Received, Reset, answer, completion, error, stream
from rusty_agent.testing.answers import Step, chunk, event

from .faces import Face, Serve

QUICK = RetryPolicy(max_retries=2, base_delay=0.001)
GOOD = answer(completion("good"))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 529])
def test_what_may_pass_is_tried_again(face: Face, serve: Serve, status: int) -> None:
    server = serve(error(status), error(status), GOOD)
    assert face.generate(face.provider(server, retry=QUICK)) == "good"
    assert len(server.requests) == 3
    assert len({request.body for request in server.requests}) == 1


def test_no_retries_when_none_are_allowed(face: Face, serve: Serve) -> None:
    server = serve(error(503), GOOD)
    with pytest.raises(ServerError):
        face.generate(face.provider(server), retry=RetryPolicy(max_retries=0))
    assert len(server.requests) == 1


def test_a_stream_is_tried_again_until_its_first_text_only(face: Face, serve: Serve) -> None:
    first = event(chunk({"role": "assistant", "content": ""}))
    text = event(chunk({"content": "seen"}))
    cut_before = answer([first], content_type="text/event-stream", framing="cut")
    cut_after = answer([first, text], content_type="text/event-stream", framing="cut")
    server = serve(cut_before, cut_after, stream("never replayed"))
    outcome = face.stream(face.provider(server, retry=QUICK))
    assert outcome.pieces == ["seen"]
    assert isinstance(outcome.error, StreamInterruptedError)
    assert (outcome.failure.partial_text, outcome.failure.attempts) == ("seen", 2)
    assert len(server.requests) == 2


def test_generate_tries_again_even_after_text_that_nobody_saw(face: Face, serve: Serve) -> None:
    cut = answer([event(chunk({"content": "half"}))], content_type="text/event-stream", framing="cut")
    server = serve(cut, stream("whole"))
    assert face.generate(face.provider(server, retry=QUICK), stream=True) == "whole"


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "0.3"}, 0.3, 0.3),
        ({"retry-after-ms": "250", "Retry-After": "30"}, 0.25, 0.25),
        ({"Retry-After": "garbage"}, 0, 1),
        ({"Retry-After": "-5"}, 0, 1),
        ({"Retry-After": "inf"}, 0, 1),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 1),
    ],
    ids=str,
)
def test_retry_after(face: Face, serve: Serve, headers: dict[str, str], low: float, high: float) -> None:
    server = serve(error(429, headers=headers), GOOD)
    reports: list[AttemptReport] = []
    began = time.monotonic()
    policy = RetryPolicy(base_delay=0.001, on_attempt=reports.append)
    assert face.generate(face.provider(server), retry=policy) == "good"
    assert time.monotonic() - began >= low
    assert reports[0].delay is not None
    assert low <= reports[0].delay <= high


def test_retry_after_as_a_date(face: Face, serve: Serve) -> None:
    server = serve(lambda _: error(429, headers={"Retry-After": formatdate(time.time() + 50, usegmt=True)}))
    outcome = face.stream(face.provider(server), retry=RetryPolicy(max_retry_after=10))
    assert isinstance(outcome.error, RateLimitError)
    assert outcome.error.retry_after is not None
    assert 45 < outcome.error.retry_after <= 50
    assert re.search(r"It asks to wait for \d\d s, but max_retry_after is 10 s\.$", str(outcome.error))
    assert outcome.error.message == str(outcome.error)
    assert len(server.requests) == 1


def test_a_wait_says_nothing_of_an_error_that_no_wait_mends(face: Face, serve: Serve) -> None:
    server = serve(error(401, headers={"Retry-After": "3600"}))
    assert "to wait" not in str(face.stream(face.provider(server)).error)


def test_an_endpoint_that_asks_for_no_wait_gets_one_all_the_same(face: Face, serve: Serve) -> None:
    """Seventeen attempts within a moment would be all that a call sent back has."""
    server = serve(*[error(429, headers={"Retry-After": "0"})] * 6, GOOD)
    reports: list[AttemptReport] = []
    policy = RetryPolicy(max_retries=6, base_delay=0.02, on_attempt=reports.append)
    assert face.generate(face.provider(server), retry=policy) == "good"
    delays = [report.delay for report in reports if report.delay is not None]
    assert len(delays) == 6
    assert sum(delays) > 0


def test_a_wait_that_the_endpoint_names_is_exact(face: Face, serve: Serve) -> None:
    server = serve(error(503, headers={"Retry-After": "0.15"}), GOOD)
    reports: list[AttemptReport] = []
    policy = RetryPolicy(base_delay=50, on_attempt=reports.append)
    assert face.generate(face.provider(server), retry=policy) == "good"
    assert reports[0].delay == 0.15


def test_a_call_that_stands_in_line_keeps_to_its_time(face: Face, serve: Serve) -> None:
    server = serve(lambda _: error(429))
    provider = face.provider(server, limits=Limits(in_flight=10), retry=RetryPolicy(base_delay=0.05))
    began = time.monotonic()
    with pytest.raises((RateLimitError, APITimeoutError)):
        face.generate(provider, timeout=0.3)
    assert time.monotonic() - began < 5


def test_a_wait_beyond_the_cap_ends_in_the_error(face: Face, serve: Serve) -> None:
    server = serve(error(429, headers={"Retry-After": "121"}), GOOD)
    with pytest.raises(RateLimitError) as raised:
        face.generate(face.provider(server))
    assert raised.value.retry_after == 121
    assert len(server.requests) == 1


@pytest.mark.parametrize(("says", "status", "requests"), [("true", 400, 3), ("false", 503, 1)])
def test_x_should_retry_decides(face: Face, serve: Serve, says: str, status: int, requests: int) -> None:
    server = serve(error(status, headers={"x-should-retry": says}))
    with pytest.raises((BadRequestError, ServerError)):
        face.generate(face.provider(server, retry=QUICK))
    assert len(server.requests) == requests


def test_one_deadline_spans_all_attempts(face: Face, serve: Serve) -> None:
    server = serve(error(503, headers={"Retry-After": "1"}))
    began = time.monotonic()
    with pytest.raises(ServerError):  # the third attempt would begin after the deadline
        face.generate(face.provider(server), retry=RetryPolicy(50, base_delay=0.001), timeout=Timeout(total=1.9))
    assert time.monotonic() - began < 10  # fifty seconds, if each attempt had a deadline of its own
    assert len(server.requests) == 2


def test_the_retry_budget_ends_the_feeding_of_an_overload(face: Face, serve: Serve) -> None:
    server = serve(error(503))
    provider = face.provider(server, retry=RetryPolicy(max_retries=3, base_delay=0, budget=25))
    for _ in range(4):
        with pytest.raises(ServerError):
            face.generate(provider)
    assert len(server.requests) == 4 + 5  # four calls, and the five retries that 25 tokens pay for
    server.answer(answer(completion()))
    for _ in range(10):
        face.generate(provider)
    seen = len(server.requests)
    server.answer(error(503))
    with pytest.raises(ServerError):
        face.generate(provider)
    assert len(server.requests) - seen == 3  # ten good calls earned two retries


def test_no_budget_no_limit(face: Face, serve: Serve) -> None:
    server = serve(error(503))
    with pytest.raises(ServerError):
        face.generate(face.provider(server, retry=RetryPolicy(max_retries=9, base_delay=0, budget=None)))
    assert len(server.requests) == 10


def test_each_attempt_is_reported_and_logged(face: Face, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    reports: list[AttemptReport] = []
    server = serve(error(500, "first"), error(502, "second"), GOOD)
    policy = RetryPolicy(base_delay=0.001, on_attempt=reports.append)
    with caplog.at_level("DEBUG", logger="rusty_agent"):
        face.generate(face.provider(server, retry=policy))
    assert [(report.number, type(report.error), report.delay is None) for report in reports] == [
        (1, ServerError, False),
        (2, ServerError, False),
        (3, type(None), True),
    ]
    assert 0 < reports[0].elapsed <= reports[1].elapsed <= reports[2].elapsed
    assert ["first" in caplog.text, "second" in caplog.text, "Bearer" in caplog.text] == [True, True, False]


def test_a_refused_connection_is_tried_again(face: Face) -> None:
    reports: list[AttemptReport] = []
    provider = face.provider("http://127.0.0.1:1/v1", retry=RetryPolicy(base_delay=0.001, on_attempt=reports.append))
    with pytest.raises(APIConnectionError, match=r"127\.0\.0\.1:1") as raised:
        face.generate(provider)
    assert isinstance(raised.value, ConnectionError)
    assert len(reports) == raised.value.attempts == 3


@pytest.mark.parametrize("death", [Answer((), close=True), Answer((Reset(),))], ids=["closed", "reset"])
def test_a_dead_pooled_connection_is_replaced_without_spending_an_attempt(
    face: Face, serve: Serve, death: Answer
) -> None:
    """The server closes a kept connection just as the next request arrives on it."""
    seen: set[int] = set()

    def script(request: Received) -> Answer:
        if request.connection in seen:
            return death
        seen.add(request.connection)
        return GOOD

    server = serve(script)
    reports: list[AttemptReport] = []
    provider = face.provider(server, retry=RetryPolicy(max_retries=0, on_attempt=reports.append))
    for _ in range(3):
        assert face.generate(provider) == "good"
    assert [report.number for report in reports] == [1, 1, 1]
    assert server.connections == 3
    assert len(server.requests) == 5


@pytest.mark.parametrize("begun", [b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize("death", [(), (Pause(0.02), Reset())], ids=["closed", "reset"])
def test_a_pooled_connection_that_has_begun_to_answer_was_not_dead(
    face: Face, serve: Serve, begun: bytes, death: tuple[Step, ...]
) -> None:
    """The endpoint has worked on the request: whether it is sent again is for the policy to say."""
    server = serve(GOOD)
    provider = face.provider(server, retry=RetryPolicy(max_retries=0))
    assert face.generate(provider) == "good"
    server.answer(Answer((begun, *death), close=True))
    with pytest.raises(APIConnectionError, match="ended in the middle of its headers") as raised:
        face.generate(provider)
    assert (raised.value.attempts, raised.value.retryable) == (1, True)
    assert len(server.requests) == 2
    assert server.connections == 1


def test_redirects_within_the_origin_are_followed_with_the_body(face: Face, serve: Serve) -> None:
    def script(request: Received) -> Answer:
        if request.path != "/v2/chat":
            return answer(b"", status=307, headers={"Location": "/v2/chat"})
        return GOOD

    server = serve(script)
    assert face.generate(face.provider(server)) == "good"
    assert [request.path for request in server.requests] == ["/v1/chat/completions", "/v2/chat"]
    assert server.requests[1].json == server.requests[0].json


def test_redirects_to_another_origin_never_see_the_key(face: Face, serve: Serve) -> None:
    other = serve()
    server = serve(answer(b"", status=307, headers={"Location": other.url}))
    outcome = face.stream(face.provider(server))
    assert "set base_url" in str(outcome.failure)
    assert other.requests == []


@pytest.mark.parametrize(("location", "requests"), [("/v1/chat/completions", 1), ("?{}", 6)])
def test_redirects_in_a_circle_end(face: Face, serve: Serve, location: str, requests: int) -> None:
    def script(request: Received) -> Answer:
        return answer(b"", status=308, headers={"Location": location.format(len(server.requests))})

    server = serve(script)
    assert "308" in str(face.stream(face.provider(server)).failure)
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("RUSTY_AGENT_MAX_RETRIES", "0", "1 request"),
        ("RUSTY_AGENT_MAX_RETRIES", "4", "5 requests"),
        ("RUSTY_AGENT_MAX_RETRIES", "-1", None),
        ("RUSTY_AGENT_MAX_RETRIES", "1.5", None),
        ("RUSTY_AGENT_RETRY_BACKOFF_MS", "soon", None),
        ("RUSTY_AGENT_REQUEST_TIMEOUT_SECS", "0", None),
        ("RUSTY_AGENT_CONNECT_TIMEOUT_SECS", "nan", None),
    ],
)
def test_the_environment_is_read_when_a_provider_is_made(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str, value: str, fits: str | None
) -> None:
    server = serve(error(503))
    monkeypatch.setenv(name, value)
    if fits is None:
        with pytest.raises(ValueError, match=name):
            face.provider(server)
        return
    provider = face.provider(server)
    monkeypatch.delenv(name)
    with pytest.raises(ServerError):
        face.generate(provider)
    assert f"{len(server.requests)} request" == fits.removesuffix("s")


async def _later(report: AttemptReport) -> None:
    raise AssertionError("nobody awaits it")


@pytest.mark.parametrize("hook", [3, _later])
def test_a_hook_is_a_plain_function(hook: Any) -> None:
    with pytest.raises(ValueError, match="on_attempt must be a plain function"):
        RetryPolicy(on_attempt=hook)

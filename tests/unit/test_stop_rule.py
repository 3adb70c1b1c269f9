"""When a run is stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from rusty_agent.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    RateLimitError,
    RunStoppedError,
    RustyAgentError,
    ServerError,
)
from rusty_agent.stop_rule import StopRule

from .net.limits.door import unreached

FAILURE = ServerError("broken", status_code=500)


class Rule(StopRule):
    """One whose prompts were begun in their order, and long ago, where nothing else is said."""

    def fails(self, error: Exception, number: int | None = None, began: float = -math.inf) -> RunStoppedError | None:
        if isinstance(error, RustyAgentError):
            self.gives_up(error, began)
        return self.judge(error, number or self.begin())

    def answers(self, number: int | None = None) -> None:
        self.succeeded(number or self.begin())


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three, and not a hundred, tell whether there is hope."""
    monkeypatch.setattr("rusty_agent.stop_rule._WINDOW", 3)


def test_failures_are_counted() -> None:
    rule = Rule(max_failures=2)
    for _ in range(2):
        assert rule.fails(FAILURE) is None
        rule.answers()
    stopped = rule.fails(FAILURE)
    assert stopped is not None
    assert (stopped.reason, stopped.done, stopped.failed) == ("failures", 2, 3)
    assert str(stopped) == "The run was stopped: more than 2 failed (max_failures), the last with: broken"


def test_no_failure_at_all() -> None:
    stopped = Rule(max_failures=0).fails(FAILURE)
    assert stopped is not None


def test_the_error_rate_is_that_of_the_latest_hundred() -> None:
    rule = Rule(max_error_rate=0.2)
    for _ in range(1000):
        rule.answers()
    for _ in range(20):
        assert rule.fails(FAILURE) is None
    stopped = rule.fails(FAILURE)
    assert stopped is not None
    assert stopped.reason == "error_rate"
    assert "21% of the latest 100" in str(stopped)


@pytest.mark.parametrize(
    ("options", "under_way", "passed"),
    [
        ({"max_error_rate": 0.0}, 0, 19),  # a rate takes twenty at least
        ({"max_error_rate": 0.5}, 200, 3200),  # where many are under way, more of the others may get ahead of them
        ({"hopeless": True}, 0, 99),  # few take no hope
    ],
)
def test_it_takes_so_many_failures(options: dict[str, Any], under_way: int, passed: int) -> None:
    rule = Rule(**options)
    for _ in range(under_way):
        rule.begin()
    assert [rule.fails(FAILURE) for _ in range(passed)] == [None] * passed
    assert rule.fails(FAILURE) is not None


def test_old_failures_are_forgotten_by_the_rate() -> None:
    rule = Rule(max_error_rate=0.1)
    for _ in range(10):
        rule.fails(FAILURE)
    for _ in range(100):
        rule.answers()
    assert rule.fails(FAILURE) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AuthenticationError("no", status_code=401), "authentication"),
        (
            BadRequestError("HTTP 400: API key not valid. Please pass a valid API key.", status_code=400),
            "authentication",
        ),
        (BadRequestError("HTTP 400: no", status_code=400), None),
        (RateLimitError("no", status_code=429, code="insufficient_quota"), "quota"),
        (RateLimitError("Insufficient balance. Please recharge.", status_code=429, code="1113"), "quota"),
        (AuthenticationError("Insufficient balance", status_code=401), "quota"),
        (APIStatusError("no", status_code=402), "quota"),
        (RateLimitError("no", status_code=429), None),
        (RateLimitError("no", status_code=429, retry_after=120.0), None),
        (RateLimitError("come back tomorrow", status_code=429, retry_after=86_400.0), "quota"),
        (APIStatusError("closed", status_code=503, retry_after=3600.0), "quota"),
        (APIStatusError("closed", status_code=529, retry_after=3600.0), "quota"),
        (APIStatusError("closed", status_code=500, retry_after=3600.0), None),
        (FAILURE, None),
        (ValueError("no"), None),
    ],
)
def test_what_stops_at_once(error: Exception, reason: str | None) -> None:
    stopped = Rule().fails(error)
    assert (None if stopped is None else stopped.reason) == reason


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, True, "0.5", float("nan")])
def test_a_rate_that_cannot_be(value: Any) -> None:
    with pytest.raises(ValueError, match="max_error_rate"):
        Rule(max_error_rate=value)


@pytest.mark.parametrize("value", [-1, 1.5, True, "3"])
def test_a_count_that_cannot_be(value: Any) -> None:
    with pytest.raises(ValueError, match="max_failures"):
        Rule(max_failures=value)


def test_a_wait_that_is_allowed_stops_no_run() -> None:
    error = RateLimitError("wait", status_code=429, retry_after=130.0)
    assert Rule().fails(error) is not None
    assert Rule(max_retry_after=600.0).fails(error) is None


@pytest.mark.usefixtures("three")
def test_a_run_without_a_single_answer_is_hopeless() -> None:
    rule = Rule(hopeless=True)
    assert [rule.fails(FAILURE) for _ in range(2)] == [None, None]
    stopped = rule.fails(FAILURE)
    assert stopped is not None
    assert stopped.reason == "failures"
    assert "none of the first 3 was answered" in str(stopped)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time that stop rules see."""
    now = 1000.0

    def move(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("rusty_agent.stop_rule.monotonic", lambda: now)
    return move


def keeps_failing(
    rule: Rule, error: Exception, clock: Callable[[float], None], seconds: float
) -> RunStoppedError | None:
    """What the rule says at the end of a time in which it hears of nothing else."""
    for _ in range(6):
        clock(seconds / 6)
        stopped = rule.fails(error)
    return stopped


@pytest.mark.parametrize("error", [unreached(), ServerError("HTTP 502", status_code=502)], ids=["refused", "502"])
def test_an_endpoint_that_stays_away_stops_a_run(error: Exception, clock: Callable[[float], None]) -> None:
    rule = Rule()
    rule.answers()
    assert rule.fails(error) is None
    assert keeps_failing(rule, error, clock, 599) is None
    clock(2)
    stopped = rule.fails(error)
    assert stopped is not None
    assert stopped.reason == "failures"
    assert "could not be reached for 10 min" in str(stopped)


@pytest.mark.parametrize("headers", [{}, {"x-should-retry": "false"}], ids=["again", "never"])
def test_an_endpoint_that_turns_all_away_stops_a_run(headers: dict[str, str], clock: Callable[[float], None]) -> None:
    """Beyond a limit of hours or days, told without a time to wait, a run would ask for days."""
    rule, error = Rule(), RateLimitError("HTTP 429: no more for today", status_code=429, headers=headers)
    for _ in range(2):
        assert rule.fails(error) is None
        assert keeps_failing(rule, error, clock, 599) is None
        rule.answers()
    assert rule.fails(error) is None
    stopped = keeps_failing(rule, error, clock, 601)
    assert stopped is not None
    assert stopped.reason == "quota"
    assert "turned all requests away for 10 min. HTTP 429: no more" in str(stopped)


@pytest.mark.parametrize("error", [unreached(), RateLimitError("HTTP 429", status_code=429)], ids=repr)
def test_the_time_in_which_nobody_asked_stops_no_run(error: Exception, clock: Callable[[float], None]) -> None:
    """Prompts may come once in an hour, and each meet a moment of trouble."""
    rule, now = Rule(), 1000.0
    for _ in range(10):
        clock(3600)
        now += 3600
        assert rule.fails(error, began=now - 60) is None
    assert keeps_failing(rule, error, clock, 700) is not None


@pytest.mark.parametrize("error", [unreached(), RateLimitError("HTTP 429", status_code=429)], ids=repr)
def test_of_a_long_silence_two_minutes_count(error: Exception, clock: Callable[[float], None]) -> None:
    """A long `Retry-After` was obeyed, a low pace kept, or the whole program stood still."""
    rule = Rule()
    for _ in range(5):
        assert rule.fails(error) is None
        clock(1200)
    assert rule.fails(error) is None
    clock(1)
    assert rule.fails(error) is not None


def test_requests_that_are_too_large_are_no_sign_that_all_are_turned_away(clock: Callable[[float], None]) -> None:
    rule = Rule()
    for _ in range(10):
        error = RateLimitError("HTTP 429: Request too large for m on tokens per min (TPM)", status_code=429)
        assert rule.fails(error) is None
        clock(100)


@pytest.mark.parametrize(
    "silent", [ValueError("a bad row"), ServerError("HTTP 503", status_code=503), ServerError("504", status_code=504)]
)
def test_what_tells_nothing_of_the_endpoint_is_no_sign_of_life(
    silent: Exception, clock: Callable[[float], None]
) -> None:
    """A row that is never sent, and what a gateway says also of a server that is away."""
    rule = Rule()
    rule.answers()
    for _ in range(7):
        assert rule.fails(unreached()) is None
        clock(99)
        assert rule.fails(silent) is None
    assert rule.fails(unreached()) is not None


@pytest.mark.parametrize("sign", [None, APIConnectionError("broke"), FAILURE, ServerError("HTTP 500", status_code=500)])
def test_a_sign_of_life_lets_a_run_go_on(sign: Exception | None, clock: Callable[[float], None]) -> None:
    rule = Rule()
    for _ in range(10):
        assert rule.fails(unreached()) is None
        clock(100)
        if sign is None:
            rule.answers()
        else:
            assert rule.fails(sign) is None


@pytest.mark.usefixtures("three")
def test_what_fails_at_once_says_nothing_of_those_that_were_begun_before() -> None:
    rule = Rule(hopeless=True)
    first, *others = [rule.begin() for _ in range(10)]
    assert [rule.fails(FAILURE, number) for number in others] == [None] * 9
    stopped = rule.fails(FAILURE, first)
    assert stopped is not None
    assert (stopped.failed, "none of the first 3 was answered" in str(stopped)) == (10, True)


def test_the_rate_is_that_of_what_was_begun_one_after_the_other() -> None:
    rule = Rule(max_error_rate=0.5)
    numbers = [rule.begin() for _ in range(100)]
    assert [rule.fails(FAILURE, number) for number in numbers if not number % 4] == [None] * 25
    for number in numbers:
        if number % 4:
            rule.answers(number)
    assert rule.fails(FAILURE) is None


@pytest.mark.parametrize("failed", [False, True])
def test_one_that_hangs_is_waited_for_while_a_thousand_others_end(failed: bool) -> None:
    rule = Rule(max_error_rate=0.5)
    rule.answers()
    hangs = rule.begin()
    assert [rule.fails(FAILURE) for _ in range(1000)] == [None] * 1000
    assert rule.fails(FAILURE) is not None
    if failed:
        assert rule.fails(FAILURE, hangs) is not None
    else:
        rule.answers(hangs)
    stopped = rule.fails(FAILURE)
    assert ("99% of the latest 100" in str(stopped)) is not failed


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("besides", [None, 0.95])
def test_one_answer_gives_hope_whatever_is_counted_besides(besides: float | None) -> None:
    rule = Rule(max_error_rate=besides, hopeless=True)
    rule.answers()
    assert [rule.fails(FAILURE) for _ in range(10)] == [None] * 10


@pytest.mark.usefixtures("three")
def test_a_refusal_for_its_content_gives_hope() -> None:
    rule = Rule(hopeless=True)
    refused = BadRequestError("HTTP 400: The response was filtered", status_code=400, code="content_filter")
    assert [rule.fails(refused) for _ in range(10)] == [None] * 10
    assert [rule.fails(FAILURE) for _ in range(10)] == [None] * 10
    assert Rule(max_failures=0).fails(refused) is not None


@pytest.mark.usefixtures("three")
def test_what_was_never_sent_counts_for_nothing() -> None:
    rule = Rule(max_error_rate=0.0, hopeless=True)
    for _ in range(30):
        rule.withdraw(rule.begin())
    assert [rule.fails(FAILURE) for _ in range(2)] == [None, None]
    assert rule.fails(FAILURE) is not None

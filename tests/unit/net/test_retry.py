"""Which failures are tried again, after how long, and what a provider may spend on it; in virtual time."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from rusty_agent import (
    APIConnectionError,
    AttemptReport,
    RateLimitError,
    RetryPolicy,
    RunStoppedError,
    RustyAgentError,
    ServerError,
    StreamInterruptedError,
)
from rusty_agent.net import retry
from rusty_agent.net.retry import TURNS, RetryBudget, backoff_delay, retrying
from tests.simulation.virtual import run

BUSY = ServerError("busy", status_code=503)
LIMITED = RateLimitError("later", status_code=429)
AWAY = APIConnectionError("away")


def asking(seconds: float) -> ServerError:
    error = ServerError("busy", status_code=503)
    error.retry_after = seconds
    return error


class Call:
    """A call whose attempts fail with these errors and then succeed; its waits pass at once."""

    deadline: float | None = None

    def __init__(self, *errors: RustyAgentError, in_line: bool = False, of_a_run: bool = True) -> None:
        self.asked = time.monotonic()
        self.in_line = in_line
        self.of_a_run = of_a_run
        self.naps: list[float] = []
        self._errors: Iterator[RustyAgentError] = iter(errors)

    async def turn(self, delay: float | None) -> None:
        if delay is not None:
            self.naps.append(delay)

    async def make_attempt(self, number: int) -> int:
        for error in self._errors:
            raise error
        return number

    def send_back(self, error: RustyAgentError) -> bool:
        return self.in_line

    def gives_up(self, error: RustyAgentError) -> bool:
        return False


@pytest.fixture(autouse=True)
def _longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jitter that always waits as long as it may."""
    monkeypatch.setattr("rusty_agent.net.retry.backoff.full_jitter", lambda ceiling: ceiling)


def tried(call: Call, policy: RetryPolicy, budget: RetryBudget | None = None) -> int:
    made: Coroutine[Any, Any, int] = retrying(call, policy, budget or RetryBudget(None))
    return run(made)


def test_waits_double_up_to_the_longest() -> None:
    policy = RetryPolicy(base_delay=0.5, max_delay=3)
    assert [backoff_delay(number, policy) for number in range(1, 6)] == [0.5, 1, 2, 3, 3]


def test_what_the_endpoint_invites_to_costs_no_budget() -> None:
    empty = RetryBudget(0)
    assert tried(Call(asking(1), asking(1)), RetryPolicy(), empty) == 3
    with pytest.raises(ServerError):
        tried(Call(BUSY), RetryPolicy(), empty)


def test_a_success_gives_back_what_its_retry_took() -> None:
    budget = RetryBudget(RetryBudget.RETRY_COST)
    for _ in range(3):
        assert tried(Call(BUSY), RetryPolicy(), budget) == 2
    assert budget.spend()
    assert not budget.spend()


def test_a_success_without_a_retry_gives_back_one() -> None:
    budget = RetryBudget(RetryBudget.RETRY_COST)
    assert budget.spend()
    for number in range(RetryBudget.RETRY_COST):
        assert not budget.spend(), number
        tried(Call(), RetryPolicy(), budget)
    assert budget.spend()


def test_a_budget_is_never_more_than_its_capacity() -> None:
    budget = RetryBudget(RetryBudget.RETRY_COST)
    for _ in range(100):
        tried(Call(), RetryPolicy(), budget)
    assert budget.spend()
    assert not budget.spend()


@pytest.mark.parametrize(("base", "wait"), [(0.5, 0.5), (50, retry.LOOK_AGAIN_SECONDS)])
def test_who_asks_for_no_wait_gets_that_of_the_backoff_up_to_a_few_seconds(base: float, wait: float) -> None:
    call = Call(asking(0))
    tried(call, RetryPolicy(base_delay=base, max_delay=60))
    assert call.naps == [wait]


@pytest.mark.parametrize(("error", "longest"), [(LIMITED, 16), (BUSY, 4), (AWAY, 4), (asking(20), 20)])
def test_a_call_that_was_sent_back_looks_again_soon(error: RustyAgentError, longest: float) -> None:
    call = Call(*[error] * TURNS, in_line=True)
    assert tried(call, RetryPolicy(max_retries=2, base_delay=1, max_delay=60)) == TURNS + 1
    assert max(call.naps) == longest
    with pytest.raises(type(error)):
        tried(Call(*[error] * (TURNS + 1), in_line=True), RetryPolicy(max_retries=2, base_delay=1, max_delay=60))


def test_who_allows_more_retries_than_turns_gets_as_many_turns() -> None:
    assert tried(Call(*[BUSY] * (TURNS + 1), in_line=True), RetryPolicy(max_retries=TURNS + 1)) == TURNS + 2


def test_without_a_delay_there_may_be_thousands_of_retries() -> None:
    assert backoff_delay(5000, RetryPolicy(max_retries=5000, base_delay=0.0)) == 0.0


def test_no_retries_are_no_turns_either() -> None:
    with pytest.raises(RateLimitError):
        tried(Call(LIMITED, in_line=True), RetryPolicy(max_retries=0))


@pytest.mark.parametrize(
    ("of_a_run", "deadline", "attempts"), [(True, 1.0, 2), (False, 1.0, 1), (False, 3.0, 2), (False, None, 2)]
)
def test_only_a_call_of_a_run_waits_beyond_its_deadline(of_a_run: bool, deadline: float | None, attempts: int) -> None:
    call = Call(asking(2), in_line=True, of_a_run=of_a_run)
    call.deadline = deadline
    if attempts == 2:
        assert tried(call, RetryPolicy()) == 2
        return
    with pytest.raises(ServerError) as raised:
        tried(call, RetryPolicy())
    assert raised.value.attempts == 1


def test_an_error_that_was_followed_by_another_attempt_holds_no_frames() -> None:
    """A hook may keep it."""
    error = ServerError("busy", status_code=503)
    tried(Call(error), RetryPolicy())
    assert error.__traceback__ is None


@pytest.mark.parametrize(("wait", "attempts"), [(0.9, 2), (1.0, 1)])
def test_a_wait_that_ends_after_the_deadline_is_not_begun(wait: float, attempts: int) -> None:
    call = Call(asking(wait))
    call.deadline = 1.0
    if attempts == 2:
        assert tried(call, RetryPolicy()) == 2
        return
    with pytest.raises(ServerError):
        tried(call, RetryPolicy())
    assert call.naps == []


def test_what_a_run_was_stopped_with_tells_of_no_single_call() -> None:
    class Stopped(Call):
        async def turn(self, delay: float | None) -> None:
            await super().turn(delay)
            if len(self.naps) == 2:
                raise stopped

    stopped = RunStoppedError("enough")
    with pytest.raises(RunStoppedError):
        tried(Stopped(BUSY, BUSY), RetryPolicy())
    assert stopped.attempts == 1


def test_nor_does_it_where_a_changed_request_waited_for_its_turn_within_an_attempt() -> None:
    stopped, reports = RunStoppedError("enough"), list[AttemptReport]()
    with pytest.raises(RunStoppedError):
        tried(Call(BUSY, stopped), RetryPolicy(on_attempt=reports.append))
    assert (stopped.attempts, len(reports)) == (1, 1)


@pytest.mark.parametrize("errors", [(), (BUSY,), (BUSY, BUSY)])
def test_a_call_that_is_closed_before_its_turn_has_not_made_that_attempt(errors: tuple[RustyAgentError, ...]) -> None:
    class Closed(Call):
        turns = 0

        async def turn(self, delay: float | None) -> None:
            self.turns += 1
            if self.turns > len(errors):
                raise StreamInterruptedError("closed")

    reports: list[AttemptReport] = []
    with pytest.raises(StreamInterruptedError) as caught:
        tried(Closed(*errors), RetryPolicy(on_attempt=reports.append))
    assert caught.value.attempts == len(reports) == len(errors)

"""Which failures are retried, how often, and after what wait: the only door to backoff.

In: a call that makes one attempt at a time. Out: the last attempt's result or error. Never touched: what an attempt
is.
"""

from __future__ import annotations

import asyncio
import logging
import math
from itertools import islice
from time import monotonic
from typing import Protocol, TypeVar

import backoff

from ..errors import RateLimitError, RunStoppedError, RustyAgentError, StreamInterruptedError
from ..policy import AttemptReport, RetryPolicy

__all__ = ["RetryBudget", "retrying"]

T = TypeVar("T", covariant=True)

TURNS = 16
"""How often a call may be sent back to the end of the line."""

LOOK_AGAIN_SECONDS = 4.0
"""The longest wait before another attempt at an endpoint that is briefly away or overloaded."""

_WINDOW_SECONDS = 16.0  # 16 turns outlast even a window of a minute, and the last rows do not sleep for minutes
_MOST_DOUBLINGS = 64  # of the base delay: 0 could be doubled without end
_NO_WAIT_SECONDS = 0.1  # some endpoints ask for no wait again and again, which would use up all retries in a moment

logger = logging.getLogger("rusty_agent")


class Retriable(Protocol[T]):
    """A call that may take several attempts.

    Attributes:
        asked: When it began, by `time.monotonic`, as a loop's own clock may only be exact to milliseconds.
        deadline: When it must be over, by the loop's clock, or None.
        of_a_run: Whether it belongs to a run: its waits after it was sent back then extend its deadline.
    """

    asked: float
    deadline: float | None
    of_a_run: bool

    async def turn(self, delay: float | None) -> None:
        """Wait for `delay` seconds, if any, and then until the next attempt may be made."""

    async def make_attempt(self, number: int) -> T:
        """Make the attempt with this number; when it raises, it has already cleaned up."""

    def send_back(self, error: RustyAgentError) -> bool:
        """Go back to the end of its line, if the error requires no more than that; return whether it did.

        This costs no budget and none of the few retries, but one of `TURNS`.
        """

    def gives_up(self, error: RustyAgentError) -> bool:
        """Whether to make no further attempt, even if retries are left."""


async def retrying(call: Retriable[T], policy: RetryPolicy, budget: RetryBudget) -> T:
    """Make attempts until one succeeds, fails for good, or no more are allowed.

    Args:
        call: Makes the attempts.
        policy: How many retries, and what waits.
        budget: What the provider may spend on retries.

    Raises:
        RunStoppedError: The call's run was stopped before the next attempt.
        RustyAgentError: The last attempt's error; `attempts` says how many there were.
    """
    number = 0
    turns = 0  # the failures after which the call was sent back
    delay: float | None = None
    while True:
        try:
            await call.turn(delay)
        except StreamInterruptedError as error:  # the call was closed; a `RunStoppedError` is shared by all calls
            error.attempts = number
            raise
        number += 1
        try:
            result = await call.make_attempt(number)
        except RunStoppedError:  # while its changed request waited for another turn; shared by all the run's calls
            raise
        except RustyAgentError as error:
            error.attempts = number
            if call.gives_up(error):
                delay = None
            elif policy.max_retries and call.send_back(error):
                turns += 1
                delay = _turn_delay(error, turns, policy, call)
            else:
                delay = _retry_delay(error, number - turns, policy, call, budget)
            if delay is None:
                _tell_the_wait(error, policy)
            logger.debug("attempt %d failed, %s: %s", number, _plan(delay), error)
            _report(policy, call, number, error, delay)
            if delay is None:
                raise
            error.__traceback__ = None  # its frames hold the call, and the decoder or a hook may keep the error
        else:
            budget.earn(number)
            if policy.on_attempt is not None:
                _report(policy, call, number, None, None)
            return result


def _tell_the_wait(error: RustyAgentError, policy: RetryPolicy) -> None:
    """If the endpoint asks for too long a wait, add to the error's message that it was final for that reason."""
    asked = error.retry_after if error.retryable else None
    if asked is not None and asked > policy.max_retry_after:
        said = f"It asks to wait for {asked:,.0f} s, but max_retry_after is {policy.max_retry_after:,.0f} s."
        error._reword(f"{error.message} {said}")


def _too_late(delay: float, call: Retriable[T]) -> bool:
    """Whether the call's deadline comes before the end of the delay."""
    return call.deadline is not None and asyncio.get_running_loop().time() + delay >= call.deadline


def _report(policy: RetryPolicy, call: Retriable[T], number: int, error: Exception | None, delay: float | None) -> None:
    if policy.on_attempt is not None:
        policy.on_attempt(AttemptReport(number, error, delay, monotonic() - call.asked))


class RetryBudget:
    """A bucket of tokens for the retries of one provider, as in AWS's SDKs (standard mode) and gRPC (A6).

    A retry takes `RETRY_COST` tokens; a call that succeeds gives back the cost of one retry, or 1 if it needed none.
    While most calls succeed, the bucket stays full and has no effect; when most fail, it empties, and calls then fail
    at once instead of multiplying the load on an endpoint in trouble. Retries that the endpoint itself invited with
    `Retry-After` are free. Runs of many prompts spend none of it: with 256 rows in flight, a brief outage made more
    than half of them fail after one attempt.
    """

    RETRY_COST = 5

    def __init__(self, capacity: int | None) -> None:
        self._capacity = self._tokens = math.inf if capacity is None else capacity

    def spend(self) -> bool:
        """Take the cost of a retry; False if there is not enough left."""
        if self._tokens < self.RETRY_COST:
            return False
        self._tokens -= self.RETRY_COST
        return True

    def earn(self, attempts: int) -> None:
        """Give tokens back: a call has succeeded after this many attempts."""
        if self._tokens < self._capacity:
            self._tokens = min(self._capacity, self._tokens + (1 if attempts == 1 else self.RETRY_COST))


def _delay(error: RustyAgentError, number: int, allowed: int, policy: RetryPolicy) -> float | None:
    """Seconds to wait after the number-th failure, or None to give up."""
    if number > allowed or not error.retryable:
        return None
    asked = error.retry_after
    if asked is None:
        return backoff_delay(number, policy)
    if asked > policy.max_retry_after:
        return None
    if asked >= _NO_WAIT_SECONDS:
        return asked
    return max(asked, min(backoff_delay(number, policy), LOOK_AGAIN_SECONDS))


def _retry_delay(
    error: RustyAgentError, number: int, policy: RetryPolicy, call: Retriable[T], budget: RetryBudget
) -> float | None:
    """Seconds to wait before the number-th retry, which is paid for from the budget, or None to give up."""
    delay = _delay(error, number, policy.max_retries, policy)
    if delay is None or _too_late(delay, call):
        return None
    if error.retry_after is None and not budget.spend():
        logger.debug("the retry budget is used up: most calls are failing, and retries would add to the overload")
        return None
    return delay


def _turn_delay(error: RustyAgentError, turns: int, policy: RetryPolicy, call: Retriable[T]) -> float | None:
    """Seconds to wait after a call was sent back to the end of the line for the turns-th time, or None to give up."""
    delay = _delay(error, turns, max(TURNS, policy.max_retries), policy)
    if delay is not None and error.retry_after is None:
        delay = min(delay, _WINDOW_SECONDS if isinstance(error, RateLimitError) else LOOK_AGAIN_SECONDS)
    return None if delay is None or (not call.of_a_run and _too_late(delay, call)) else delay


def backoff_delay(number: int, policy: RetryPolicy) -> float:
    """A random wait after the number-th failure, in seconds: exponential with full jitter."""
    waits = backoff.expo(base=2, factor=policy.base_delay, max_value=policy.max_delay)
    ceiling = next(islice(waits, min(number, _MOST_DOUBLINGS), None))  # what backoff's generators yield first is None
    return float(backoff.full_jitter(ceiling))


def _plan(delay: float | None) -> str:
    return "giving up" if delay is None else f"next in {delay:.2f} s"

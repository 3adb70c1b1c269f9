"""One run over many inputs: bounded, counted, shown, stopped when it makes no sense to go on.

In: inputs, and a coroutine function that answers one. Out: an item for each. Never touched: what the inputs are.
`map`, `gather` and the batch runner stand on it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic
from types import TracebackType
from typing import Any, TypeAlias

from .checks import checked_count, is_number
from .errors import APIStatusError, RateLimitError, RunStoppedError, RustyAgentError
from .net.absence import OVERLOADED, tells_of_absence
from .net.caller import Caller
from .net.gather import Stop, spread, work_off
from .net.limits import Limiter
from .parameters import Concurrency, Inputs
from .policy import RetryPolicy
from .progress.price import Price
from .progress.show import ProgressOption, make_display
from .progress.tally import Tally
from .types import GenerateResult, MapItem

__all__ = ["HOPELESS_AFTER", "Answer", "Run", "StopRule", "checked_concurrency"]

Answer: TypeAlias = Callable[[Caller, Any], Awaitable[GenerateResult]]

HOPELESS_AFTER = 100
"""For `StopRule.hopeless_after`, where a wrong name of the model would fail thousands of rows one by one."""

_WINDOW = 100  # how many finished prompts an error rate is taken over
_LEAST = 20  # … and how many it takes at least
_AWAY_SECONDS = 600.0  # or a run would go on for days, and fail one prompt after another


def checked_concurrency(value: Any) -> Concurrency:
    """The value, if it is "auto" or a whole number of at least 1.

    Raises:
        ValueError: It is not.
    """
    if isinstance(value, str) and value != "auto":
        raise ValueError(f'concurrency must be "auto" or a whole number of at least 1, not {value!r}')
    return "auto" if value == "auto" else checked_count(value, "concurrency")


class StopRule:
    """When to stop: an endpoint that refuses everything is not asked ten thousand times.

    A wrong key (401, or 400 and 403 in such words), an account without credit (402) and a used-up quota stop a run at
    once; so does an overload (429, 503, 529) that asks to wait for longer than is allowed. An endpoint that cannot be
    reached, or answers nothing but that there is too much (429), stops it after ten minutes.

    Args:
        max_failures: Stop when more prompts than this have failed. None: any number may.
        max_error_rate: Stop when more than this share of the latest 100 (at least 20) have failed. None: any may.
        max_retry_after: The longest wait that is allowed, in seconds.

    Attributes:
        hopeless_after: Stop when so many have failed and none was answered: the model's name is wrong, or the host.
            None, the default: never.
        done: How many were answered.
        failed: How many have failed.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        max_failures: int | None = None,
        max_error_rate: float | None = None,
        max_retry_after: float = RetryPolicy().max_retry_after,
    ) -> None:
        if max_error_rate is not None and not (is_number(max_error_rate) and 0 <= max_error_rate < 1):
            raise ValueError(f"max_error_rate must be a share from 0 to below 1 or None, not {max_error_rate!r}")
        self._max_failures = checked_count(max_failures, "max_failures", 0, optional=True)
        self._max_error_rate = max_error_rate
        self._max_retry_after = max_retry_after
        self._latest: deque[bool] = deque(maxlen=_WINDOW)  # whether each has failed
        self._away_since: float | None = None  # since when all have failed because they were not served
        self._last_away = -math.inf  # when one did so last
        self.hopeless_after: int | None = None
        self.done = 0
        self.failed = 0

    def succeeded(self) -> None:
        """Count one that was answered."""
        self._latest.append(False)
        self._away_since = None
        self.done += 1

    def judge(self, error: Exception, began: float = -math.inf) -> RunStoppedError | None:
        """Count one that has failed.

        Args:
            error: Why.
            began: When it was begun, by `time.monotonic`: where prompts are rare, nobody may have asked before.

        Returns:
            The error to stop the run with, if that is called for.
        """
        self._latest.append(True)
        self.failed += 1
        if isinstance(error, APIStatusError):
            if error.spent:
                return self.error("quota", f"the account has nothing left to spend. {error}")
            if error.key_refused:
                return self.error("authentication", f"the endpoint refuses the key. {error}")
            asked = error.retry_after if error.status_code in OVERLOADED else None
            if asked is not None and asked > self._max_retry_after:
                return self.error("quota", f"the endpoint asks for too long a wait. {error}")
        if self._serves_nobody(error, began):
            minutes = f"for {_AWAY_SECONDS / 60:.0f} min. {error}"
            if isinstance(error, RateLimitError):
                return self.error("quota", f"the endpoint has turned all requests away {minutes}")
            return self.error("failures", f"the endpoint could not be reached {minutes}")
        if self._max_failures is not None and self.failed > self._max_failures:
            said = f"more than {self._max_failures} failed (max_failures), the last with"
            return self.error("failures", f"{said}: {error}")
        if self.hopeless_after is not None and not self.done and self.failed >= self.hopeless_after:
            said = f"none of the first {self.failed} was answered. Check model and address; the last failed with"
            return self.error("failures", f"{said}: {error}")
        share = sum(self._latest) / len(self._latest)
        if self._max_error_rate is not None and len(self._latest) >= _LEAST and share > self._max_error_rate:
            said = f"{share:.0%} of the latest {len(self._latest)} failed (max_error_rate), the last with: {error}"
            return self.error("error_rate", said)
        return None

    def _serves_nobody(self, error: Exception, began: float) -> bool:
        """Whether the endpoint has been away for too long, with this error, or is beyond a limit of hours or days: who
        does not say how long to wait would be asked for days. A request too large for any minute tells nothing of it.
        """
        now = monotonic()
        told = (isinstance(error, RateLimitError) and error.retryable) or tells_of_absence(error)
        if not told:
            self._away_since = None if told is False else self._away_since
            return False
        if self._away_since is None:
            self._away_since = now
        else:
            self._away_since += max(0.0, began - self._last_away)  # nobody has asked meanwhile
        self._last_away = now
        return now - self._away_since > _AWAY_SECONDS

    def error(self, reason: str, said: str) -> RunStoppedError:
        """The error of a run that is stopped now."""
        return RunStoppedError(f"The run was stopped: {said}", reason=reason, done=self.done, failed=self.failed)


class Run:
    """One run.

    Args:
        answer: Answers one input, on behalf of the caller given.
        limiter: Gives the door that its calls go through, once there is a running loop.
        concurrency: How many inputs are worked on at once; `"auto"`: as many as the limiter's ceiling. An endpoint
            that turns requests away gets fewer at once in both cases; `"auto"` begins with few, too.
        rule: When to stop.
        price: USD per million tokens of prompts and answers, or None.
        total: How many inputs there are, or None while unknown.
        skipped: How many more an earlier run has finished.
        streamed: The answers are streamed underneath, so their first token has a time of its own.
        drain: When stopped, take the inputs that are left all the same, and give each the error that says so.
        progress: How to show it, see `make_display`.

    Attributes:
        tally: What is counted; may be shown.
        stopped: Why the run was stopped, or None.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        answer: Answer,
        limiter: Callable[[], Limiter],
        *,
        concurrency: Concurrency = 64,
        rule: StopRule | None = None,
        price: Price | None = None,
        total: int | None = None,
        skipped: int = 0,
        streamed: bool = False,
        drain: bool = False,
        progress: ProgressOption = False,
    ) -> None:
        self._answer = answer
        self._find_limiter = limiter
        self._limiter: Limiter | None = None
        self._concurrency = checked_concurrency(concurrency)
        self._rule = rule or StopRule()
        self._streamed = streamed
        self._drain = drain
        self._caller = Caller()
        self._stop = Stop()
        self._open = AsyncExitStack()
        self.tally = Tally(total=total, skipped=skipped, price=price, gauges=self._gauges)
        self._display = make_display(progress, self.tally, on_error=self._stop.request)
        self.stopped: RunStoppedError | None = None

    def items(self, inputs: Inputs, *, ordered: bool) -> AsyncGenerator[MapItem, None]:
        """Work the inputs off; yield an item for each. Leaving it early cancels what is under way. Once only.

        Raises:
            RunStoppedError: After the items of all that was done: the run was stopped before its end.
            Exception: What taking the next input raised, or the progress function: then after the items of all that
                was under way.
        """
        return spread(inputs, self._work, concurrency=self, ordered=ordered, stop=self._stop)

    async def work_off(self, inputs: Inputs) -> None:
        """Work the inputs off and keep nothing of what comes of it; otherwise as `items`."""
        async with self as concurrency:
            await work_off(inputs, self._work, concurrency=concurrency, stop=self._stop)

    async def __aenter__(self) -> int:
        """Begin the time in which inputs are worked on; tells how many may be at once.

        No generator: a loop that shuts down closes all generators at the same time, this one before those that use it.
        """
        limiter = self._limiter = self._find_limiter()
        fixed = None if self._concurrency == "auto" else self._concurrency
        async with AsyncExitStack() as stack:
            stack.enter_context(limiter.adapting(fixed))
            await stack.enter_async_context(self._display)
            self._open = stack.pop_all()
        return limiter.ceiling if fixed is None else fixed

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._open.__aexit__(kind, error, traceback)
        if self.stopped is not None:
            self.stopped.done, self.stopped.failed = self._rule.done, self._rule.failed
            if error is None and not self._drain:
                raise self.stopped

    def _gauges(self) -> tuple[int, int | None, int]:
        limiter = self._limiter
        if limiter is None:
            return 0, None, 0
        limit = limiter.limit
        if isinstance(self._concurrency, int):
            limit = self._concurrency if limit is None else min(limit, self._concurrency)
        return self._caller.in_flight, limit, self._caller.rate_limited

    def stop(self, error: RunStoppedError) -> None:
        """Send nothing more. What was sent already is waited for."""
        if self.stopped is None:
            self.stopped = error
            if self._limiter is not None:
                self._limiter.stop(self._caller, error)
            if not self._drain:
                self._stop.request()

    async def _work(self, given: Any) -> GenerateResult:
        if self.stopped is not None:
            raise self.stopped.with_traceback(None)  # or each prompt that is left would make it longer
        began = monotonic()
        try:
            result = await self._answer(self._caller, given)
        except RunStoppedError:
            raise
        except Exception as error:
            attempts = error.attempts if isinstance(error, RustyAgentError) else 0
            self.tally.failed(error, latency=monotonic() - began if attempts else None, attempts=attempts)
            stopped = self._rule.judge(error, began)
            if stopped is not None:
                stopped.__cause__ = error
                self.stop(stopped)
            raise
        self._rule.succeeded()
        self.tally.succeeded(
            latency=result.duration or 0.0,
            ttft=result.time_to_first_token if self._streamed and "choices" not in result.raw else None,  # else: whole
            usage=result.usage,
            attempts=result.attempts,
        )
        return result

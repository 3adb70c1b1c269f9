"""One run over many inputs: bounded, counted, shown, stopped when it makes no sense to go on.

In: inputs, and a coroutine function that answers one. Out: an item for each. Never touched: what the inputs are.
`map`, `gather` and the batch runner stand on it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, TypeAlias

from .checks import checked_count
from .errors import RunStoppedError, RustyAgentError
from .net.caller import Caller
from .net.gather import Stop, spread, work_off
from .net.limits.limiter import Limiter
from .parameters import Concurrency, Inputs
from .progress.price import Price
from .progress.show import Display, ProgressOption
from .progress.tally import Tally
from .stop_rule import StopRule
from .types import GenerateResult, MapItem
from .wire.words import printable

__all__ = ["Answer", "Run"]

_MAX_TROUBLE = 80  # characters of an error that progress shows

Answer: TypeAlias = Callable[[Caller, Any], Awaitable[GenerateResult]]


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
        streamed: The answers are streamed underneath, so their first token has a time of its own.
        drain: When stopped, take the inputs that are left all the same, and give each the error that says so.
        progress: How to show it, see `Display`.
        closed: Tells whether nothing can be sent any more.

    Attributes:
        tally: What is counted; may be shown.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        answer: Answer,
        limiter: Callable[[], Limiter],
        *,
        concurrency: Concurrency,
        rule: StopRule,
        price: Price | None = None,
        total: int | None = None,
        streamed: bool = False,
        drain: bool = False,
        progress: ProgressOption = False,
        closed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._answer = answer
        self._find_limiter = limiter
        self._limiter: Limiter | None = None
        if isinstance(concurrency, str) and concurrency != "auto":
            raise ValueError(f'concurrency must be "auto" or a whole number of at least 1, not {concurrency!r}')
        self._fixed: int | None = None if concurrency == "auto" else checked_count(concurrency, "concurrency")
        self._at_once = 0  # known when it begins
        self._rule = rule
        self._streamed = streamed
        self._drain = drain
        self._closed = closed
        self._caller = Caller(self._gives_up)
        self._trouble: str | None = None  # how an attempt has failed, since a prompt was answered
        self._stop = Stop()
        self._open = AsyncExitStack()
        self.tally = Tally(total=total, price=price, gauges=self._gauges, reason=self._reason)
        self._display = Display(progress, self.tally, on_error=self._stop.request)

    @property
    def stopped(self) -> RunStoppedError | None:
        """Why the run was stopped, or None."""
        return self._caller.stopped

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
            await work_off(inputs, self._work, concurrency=concurrency, stop=self._stop, enough=self._enough)

    def _enough(self) -> bool:
        """Whether further inputs, which may be megabytes each, would only wait."""
        return self._limiter is not None and self._limiter.crowded(self._caller)

    async def __aenter__(self) -> int:
        """Begin the time in which inputs are worked on; tells how many may be at once.

        No generator: a loop that shuts down closes all generators at the same time, this one before those that use it.
        """
        self.tally.begin()
        limiter = self._limiter = self._find_limiter()
        self._at_once = limiter.ceiling if self._fixed is None else self._fixed
        async with AsyncExitStack() as stack:
            stack.enter_context(limiter.adapting(self._fixed))
            await stack.enter_async_context(self._display)
            self._open = stack.pop_all()
        return self._at_once

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._open.__aexit__(kind, error, traceback)
        finally:
            del self._answer, self._find_limiter, self._closed  # they hold the provider, and a run holds itself
        if self.stopped is not None:
            self.stopped.done, self.stopped.failed = self._rule.done, self._rule.failed
            if error is None and not self._drain:
                raise self.stopped

    def _gauges(self) -> tuple[int, int | None, int]:
        limiter = self._limiter
        if limiter is None:
            return 0, None, 0
        limit, most = limiter.limit, self._at_once
        return self._caller.in_flight, most if limit is None else min(limit, most), self._caller.rate_limited

    def _reason(self) -> str | None:
        """Why nothing moves, as far as that is known."""
        limiter, caller = self._limiter, self._caller
        if limiter is None or not (caller.in_flight or limiter.waits(caller)):
            return None  # whoever gives the inputs, or takes what comes of them, takes their time
        held = limiter.held(caller)
        if held is None and self._trouble is not None:
            said, _, _ = self._trouble.partition(". ")  # what to do is told at the end
            return f"last error: {printable(said, _MAX_TROUBLE)}"
        return held

    def _gives_up(self, error: RustyAgentError, began: float) -> bool:
        self._trouble = str(error)
        return self._rule.serves_nobody(error, began)

    def stop(self, error: RunStoppedError) -> None:
        """Send nothing more. What was sent already is waited for."""
        if self._limiter is None:
            self._caller.stop(error)
        else:
            self._limiter.stop(self._caller, error)
        if not self._drain:
            self._stop.request()

    async def _work(self, given: Any) -> GenerateResult:
        self._caller.check()
        number = self._rule.begin()
        try:
            result = await self._answer(self._caller, given)
        except RunStoppedError:
            raise
        except Exception as error:
            self.tally.failed(error)
            stopped = self._rule.judge(error, number)
            if self._closed():
                stopped = self._rule.error("interrupt", "its provider was closed.")
            if stopped is not None:
                stopped.__cause__ = error
                self.stop(stopped)
            raise
        self._trouble = None
        self._rule.succeeded(number)
        self.tally.succeeded(
            latency=result.duration or 0.0,
            ttft=result.time_to_first_token if self._streamed and "choices" not in result.raw else None,  # else: whole
            usage=result.usage,
            attempts=result.attempts,
        )
        return result

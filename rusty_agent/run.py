"""One run over many inputs: bounded, counted, shown, and stopped when going on makes no sense.

In: inputs, and a coroutine function that answers one. Out: an item for each. Never touched: what the inputs are.
`map`, `gather` and the batch runner are built on it.
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
        answer: Answers one input, on behalf of the given caller.
        limiter: Returns the limiter that the calls go through; called once there is a running loop.
        concurrency: How many inputs are worked on at once; `"auto"`: as many as the limiter's ceiling. In both cases
            fewer requests are under way at an endpoint that refuses some; `"auto"` also begins with few.
        rule: Decides when to stop.
        price: USD per million tokens of prompts and answers, or None.
        total: How many inputs there are, or None while unknown.
        streamed: Whether answers are streamed underneath, so that the time to the first token can be counted.
        drain: When stopped, still take the inputs that are left, and give each the error that stopped the run.
        progress: How to show progress, see `Display`.
        closed: Returns whether the provider is closed, so that nothing more can be sent.

    Attributes:
        tally: The counts, which may be shown.

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
        self._at_once = 0  # set when the run begins
        self._rule = rule
        self._streamed = streamed
        self._drain = drain
        self._closed = closed
        self._caller = Caller(self._gives_up)
        self._trouble: str | None = None  # the latest failed attempt's error; None after an answer
        self._stop = Stop()
        self._open = AsyncExitStack()
        self.tally = Tally(total=total, price=price, gauges=self._gauges, reason=self._reason)
        self._display = Display(progress, self.tally, on_error=self._stop.request)

    @property
    def stopped(self) -> RunStoppedError | None:
        """Why the run was stopped, or None."""
        return self._caller.stopped

    def items(self, inputs: Inputs, *, ordered: bool) -> AsyncGenerator[MapItem, None]:
        """Work through the inputs, and yield an item for each. Leaving early cancels the calls under way. Once only.

        Raises:
            RunStoppedError: The run was stopped before its end. The items of all that was done come first.
            Exception: Raised by the iterator of inputs or by the progress function. The items of all calls under way
                come first.
        """
        return spread(inputs, self._work, concurrency=self, ordered=ordered, stop=self._stop)

    async def work_off(self, inputs: Inputs) -> None:
        """Work through the inputs as `items` does, but drop the results."""
        async with self as concurrency:
            await work_off(inputs, self._work, concurrency=concurrency, stop=self._stop, enough=self._enough)

    def _enough(self) -> bool:
        """Whether further inputs, which may be megabytes each, would only wait in line."""
        return self._limiter is not None and self._limiter.crowded(self._caller)

    async def __aenter__(self) -> int:
        """Begin the run, and return how many inputs may be worked on at once.

        This is not a generator: a loop that shuts down closes all generators at the same time, and would close this one
        before those that use it.
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
            del self._answer, self._find_limiter, self._closed  # or the run, a reference cycle, would keep the provider
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
        """Why nothing finishes, as far as is known."""
        limiter, caller = self._limiter, self._caller
        if limiter is None or not (caller.in_flight or limiter.waits(caller)):
            return None  # it is the source of the inputs, or the consumer of the items, that is slow
        held = limiter.held(caller)
        if held is None and self._trouble is not None:
            said, _, _ = self._trouble.partition(". ")  # the advice comes after the first sentence
            return f"last error: {printable(said, _MAX_TROUBLE)}"
        return held

    def _gives_up(self, error: RustyAgentError, began: float) -> bool:
        self._trouble = str(error)
        return self._rule.gives_up(error, began)

    def stop(self, error: RunStoppedError) -> None:
        """Send nothing more, but wait for what was sent already."""
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

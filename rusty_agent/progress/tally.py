"""Finished calls of a run → the progress of the run.

In: the outcome of each call, as numbers and errors. Out: `Progress` at any moment, and samples over time for plots.
Never touched: prompts and answers, the loop, the network.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from attrs import define

from ..errors import APIStatusError, RustyAgentError
from ..types import Usage
from .histogram import Histogram
from .price import Price

__all__ = ["SAMPLE_SECONDS", "Progress", "Sample", "Tally"]

_RECENT_SECONDS = 10.0  # the time that rates are measured over
_FEW = 10  # with fewer rows in that time, the time left is estimated from the whole run
_MAX_SAMPLES = 600
SAMPLE_SECONDS = 1.0
_STILL_SECONDS = 5.0  # after this time without a finished row, `stalled` says why
_SLACK = 0.1  # seconds by which a sample may come early: timers are never exact, and skipping one would leave a gap


@define(frozen=True)
class Progress:
    """The progress of a run at one moment. Rows of earlier runs count only in `skipped`, `failed_earlier` and `total`.

    Attributes:
        done: Rows that were answered.
        failed: Rows that failed, after all their attempts.
        skipped: Rows that earlier runs have answered.
        total: All rows, including those of earlier runs, or None while unknown.
        in_flight: Calls under way.
        limit: How many calls may be under way now, or None without a limit.
        retries: Attempts beyond each row's first.
        rate_limited: Answers with status 429.
        elapsed: Seconds since the run began.
        requests_per_second: Finished rows per second over the last 10 s; once the run is over, over all of it. The
            same goes for the other rates.
        prompt_tokens: Tokens of the prompts, as far as the endpoint reported them.
        completion_tokens: Tokens of the answers, as far as the endpoint reported them.
        prompt_tokens_per_second: Rate of the prompts' tokens.
        completion_tokens_per_second: Rate of the answers' tokens.
        latency_p50: Median time from a row's call to the end of its answer, in seconds, or None before the first.
        latency_p99: 99th percentile of the same.
        ttft_p50: Median time to the first token, in seconds, or None if nothing was streamed.
        ttft_p99: 99th percentile of the same.
        cost: USD so far, or None without a price or before the endpoint has reported any tokens.
        projected_cost: USD for all rows of this run, at the mean cost per finished row. None if `cost` is None, or
            while the total is unknown.
        eta: Seconds left. None while the total is unknown or nothing has finished, or if the run ended before its last
            row.
        failed_earlier: Rows that failed for good in earlier runs and are not tried again.
        stalled: For how long no row has finished, and why, in words. None if one finished within the last 5 s, and
            once the run is over.
    """

    done: int
    failed: int
    skipped: int
    total: int | None
    in_flight: int
    limit: int | None
    retries: int
    rate_limited: int
    elapsed: float
    requests_per_second: float
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_per_second: float
    completion_tokens_per_second: float
    latency_p50: float | None
    latency_p99: float | None
    ttft_p50: float | None
    ttft_p99: float | None
    cost: float | None
    projected_cost: float | None
    eta: float | None
    failed_earlier: int = 0
    stalled: str | None = None

    @property
    def finished(self) -> int:
        """Rows that this run has finished: done and failed."""
        return self.done + self.failed


@define(eq=False, repr=False)
class Sample:
    """The counts of one moment.

    Attributes:
        elapsed: Seconds since the run began.
        finished: Rows finished so far.
        failed: Rows failed so far.
        in_flight: Calls under way.
        limit: How many calls might be under way, or None.
        prompt_tokens: Tokens of the prompts so far.
        completion_tokens: Tokens of the answers so far.
    """

    elapsed: float
    finished: int
    failed: int
    in_flight: int
    limit: int | None
    prompt_tokens: int
    completion_tokens: int


class Tally:
    """Counts a run. Its clock starts when it is made, and anew with `begin`.

    Attributes:
        total: All rows, including those of earlier runs, or None while unknown. This and the next two may be set at any
            time.
        skipped: Rows that earlier runs have answered.
        failed_earlier: Rows that failed for good in earlier runs and are not tried again.
        price: The model's prices, or None.
        failures: How many rows failed, by kind of error: `"APITimeoutError"`, `"RateLimitError 429"`.
        failure_messages: The latest message of each kind.
        latency: Seconds from the call to the end of its answer, of the rows that were answered.
        failure_latency: The same of the rows that failed.
        ttft: Seconds to the first token, of streamed answers.
        time_per_token: Seconds per token after the first, of streamed answers.
        series: Samples over time, at most 600: when full, every second one is dropped and the interval doubles.
    """

    def __init__(
        self,
        *,
        total: int | None = None,
        price: Price | None = None,
        gauges: Callable[[], tuple[int, int | None, int]] = lambda: (0, None, 0),
        reason: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            total: All rows, including those of earlier runs, or None while unknown.
            price: The model's prices, or None.
            gauges: Returns how many calls are under way, how many may be, and how many answers had status 429 so far.
            reason: Returns why no row finishes, or None; called only while none does.
            clock: Returns monotonic seconds.
        """
        self.total = total
        self.skipped = 0
        self.failed_earlier = 0
        self.price = price
        self.failures: Counter[str] = Counter()
        self.failure_messages: dict[str, str] = {}
        self.latency = Histogram()
        self.failure_latency = Histogram()
        self.ttft = Histogram()
        self.time_per_token = Histogram()
        start = Sample(0.0, 0, 0, 0, None, 0, 0)
        self.series = [start]
        self._interval = SAMPLE_SECONDS  # seconds between two samples of the series
        self._recent = deque([start])  # the samples of the last 10 s, and the one before them
        self._gauges = gauges
        self._reason = reason
        self._clock = clock
        self._started = self._finished_at = clock()  # `_finished_at`: when the latest row finished
        self._ended: float | None = None
        self._done = self._failed = self._retries = 0
        self._prompt_tokens = self._completion_tokens = 0

    def begin(self) -> None:
        """Restart the clock: the run begins now, perhaps long after this was made."""
        self._started = self._finished_at = self._clock()

    def succeeded(self, *, latency: float, ttft: float | None, usage: Usage | None, attempts: int) -> None:
        """Count a row that was answered.

        Args:
            latency: Seconds from the call to the end of the answer.
            ttft: Seconds from the call to the first token, or None if the answer was not streamed.
            usage: Its tokens, or None if the endpoint did not report them.
            attempts: How many attempts were made, at least 1.
        """
        self._done += 1
        self._finished_at = self._clock()
        self._retries += attempts - 1
        self.latency.add(latency)
        if ttft is not None:
            self.ttft.add(ttft)
        if usage is not None:
            self._prompt_tokens += usage.prompt_tokens
            tokens = usage.completion_tokens
            self._completion_tokens += tokens
            if ttft is not None and tokens > 1:
                self.time_per_token.add((latency - ttft) / (tokens - 1))

    def failed(self, error: Exception) -> None:
        """Count a row that failed for good, and the tokens that its error reports: they were paid for, too."""
        self._failed += 1
        self._finished_at = self._clock()
        kind = type(error).__name__
        if isinstance(error, APIStatusError):
            kind = f"{kind} {error.status_code}"
        self.failures[kind] += 1
        self.failure_messages[kind] = str(error)
        if not isinstance(error, RustyAgentError):  # it has neither attempts nor tokens
            return
        self._retries += max(0, error.attempts - 1)
        if error.duration is not None:
            self.failure_latency.add(error.duration)
        if error.usage is not None:
            self._prompt_tokens += error.usage.prompt_tokens
            self._completion_tokens += error.usage.completion_tokens

    @property
    def elapsed(self) -> float:
        """Seconds since the run began; once it is over, how long it took."""
        return (self._clock() if self._ended is None else self._ended) - self._started

    @property
    def cost(self) -> float | None:
        """USD so far, or None without a price or before the endpoint has reported any tokens."""
        if self.price is None or not (self._prompt_tokens or self._completion_tokens):
            return None
        return self.price.cost(self._prompt_tokens, self._completion_tokens)

    def sample(self) -> None:
        """Record the counts. Call it about once a second; a call that comes too early is ignored."""
        now = self._now()
        if now.elapsed - self._recent[-1].elapsed < SAMPLE_SECONDS - _SLACK:
            return
        self._recent.append(now)
        while self._recent[1].elapsed <= now.elapsed - _RECENT_SECONDS:
            self._recent.popleft()
        if now.elapsed - self.series[-1].elapsed >= self._interval - _SLACK:
            self._keep(now)

    def close(self) -> None:
        """Stop the clock and take the last sample, now that the run is over. A second call does nothing."""
        if self._ended is None:
            self._ended = self._clock()
            self._recent = deque([self.series[0]])
            self._keep(self._now())

    def snapshot(self) -> Progress:
        """The progress of the run now; takes about 0.1 ms."""
        elapsed = self.elapsed
        in_flight, limit, rate_limited = self._gauges()
        finished = self._done + self._failed
        then = self._recent[0]
        span = max(elapsed - then.elapsed, 1e-9)  # a clock may stand still for a moment
        passed = self.skipped + self.failed_earlier + finished
        left = None if self.total is None else max(0, self.total - passed)
        cost = self.cost
        return Progress(
            done=self._done,
            failed=self._failed,
            skipped=self.skipped,
            total=self.total,
            in_flight=in_flight,
            limit=limit,
            retries=self._retries,
            rate_limited=rate_limited,
            elapsed=elapsed,
            requests_per_second=(finished - then.finished) / span,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            prompt_tokens_per_second=(self._prompt_tokens - then.prompt_tokens) / span,
            completion_tokens_per_second=(self._completion_tokens - then.completion_tokens) / span,
            latency_p50=self.latency.percentile(50),
            latency_p99=self.latency.percentile(99),
            ttft_p50=self.ttft.percentile(50),
            ttft_p99=self.ttft.percentile(99),
            cost=cost,
            projected_cost=None if cost is None or left is None else cost + cost / finished * left,
            eta=self._eta(elapsed, finished, left),
            failed_earlier=self.failed_earlier,
            stalled=self._stalled(),
        )

    def _stalled(self) -> str | None:
        still = self._clock() - self._finished_at
        if self._ended is not None or still < _STILL_SECONDS:
            return None
        reason = self._reason()
        return f"nothing for {still:,.0f} s" + (f" ({reason})" if reason else "")

    def _eta(self, elapsed: float, finished: int, left: int | None) -> float | None:
        if left is None or not finished or (left and self._ended is not None):
            return None
        recent = self._recent[0]
        then = recent if finished - recent.finished >= _FEW else self.series[0]
        eta = left * (elapsed - then.elapsed) / (finished - then.finished)
        return max(eta, self._started + elapsed - self._finished_at) if left else 0.0  # the last may be the slowest

    def _now(self) -> Sample:
        in_flight, limit, _ = self._gauges()
        finished, tokens = self._done + self._failed, (self._prompt_tokens, self._completion_tokens)
        return Sample(self.elapsed, finished, self._failed, in_flight, limit, *tokens)

    def _keep(self, now: Sample) -> None:
        if len(self.series) == _MAX_SAMPLES:
            del self.series[1::2]
            self._interval *= 2
        self.series.append(now)

"""Decides who may send now: one door for all calls of a provider on one loop.

In: calls that want to send, and how their attempts ended. Out: permits, one for each attempt. Never touched: requests
and answers themselves, whether to retry.

Five things can keep the door closed: a gate that an endpoint's `Retry-After` closes for everybody, a pace for requests
and one for tokens (`rates.py`), the number in flight, and steps that spread what the adaptive limit allows over a round
trip. Callers wait in `line.py`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attrs import define

from ...errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    RateLimitError,
    RunStoppedError,
    RustyAgentError,
)
from ...policy import Limits
from ...types import Usage
from ...verdict import OVERLOADED
from ..caller import Caller
from .absence import Absence
from .adapt import AdaptiveLimit
from .line import Line
from .pace import Pace
from .rates import Rates

__all__ = ["CEILING", "Limiter", "Permit"]

CEILING = 256
"""How many attempts may be in flight at most if the user has set no limit."""

_MOST_HELD_SECONDS = 2.0  # the longest round trip for which a refused attempt keeps its place
_MOST_RESTING_SECONDS = 16.0  # the longest that it keeps it if even one at a time is too many
_SMOOTHING = 0.1
_STRAINED = 1 / 3  # of the time that an answer may take: the limit at most doubles within a round trip
# What the adaptive limit allows is not sent in one burst, but at little more than the rate of one limit per round trip
# (TCP paces likewise): all of a burst is on its way before the first refusal arrives, and if answers are long and the
# endpoint limits requests per second, each burst is refused however few are in flight. 1.2 would do for slow start; the
# closer to 1, the longer a place that has become free stays empty.
_STEPS_FACTOR = 1.5
_STEPS_SECONDS = 0.01
_FLUKE = 4.0  # if an answer is this many times faster than the mean, one slow answer may have raised the mean


@define(eq=False, repr=False)
class Permit:
    """The right to make one attempt. It must be given back by `succeeded`, `failed` or `release`; the first counts."""

    _limiter: Limiter
    _caller: Caller
    _epoch: int
    _sent: float
    _size: int
    _tokens: float  # spent for it
    _out: bool = True

    def succeeded(self, headers: Mapping[str, str], usage: Usage | None, patience: float | None = None) -> None:
        """Report that the attempt has brought its answer.

        Args:
            headers: The answer's.
            usage: Its tokens, or None.
            patience: How long it might have taken, in seconds, or None if unknown.
        """
        if self._hand_in():
            self._limiter._succeeded(self, headers, usage, patience)

    def failed(self, error: RustyAgentError, max_retry_after: float = math.inf) -> None:
        """Report that the attempt has failed.

        Args:
            error: Why.
            max_retry_after: The longest wait, in seconds, that the endpoint may impose on everybody. If it asks for
                more, nobody waits: each call ends with the error.
        """
        if self._hand_in():
            self._limiter._failed(self, error, max_retry_after)

    def release(self) -> None:
        """Give the permit back without saying how the attempt ended."""
        if self._hand_in():
            self._limiter._came_back()

    def _hand_in(self) -> bool:
        """Take the permit back; return whether it was still out."""
        was_out, self._out = self._out, False
        self._caller.in_flight -= was_out
        return was_out


class Limiter:
    """The door of one provider on one event loop.

    Attributes:
        ceiling: The most that the adaptive limit may rise to.
        in_flight: How many permits are out.
    """

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.ceiling = limits.in_flight or CEILING
        self._limits = limits
        self._loop = loop
        self._rates = Rates(limits)
        self._steps = Pace(tolerance=_STEPS_SECONDS)
        self._opens = -math.inf
        self._line = Line(self, loop)
        self._quickest = math.inf  # seconds of the quickest answer
        self._latency = 0.0  # a running mean, in seconds
        self._adaptive = AdaptiveLimit(self.ceiling)
        self._absence = Absence()
        self._adapting: list[int | None] = []  # for each run, how many attempts at once it asks for; None: unspecified
        self._wanted = 0  # how many attempts at once all runs together can use
        self.in_flight = 0

    @property
    def limit(self) -> int | None:
        """How many attempts may be in flight now, or None for any number."""
        fixed = self._limits.in_flight
        if not self._adapting:
            return fixed
        return self._adaptive.limit if fixed is None else min(self._adaptive.limit, fixed)

    @contextmanager
    def adapting(self, start: int | None = None) -> Iterator[None]:
        """Within the context, find the limit by trying; what was found is kept for the next time.

        Args:
            start: How many to begin with, unless they are known to be too many. Default: few.
        """
        self._adapting.append(start)
        wanted = self.ceiling if start is None else start
        self._wanted += wanted
        if start is not None:
            self._adaptive.begin_with(start, ceiling=sum(filter(None, self._adapting)))
        if not self._adaptive.probing and self._latency > _STEPS_SECONDS:
            self._spread(self._latency)  # no burst: some attempts were refused before
        try:
            yield
        finally:
            self._adapting.remove(start)
            self._wanted -= wanted
            if not self._adapting:
                self._steps.change(math.inf, self._loop.time())
                self._adaptive.end()
            self._line.look()

    def try_acquire(self, caller: Caller, size: int) -> Permit | None:
        """A permit if the door is open and nobody waits, else None; otherwise like `acquire`."""
        caller.check()
        now = self._loop.time()
        if self._line.waiting or self.opens_in(now) > 0:
            return None
        return self.admit(caller, size, now)

    async def acquire(self, caller: Caller, size: int, *, again: bool = False) -> Permit:
        """Wait for a permit.

        Args:
            caller: Who waits.
            size: The bytes of the request's body, from which its tokens are estimated.
            again: The request has failed before. If the endpoint has never answered, it goes in front of the caller's
                others: behind them, the first error would only come when nearly all have failed as often. Else it goes
                behind them: by then, the endpoint may have recovered.

        Raises:
            RunStoppedError: The caller was stopped meanwhile.
        """
        caller.check()
        return await self._line.wait(caller, size, again=again and not self._absence.ever_answered)

    def stop(self, caller: Caller, error: RunStoppedError) -> None:
        """Turn away all requests of this caller: those that wait, also between two attempts, and those to come."""
        caller.stop(error)
        self._line.turn_away(caller, error)

    def will_pass(self, error: RustyAgentError) -> bool:
        """Whether the latest failure, with this error, will pass if one waits."""
        return self._absence.will_pass(error, self._loop.time())

    # The door.

    def opens_in(self, now: float) -> float:
        """Seconds until the next may go in; 0 or less: now; infinite: not before a permit is given back."""
        fixed = self._limits.in_flight
        if fixed is not None and self.in_flight >= fixed:
            return math.inf
        if self._adapting and self.in_flight >= self._adaptive.limit:
            return math.inf
        opens = self._opens  # no `max`: it takes five times as long, and this runs for each request
        rates = self._rates
        if rates.requests.opens > opens:
            opens = rates.requests.opens
        if rates.tokens.opens > opens:
            opens = rates.tokens.opens
        if self._steps.opens > opens:
            opens = self._steps.opens
        return opens - now

    def admit(self, caller: Caller, size: int, now: float) -> Permit:
        """Let one in, and spend what it will cost."""
        tokens = self._rates.spend(size, now)
        if self._steps.rate != math.inf:
            self._steps.spend(1, now)
        self.in_flight += 1
        caller.in_flight += 1
        return Permit(self, caller, self._adaptive.epoch, now, size, tokens)

    def waits(self, caller: Caller) -> bool:
        """Whether a call of this caller waits for its turn, or between two attempts."""
        return caller in self._line.waiting or bool(caller.asleep)

    def crowded(self, caller: Caller) -> bool:
        """Whether as many calls of this caller wait for their turn as may be in flight: more would only wait too."""
        limit = self.limit
        return limit is not None and len(self._line.waiting.get(caller, ())) >= limit

    def held(self, caller: Caller) -> str | None:
        """Why this caller has to wait, and for how long; None if it does not wait, or for less than a second."""
        opens, why = self.reason()
        seconds = opens - self._loop.time()
        return f"{why}, next in {seconds:.0f} s" if self.waits(caller) and seconds >= 1 else None

    def reason(self) -> tuple[float, str]:
        """The time until which the door stays closed, in-flight limits aside, and why."""
        return max(
            (self._opens, "the endpoint has refused requests"),
            (self._rates.requests.opens, "the pace of requests"),
            (self._rates.tokens.opens, "the pace of tokens"),
            (self._steps.opens, "answers take long, and few may be in flight at once"),
        )

    def _came_back(self) -> None:
        self.in_flight -= 1
        if self._line.waiting:
            self._line.look()

    # What is learned from answers.

    def _succeeded(
        self, permit: Permit, headers: Mapping[str, str], usage: Usage | None, patience: float | None
    ) -> None:
        now = self._loop.time()
        took = now - permit._sent
        self._absence.answered()
        self._latency += (took - self._latency) * (_SMOOTHING if self._latency else 1)
        self._rates.answered(permit._size, permit._tokens, usage, headers, now)
        if self._adapting:
            self._adapt(permit._epoch, took, patience)
        self._came_back()

    def _adapt(self, epoch: int, took: float, patience: float | None) -> None:
        if took < self._quickest:
            self._quickest = took
        # A model that is always slow does not mean that there is a queue.
        strained = patience is not None and took > patience * _STRAINED and took > 2 * self._quickest
        adaptive = self._adaptive
        adaptive.succeeded(epoch, self.in_flight, strained=strained)
        # As many as possible were let in, and none was refused. Several runs may want more than is ever let in.
        if adaptive.probing and (adaptive.limit >= self._wanted or adaptive.limit >= adaptive.ceiling):
            if self._steps.rate != math.inf:
                self._steps.change(math.inf, self._loop.time())
            return
        round_trip = _FLUKE * took if _FLUKE * took < self._latency else self._latency
        if round_trip < _STEPS_SECONDS:
            round_trip = _STEPS_SECONDS
        self._spread(round_trip)

    def _spread(self, round_trip: float) -> None:
        """Spread what the adaptive limit allows over about this many seconds."""
        self._steps.change(_STEPS_FACTOR * self._adaptive.limit / round_trip, self._loop.time())

    def _failed(self, permit: Permit, error: RustyAgentError, max_retry_after: float) -> None:
        now = self._loop.time()
        self._absence.failed(error, now)
        if isinstance(error, APIStatusError):
            self._heed(error, max_retry_after, now)
        if isinstance(error, RateLimitError):
            permit._caller.rate_limited += 1
        self._rates.settle(permit._tokens, error.usage, now)
        if isinstance(error, APITimeoutError) and error.limit != "connect":
            if self._adapting:
                self._adaptive.late(permit._epoch, self.in_flight)
            self._came_back()
        elif self._refused(permit, error):
            self._hold(permit, now)
            self._line.look()  # its tokens were given back, though not yet its place
        else:
            self._came_back()

    def _heed(self, error: APIStatusError, max_retry_after: float, now: float) -> None:
        self._rates.read(error.headers, now)
        asked = error.retry_after
        if error.status_code in OVERLOADED and error.may_pass and asked is not None and asked <= max_retry_after:
            self._opens = max(self._opens, now + asked)

    def _refused(self, permit: Permit, error: RustyAgentError) -> bool:
        """Whether an attempt was turned away for load, or must be treated as if it was."""
        status, passes = None, error.retryable
        if isinstance(error, APIStatusError):
            status, passes = error.status_code, error.may_pass  # it does not matter if this request may be sent again
        away = self._absence.noticed
        turned_away = status in OVERLOADED or isinstance(error, APIConnectionError) or away
        if not (turned_away and passes):
            return False
        if not self._adapting:
            return True
        sure = status == 429 or error.retry_after is not None
        return self._adaptive.refused(permit._epoch, self.in_flight, sure=sure, away=away)

    def _hold(self, permit: Permit, now: float) -> None:
        """Keep a refused attempt's place for about a round trip: refusals are quick, the next would follow at once."""
        took = now - permit._sent
        round_trip = min(self._latency or took, _MOST_HELD_SECONDS)
        rest = self._adaptive.rest if self._adapting else 1.0  # outside of a run, no success would shorten it
        held = min(round_trip * rest, _MOST_RESTING_SECONDS) - took
        if self._adapting and self._adaptive.probing:  # let nobody in until it is clear how many are too many
            self._opens = max(self._opens, now + round_trip)
        self._loop.call_later(max(0.0, held), self._hold_over, permit._epoch)

    def _hold_over(self, epoch: int) -> None:
        self._adaptive.judge(epoch)  # even if the run is over by now: else the refusal would never count
        self._came_back()

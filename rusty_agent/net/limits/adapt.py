"""How many attempts may be in flight, found out by trying (AIMD).

In: that an attempt was sent, has succeeded, or was turned away for load. Out: a limit. Never touched: the clock, the
attempts themselves.

Before the first refusal the limit doubles with every round trip (slow start). A refusal cuts it, once per round trip:
further refusals of attempts that were sent before the cut say nothing new. From then on it climbs by half of the
distance to what was served at the refusal (the mark), and beyond the mark first by one per round trip and then faster
(as BIC and CUBIC do in TCP): so it is mostly close to the true limit, and finds changes of it within some round trips.
If the mark is only a few at once, the limit stays there for a while, twice as long each time that going further is
refused: otherwise, at an endpoint that bears only one at a time, half the requests were refused.

Refusals that come before any answer are all of one burst: slow start decides how many may follow it.

Latency does not steer the limit: a batching server answers slower under load while its throughput still rises. But a
server that queues everything never refuses: there the limit climbs no further once answers take a good part of the time
that they may take, and it is cut when many are late. A few that are always late, because they are long, say nothing.

Not everything that looks like a refusal for load is one: one server of many may be broken. Only a 429 and an error with
a `Retry-After` are sure. Anything else (a 498, 503 or 529, a connection that breaks) counts, while the endpoint is
reached, only when more came since the last cut than one and a tenth of the limit, with six successes making up for one.
Otherwise a 503 for one request in twenty took up to three quarters of the throughput; now it takes a tenth. If one in
ten fails, a quarter is lost; if one in five, nearly all. The price: a full server that only says 503 refuses 2 to 5 %
of what it is sent instead of 1 %, and a tenth if it takes eight at once, or half of a round trip to refuse.

An endpoint that is away refuses everything. The limit falls, as asking often gains nothing, but once the endpoint is
back it bears as many as before, so the way back should be short. The first cuts of an absence look like cuts for load,
because attempts sent before it are still answered. Therefore what was borne before the first cut is remembered
(`_borne`) until an attempt sent after that cut is answered. As soon as everything is refused, `_borne` becomes the mark
again. Only half of it does if refusals say that they are for load: then a quota is used up. And only half of it does if
no more than half as many answers have come since the last such series of cuts: the endpoint may have shrunk to a single
place, which answers twice between two series. Otherwise each of these answers would fill the endpoint up again: with
one place of 64 left, at 10 s an answer, 42 of 308 prompts failed, and four of five attempts were refused.

Even one at a time may be too many: ten per minute are fewer than one after another. Then a refused attempt keeps its
place for longer each time. An endpoint that counts refused requests too would otherwise never let anybody in again.
"""

from __future__ import annotations

import math

__all__ = ["AdaptiveLimit"]

START = 16
"""The initial limit: even small servers bear it, and four doublings lead from it to 256."""

_FIRST_CUT = 0.5  # slow start has overshot by up to twice
_LEAST_CUT = 0.85
_MOST_CUT = 0.25
_LATE_CUT = 0.5
_MANY_LATE = 0.3  # of the latest ten or so
_FADING = 0.9
_MADE_UP = 1 / 6  # how much of a doubtful refusal one success makes up for
_UNSURE = 1 / 10  # of the limit, plus one, may be refused but not for load; without the one, a low limit stays low
_MOST_UNSURE = 1 / 4  # of the limit: with three places or fewer there is none to spare
_MOST_REST = 256.0  # eight successes undo it
_MOST_PATIENCE = 8.0  # then one request in nine is refused if the limit is one at once, and one in 33 if it is four
_FEW = 6  # above it one refused request matters little; clients that share a limit would differ in how often they try
_NEAR = 1.25  # a refusal this close above the mark tells nothing new
_CONVERGE = 0.85  # if refused below the old mark: there is less room than before, or other clients want some


class AdaptiveLimit:
    """The limit of one endpoint.

    Attributes:
        ceiling: The most that the limit may reach: as many as are needed; the `Limiter` applies the user's own bound.
        limit: How many attempts may be in flight, at least 1.
        epoch: The number of cuts so far; an attempt must remember the number at the time it was sent.
        rest: For how many round trips a refused attempt keeps its place.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = min(START, ceiling)
        self.epoch = 0
        self.rest = 1.0
        self._limit = float(self.limit)  # before it is rounded down
        self._mark = math.inf  # what was served when the last refusal came
        self._patience = 0.5  # for how many round trips it stays at the mark
        self._stays = 0.0  # how many of these are left
        self._borne = 0.0  # what was served before a series of cuts that no answer has ended yet; 0: there is none
        self._series = -1  # the epoch that the first cut of the latest series of cuts has ended
        self._answers = 0  # how many attempts were answered since that cut
        self._most = 0  # the most in flight when an answer came; 0: none ever came
        self._refused = 0  # how many of the attempts sent since the last cut were refused
        self._tried = 1.0  # the most in flight when they were refused
        self._lateness = 0.0  # the share of late attempts, as a running mean
        self._unsure = 0.0  # how many were refused since the last cut, perhaps not for load
        self._surely = False  # whether any refusal since the last cut was certainly for load
        self._answered = False  # whether any attempt was answered since the last cut

    @property
    def probing(self) -> bool:
        """Whether nothing was refused so far: the limit may already be far too high."""
        return self._mark == math.inf

    def begin_with(self, limit: int, ceiling: int) -> None:
        """Begin with this many, unless something was refused already.

        Args:
            limit: How many.
            ceiling: The limit may rise at least this far: the sum of what the runs ask for, as far as they say.
        """
        self.ceiling = max(self.ceiling, ceiling)
        if not self.epoch:
            self._change(max(self._limit, float(limit)))

    def end(self) -> None:
        """Note that no run needs it any more. An initial limit that was never reached is lowered, as it is unproven."""
        if not self.epoch:
            self._change(min(self._limit, float(max(START, 2 * self._most))))

    def succeeded(self, epoch: int, in_flight: int, *, strained: bool = False) -> None:
        """An attempt has succeeded.

        Args:
            epoch: `epoch` as it was when the attempt was sent.
            in_flight: How many were in flight, the attempt itself included. While less than half of the limit is
                used, a success says nothing about it.
            strained: It took so long that with more in flight some might be late.
        """
        self._answered = True
        self._answers += 1
        if epoch > self._series:
            self._borne = 0.0
        if in_flight > self._most:
            self._most = in_flight
        if self.rest > 1:
            self.rest /= 2
        if self._lateness:
            self._lateness *= _FADING
        if self._unsure > 0:
            self._unsure -= _MADE_UP
        if strained or in_flight * 2 < self.limit or self._refused or self._limit >= self.ceiling:
            return
        beyond = self._limit - self._mark
        if beyond == -math.inf:
            step, most = self._limit, math.inf
        elif beyond < 0:
            away = self._limit * 2 < self._mark  # only cuts after which everything was refused lead there
            step, most = max(1.0, -beyond if away else -beyond / 2), self._mark
        elif self._stays > 0:
            self._stays -= 1 / self._limit
            return
        else:
            step, most = max(1.0, min(beyond / 2, self._limit / 4)), math.inf
        self._change(min(self._limit + step / self._limit, most, float(self.ceiling)))

    def refused(self, epoch: int, in_flight: int, *, sure: bool = True, away: bool = False) -> bool:
        """An attempt was turned away. Return whether this counts as load: then `judge` must follow a round trip later.

        Args:
            epoch: `epoch` as it was when the attempt was sent.
            in_flight: How many are in flight, the attempt itself included. Anything more that the limit would have
                allowed was never tried.
            sure: It was for load. Else one broken server among many may have refused it, and no cut would help.
            away: The endpoint is not reached at all.
        """
        self._surely |= sure
        if epoch == self.epoch:
            self._tried = max(self._tried, min(self._limit, float(in_flight)))
            if not (sure or away):
                self._unsure += 1
                if self._unsure <= min(1 + self._limit * _UNSURE, self._limit * _MOST_UNSURE):
                    return False
            elif sure and self.limit == 1:
                self.rest = min(self.rest * 2, _MOST_REST)
            self._refused += 1
        return True

    def late(self, epoch: int, in_flight: int) -> None:
        """An attempt has exceeded its time limit; arguments as for `refused`."""
        if epoch != self.epoch:
            return
        self._lateness = 1 - (1 - self._lateness) * _FADING
        if self._lateness > _MANY_LATE:
            tried = min(self._limit, float(in_flight))
            self._mark = tried * (1 + _LATE_CUT) / 2
            self._cut(tried * _LATE_CUT)

    def judge(self, epoch: int) -> None:
        """Cut, a round trip after an attempt was refused, by the refused share of those in flight."""
        if epoch != self.epoch or not self._refused:
            return
        least = _FIRST_CUT if self.probing else _LEAST_CUT
        factor = max(_MOST_CUT, min(least, 1 - self._refused / self._tried))
        again = self._mark < self._limit <= self._mark * _NEAR + 1
        self._patience = min(self._patience * 2, _MOST_PATIENCE) if again else 0.5
        self._stays = self._patience if again and self._limit < _FEW else 0.0
        self._mark = self._new_mark(factor, least)
        self._cut(self._tried * factor)

    def _new_mark(self, factor: float, least: float) -> float:
        """The best estimate of what there is room for, as the refusals cut the limit by this factor."""
        if not self._most:
            return self._mark
        if not self._borne:
            borne = self._tried if self.probing else max(self._mark, self._tried)
            self._borne = borne if self._answers * 2 > borne else borne / 2
            self._series, self._answers = self.epoch, 0
        all_of_them = max(self._refused, self._unsure) >= self._tried
        if all_of_them or not (self._answered or self._surely):  # the endpoint is away, or a quota is used up
            mark = self._borne * (_FIRST_CUT if self._surely else 1)
        elif self.probing and factor == least:
            mark = self._tried * (1 + least) / 2
        elif factor < least:  # far too many: there is room for what was served
            mark = self._tried * factor
        else:
            mark = self._tried * _CONVERGE if self._tried < self._mark else self._tried - self._refused
        return max(1.0, mark)

    def _cut(self, limit: float) -> None:
        self._change(max(1.0, limit))
        self.epoch += 1
        self._refused = 0
        self._tried = 1.0
        self._lateness = 0.0
        self._surely = False
        self._answered = False
        self._unsure = 0.0

    def _change(self, limit: float) -> None:
        self._limit = limit
        self.limit = int(limit)

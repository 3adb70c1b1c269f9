"""How many attempts may be in flight, found out by trying (AIMD).

In: that an attempt was sent, has succeeded, or was turned away for load. Out: a limit. Never touched: the clock, the
attempts themselves.

Before the first refusal the limit doubles with every round trip (slow start). A refusal cuts it, once per round trip:
further refusals of attempts that were sent before the cut say nothing new. From then on it climbs by half of the
distance to what was served then (the mark), and beyond that first by one per round trip and then faster (as BIC and
CUBIC do in TCP): so most of the time is spent close to the true limit, whose changes are found within some round trips.
Where the mark is a few at once it stays there for a while, for twice as long each time that going on is refused: else,
of one at a time, which is all that some bear, half the requests were refused.

What is refused before anything was answered came in one burst: how many may follow it is left to slow start.

Latency does not steer it: a batching server answers slower under load while it still answers more in all. But a server
that queues whatever comes never refuses: there it climbs no further once answers take a good part of the time that
they may take, and it is cut when many come too late. A few that always do, because they are long, say nothing.

Not all that looks like a refusal for load is one: of many servers one may be ill. Sure is a 429, and what comes with a
`Retry-After`. All else (a 498, 503 or 529, a connection that breaks) counts, while the endpoint is reached, only when
more came since the last cut than one and a tenth of the limit, six successes making up for one: else a 503 for each
twentieth request took up to three quarters of the throughput, and now it takes a tenth. Where each tenth fails so, a
quarter is lost, where each fifth, nearly all. The price: a server that says no more than 503 when it is full refuses 2
to 5 % of what it is sent instead of 1 %, and a tenth if it takes eight at once, or half of a round trip to refuse.

An endpoint that is away refuses all. The limit falls, as nothing is gained by asking often, but when the endpoint is
back it bears what it bore before, so the way back is short. The first cuts of an absence look like cuts for load,
because what was sent before is still answered. Therefore what was borne before the first cut is remembered (`_borne`)
until something is answered that was sent after that cut. As soon as all is refused, it is the mark again. Only half of
it is, if refusals say that they are for load: then a quota is used up. And only half of it, if no more than half as
many answers as that have come since the last such series of cuts: the endpoint may have become smaller, and refuse all
but one, which answers twice between two such series. Else each answer of that one would fill it up again: where one
place of 64 was left, at 10 s an answer, 42 of 308 prompts failed, and four of five attempts were refused.

One at once may be too many as well: ten a minute are fewer than one after another. Then what is refused keeps its place
for longer each time. A limit that counts what it refuses would never let anybody in again.
"""

from __future__ import annotations

import math

__all__ = ["AdaptiveLimit"]

START = 16
"""The limit to begin with: what even small servers take, and eight round trips from 256."""

_FIRST_CUT = 0.5  # slow start has overshot by up to twice
_LEAST_CUT = 0.85
_MOST_CUT = 0.25
_LATE_CUT = 0.5
_MANY_LATE = 0.3  # of the latest ten or so
_FADING = 0.9
_MADE_UP = 1 / 6  # by a success, of a refusal that may not be for load
_UNSURE = 1 / 10  # of the limit, and one: so many of them may not be for load; without that one a low limit stays low
_MOST_UNSURE = 1 / 4  # of the limit: of three places or fewer none is to spare
_MOST_REST = 256.0  # forgotten by eight successes
_MOST_PATIENCE = 8.0  # then one request of nine is refused where one at once is the limit, and one of 33 where four are
_FEW = 6  # of more, one refused request weighs little; clients that share a limit would differ in how often they try
_NEAR = 1.25  # a refusal as close above the mark as that tells nothing new
_CONVERGE = 0.85  # refused before the old mark was reached: there is less room than there was, or others want some


class AdaptiveLimit:
    """The limit of one endpoint.

    Attributes:
        ceiling: What the limit does not pass: as many as are needed; the user's own bound is the `Limiter`'s.
        limit: How many attempts may be in flight, at least 1.
        epoch: What an attempt must remember from the moment it was sent: how many cuts there were.
        rest: For how many round trips an attempt that was refused keeps its place.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = min(START, ceiling)
        self.epoch = 0
        self.rest = 1.0
        self._limit = float(self.limit)  # before it is rounded down
        self._mark = math.inf  # what was served when the last refusal came
        self._patience = 0.5  # for how many round trips it stays at the mark
        self._stays = 0.0  # how many of them are left
        self._borne = 0.0  # what was served before a series of cuts that no answer has ended yet; 0: there is none
        self._series = -1  # the epoch that the first cut of the latest series of cuts has ended
        self._answers = 0  # how many attempts were answered since that cut
        self._most = 0  # in flight when something was answered; 0: nothing ever was
        self._refused = 0  # of the attempts that were sent since the last cut
        self._tried = 1.0  # how many were in flight when they were
        self._lateness = 0.0  # the share that came too late, as a running mean
        self._unsure = 0.0  # refused since the last cut, perhaps not for load
        self._surely = False  # whether any since the last cut was refused for load, and for no other reason
        self._answered = False  # whether any attempt was answered since the last cut

    @property
    def probing(self) -> bool:
        """Whether nothing was refused so far: the limit may be far too high already."""
        return self._mark == math.inf

    def begin_with(self, limit: int, ceiling: int) -> None:
        """Begin with this many, unless something was refused already.

        Args:
            limit: How many.
            ceiling: What the limit may rise to at least: as many as all who say how many they need come to.
        """
        self.ceiling = max(self.ceiling, ceiling)
        if not self.epoch:
            self._change(max(self._limit, float(limit)))

    def end(self) -> None:
        """Nobody needs it any more. What it was to begin with was never found out, if so many were never in flight."""
        if not self.epoch:
            self._change(min(self._limit, float(max(START, 2 * self._most))))

    def succeeded(self, epoch: int, in_flight: int, *, strained: bool = False) -> None:
        """An attempt has succeeded.

        Args:
            epoch: `epoch` as it was when the attempt was sent.
            in_flight: How many were in flight, the attempt itself included. While less than half of the limit is
                used, a success says nothing about it.
            strained: It took so long that with more in flight some might come too late.
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
            away = self._limit * 2 < self._mark  # only cuts by which all was refused lead there
            step, most = max(1.0, -beyond if away else -beyond / 2), self._mark
        elif self._stays > 0:
            self._stays -= 1 / self._limit
            return
        else:
            step, most = max(1.0, min(beyond / 2, self._limit / 4)), math.inf
        self._change(min(self._limit + step / self._limit, most, float(self.ceiling)))

    def refused(self, epoch: int, in_flight: int, *, sure: bool = True, away: bool = False) -> bool:
        """An attempt was turned away; if it was for load, for all that is known, `judge` follows a round trip later.

        Args:
            epoch: `epoch` as it was when the attempt was sent.
            in_flight: How many are in flight, the attempt itself included. What the limit would have allowed beyond
                was never tried.
            sure: It was for load. Else it may be of one server among many that is ill: no cut makes those fewer.
            away: Nobody is reached at all.
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
        """An attempt has met its time limit; arguments as those of `refused`."""
        if epoch != self.epoch:
            return
        self._lateness = 1 - (1 - self._lateness) * _FADING
        if self._lateness > _MANY_LATE:
            tried = min(self._limit, float(in_flight))
            self._mark = tried * (1 + _LATE_CUT) / 2
            self._cut(tried * _LATE_CUT)

    def judge(self, epoch: int) -> None:
        """A round trip has passed since an attempt was refused: cut, by the share of those in flight that were."""
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
        """What there is room for, for all that is known; the refusals cut by this factor."""
        if not self._most:
            return self._mark
        if not self._borne:
            borne = self._tried if self.probing else max(self._mark, self._tried)
            self._borne = borne if self._answers * 2 > borne else borne / 2
            self._series, self._answers = self.epoch, 0
        all_of_them = max(self._refused, self._unsure) >= self._tried
        if all_of_them or not (self._answered or self._surely):  # it is away
            mark = self._borne * (_FIRST_CUT if self._surely else 1)
        elif self.probing and factor == least:
            mark = self._tried * (1 + least) / 2
        elif factor < least:  # far too many: what was served is what there is room for
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

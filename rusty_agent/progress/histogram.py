"""Latencies → their distribution, in constant memory.

In: durations in seconds, one by one. Out: percentiles, and wide bars for a plot. Never touched: the clock.
"""

from __future__ import annotations

import math
from itertools import accumulate

__all__ = ["Histogram"]

_LOWEST = 1e-4  # seconds: no answer comes over a network in less
_HIGHEST = 3 * 86400.0
_WIDTH = 1.02  # so that a bucket's middle is within 1 % of everything in it
_PER_E = 1 / math.log(_WIDTH)
_OFFSET = math.log(_LOWEST) * _PER_E
_LAST = int(math.log(_HIGHEST) * _PER_E - _OFFSET)


def _edge(index: float) -> float:
    """Where a bucket begins, in seconds."""
    return _LOWEST * math.pow(_WIDTH, index)


class Histogram:
    """Counts durations in logarithmic buckets, each 2 % wide, from 100 µs to 3 days.

    Shorter and longer ones are counted in the first and the last bucket.

    Attributes:
        count: How many durations were added.
        sum: Their sum in seconds.
        min: The shortest in seconds, exactly; infinite while there is none.
        max: The longest in seconds, exactly; 0 while there is none.
    """

    __slots__ = ("_counts", "count", "max", "min", "sum")

    def __init__(self) -> None:
        self._counts = [0] * (_LAST + 1)
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration in seconds."""
        if seconds < _LOWEST:
            index = 0
        elif seconds < _HIGHEST:
            index = int(math.log(seconds) * _PER_E - _OFFSET)
        else:
            index = _LAST
        self._counts[index] += 1
        self.count += 1
        self.sum += seconds
        if seconds < self.min:
            self.min = seconds
        if seconds > self.max:
            self.max = seconds

    @property
    def mean(self) -> float | None:
        """The exact arithmetic mean in seconds, or None while there is nothing."""
        return self.sum / self.count if self.count else None

    def percentile(self, p: float) -> float | None:
        """The duration in seconds that `p` percent of all do not exceed, or None while there is nothing.

        It is within 1 % of the duration at that rank; the shortest and the longest are exact. A duration below 100 µs
        may be returned as up to 101 µs.

        Args:
            p: From 0 (the shortest) to 100 (the longest).
        """
        if not self.count:
            return None
        rank = math.ceil(p * self.count / 100)
        if rank <= 1:
            return self.min
        if rank >= self.count:
            return self.max
        index = next(index for index, reached in enumerate(accumulate(self._counts)) if reached >= rank)
        return min(max(_edge(index + 0.5), self.min), self.max)

    def coarse(self, n: int) -> list[tuple[float, float, int]]:
        """At most `n` bars of equal width on a logarithmic axis: the beginning and end of each in seconds, its count.

        The bars adjoin, from the first bucket that is not empty to the last; none while there is nothing.
        """
        used = [index for index, count in enumerate(self._counts) if count]
        if not used:
            return []
        step = math.ceil((used[-1] - used[0] + 1) / n)
        starts = range(used[0], used[-1] + 1, step)
        return [(_edge(start), _edge(start + step), sum(self._counts[start : start + step])) for start in starts]

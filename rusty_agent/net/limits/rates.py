"""How many requests and tokens may be sent per minute: what the user allows, and what the endpoint says.

In: the sizes of requests, the tokens that they used, headers. Out: two paces. Never touched: who waits for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import random

from ...policy import Limits
from ...types import Usage
from ...wire.ratelimit import RateLimits
from .pace import Pace

__all__ = ["TOKENS_PER_CHARACTER", "Rates"]

TOKENS_PER_CHARACTER = 0.25
"""Assumed until an endpoint has counted tokens; a byte of a request is taken for a character."""

_SMOOTHING = 0.1  # of the estimate
_MOST_TOKENS = 2**20  # the most tokens of one answer that are believed
_READ_SECONDS = 0.05  # headers about limits hardly change; reading them at each answer costs 20 µs of its 110
_DOUBTED_SECONDS = 30.0  # the longest wait because of headers: after it, a request tests whether they are right
_MOST_DEBT_SECONDS = 300.0  # the most that one answer may make the others wait, at the pace of tokens


class Rates:
    """The rates of one endpoint.

    Attributes:
        requests: The pace of requests.
        tokens: The pace of tokens, which are estimated beforehand and corrected by the endpoint's counts.
    """

    def __init__(self, limits: Limits) -> None:
        self.requests = Pace(_per_second(limits.requests_per_minute))
        self.tokens = Pace(_per_second(limits.tokens_per_minute))
        self._estimate = _TokenEstimate()
        self._said = RateLimits()
        self._read_next = -math.inf

    def spend(self, size: int, now: float) -> float:
        """Spend what a request of this size needs; return how many tokens that is, 0 if tokens are not limited."""
        requests = self.requests
        if requests.rate != math.inf:
            # Uneven steps: if several clients keep exactly the same pace, the one slightly ahead would get everything.
            requests.spend(1 if requests.longest == math.inf else 0.5 + random(), now)
        if self.tokens.rate == math.inf:
            return 0.0
        tokens = self._estimate.of(size)
        self.tokens.spend(tokens, now)
        return tokens

    def answered(self, size: int, spent: float, usage: Usage | None, headers: Mapping[str, str], now: float) -> None:
        """Learn from an answer.

        Args:
            size: The bytes of its request's body.
            spent: What `spend` returned for it.
            usage: Its tokens, or None.
            headers: Its headers.
            now: The time, by the loop's clock.
        """
        if usage is not None and self.tokens.rate != math.inf:
            self._estimate.learn(size, usage)
            self.settle(spent, usage, now)
        if now >= self._read_next or now < self.requests.opens or now < self.tokens.opens:
            self.read(headers, now)

    def settle(self, spent: float, usage: Usage | None, now: float) -> None:
        """Correct the tokens that were spent for an attempt to those that it used; without `usage`, to none."""
        if self.tokens.rate != math.inf:
            took = 0.0 if usage is None else min(usage.total_tokens, _MOST_DEBT_SECONDS * self.tokens.rate)
            self.tokens.spend(took - spent, now)

    def read(self, headers: Mapping[str, str], now: float) -> None:
        """Take headers in: they may lower the pace, but never raise it above the user's own."""
        self._read_next = now + _READ_SECONDS
        said = self._said
        said.read(headers, now)
        for pace, told in ((self.requests, said.requests), (self.tokens, said.tokens)):
            pace.change(min(pace.given, told), now, _DOUBTED_SECONDS if told < pace.given else math.inf)


class _TokenEstimate:
    """Learns how many tokens a request has per byte, and how many an answer has.

    Requests with images are long and have few tokens: with a fixed number of tokens per byte, one of 1 MB would
    count as 250,000 and hold all others back.
    """

    def __init__(self) -> None:
        self.answer = 256.0
        self.per_byte = TOKENS_PER_CHARACTER
        self._told = False  # whether `per_byte` comes from answers

    def of(self, size: int) -> float:
        """The estimated tokens of a request of this size and of its answer."""
        return size * self.per_byte + self.answer

    def learn(self, size: int, usage: Usage) -> None:
        """Learn from an endpoint's counts, within bounds: some endpoints send nonsense."""
        self.answer += (min(usage.completion_tokens, _MOST_TOKENS) - self.answer) * _SMOOTHING
        if size and usage.prompt_tokens:
            told = min(usage.prompt_tokens / size, 1.0)
            self.per_byte += (told - self.per_byte) * (_SMOOTHING if self._told else 1.0)
            self._told = True


def _per_second(per_minute: float | None) -> float:
    return math.inf if per_minute is None else per_minute / 60

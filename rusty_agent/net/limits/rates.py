"""How many requests and tokens may be sent in a minute: what the user allows, and what the endpoint says.

In: the lengths of requests, the tokens that they have taken, headers. Out: two paces. Never touched: who waits for
them.
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
"""What is taken for true until an endpoint tells better."""

_SMOOTHING = 0.1  # of the estimate
_MOST_TOKENS = 2**20  # of one answer, that are believed
_READ_SECONDS = 0.05  # headers about limits hardly change; reading them at each answer costs 20 µs of its 110
_DOUBTED_SECONDS = 30.0  # the longest wait for what headers say: then it is tried whether it is so
_MOST_DEBT_SECONDS = 300.0  # of the pace of tokens, that one answer may cost the others


class Rates:
    """The rates of one endpoint.

    Attributes:
        requests: The pace of requests.
        tokens: The pace of tokens. They are estimated beforehand, and corrected by what the endpoint counts.
    """

    def __init__(self, limits: Limits) -> None:
        self.requests = Pace(_per_second(limits.requests_per_minute))
        self.tokens = Pace(_per_second(limits.tokens_per_minute))
        self._estimate = _TokenEstimate()
        self._said = RateLimits()
        self._read_next = -math.inf

    def spend(self, characters: int, now: float) -> float:
        """Spend what a request of this length takes; returns how many tokens that is, 0 where nobody limits them."""
        requests = self.requests
        if requests.rate != math.inf:
            # Uneven steps: of several clients that keep the same pace exactly, the one a moment ahead would take all.
            requests.spend(1 if requests.longest == math.inf else 0.5 + random(), now)
        if self.tokens.rate == math.inf:
            return 0.0
        tokens = self._estimate.of(characters)
        self.tokens.spend(tokens, now)
        return tokens

    def answered(
        self, characters: int, spent: float, usage: Usage | None, headers: Mapping[str, str], now: float
    ) -> None:
        """Learn from an answer.

        Args:
            characters: Its request's length.
            spent: What `spend` has told of it.
            usage: Its tokens, or None.
            headers: Its headers.
            now: The moment.
        """
        if usage is not None and self.tokens.rate != math.inf:
            self._estimate.learn(characters, usage)
            self.settle(spent, usage, now)
        if now >= self._read_next or now < self.requests.opens or now < self.tokens.opens:
            self.read(headers, now)

    def settle(self, spent: float, usage: Usage | None, now: float) -> None:
        """Correct the tokens that were spent for an attempt by those that it has taken: none where nobody tells."""
        if self.tokens.rate != math.inf:
            took = 0.0 if usage is None else min(usage.total_tokens, _MOST_DEBT_SECONDS * self.tokens.rate)
            self.tokens.spend(took - spent, now)

    def read(self, headers: Mapping[str, str], now: float) -> None:
        """Headers may lower the pace, never raise it above the user's own."""
        self._read_next = now + _READ_SECONDS
        said = self._said
        said.read(headers, now)
        for pace, told in ((self.requests, said.requests), (self.tokens, said.tokens)):
            pace.change(min(pace.given, told), now, _DOUBTED_SECONDS if told < pace.given else math.inf)


class _TokenEstimate:
    """Learns how many tokens a character of a request is, and how many an answer has.

    Requests with images are long and have few tokens: with a fixed share of a token per character one of 1 MB would
    count as 250,000, and hold all others back.
    """

    def __init__(self) -> None:
        self.answer = 256.0
        self.per_character = TOKENS_PER_CHARACTER
        self._told = False  # whether the latter comes from answers

    def of(self, characters: int) -> float:
        """The tokens of a request of this length and of its answer."""
        return characters * self.per_character + self.answer

    def learn(self, characters: int, usage: Usage) -> None:
        """An endpoint has counted; some tell nonsense."""
        self.answer += (min(usage.completion_tokens, _MOST_TOKENS) - self.answer) * _SMOOTHING
        if characters and usage.prompt_tokens:
            told = min(usage.prompt_tokens / characters, 1.0)
            self.per_character += (told - self.per_character) * (_SMOOTHING if self._told else 1.0)
            self._told = True


def _per_second(per_minute: float | None) -> float:
    return math.inf if per_minute is None else per_minute / 60

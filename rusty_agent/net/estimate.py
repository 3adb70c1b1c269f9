"""How many tokens a request will take, before anybody has counted them.

In: a request's length, and what endpoints told of earlier ones. Out: tokens. Never touched: the pace that they are
spent at.
"""

from __future__ import annotations

from ..types import Usage

__all__ = ["TOKENS_PER_CHARACTER", "TokenEstimate"]

TOKENS_PER_CHARACTER = 0.25
"""What is taken for true until an endpoint tells better."""

_SMOOTHING = 0.1
_MOST_TOKENS = 2**20  # of one answer, that are believed


class TokenEstimate:
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

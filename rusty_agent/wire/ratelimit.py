"""Headers about rate limits, in every dialect → requests and tokens per second.

In: a response's headers. Out: the rates that they speak of, or nothing. Never touched: the pace itself.

Seen: OpenAI, Azure and Groq (`x-ratelimit-limit-requests`, `-remaining-`, `-reset-requests: 6m0s`), Anthropic
(`anthropic-ratelimit-requests-limit`), Mistral and Cerebras (`x-ratelimit-limit-tokens-minute`, `-req-minute`),
OpenRouter, Together (`x-ratelimit-limit`), the IETF's draft (`ratelimit-limit: 100;w=60`, `ratelimit-policy`).

They are read with distrust. Azure sends -1 and 0. The period is mostly unsaid: OpenAI's limit is by the minute, Groq's
requests are by the day, Together's by the second, and `reset` is the time until the allowance is *full* again. A
period of more than a minute is a quota and no pace: spreading it evenly would make a run of hours out of minutes.
What the endpoint says no more is forgotten soon, and limits of other things (images, calls at once) are none of ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from attrs import define

__all__ = ["RateLimits"]

_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0, "month": 2592000.0}
_PERIODS = tuple(_UNITS.values())
_TOKENS = frozenset({"token", "tokens"})
_WORDS = _UNITS.keys() | _TOKENS | {"limit", "remaining", "reset", "policy", "req", "request", "requests"}
_REMEMBERED_SECONDS = 10.0
_LONGEST_PACE = 60.0
_THOUSANDS = r"\s*\d{1,3}(,\d{3}){1,4}\s*"
_NAME = r"^(?:x-|anthropic-)?ratelimit(?:bysize)?-(.+)$"
_DURATION = r"(\d+(?:\.\d+)?)(ms|h|m|s|d)"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGREES = 0.25  # how far two estimates of a rate may differ
_ROUGH = 10.0  # a reset of fewer whole seconds may be rounded too much to compute with


@define(eq=False, repr=False)
class _Said:
    """What the headers of one response say of requests, or of tokens."""

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    period: float | None = None


class RateLimits:
    """What an endpoint has said about its limits so far.

    Attributes:
        requests: Requests per second, infinite where nothing usable was said.
        tokens: Tokens per second, likewise.
    """

    def __init__(self) -> None:
        self.requests = math.inf
        self.tokens = math.inf
        self._longest_reset = {"requests": 0.0, "tokens": 0.0}
        self._heard = {"requests": 0.0, "tokens": 0.0}

    def read(self, headers: Mapping[str, str], now: float = 0.0) -> None:
        """Take the headers of one response in, which came at this moment."""
        said: dict[str, _Said] = {}
        for name, value in headers.items():
            if "ratelimit" in (lower := name.lower()) and (found := re.match(_NAME, lower)) is not None:
                words = found[1].split("-")
                kind = "tokens" if "bysize" in lower or not _TOKENS.isdisjoint(words) else "requests"
                if _WORDS.issuperset(words):  # Anthropic's `input-tokens`, others' images: not ours
                    _note(said.setdefault(kind, _Said()), words, value)
        for kind, heard in self._heard.items():
            rate = self._rate(kind, said[kind]) if kind in said else None
            if rate is not None:
                self._heard[kind] = now
                setattr(self, kind, rate)
            elif now - heard > _REMEMBERED_SECONDS:
                setattr(self, kind, math.inf)

    def _rate(self, kind: str, said: _Said) -> float | None:
        if said.limit is None or said.limit <= 0:
            return None
        longest = self._longest_reset[kind] = max(self._longest_reset[kind], said.reset or 0.0)
        period = said.period or self._agreeing(said)
        if period is None:
            # A reset is never longer than its period. Where none was sent: by the minute, as OpenAI documents.
            fits = (unit for unit in _PERIODS if unit * 1.05 >= longest)
            ends_now = said.reset == 0 and said.remaining is not None and said.remaining < said.limit
            period = next(fits, math.inf) if longest or ends_now else _UNITS["minute"]
        return said.limit / period if period <= _LONGEST_PACE else math.inf

    @staticmethod
    def _agreeing(said: _Said) -> float | None:
        """The period that explains the reset, if what was used is refilled evenly, as by OpenAI and Groq."""
        if said.limit is None or said.remaining is None or not said.reset or said.remaining >= said.limit:
            return None
        if said.reset < _ROUGH and said.reset.is_integer():
            return None
        refill = (said.limit - said.remaining) / said.reset
        close = (unit for unit in _PERIODS if abs(refill * unit / said.limit - 1) <= _AGREES)
        return next(close, None)


def _note(said: _Said, words: list[str], value: str) -> None:
    number = _number(value)
    period = next((_UNITS[word] for word in words if word in _UNITS), None)
    if (window := re.search(r";\s*w=(\d+)", value)) is not None:
        period = float(window[1]) or math.inf
    if "limit" in words or "policy" in words:
        if "policy" in words and (quota := re.search(r";\s*q=(\d+)", value)) is not None:
            number = float(quota[1])
        if number is not None and (said.limit is None or period is not None):
            said.limit, said.period = number, period or said.period
    elif "remaining" in words:
        said.remaining = number
    elif "reset" in words:
        said.reset = _seconds(value)


def _number(value: str) -> float | None:
    """`60`, `60;w=60`, `10,000`; of several without a period the largest, as the smaller may be by the second."""
    if re.fullmatch(_THOUSANDS, value):
        return float(value.replace(",", ""))
    found = [re.match(r"\s*(\d{1,15}(?:\.\d+)?)\s*(?:;|$)", one) for one in value[:200].split(",")]
    numbers = [float(one[1]) for one in found if one]
    if not numbers or not found[0]:
        return None
    return numbers[0] if ";" in value else max(numbers)


def _seconds(value: str) -> float | None:
    """`6m0s`, `12ms`, `1.5`; None for moments in time, whose clock is the server's."""
    text = value.strip()
    parts = re.findall(_DURATION, text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    number = _number(text)
    return number if number is not None and number < 10 * 86400 else None

"""Headers about rate limits, in every dialect → requests and tokens per second.

In: a response's headers. Out: the rates that they state, or nothing. Never touched: the pace itself.

Seen: OpenAI, Azure and Groq (`x-ratelimit-limit-requests`, `-remaining-`, `-reset-requests: 6m0s`), Azure and GitHub
Models (`x-ratelimit-renewalperiod-requests: 60`), Anthropic (`anthropic-ratelimit-requests-limit`), Mistral and
Cerebras (`x-ratelimit-limit-tokens-minute`, `-req-minute`), OpenRouter, Together (`x-ratelimit-limit`), the IETF's
draft (`ratelimit-limit: 100;w=60`, `ratelimit-policy`).

They are not trusted. Azure sends -1 and 0. The period is mostly missing: OpenAI's limit is per minute, Groq's for
requests per day, Together's per second, and `reset` is the time until the allowance is *full* again. A period of more
than a minute is a quota, not a pace: spreading it evenly would turn a run of minutes into one of hours. What the
endpoint no longer says is soon forgotten. Limits on other things (images, concurrent calls) are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeAlias

from attrs import define

from .wait import DURATION, in_seconds

__all__ = ["RateLimits"]

_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0, "month": 2592000.0}
_TOKENS = frozenset({"token", "tokens"})
_PERIOD = "renewalperiod"
_WORDS = _UNITS.keys() | _TOKENS | {"limit", "remaining", "reset", "policy", _PERIOD, "req", "request", "requests"}
_REMEMBERED_SECONDS = 10.0
_LONGEST_PACE = 60.0
_NUMBER = r"\d{1,15}(\.\d{1,15})?"
_FIELD = r"(\w+)=\"?([\w.-]*)"
_MOST = 200  # characters of a value that are read
_THOUSANDS = r"\s*\d{1,3}(,\d{3}){1,4}\s*"
_NAME = r"^(?:x-|anthropic-)?ratelimit(?:bysize)?-(.+)$"
_AGREES = 0.25  # how far two estimates of a rate may differ
_ROUGH = 10.0  # a reset of fewer seconds, if a whole number, may be rounded too much to compute with


@define(eq=False, repr=False)
class _Said:
    """What the headers of one response say about requests, or about tokens, in one window."""

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    period: float | None = None


_Windows: TypeAlias = dict[tuple[str, float | None], _Said]
"""By kind, and the window's seconds or None if the headers do not give them."""


class RateLimits:
    """What an endpoint has said about its limits so far.

    Attributes:
        requests: Requests per second, infinite if nothing usable was said.
        tokens: Tokens per second, likewise.
    """

    def __init__(self) -> None:
        self.requests = math.inf
        self.tokens = math.inf
        self._longest_reset = {"requests": 0.0, "tokens": 0.0}
        self._heard = {"requests": 0.0, "tokens": 0.0}

    def read(self, headers: Mapping[str, str], now: float) -> None:
        """Take in the headers of one response, which came at the time `now`."""
        said: _Windows = {}
        for name, value in headers.items():
            if "ratelimit" in (lower := name.lower()) and (found := re.match(_NAME, lower)) is not None:
                words = found[1].split("-")
                kind = "tokens" if "bysize" in lower or not _TOKENS.isdisjoint(words) else "requests"
                if _WORDS.issuperset(words):  # not Anthropic's `input-tokens`, nor others' images
                    _note(said, kind, words, value)
        for kind, heard in self._heard.items():
            rates = self._rates(kind, said)
            if rates:
                self._heard[kind] = now
                setattr(self, kind, min(rates))
            elif now - heard > _REMEMBERED_SECONDS:
                setattr(self, kind, math.inf)

    def _rates(self, kind: str, said: _Windows) -> list[float]:
        """The rate that each window allows; all of them apply at once."""
        limits = [(window, one, one.limit) for (what, window), one in said.items() if what == kind and one.limit]
        told = {limit for window, _, limit in limits if window is not None}
        rates = []
        for window, one, limit in limits:
            if window is None and limit not in told:  # else another header gave its window
                window = self._guessed(kind, one, limit)
            if window is not None:
                rates.append(limit / window if window <= _LONGEST_PACE else math.inf)
        return rates

    def _guessed(self, kind: str, said: _Said, limit: float) -> float:
        """The window, in seconds, of a limit that came without one."""
        if said.period:
            return said.period
        longest = self._longest_reset[kind] = max(self._longest_reset[kind], said.reset or 0.0)
        window = self._agreeing(said)
        if window is None:
            # A reset is never longer than its window. If none was sent, assume a minute, as OpenAI documents.
            fits = (unit for unit in _UNITS.values() if unit * 1.05 >= longest)
            ends_now = said.reset == 0 and said.remaining is not None and said.remaining < limit
            window = next(fits, math.inf) if longest or ends_now else _UNITS["minute"]
        return window

    @staticmethod
    def _agreeing(said: _Said) -> float | None:
        """The period that explains the reset if the allowance is refilled evenly, as OpenAI and Groq do."""
        if said.limit is None or said.remaining is None or not said.reset or said.remaining >= said.limit:
            return None
        if said.reset < _ROUGH and said.reset.is_integer():
            return None
        refill = (said.limit - said.remaining) / said.reset
        close = (unit for unit in _UNITS.values() if abs(refill * unit / said.limit - 1) <= _AGREES)
        return next(close, None)


def _note(said: _Windows, kind: str, words: list[str], value: str) -> None:
    window = next((_UNITS[word] for word in words if word in _UNITS), None)
    if "limit" in words or "policy" in words:
        for number, own, unit in _limits(value):
            one = said.setdefault(("tokens" if unit in _TOKENS else kind, own or window), _Said())
            one.limit = number if one.limit is None else one.limit
    elif "remaining" in words:
        said.setdefault((kind, window), _Said()).remaining = _number(value)
    elif "reset" in words:
        said.setdefault((kind, window), _Said()).reset = _seconds(value)
    elif _PERIOD in words:
        said.setdefault((kind, window), _Said()).period = _number(value)


def _limits(value: str) -> list[tuple[float, float | None, str]]:
    """Limits, their windows in seconds, their units: `60`, `10,000`, `10, 10;w=1`, `"a";q=10;w=1;qu="tokens"`.

    Of several without a window the largest counts, as the smaller may be per second.
    """
    if re.fullmatch(_THOUSANDS, value):
        return [(float(value.replace(",", "")), None, "")]
    found = []
    for item in value[:_MOST].split(","):
        number, *more = (part.strip() for part in item.split(";"))
        fields = dict(re.findall(_FIELD, ";".join(more)))
        limit, unit = _number(fields.get("q", number)), fields.get("qu", "")
        if limit is not None and (not unit or unit in _WORDS):  # other units are bytes, or concurrent requests
            found.append((limit, _number(fields.get("w", "")), unit))
    windows = [one for one in found if one[1]]
    unsaid = [one for one in found if one[1] is None]
    return windows or (unsaid and [max(unsaid)])


def _number(value: str) -> float | None:
    return float(value) if re.fullmatch(_NUMBER, value.strip()) else None


def _seconds(value: str) -> float | None:
    """The seconds of `6m0s`, `12ms` or `1.5`; None for points in time, which are by the server's clock."""
    text = value[:_MOST].strip()
    if re.fullmatch(f"({DURATION})+", text):
        return in_seconds(text)
    number = _number(text)
    return number if number is not None and number < 10 * 86400 else None

"""How long an endpoint asks to wait, in seconds.

In: headers, or an error's object and message. Out: seconds, or nothing. Never touched: how long we actually wait.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from .codec import string_of

__all__ = ["DURATION", "clock", "in_headers", "in_object", "in_seconds", "in_words"]

_NUMBER = r"[ \t]*[0-9]{1,99}(\.[0-9]{1,99})?[ \t]*"  # `float` takes more: `1_0`, `٣`, `1e1`, `inf`
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

DURATION = r"(\d{1,15}(?:\.\d{1,15})?)(ms|h|m|s|d)"
"""A part of `6m0s` or `12ms`."""

_WORDS = (
    r"\b(?:(?:again|retry|wait|reset)(?: in| after| for)?:? (?:about |approximately )?|retryDelay\W{3,9})"
    rf"((?:{DURATION})+|\d{{1,9}}(?:\.\d+)? [smhd](?:\b|ec|in|our|ay))"
)
_RESET = r"1[0-9]{9}(?:[0-9]{3})?"  # since 1970, in seconds or, from OpenRouter, in milliseconds
_BY = ("", "llm_provider-")  # LiteLLM passes its provider's headers on with this prefix (litellm#21553)


def clock(headers: Mapping[str, str], otherwise: float) -> float:
    """The clock to which points in time in an answer refer, in seconds since 1970: the endpoint's `Date`, else ours.

    RFC 9110 §6.6.1. Ours may be days behind if a virtual machine was suspended.

    Args:
        headers: The answer's, with lower-case names.
        otherwise: The clock to use if the answer has no `Date`.
    """
    said = _moment(headers.get("date"))
    return otherwise if said is None else said


def in_headers(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the endpoint asks to wait: `retry-after-ms`, else `retry-after`, else these with LiteLLM's prefix.

    `retry-after` is seconds or an HTTP date (RFC 9110 §10.2.3); some send a duration (`2m59s`) or seconds since 1970.
    The header in milliseconds is OpenAI's. None if the value is missing, negative or not a time.

    Args:
        headers: With lower-case names.
        now: The wall clock in seconds since 1970, see `clock`.
    """
    waits = (_in_header(headers, by, now) for by in _BY)
    return next((seconds for seconds in waits if seconds is not None), None)


def _in_header(headers: Mapping[str, str], by: str, now: float) -> float | None:
    value = _number(headers.get(f"{by}retry-after-ms"))
    if value is not None:
        return value / 1000
    text = headers.get(f"{by}retry-after")
    if text is None:
        return None
    if re.fullmatch(_RESET, text):  # some send the time of the reset in this header
        return _until_reset(text, now)
    if re.fullmatch(f"({DURATION})+", text):  # `2m59.56s` (opencode#48185)
        return in_seconds(text)
    value = _number(text)
    if value is not None:
        return value
    until = _moment(text)
    return None if until is None else max(0.0, until - now)


def in_object(error: Mapping[str, Any], now: float) -> float | None:
    """Seconds that an error's object asks to wait: in Google's `RetryInfo`, or in OpenRouter's `metadata`.

    Gemini sends no header: https://cloud.google.com/apis/design/errors. OpenRouter gives the seconds, or, in headers
    that it quotes, when a limit resets, whether it is per minute or per day.
    """
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and delay.endswith("s"):
            return _number(delay[:-1])
    metadata = error.get("metadata")
    if not isinstance(metadata, dict):
        return None
    headers = metadata.get("headers")
    reset = string_of(headers.get("X-RateLimit-Reset")) if isinstance(headers, dict) else ""
    if re.fullmatch(_RESET, reset):
        return _until_reset(reset, now)
    return _number(string_of(metadata.get("retry_after_seconds")))


def in_words(message: str) -> float | None:
    """Seconds that the message of a 429 asks to wait: «Please try again in 1m9.7s», «Your quota will reset after 48s».

    OpenAI does not always send the header, and gateways pass on an upstream's message without it; Google's `RetryInfo`
    too, after words of their own.
    """
    found = re.search(_WORDS, message, re.IGNORECASE)
    return None if found is None else in_seconds(re.sub(r" (.).*", r"\1", found[1].lower()))


def in_seconds(duration: str) -> float:
    """The seconds of a duration such as `6m0s` or `12ms`."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(DURATION, duration))


def _until_reset(moment: str, now: float) -> float:
    return max(0.0, float(moment[:10]) - now)


def _moment(text: str | None) -> float | None:
    """An HTTP date, in seconds since 1970."""
    try:
        date = parsedate_to_datetime(text or "")
        if date.tzinfo is None:  # no zone, or `-0000`: HTTP's dates are in UTC (RFC 9110 §5.6.7), not in local time
            date = date.replace(tzinfo=UTC)
        return date.timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _number(text: str | None) -> float | None:
    """A number of at least 0; None for anything else."""
    return float(text) if text is not None and re.fullmatch(_NUMBER, text) else None

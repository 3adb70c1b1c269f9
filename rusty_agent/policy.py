"""The settings that users pass as values: time limits, limits on what is sent, retries.

In: numbers and functions, checked when they are passed. Out: frozen attrs values. Never touched: the loop, the
network, the clock; how the numbers are applied.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field

from .checks import checked_count, is_number

__all__ = ["UNSET", "AttemptReport", "Limits", "RetryPolicy", "Timeout"]


class _Unset(enum.Enum):
    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset.UNSET
"""Means «not given», where None means «off»."""


def _seconds(_: Any, attribute: Any, value: Any) -> None:
    if value is not None and value is not UNSET and not (is_number(value) and value > 0):
        raise ValueError(f"{attribute.name} must be a positive number of seconds or None, not {value!r}")


@define(frozen=True)
class Timeout:
    """How long to wait, in seconds. None switches a limit off; a field not given takes its default.

    Attributes:
        total: One deadline for the whole call: all attempts, the waits between them, and the answer to its last byte.
            Default: `RUSTY_AGENT_REQUEST_TIMEOUT_SECS` (60) for `generate_text`, None for streams.
        connect: Time to establish a connection, TLS included. Default: `RUSTY_AGENT_CONNECT_TIMEOUT_SECS` (10).
        first_token: Time from sending an attempt to its first content. Default: None.
        idle: Time in which a stream brings no byte; keep-alive comments count as activity. Default:
            `RUSTY_AGENT_REQUEST_TIMEOUT_SECS` (60). It does not apply to a request that is not streamed, which is
            silent until its answer is whole.
        stall: Time in which a stream brings no content: keep-alive comments do not mask a dead model. Default: None.

    Raises:
        ValueError: A limit is not a positive finite number.
    """

    total: float | _Unset | None = field(default=UNSET, validator=_seconds)
    connect: float | _Unset | None = field(default=UNSET, validator=_seconds)
    first_token: float | None = field(default=None, validator=_seconds)
    idle: float | _Unset | None = field(default=UNSET, validator=_seconds)
    stall: float | None = field(default=None, validator=_seconds)


_SLOWEST = 1e-6  # per minute, that is once in two years; the reciprocal of much less would be infinite


def _pace(_: Any, attribute: Any, value: Any) -> None:
    if value is not None and not (is_number(value) and value >= _SLOWEST):
        raise ValueError(f"{attribute.name} must be a positive number (at least {_SLOWEST:g}) or None, not {value!r}")


def _count(least: int, *, optional: bool = False) -> Callable[[Any, Any, Any], Any]:
    return lambda _, attribute, value: checked_count(value, attribute.name, least, optional=optional)


@define(frozen=True)
class Limits:
    """How much a provider may ask of its endpoint. All its calls on one event loop share the limits and take turns.

    A call's time limits run from its turn on. A `Retry-After` of the endpoint makes all calls wait, and the limits in
    its response headers may lower the pace, never raise it.

    Attributes:
        requests_per_minute: The pace of requests, retries included. None: no limit of your own.
        tokens_per_minute: The pace of tokens, prompts and answers together. They are estimated when a request is
            sent (at first a token for each four bytes of the request and 256 for its answer, later from the usage
            of recent requests) and corrected by the usage reported. A request of more tokens than a minute allows is
            sent all the same; the next one waits until the pace has made up for it.
        in_flight: The most requests under way at once; for `concurrency="auto"` the ceiling (None: 256).

    Raises:
        ValueError: A limit is not a positive number.
    """

    requests_per_minute: float | None = field(default=None, validator=_pace)
    tokens_per_minute: float | None = field(default=None, validator=_pace)
    in_flight: int | None = field(default=None, validator=_count(1, optional=True))


@define(frozen=True)
class AttemptReport:
    """The argument that `on_attempt` is called with after each attempt.

    Attributes:
        number: The number of the attempt, from 1.
        error: Why it failed, or None.
        delay: Seconds until the next attempt, or None when there will be none.
        elapsed: Seconds since the call began.
    """

    number: int
    error: Exception | None
    delay: float | None
    elapsed: float


def _not_negative(_: Any, attribute: Any, value: Any) -> None:
    if not (is_number(value) and value >= 0):
        raise ValueError(f"{attribute.name} must be a number of at least 0, not {value!r}")


def _optional_function(_: Any, attribute: Any, value: Any) -> None:
    if value is not None and (not callable(value) or inspect.iscoroutinefunction(value)):
        raise ValueError(
            f"{attribute.name} must be a plain function, not {value!r}: nothing would await a coroutine function"
        )


@define(frozen=True)
class RetryPolicy:
    """How often to retry, and how long to wait. After the first content nothing is retried: no text is ever repeated.

    Before attempt n + 1 the wait is random between 0 and `min(max_delay, base_delay · 2^(n-1))` seconds (full
    jitter), unless the endpoint names a time itself.

    Attributes:
        max_retries: The most attempts after the first. Default 2.
        base_delay: The longest backoff before the first retry, in seconds; it doubles with each retry. Default 0.25.
        max_delay: The longest backoff before any retry, in seconds. Default 64, which is 0.25 · 2^8.
        max_retry_after: The longest wait in seconds that the endpoint may ask for (`Retry-After`). If it asks for more,
            the call fails at once, and the error's `retry_after` holds that wait. Default 120, as openai-python.
        budget: Points that all retries of a provider share: a retry takes 5 (none after a `Retry-After`), a successful
            call gives 5 back if it needed a retry and 1 if not. When most calls fail it runs out, and failing calls
            are no longer retried. Only the provider's policy sets it, not a call's. Runs of many prompts do not use
            it: their in-flight limit bounds them. None: no such limit. Default 500.
        on_attempt: A plain function, called with an `AttemptReport` after each attempt, on the event loop: it must not
            block.

    Raises:
        ValueError: A number is out of range, or `on_attempt` is not a plain function.
    """

    max_retries: int = field(default=2, validator=_count(0))
    base_delay: float = field(default=0.25, validator=_not_negative)
    max_delay: float = field(default=64.0, validator=_not_negative)
    max_retry_after: float = field(default=120.0, validator=_not_negative)
    on_attempt: Callable[[AttemptReport], object] | None = field(default=None, validator=_optional_function)
    budget: int | None = field(default=500, validator=_count(0, optional=True))

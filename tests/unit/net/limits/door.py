"""A limiter («door») in virtual time, for its own tests and for those of the callers that wait for a permit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import signature
from typing import Any

from rusty_agent.errors import APIConnectionError, RateLimitError
from rusty_agent.net.limits.limiter import Limiter
from rusty_agent.policy import Limits
from tests.simulation.virtual import run


def on(**limits: Any) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Run a test in virtual time, with a limiter as its first argument; the other arguments are its fixtures."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @wraps(test)
        def timed(**fixtures: Any) -> None:
            async def whole() -> None:
                await test(Limiter(Limits(**limits), asyncio.get_running_loop()), **fixtures)

            run(whole())

        shown = signature(test)
        timed.__signature__ = shown.replace(parameters=[*shown.parameters.values()][1:])  # type: ignore[attr-defined]
        return timed

    return decorate


def now() -> float:
    return asyncio.get_running_loop().time()


def too_many(retry_after: float | None = None, headers: dict[str, str] | None = None) -> RateLimitError:
    return RateLimitError("429", status_code=429, retry_after=retry_after, headers=headers or {"x": "y"})


def unreached() -> APIConnectionError:
    return APIConnectionError("refused", sent=False)


def limit(door: Limiter) -> int | None:
    """The limit, read by a call so that type checkers do not narrow the attribute to its last value."""
    return door.limit


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)

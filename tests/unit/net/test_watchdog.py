"""Which time limit ends an attempt, and when, on a clock that only the tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rusty_agent.config import TimeLimits
from rusty_agent.net.watchdog import Watchdog
from tests.simulation.virtual import run

from .limits.door import now

NONE = dict.fromkeys(("total", "connect", "first_token", "idle", "stall"))


class Attempt:
    """One that waits until its watchdog ends that."""

    def __init__(self, **limits: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = now() + limits["total"] if "total" in limits else None
        self.watchdog = Watchdog(loop, TimeLimits(**{**NONE, **limits}), deadline, self)  # type: ignore[arg-type]
        self.ended: asyncio.Future[float] = loop.create_future()

    def stop_waiting(self) -> None:
        self.ended.set_result(now())


@pytest.mark.parametrize(
    ("limits", "steps", "limit", "when"),
    [
        ({"total": 5, "idle": 1}, ["start"], "total", 5),  # a connection is waited for: nothing was sent yet
        ({"total": 5, "idle": 1}, ["start", 3, "waiting"], "idle", 4),
        ({"total": 9, "first_token": 1}, ["start", 3, "waiting"], "first_token", 4),
        ({"total": 2, "idle": 3}, ["waiting"], "total", 2),
        ({"idle": 3, "first_token": 4}, ["waiting", 2, "bytes", 1, "waiting"], "first_token", 4),
        ({"idle": 3, "first_token": 4}, ["waiting", 2, "content", 1, "waiting"], "idle", 6),
        ({"idle": 3, "stall": 4}, ["waiting", 2, "content", "waiting", 2, "bytes", "waiting"], "stall", 6),
        ({"idle": 9, "stall": 4}, ["waiting", 2, "content", "waiting", 2, "bytes", 1, "waiting"], "stall", 7),
        ({"stall": 4}, ["waiting", 1, "content", "waiting", 2, "bytes", 3, "waiting"], "stall", 8),  # a slow reader
        # What a compressed block still holds comes without a wait.
        ({"stall": 4}, ["waiting", 1, "content", "waiting", 1, "bytes", 9, "bytes", 1, "waiting"], "stall", 15),
        ({"stall": 4}, ["waiting", 9, "content", "waiting"], "stall", 13),
        ({"idle": 9}, ["waiting", 1, "content", "waiting", 1, "content", "finish", "waiting"], "tail", 2.5),
        ({"idle": 9}, ["waiting", 1, "content", "waiting", 2, "bytes", "finish", "waiting"], "tail", 3.5),
        ({"idle": 9}, ["waiting", 1, "content", "finish", "waiting", "more", "waiting"], "idle", 10),
    ],
)
def test_the_limit_that_passes_first(limits: dict[str, float], steps: list[Any], limit: str, when: float) -> None:
    async def main() -> None:
        attempt = Attempt(**limits)
        watchdog = attempt.watchdog
        does: dict[str, Callable[[], None]] = {
            "start": watchdog.start,
            "waiting": watchdog.waiting,
            "bytes": lambda: watchdog.arrived(content=False),
            "content": lambda: watchdog.arrived(content=True),
            "finish": lambda: watchdog.settle(0.5),
            "more": lambda: watchdog.settle(0),
        }
        for step in steps:
            if isinstance(step, str):
                does[step]()
            else:
                await asyncio.sleep(step)
        assert await attempt.ended == pytest.approx(when)
        assert watchdog.expired is not None
        assert watchdog.expired[0] == limit

    run(main())


def test_each_of_several_attempts_ends_at_its_own_limit() -> None:
    async def main() -> None:
        attempts = [Attempt(idle=seconds) for seconds in (1, 5, 2)]
        for attempt in attempts:
            attempt.watchdog.waiting()
        assert await asyncio.gather(*(attempt.ended for attempt in attempts)) == [1, 5, 2]

    run(main())


def test_an_attempt_that_is_over_is_watched_no_more() -> None:
    """Else the set of those that are would grow with each call."""

    async def main() -> None:
        attempt = Attempt(idle=1)
        attempt.watchdog.waiting()
        attempt.watchdog.release()
        assert not attempt.watchdog._ticker._watched
        await asyncio.sleep(2)
        assert not attempt.ended.done()

    run(main())

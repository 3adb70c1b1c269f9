"""Waiting for an event, rather than for a time by which it should have happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from rusty_agent.testing import Answer, Pause
from rusty_agent.testing.answers import Step


def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait until the condition is true."""
    enough = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < enough, "it did not come true"
        time.sleep(0.002)


async def soon(true: Callable[[], object], seconds: float = 20) -> None:
    """The same on an event loop, whose other tasks go on meanwhile."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)


class _Held(tuple[Step, ...]):
    """Steps with pauses before one of them until a condition is true."""

    at: int
    true: Callable[[], object]

    def __iter__(self) -> Iterator[Step]:
        yield from self[: self.at]
        while not self.true():
            yield Pause(0.002)
        yield from self[self.at :]


def held(whole: Answer, true: Callable[[], object], at: int = 0) -> Answer:
    """This answer, whose steps from `at` on are sent only when the condition is true; others are served meanwhile.

    Step 0 is the head of what `answer` makes; step 1 of a `stream` is the event without text with which it begins.
    """
    steps = _Held(whole.steps)
    steps.at = at
    steps.true = lambda: True  # while Answer checks the steps
    made = Answer(steps, whole.close)
    steps.true = true
    return made

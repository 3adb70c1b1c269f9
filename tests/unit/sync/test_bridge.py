"""A call on its way to the background loop: cancelled at each moment, it ends once."""

from __future__ import annotations

import asyncio
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from rusty_agent.sync.bridge import Crossing
from rusty_agent.sync.thread import loop_thread

Outcomes = SimpleQueue[tuple[Any, BaseException | None]]


def crossing(function: Any) -> tuple[Crossing[Any], Outcomes]:
    outcomes: Outcomes = SimpleQueue()
    return Crossing(loop_thread(), function, lambda value, error: outcomes.put((value, error))), outcomes


def settle() -> None:
    """Wait until the loop has done what it was told."""
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop_thread().loop).result(10)


def test_one_that_is_cancelled_before_it_begins_never_runs() -> None:
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    call, outcomes = crossing(work)
    call.cancel()
    call.begin()
    settle()
    assert isinstance(outcomes.get(timeout=10)[1], asyncio.CancelledError)
    assert (ran, outcomes.empty()) == ([], True)


def test_one_that_is_cancelled_before_its_first_step_ends_too() -> None:
    go_on = loop_thread().hold()

    async def work() -> None:
        raise AssertionError

    call, outcomes = crossing(work)
    call.begin()
    call.cancel()
    go_on()
    assert isinstance(outcomes.get(timeout=10)[1], asyncio.CancelledError)
    settle()
    assert outcomes.empty()
    assert loop_thread().tasks == set()


def test_a_second_cancel_leaves_the_cleaning_up_of_the_first_alone() -> None:
    begun: SimpleQueue[str] = SimpleQueue()
    cleaned = asyncio.Event()

    async def work() -> None:
        begun.put("work")
        try:
            await asyncio.Event().wait()
        finally:
            begun.put("cleaning up")
            await cleaned.wait()
            begun.put("cleaned up")

    call, outcomes = crossing(work)
    call.begin()
    assert begun.get(timeout=10) == "work"
    assert len(loop_thread().tasks) == 1  # a loop holds its tasks weakly
    call.cancel()
    assert begun.get(timeout=10) == "cleaning up"
    call.cancel()
    settle()
    with pytest.raises(Empty):
        outcomes.get_nowait()
    loop_thread().loop.call_soon_threadsafe(cleaned.set)
    assert isinstance(outcomes.get(timeout=10)[1], asyncio.CancelledError)
    assert begun.get(timeout=10) == "cleaned up"
    settle()
    assert loop_thread().tasks == set()

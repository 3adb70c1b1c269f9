"""Waits that a cancellation does not cut short."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from rusty_agent.batch.waiting import outlast, to_its_end


@pytest.mark.parametrize("end", ["result", "error", "cancel"])
async def test_however_often_the_waiting_is_cancelled_it_lasts_until_the_end(end: str) -> None:
    loop, told, complaints = asyncio.get_running_loop(), list[str](), list[object]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    running: asyncio.Future[int] = loop.create_future()
    waiting = asyncio.ensure_future(outlast(running, on_cancel=lambda: told.append("cancelled")))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert (waiting.done(), told) == (False, ["cancelled"])
    if end == "cancel":
        running.cancel()
    elif end == "error":
        running.set_exception(ValueError("of no interest"))
    else:
        running.set_result(1)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del running, waiting
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []  # that nobody has asked


async def test_what_blocks_runs_in_a_thread_to_its_end() -> None:
    begun, go_on, told = threading.Event(), threading.Event(), list[str]()

    def work(text: str, *, end: str) -> str:
        begun.set()
        go_on.wait(10)
        told.append(text + end)
        return text + end

    waiting = asyncio.ensure_future(to_its_end(work, "a", end="!", on_cancel=go_on.set))
    await asyncio.to_thread(begun.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert told == ["a!"]
    assert (await to_its_end(work, "b", end="?"), told) == ("b?", ["a!", "b?"])
    with pytest.raises(ZeroDivisionError):
        await to_its_end(divmod, 1, 0)

"""The ways to the background loop and back.

A call, cancelled at each moment, ends once; what is handed over arrives, and no more of it than there is room for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from rusty_agent.sync import bridge
from rusty_agent.sync.bridge import Crossing, Handover, read_alone
from rusty_agent.sync.thread import LoopThread, loop_thread

from ...events import until
from ...tracing import interrupted

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


def put_all(handover: Handover[int], items: list[int], size: int) -> list[int]:
    """Put items from a task of the loop, and then the end; the list of those for which there was room."""
    put: list[int] = []

    async def work() -> None:
        for item in items:
            await handover.put(item, size)
            put.append(item)
        handover.end(None)

    asyncio.run_coroutine_threadsafe(work(), loop_thread().loop)
    return put


def test_what_is_handed_over_waits_for_room_between_two_marks() -> None:
    handover: Handover[int] = Handover(loop_thread(), 6, 2)
    put = put_all(handover, list(range(1, 8)), 2)
    until(lambda: len(put) == 2)
    settle()
    assert put == [1, 2]  # the third, in whose size the mark is reached, is on its way
    assert handover.get() == (1, None)
    settle()
    assert put == [1, 2]  # 4 are left: not yet as few as the lower mark
    assert handover.get() == (2, None)
    until(lambda: len(put) == 4)
    settle()
    assert put == [1, 2, 3, 4]
    assert [handover.get() for _ in range(6)] == [*((item, None) for item in range(3, 8)), (None, None)]
    until(lambda: len(put) == 7)
    assert not handover._paused  # the other thread need wake nobody


def test_room_that_is_made_before_the_flag_is_seen_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    handover: Handover[int] = Handover(loop_thread(), 2, 1)
    clear = handover._room.clear

    def make_room() -> None:
        clear()
        assert handover.get() == (1, None)  # as the other thread may, between two steps of this one

    monkeypatch.setattr(handover._room, "clear", make_room)
    put = put_all(handover, [1], 2)
    until(lambda: put == [1])  # else this thread may take it: Python 3.13 hands an item to whoever waits
    assert handover.get() == (None, None)


def test_the_end_brings_its_error() -> None:
    handover: Handover[int] = Handover(loop_thread())
    error = ValueError("broken")
    loop_thread().loop.call_soon_threadsafe(handover.end, error)
    assert handover.get() == (None, error)


def test_an_interrupt_waits_for_the_end_and_leaves_it_to_whoever_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_CLEAN_UP_SECONDS", 10)
    handover: Handover[int] = Handover(loop_thread())
    threading.Timer(0.05, put_all, (handover, [1], 1)).start()
    handover.settle()
    assert not handover._over.locked()
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.extend((handover.get(), handover.get())), daemon=True)
    reader.start()
    reader.join(10)
    assert got == [(1, None), (None, None)]
    began = time.monotonic()
    handover.settle()
    assert time.monotonic() - began < 5


def test_an_interrupt_waits_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_CLEAN_UP_SECONDS", 0.02)
    handover: Handover[int] = Handover(loop_thread())
    handover.settle()
    assert handover._over.locked()


def test_ctrl_c_in_an_interrupts_wait_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's thread would wait for its lock, and every call for that."""
    monkeypatch.setattr(bridge, "_CLEAN_UP_SECONDS", 0.001)
    for step in count(1):
        handover: Handover[int] = Handover(loop_thread())
        came = interrupted(step, handover.settle)
        ending = threading.Thread(target=handover.end, args=(None,), daemon=True)
        ending.start()
        ending.join(10)
        assert not ending.is_alive()
        if not came:
            break
    assert step > 1


def test_a_reader_reads_alone_and_whoever_may_not_disturbs_nobody() -> None:
    reading, lost = threading.Lock(), []

    def read(what: Callable[[], int], thread: LoopThread | None = None) -> int:
        return read_alone("stream", thread or loop_thread(), reading, what, lambda: lost.append(1))

    assert [read(lambda: 1), read(lambda: 2)] == [1, 2]
    with reading, pytest.raises(RuntimeError, match="The stream is being read by another thread"):
        read(lambda: 3)
    parents = LoopThread()
    parents.process += 1
    with pytest.raises(RuntimeError, match="This stream was started in the parent process"):
        read(lambda: 4, parents)

    async def on_the_loop() -> int:
        return read(lambda: 5)

    with pytest.raises(RuntimeError, match="own event loop thread"):
        asyncio.run_coroutine_threadsafe(on_the_loop(), loop_thread().loop).result(10)
    assert lost == []
    with pytest.raises(ZeroDivisionError):
        read(lambda: 1 // 0)
    assert (lost, reading.locked()) == ([1], True)


def test_nobody_waits_for_a_loop_that_runs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "_POLL_SECONDS", 0.01)
    over = LoopThread()
    over.loop = asyncio.new_event_loop()
    over.loop.close()
    with pytest.raises(RuntimeError, match="event loop has ended"):
        Handover[int](over).get()
    over.process += 1  # as where a signal handler has forked, and goes on in both
    with pytest.raises(RuntimeError, match="started in the parent process"):
        Handover[int](over).get()

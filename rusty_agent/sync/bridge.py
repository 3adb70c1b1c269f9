"""Ways to the background loop and back: a call, and a stream of arrivals.

In: coroutines, from any thread. Out: their results, on that thread. Never touched: what the coroutines do.

An interrupted wait (Ctrl-C) cancels what it was waiting for.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from .thread import LoopThread, loop_thread

__all__ = ["Crossing", "Handover", "read_alone", "run"]

T = TypeVar("T")

_HIGH_WATER = 2**18  # received bytes that may wait for the consuming thread, as in aiohttp's read buffer
_LOW_WATER = 2**16
_CLEAN_UP_SECONDS = 0.25  # how long an interrupted call may take to clean up before the interrupt propagates
_POLL_SECONDS = 0.2  # waits are short: Ctrl-C interrupts none on Windows, and none that begins just as it arrives


def run(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function on the loop, in this thread's context, and wait for it.

    Raises:
        RuntimeError: This is the loop's own thread, which would wait for itself.
        BaseException: Whatever the coroutine raises.
    """
    thread = loop_thread()
    outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    crossing = Crossing(thread, function, lambda value, error: outcome.put((value, error)))
    try:
        crossing.begin()
        value, error = _get(outcome, thread)
    except BaseException:
        crossing.cancel()
        with suppress(Empty):
            outcome.get(timeout=_CLEAN_UP_SECONDS)
        raise
    if error is not None:
        try:
            raise error
        finally:
            del error  # or a reference cycle of the error and this frame would keep the answer alive
    return value  # type: ignore[return-value]


class Crossing(Generic[T]):
    """A call that is on its way to the loop, running there, or over. It runs in the context of the creating thread.

    It is created first and begun afterwards, because Ctrl-C may come between any two steps of the main thread: whoever
    begins it then already holds the object that can cancel it. For the same reason the coroutine is created on the
    loop: one lost on its way there would warn that it was never awaited.

    Args:
        thread: The loop thread to run it on.
        function: The coroutine function to run.
        done: Called on the loop with the result or the error.

    Raises:
        RuntimeError: This is the loop's own thread, which would wait for itself.
    """

    __slots__ = ("_cancelled", "_context", "_done", "_function", "_task", "_thread")

    def __init__(
        self,
        thread: LoopThread,
        function: Callable[[], Coroutine[Any, Any, T]],
        done: Callable[[T | None, BaseException | None], object],
    ) -> None:
        thread.refuse_own_thread()
        self._thread = thread
        self._function = function
        self._done = done
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

    def begin(self) -> None:
        """Send it to the loop."""
        self._thread.loop.call_soon_threadsafe(self._begin)

    def cancel(self) -> None:
        """Cancel it, from any thread, at any time, even if it was never begun. A forked child leaves it alone."""
        if self._thread.process == os.getpid():
            self._thread.post(self._cancel)

    # On the loop.

    def _begin(self) -> None:
        if not self._cancelled:
            self._task = self._thread.loop.create_task(self._run(), context=self._context)
            self._thread.tasks.add(self._task)
            self._task.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self._cancelled:  # a second cancellation would interrupt the cleanup that the first has begun
            return
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()
        else:
            self._fail(asyncio.CancelledError())

    def _end(self, task: asyncio.Task[None]) -> None:
        self._thread.tasks.discard(task)
        if task.cancelled():  # before its first step
            self._fail(asyncio.CancelledError())

    def _fail(self, error: BaseException) -> None:
        if not self._thread.stopping:  # see `LoopThread.refuse_when_over`
            self._done(None, error)

    async def _run(self) -> None:
        try:
            value = await self._function()
        except asyncio.CancelledError:
            self._fail(asyncio.CancelledError())  # a new one: the caught one's frames hold the queue that it goes into
        except BaseException as error:
            self._fail(error)
        else:
            self._done(value, None)


class Handover(Generic[T]):
    """A bounded pipe from the loop to one consuming thread, which is woken once per arrival.

    How much is waiting follows from two counters, each written by one side only, so that no lock is taken per item.

    Args:
        thread: The loop thread, on which `put` runs.
        high_water: How much may wait for the consuming thread, in the unit of `put`'s sizes (bytes for the defaults).
        low_water: `put` goes on when no more than this is left waiting.
    """

    def __init__(self, thread: LoopThread, high_water: int = _HIGH_WATER, low_water: int = _LOW_WATER) -> None:
        self._thread = thread
        self._high_water = high_water
        self._low_water = low_water
        self._arrivals: SimpleQueue[tuple[T | None, BaseException | None, int]] = SimpleQueue()
        self._sent = 0
        self._taken = 0
        self._paused = False
        self._room = asyncio.Event()
        self._over = threading.Lock()  # held until the end. Not an Event, whose lock Ctrl-C could leave held
        self._over.acquire()

    async def put(self, item: T, size: int) -> None:
        """Hand over an arrival of this size, then wait while too much is waiting. Runs on the loop."""
        self._sent += size
        self.post(item, size)
        while self._sent - self._taken >= self._high_water:
            self._room.clear()
            self._paused = True
            if self._sent - self._taken >= self._high_water:  # the consumer may have made room before it saw the flag
                await self._room.wait()
            self._paused = False

    def post(self, item: T, size: int = 0) -> None:
        """Hand over an item without waiting for room. Runs on the loop."""
        self._arrivals.put((item, None, size))

    def end(self, error: BaseException | None) -> None:
        """Hand over the end, with an error or without; call it once. Runs on the loop."""
        self._over.release()
        self._arrivals.put((None, error, 0))

    def get(self) -> tuple[T | None, BaseException | None]:
        """Wait for the next arrival; None at the end, with its error if there is one. Runs on the consuming thread.

        That error is returned, not raised: an exception from here thus means that the wait was interrupted, as by a
        signal handler, while the pump still runs.
        """
        item, error, size = _get(self._arrivals, self._thread)
        self._taken += size
        if self._paused and self._sent - self._taken <= self._low_water:
            self._thread.post(self._room.set)
        return item, error

    def settle(self) -> None:
        """Give a cancelled pump time to clean up before an interrupt propagates. Takes no arrival from the pipe."""
        if self._over.acquire(timeout=_CLEAN_UP_SECONDS):
            self._over.release()


def read_alone(
    what: str, thread: LoopThread, reading: threading.Lock, read: Callable[[], T], lose: Callable[[], object]
) -> T:
    """Read from a stream or a run, unless another thread is reading. A reader that is refused changes nothing.

    Args:
        what: What is read, for messages.
        thread: The loop thread that it comes from.
        reading: Held during a read, and for good after a failed one, because nothing more would arrive.
        read: Reads the next arrival.
        lose: Called when an arrival may have been lost, as by Ctrl-C.

    Raises:
        RuntimeError: This is another process or the loop's own thread, or another thread is reading.
        BaseException: Whatever `read` raises.
    """
    if thread.process != os.getpid():
        raise RuntimeError(f"This {what} was started in the parent process: start a new one in this process")
    thread.refuse_own_thread()
    try:
        if reading.acquire(blocking=False):
            arrived = read()
            reading.release()
            return arrived
    except BaseException:
        lose()
        raise
    raise RuntimeError(f"The {what} is being read by another thread: only one may read at a time")


def _get(queue: SimpleQueue[T], thread: LoopThread) -> T:
    while True:
        try:
            return queue.get(timeout=_POLL_SECONDS)
        except Empty:  # not `suppress`: Ctrl-C could be raised inside it, and its traceback would show that
            pass
        thread.refuse_when_over()

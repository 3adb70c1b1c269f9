"""One background event loop per process, and two ways across: a call, and a stream of arrivals.

In: coroutines, from any thread. Out: their results, on that thread. Never touched: what the coroutines do.

The thread is a daemon: it is started by the first call, stopped at exit, and started anew in a forked child. A wait
on it can be interrupted (Ctrl-C), and then cancels what it waited for.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

# Imported here, not on first use: a child forked while another thread imports it would wait for that import for ever.
_new_fast_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
with suppress(ImportError):
    import uvloop

    _new_fast_loop = uvloop.new_event_loop

__all__ = ["Handover", "LoopThread", "loop_thread", "new_loop"]

T = TypeVar("T")

_HIGH_WATER = 2**18  # bytes on the wire that may wait for the consuming thread, as aiohttp's own read buffer
_LOW_WATER = 2**16
_CLEAN_UP_SECONDS = 0.25  # how long an interrupted call may take to clean up before the interrupt goes on
_HOLD_SECONDS = 1.0
_EXIT_SECONDS = 1.0  # how long the loop may take to close its connections at exit
_POLL_SECONDS = 0.1 if os.name == "nt" else None  # Ctrl-C does not interrupt waits on Windows


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = new_loop()
        self.process = os.getpid()
        self._stopping = False
        # The loop holds its tasks weakly. In a forked child the frame of `_run` is lost with all that it refers to,
        # so that nothing here is ever destroyed there, and nothing complains of it.
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="rusty-agent", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, in this thread's context, and wait for it.

        Raises:
            RuntimeError: This is the loop's own thread: it would wait for itself.
            BaseException: What the coroutine raises.
        """
        self.refuse_own_thread(coroutine)
        outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        cancel = self.start(coroutine, lambda value, error: outcome.put((value, error)))
        try:
            value, error = _get(outcome)
        except BaseException:
            cancel()
            with suppress(Empty):
                outcome.get(timeout=_CLEAN_UP_SECONDS)
            raise
        if error is not None:
            try:
                raise error
            finally:
                del error  # a cycle of the error and this frame would keep the answer alive
        return value  # type: ignore[return-value]

    def start(
        self, coroutine: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], object]
    ) -> Callable[[], None]:
        """Start a coroutine on the loop; `done` is called there. Returns what cancels it, from any thread."""
        context = contextvars.copy_context()
        task: asyncio.Task[None] | None = None

        async def main() -> None:
            try:
                value = await coroutine
            except BaseException as error:
                if not self._stopping:  # at exit, a daemon thread that waits is better left waiting
                    done(None, error)
            else:
                done(value, None)

        def begin() -> None:
            nonlocal task
            task = self.loop.create_task(main(), context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: coroutine.close())  # it may have been cancelled before its first step

        def cancel() -> None:
            with suppress(RuntimeError):  # the loop has been closed: there is nothing left to cancel
                self.loop.call_soon_threadsafe(lambda: task and task.cancel())

        self.loop.call_soon_threadsafe(begin)
        return cancel

    def refuse_own_thread(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Raise instead of deadlocking."""
        if threading.get_ident() == self._thread.ident:
            coroutine.close()
            raise RuntimeError(
                "A blocking call on rusty_agent's own event loop thread would wait for itself. "
                "Use AsyncProvider in callbacks, or call from another thread."
            )

    def hold(self) -> Callable[[], None]:
        """Let the thread stand still between two steps of its loop; returns what lets it go on.

        For forks: a child inherits every lock that is held, such as that of a module that is being imported, and no
        thread that would release it. The wait is bounded, as what runs on the loop may block.
        """
        standing, go_on = threading.Event(), threading.Event()

        def stand() -> None:
            standing.set()
            go_on.wait(_HOLD_SECONDS)

        if threading.get_ident() != self._thread.ident:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(stand)
                standing.wait(_HOLD_SECONDS)
        return go_on.set

    def stop(self) -> None:
        """Cancel what runs, close all connections, end the thread."""
        self._stopping = True
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_EXIT_SECONDS)

    def _run(self) -> None:
        loop = self.loop
        try:
            loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_EXIT_SECONDS / 2))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


class Handover(Generic[T]):
    """A bounded pipe from the loop to one consuming thread, which it wakes once per arrival.

    Two counters, each written by one side only, tell how much is under way: no lock is taken per item.

    Args:
        loop: Where `put` runs.
        high_water: How much may wait for the consuming thread, in the unit of `put`'s sizes. Default: bytes.
        low_water: How much may be left of it when `put` goes on.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, high_water: int = _HIGH_WATER, low_water: int = _LOW_WATER
    ) -> None:
        self._loop = loop
        self._high_water = high_water
        self._low_water = low_water
        self._arrivals: SimpleQueue[tuple[T | None, BaseException | None, int]] = SimpleQueue()
        self._sent = 0
        self._taken = 0
        self._paused = False
        self._room = asyncio.Event()

    async def put(self, item: T, size: int) -> None:
        """Hand an arrival of this size over; wait while too much is under way. Runs on the loop."""
        self._sent += size
        self.post(item, size)
        while self._sent - self._taken >= self._high_water:
            self._room.clear()
            self._paused = True
            if self._sent - self._taken >= self._high_water:  # the consumer may have made room before it saw the flag
                await self._room.wait()
            self._paused = False

    def post(self, item: T, size: int = 0) -> None:
        """Hand something over without waiting for room. Runs on the loop."""
        self._arrivals.put((item, None, size))

    def end(self, error: BaseException | None) -> None:
        """Hand the end over. Runs on the loop."""
        self._arrivals.put((None, error, 0))

    def get(self) -> T | None:
        """Wait for the next arrival; None at the end. Runs on the consuming thread.

        Raises:
            BaseException: What the end brought.
        """
        item, error, size = _get(self._arrivals)
        self._taken += size
        if self._paused and self._sent - self._taken <= self._low_water:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._room.set)
        if error is not None:
            raise error
        return item


def _get(queue: SimpleQueue[T]) -> T:
    if _POLL_SECONDS is None:
        return queue.get()
    while True:
        with suppress(Empty):
            return queue.get(timeout=_POLL_SECONDS)


def new_loop() -> asyncio.AbstractEventLoop:
    for descriptor in (0, 1, 2):  # libuv would take a closed one for its own, and abort the process when it closes it
        try:
            os.fstat(descriptor)
        except OSError:
            return asyncio.new_event_loop()
    return _new_fast_loop()


_current: LoopThread | None = None
_starting = threading.Lock()


def loop_thread() -> LoopThread:
    """The process's loop thread, started if there is none yet."""
    global _current
    current = _current
    if current is None:
        with _starting:
            current = _current
            if current is None:
                current = _current = LoopThread()
    return current


def _stop_at_exit() -> None:
    global _current
    current, _current = _current, None
    if current is not None:
        current.stop()


_held: dict[int, Callable[[], None]] = {}  # by the thread that forks


def _before_fork() -> None:
    if _current is not None:
        _held[threading.get_ident()] = _current.hold()


def _in_parent() -> None:
    go_on = _held.pop(threading.get_ident(), None)
    if go_on is not None:
        go_on()


def _in_child() -> None:
    """The parent's thread does not exist in the child, and its lock may have been held when the child was made."""
    global _current, _starting
    _current = None
    _starting = threading.Lock()
    _held.clear()


atexit.register(_stop_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)

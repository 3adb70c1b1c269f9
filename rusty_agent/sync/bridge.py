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
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from .loop import new_loop

__all__ = ["Crossing", "Handover", "LoopThread", "loop_thread", "new_loop"]

T = TypeVar("T")

_HIGH_WATER = 2**18  # bytes on the wire that may wait for the consuming thread, as aiohttp's own read buffer
_LOW_WATER = 2**16
_CLEAN_UP_SECONDS = 0.25  # how long an interrupted call may take to clean up before the interrupt goes on
_HOLD_SECONDS = 1.0
_EXIT_SECONDS = 1.0  # how long the loop may take to close its connections at exit
_POLL_SECONDS = 0.2  # Ctrl-C does not interrupt a wait on Windows, and none that begins in the moment of its signal


class LoopThread:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = new_loop()
        self.process = os.getpid()
        self.started = False
        self.stopping = False
        # The loop holds its tasks weakly. In a forked child the frame of `_run` is lost with all that it refers to,
        # so that nothing here is ever destroyed there, and nothing complains of it.
        self.tasks: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._ident: int | None = None
        self._taken = threading.Lock()

    def start_thread(self) -> None:
        """Start the thread, if it has not been.

        Ctrl-C may end this when the thread has begun already. Then it is begun again, and the second one ends at once.
        """
        if not self.started:
            threading.Thread(target=self._run, name="rusty-agent", daemon=True).start()
            self.started = True

    def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function on the loop, in this thread's context, and wait for it.

        Raises:
            RuntimeError: This is the loop's own thread: it would wait for itself.
            BaseException: What the coroutine raises.
        """
        outcome: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
        crossing = Crossing(self, function, lambda value, error: outcome.put((value, error)))
        try:
            crossing.begin()
            value, error = _get(outcome, self)
        except BaseException:
            crossing.cancel()
            with suppress(Empty):
                outcome.get(timeout=_CLEAN_UP_SECONDS)
            raise
        if error is not None:
            try:
                raise error
            finally:
                del error  # a cycle of the error and this frame would keep the answer alive
        return value  # type: ignore[return-value]

    def refuse_own_thread(self) -> None:
        """Raise instead of deadlocking."""
        if threading.get_ident() == self._ident:
            raise RuntimeError(
                "A blocking call on rusty_agent's own event loop thread would wait for itself. "
                "Use AsyncProvider in callbacks, or call from another thread."
            )

    def refuse_when_over(self) -> None:
        """Raise instead of waiting for a loop that runs no more; daemon threads are better left waiting at exit."""
        over = not threading.current_thread().daemon if self.stopping else self.loop.is_closed()
        if over:
            raise RuntimeError("rusty_agent's event loop has ended: no answer can be waited for any more.")

    def hold(self) -> Callable[[], None]:
        """Let the thread stand still between two steps of its loop; returns what lets it go on.

        For forks: a child inherits every lock that is held, such as that of a module that is being imported, and no
        thread that would release it. The wait is bounded, as what runs on the loop may block.
        """
        standing, go_on = threading.Event(), threading.Event()

        def stand() -> None:
            standing.set()
            go_on.wait(_HOLD_SECONDS)

        if self._ident not in (None, threading.get_ident()):
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(stand)
                standing.wait(_HOLD_SECONDS)
        return go_on.set

    def stop(self) -> None:
        """Cancel what runs, close all connections, end the thread."""
        self.stopping = True
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        if self._thread is not None:
            self._thread.join(_EXIT_SECONDS)

    def _run(self) -> None:
        if not self._taken.acquire(blocking=False):
            return
        self._thread, self._ident = threading.current_thread(), threading.get_ident()
        loop = self.loop
        try:
            while not self.stopping:
                with suppress(KeyboardInterrupt, SystemExit):  # of a task, whose outcome it is; the others go on
                    loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_EXIT_SECONDS / 2))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


class Crossing(Generic[T]):
    """A call on its way to the loop, running there, or over; in the context of the thread that makes this.

    It is made first and begun afterwards, so that whoever begins it holds already what it takes to cancel it: Ctrl-C
    may come between any two steps of the main thread. For the same reason the coroutine is made on the loop: one that
    was lost on its way there would complain that it was never awaited.

    Args:
        thread: Where to run it.
        function: What to run.
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
        """Cancel it, from any thread, at any time, even if it was never begun; what is the parent's is left alone."""
        if self._thread.process == os.getpid():
            with suppress(RuntimeError):  # the loop has been closed: there is nothing left to cancel
                self._thread.loop.call_soon_threadsafe(self._cancel)

    # On the loop.

    def _begin(self) -> None:
        if not self._cancelled:
            self._task = self._thread.loop.create_task(self._run(), context=self._context)
            self._thread.tasks.add(self._task)
            self._task.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self._cancelled:  # a second one would end the cleaning up that the first has begun
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
        except BaseException as error:
            self._fail(error)
        else:
            self._done(value, None)


class Handover(Generic[T]):
    """A bounded pipe from the loop to one consuming thread, which it wakes once per arrival.

    Two counters, each written by one side only, tell how much is under way: no lock is taken per item.

    Args:
        thread: Where `put` runs.
        high_water: How much may wait for the consuming thread, in the unit of `put`'s sizes. Default: bytes.
        low_water: How much may be left of it when `put` goes on.
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

    def get(self) -> tuple[T | None, BaseException | None]:
        """Wait for the next arrival; None at the end, with the error that it brought. Runs on the consuming thread.

        That error is not raised here: what is, comes from a signal handler of the caller's, and the pump goes on.
        """
        item, error, size = _get(self._arrivals, self._thread)
        self._taken += size
        if self._paused and self._sent - self._taken <= self._low_water:
            with suppress(RuntimeError):
                self._thread.loop.call_soon_threadsafe(self._room.set)
        return item, error


def _get(queue: SimpleQueue[T], thread: LoopThread) -> T:
    while True:
        try:
            return queue.get(timeout=_POLL_SECONDS)
        except Empty:  # no `suppress`: Ctrl-C would be raised in it, and its traceback begin with this
            pass
        _refuse_when_finalizing()
        thread.refuse_when_over()


def _refuse_when_finalizing() -> None:
    """Raise instead of waiting for a thread that will never run again: no daemon thread does once Python shuts down.

    Raises:
        RuntimeError: Python shuts down: this is called by a `__del__`, or by a generator that is closed.
    """
    if sys.is_finalizing():
        raise RuntimeError("Python is shutting down: no answer can be waited for any more.")


_current: LoopThread | None = None
_starting = threading.Lock()


def loop_thread() -> LoopThread:
    """The process's loop thread, started if there is none yet, or none any more.

    Raises:
        RuntimeError: Python shuts down.
    """
    global _current
    _refuse_when_finalizing()
    current = _current
    if current is None or not current.started or current.loop.is_closed():
        with _starting:
            if _current is None or _current.loop.is_closed():
                _current = LoopThread()
            current = _current
            current.start_thread()
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

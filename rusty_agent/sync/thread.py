"""The one background event loop of a process.

In: nothing. Out: the loop, in a thread of its own. Never touched: what runs on it.

The thread is a daemon. The first call starts it, also in a forked child; it is stopped at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from copy import copy

from ..errors import APIConnectionError
from ..remedy import with_remedy
from .loop import new_loop

__all__ = ["LoopThread", "loop_thread"]

_HOLD_SECONDS = 1.0
_READY_SECONDS = 0.01  # how often to check whether the loop is there
_EXIT_SECONDS = 1.0  # how long the loop may take to close its connections at exit


class LoopThread:
    """An event loop that runs in a thread of its own.

    The thread makes the loop and holds it. If the calling thread's frames held it, a child forked by a signal handler
    would destroy its copy when they end, and so unregister the parent's sockets from the selector that both share.

    Attributes:
        loop: The event loop; set once `started` is true.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.process = os.getpid()
        self.started = False
        self.stopping = False
        # The loop holds its tasks weakly. In a forked child the frame of `_run` is never released, nor what it refers
        # to: so the tasks in this set are not destroyed there, and do not warn that they were pending.
        self.tasks: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._ident: int | None = None
        self._run_once = threading.Lock()
        self._ready = threading.Lock()  # released when it has started or failed. No Event, see `hold`
        self._ready.acquire()
        self._failure: BaseException | None = None

    @property
    def is_of_use(self) -> bool:
        """Whether it is running or can be started: it has not ended or failed, and belongs to this process."""
        over = self._failure is not None or (self.started and self.loop.is_closed())
        return not over and self.process == os.getpid()

    def start_thread(self) -> None:
        """Start the thread if that has not happened yet, and wait until its loop is there.

        Ctrl-C may interrupt this when a thread has been started already. The next call then starts a second one, which
        ends at once.

        Raises:
            APIConnectionError: No loop can be made, as when too many files are open, or too many threads run.
        """
        if not self.started:
            try:
                threading.Thread(target=self._run, name="rusty-agent", daemon=True).start()
            except RuntimeError as error:
                raise _no_loop(f"{error}. Too many threads are running already, or Python is shutting down.") from error
        while not self.started and self.is_of_use:
            self._ready.acquire(timeout=_READY_SECONDS)
        if isinstance(self._failure, OSError):
            raise _no_loop(with_remedy(self._failure)) from self._failure
        if self._failure is not None:
            raise copy(self._failure)  # a copy: the traceback would keep the caller's frames

    def refuse_own_thread(self) -> None:
        """Raise instead of deadlocking."""
        if threading.get_ident() == self._ident:
            raise RuntimeError(
                "A blocking call on rusty_agent's own event loop thread would wait for itself. "
                "Use AsyncProvider in callbacks, or call from another thread."
            )

    def refuse_when_over(self) -> None:
        """Raise instead of waiting for a loop that no longer runs; at exit, daemon threads are better left waiting."""
        _refuse_when_finalizing()
        if self.process != os.getpid():  # a signal handler has forked
            raise RuntimeError("This call was started in the parent process: start a new one in this process.")
        over = not threading.current_thread().daemon if self.stopping else self.loop.is_closed()
        if over:
            raise RuntimeError("rusty_agent's event loop has ended: it is too late to wait for an answer.")

    def post(self, callback: Callable[[], object]) -> None:
        """Call something on the loop; if that is closed, nothing is left to call it for."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback)

    def hold(self) -> Callable[[], None]:
        """Make the thread stand still between two steps of its loop; return a function that lets it go on.

        For forks: a child inherits every lock that is held, such as that of a module being imported, but not the thread
        that would release it. The wait is bounded, because a callback on the loop may block.
        """
        standing, go_on = threading.Lock(), threading.Lock()  # no Events: Ctrl-C could leave their locks held
        standing.acquire()
        go_on.acquire()

        def stand() -> None:
            standing.release()
            go_on.acquire(timeout=_HOLD_SECONDS)

        if self.started and self._ident != threading.get_ident():
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(stand)
                standing.acquire(timeout=_HOLD_SECONDS)
        return go_on.release

    def stop(self) -> None:
        """Cancel all tasks, close all connections, end the thread."""
        self.stopping = True
        if self.started:
            self.post(self.loop.stop)
        if self._thread is not None:
            self._thread.join(_EXIT_SECONDS)

    def _run(self) -> None:
        if not self._run_once.acquire(blocking=False):
            return
        # First: a `__del__` that the garbage collector runs here may make a call, which would wait for this thread.
        self._thread, self._ident = threading.current_thread(), threading.get_ident()
        try:
            loop = self.loop = new_loop()
            self.started = True
        except BaseException as error:
            self._failure = error.with_traceback(None)
            return
        finally:
            self._ready.release()
        try:
            while not self.stopping:
                with suppress(KeyboardInterrupt, SystemExit):  # of a task, as its outcome; others go on
                    loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=_EXIT_SECONDS / 2))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


def _no_loop(said: str) -> APIConnectionError:
    return APIConnectionError(f"Cannot start an event loop for blocking calls: {said}")


def _refuse_when_finalizing() -> None:
    """Raise instead of waiting for a thread that will never run again: daemon threads do not once Python shuts down.

    Raises:
        RuntimeError: Python is shutting down, and a `__del__` or a generator being closed has called this.
    """
    if sys.is_finalizing():
        raise RuntimeError("Python is shutting down: it is too late to wait for an answer.")


_current: LoopThread | None = None
_starting = threading.RLock()  # reentrant: a signal handler, or a `__del__`, may make a call while it is held


def loop_thread() -> LoopThread:
    """The loop thread of this process, started if there is none of use.

    Raises:
        APIConnectionError: No loop can be made, as when too many files are open, or too many threads run.
        RuntimeError: Python is shutting down, or this is that thread itself, which is not ready yet.
    """
    global _current
    _refuse_when_finalizing()
    while True:
        current = _current
        if current is not None and current.is_of_use:
            if current.started:
                return current
            current.refuse_own_thread()
        with _starting:
            known = _current
            if known is None or not known.is_of_use:
                made = LoopThread()
                if _current is known:  # else a nested call has made another one meanwhile
                    _current = made
        # Not while the lock is held: a `__del__` that runs on the new thread before it is ready may need it.
        if (current := _current) is not None:  # None in a child that a signal handler has just forked
            current.start_thread()


def _stop_at_exit() -> None:
    global _current
    current, _current = _current, None
    if current is not None:
        current.stop()


_held: dict[int, Callable[[], None]] = {}  # by identity of the forking thread


def _before_fork() -> None:
    if _current is not None:
        _held[threading.get_ident()] = _current.hold()


def _in_parent() -> None:
    go_on = _held.pop(threading.get_ident(), None)
    if go_on is not None:
        go_on()


def _in_child() -> None:
    """Forget the parent's thread, which does not exist in the child, and its lock, which may have been held."""
    global _current, _starting
    _current = None
    _starting = threading.RLock()
    _held.clear()


atexit.register(_stop_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)

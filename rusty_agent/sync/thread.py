"""The one background event loop of a process.

In: nothing. Out: the loop, in a thread of its own. Never touched: what runs on it.

The thread is a daemon: it is started by the first call, stopped at exit, and started anew in a forked child.
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
from .loop import new_loop

__all__ = ["LoopThread", "loop_thread"]

_HOLD_SECONDS = 1.0
_READY_SECONDS = 0.01  # how often to look whether the loop is there, where nothing says so
_EXIT_SECONDS = 1.0  # how long the loop may take to close its connections at exit


class LoopThread:
    """An event loop that runs in a thread of its own.

    The thread makes the loop, and keeps it: a child that a signal handler forks, whose own frames come to an end, would
    destroy it, and so take the parent's out of what the two share.

    Attributes:
        loop: There once it has `started`.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.process = os.getpid()
        self.started = False
        self.stopping = False
        # The loop holds its tasks weakly. In a forked child the frame of `_run` is lost with all that it refers to,
        # so that nothing here is ever destroyed there, and nothing complains of it.
        self.tasks: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._ident: int | None = None
        self._run_once = threading.Lock()
        self._ready = threading.Lock()  # released when it has started, or failed to. No event, as below
        self._ready.acquire()
        self._failure: BaseException | None = None

    @property
    def is_of_use(self) -> bool:
        """Whether it runs, or can be started: it has not ended, and is not the parent process's."""
        over = self._failure is not None or (self.started and self.loop.is_closed())
        return not over and self.process == os.getpid()

    def start_thread(self) -> None:
        """Start the thread, if it has not been, and wait until its loop is there.

        Ctrl-C may end this when the thread has begun already. Then it is begun again, and the second one ends at once.

        Raises:
            APIConnectionError: There can be no loop, as where too many files are open, or too many threads run.
        """
        if not self.started:
            try:
                threading.Thread(target=self._run, name="rusty-agent", daemon=True).start()
            except RuntimeError as error:
                raise _no_loop(error, "Too many threads run already, or Python is shutting down.") from error
        while not self.started and self.is_of_use:
            self._ready.acquire(timeout=_READY_SECONDS)
        if isinstance(self._failure, OSError):
            raise _no_loop(self._failure, "Close files, or allow more (ulimit -n).") from self._failure
        if self._failure is not None:
            raise copy(self._failure)  # or its traceback would keep, for as long as this is here, whoever has called

    def refuse_own_thread(self) -> None:
        """Raise instead of deadlocking."""
        if threading.get_ident() == self._ident:
            raise RuntimeError(
                "A blocking call on rusty_agent's own event loop thread would wait for itself. "
                "Use AsyncProvider in callbacks, or call from another thread."
            )

    def refuse_when_over(self) -> None:
        """Raise instead of waiting for a loop that runs no more; daemon threads are better left waiting at exit."""
        _refuse_when_finalizing()
        if self.process != os.getpid():  # a signal handler has forked
            raise RuntimeError("This call was begun in the parent process: begin another one in this one.")
        over = not threading.current_thread().daemon if self.stopping else self.loop.is_closed()
        if over:
            raise RuntimeError("rusty_agent's event loop has ended: no answer can be waited for any more.")

    def post(self, callback: Callable[[], object]) -> None:
        """Have something called on the loop; if that is closed, nobody is left whom it would concern."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback)

    def hold(self) -> Callable[[], None]:
        """Let the thread stand still between two steps of its loop; returns what lets it go on.

        For forks: a child inherits every lock that is held, such as that of a module that is being imported, and no
        thread that would release it. The wait is bounded, as what runs on the loop may block.
        """
        standing, go_on = threading.Lock(), threading.Lock()  # no events: Ctrl-C could leave their locks held
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
        """Cancel what runs, close all connections, end the thread."""
        self.stopping = True
        if self.started:
            self.post(self.loop.stop)
        if self._thread is not None:
            self._thread.join(_EXIT_SECONDS)

    def _run(self) -> None:
        if not self._run_once.acquire(blocking=False):
            return
        # First: what the garbage collector finds meanwhile may make a call, and would wait for what it holds up.
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


def _no_loop(cause: Exception, advice: str) -> APIConnectionError:
    return APIConnectionError(f"There can be no event loop for blocking calls: {cause}. {advice}")


def _refuse_when_finalizing() -> None:
    """Raise instead of waiting for a thread that will never run again: no daemon thread does once Python shuts down.

    Raises:
        RuntimeError: Python shuts down: this is called by a `__del__`, or by a generator that is closed.
    """
    if sys.is_finalizing():
        raise RuntimeError("Python is shutting down: no answer can be waited for any more.")


_current: LoopThread | None = None
_starting = threading.RLock()  # reentrant: a signal handler, or a `__del__`, may make a call while it is held


def loop_thread() -> LoopThread:
    """The process's loop thread, started if there is none yet, or none any more.

    Raises:
        APIConnectionError: There can be no loop, as where too many files are open, or too many threads run.
        RuntimeError: Python shuts down, or this is that thread, which is not ready yet.
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
                if _current is known:  # else such a call has made another one meanwhile
                    _current = made
        # Not while the lock is held: the new thread may want it, for a `__del__` that is run there before it begins.
        if (current := _current) is not None:  # else it has forked
            current.start_thread()


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
    _starting = threading.RLock()
    _held.clear()


atexit.register(_stop_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)

"""The server as its provider sees it: one child process at a time, started when needed, stopped with the provider.

In: a model file, a key, options. Out: the `Child` to talk to. Never touched: what goes on inside it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from pathlib import Path

from ..errors import LocalModelError
from .process import Child, ServerOptions

__all__ = ["LocalServer"]

_REMEMBERED = 4  # calls may still be reading from earlier children when another one is started


class LocalServer:
    """At most one child process at a time, started again after it has ended; for use from any thread."""

    def __init__(self, model: Path, key: str, options: ServerOptions) -> None:
        self._model = model
        self._key = key
        self._options = options
        self._children: deque[Child] = deque(maxlen=_REMEMBERED)
        self._lock = threading.RLock()  # reentrant: the garbage collector may call `stop` from within
        self._stopped = False
        _servers.add(self)

    def child(self) -> Child:
        """The child that is running or being started; returns at once. Wait for its `settled`.

        Raises:
            LocalModelError: The server was stopped, or no thread can be started to run the child.
        """
        with self._lock:
            if self._stopped:
                raise LocalModelError("The local model was stopped along with its provider: create a new provider.")
            if not self._children or self._children[-1].gone:
                try:
                    self._children.append(Child(self._model, self._key, self._options))
                except RuntimeError as error:
                    raise LocalModelError(f"The local model could not be started: {error}.") from error
            return self._children[-1]

    def find(self, port: int | None) -> Child | None:
        """The child that listens, or listened, on this port, or None. Another thread may start one meanwhile."""
        return next((child for child in reversed(list(self._children)) if child.port == port), None)

    def ask_to_end(self) -> None:
        """Ask the child to end, for good, and return at once."""
        with self._lock:
            self._stopped = True
            children = list(self._children)
        for child in children:
            child.ask_to_end()

    def stop(self) -> None:
        """The same, but return when the child is gone. A forked process leaves that to the one that started it."""
        self.ask_to_end()
        for child in list(self._children):
            child.wait_or_kill()


_servers: weakref.WeakSet[LocalServer] = weakref.WeakSet()


def _after_fork() -> None:
    """Replace the locks, which may be held by threads that only the parent has."""
    for server in list(_servers):
        server._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

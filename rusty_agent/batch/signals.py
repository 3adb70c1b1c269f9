"""SIGINT and SIGTERM → a stop in two steps.

In: signals to the process. Out: calls on the event loop: the first signal says to stop and wait, the second (or a
deadline) to wait no longer. Never touched: signals without `handle_signals`; signals that the process was started to
ignore.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self
from weakref import WeakSet

__all__ = ["DRAIN_SECONDS", "Signals"]

DRAIN_SECONDS = 30.0
"""How long requests under way may take after the first signal."""

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_handling: WeakSet[asyncio.AbstractEventLoop] = WeakSet()  # the loops on which a batch handles signals


class Signals:
    """Handles the two signals from `begin` to the end of the context; schedulers send SIGTERM, terminals SIGINT.

    While the context lasts, no other batch on the same loop can handle them.

    Args:
        stop: Called at the first signal.
        abandon: Called at each later one, and `DRAIN_SECONDS` after the first.
        wanted: Whether to do anything at all.

    Raises:
        ValueError: This is not the main thread; or, on entering, another batch on this loop handles them already.
    """

    def __init__(self, stop: Callable[[], object], abandon: Callable[[], object], *, wanted: bool = True) -> None:
        if wanted and threading.current_thread() is not threading.main_thread():
            raise ValueError("handle_signals: only the main thread can handle signals; leave it out in other threads")
        self._stop = stop
        self._abandon = abandon
        self._wanted = wanted
        self._before: dict[signal.Signals, Any] = {}
        self._timer: asyncio.TimerHandle | None = None  # set by the first signal

    def __enter__(self) -> Self:
        if self._wanted:
            self._loop = asyncio.get_running_loop()
            if self._loop in _handling:
                raise ValueError(
                    "handle_signals: another batch on this event loop already handles them; leave it out in this one"
                )
            _handling.add(self._loop)
        return self

    def begin(self) -> None:
        """Handle the signals from now on. Before, they do what the process has set up, by default end it."""
        for number in _HANDLED if self._wanted else ():
            before = signal.getsignal(number)
            if before is signal.SIG_IGN:  # as for a background job of a shell script
                continue
            self._before[number] = before
            try:
                self._loop.add_signal_handler(number, self._received_one)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: self._loop.call_soon_threadsafe(self._received_one))

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._wanted:
            _handling.discard(self._loop)
        for number, before in self._before.items():
            with suppress(NotImplementedError):
                self._loop.remove_signal_handler(number)
            signal.signal(number, before)

    def _received_one(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(DRAIN_SECONDS, self._abandon)
            self._stop()
        else:
            self._abandon()

"""Waits that a cancellation does not cut short, for work that holds files open or needs the batch's lock.

In: a future, or a function that blocks. Out: its result or error, after its end. Never touched: what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

__all__ = ["outlast", "to_its_end"]

T = TypeVar("T")


async def outlast(running: asyncio.Future[T], *, on_cancel: Callable[[], object] = lambda: None) -> None:
    """Wait until `running` is done, even if this wait is cancelled, because what it uses is closed afterwards.

    Args:
        running: The work to wait for.
        on_cancel: Called at the first cancellation.

    Raises:
        asyncio.CancelledError: The wait was cancelled. The outcome of `running` is then dropped.
    """
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            if cancelled is None:
                on_cancel()
            cancelled = error
    if cancelled is not None:
        if not running.cancelled():
            running.exception()  # or the loop would log that its exception was never retrieved
        raise cancelled


async def to_its_end(
    function: Callable[..., T], *arguments: Any, on_cancel: Callable[[], object] = lambda: None, **options: Any
) -> T:
    """Run a blocking function in a thread. A cancellation waits for its end: the thread needs the lock until then."""
    loop = asyncio.get_running_loop()  # its future is no task, so `asyncio.all_tasks` does not list it to be cancelled
    running = loop.run_in_executor(None, partial(function, *arguments, **options))
    await outlast(running, on_cancel=on_cancel)
    return running.result()

"""Waits that a cancellation does not cut short: what is waited for holds files open, or the batch's lock.

In: a future, or a function that blocks. Out: what came of it, after its end. Never touched: what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

__all__ = ["outlast", "to_its_end"]

T = TypeVar("T")


async def outlast(running: asyncio.Future[T], *, on_cancel: Callable[[], object] = lambda: None) -> None:
    """Wait until it is done, also if the waiting is cancelled meanwhile: what it uses is closed after it.

    Args:
        running: What is under way.
        on_cancel: Called at the first cancellation.

    Raises:
        asyncio.CancelledError: The waiting was cancelled. What came of `running` is of no interest then.
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
            running.exception()  # or the loop would complain that nobody has asked
        raise cancelled


async def to_its_end(
    function: Callable[..., T], *arguments: Any, on_cancel: Callable[[], object] = lambda: None, **options: Any
) -> T:
    """Run what blocks in a thread. A cancellation waits for its end: the thread needs the lock until then."""
    loop = asyncio.get_running_loop()  # whose future is no task: nobody else finds it and cancels it
    running = loop.run_in_executor(None, partial(function, *arguments, **options))
    await outlast(running, on_cancel=on_cancel)
    return running.result()

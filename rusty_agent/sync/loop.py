"""The event loop of the blocking face: uvloop if it is installed, with a resolver that does not delay exit.

In: nothing. Out: a new loop. Never touched: what runs on it.

asyncio looks up names in threads that the interpreter waits for at exit, up to a minute if the name server does not
answer. uvloop uses libuv's threads: a forked child that ends normally waits for them, but does not have them, and
crashes. So names are looked up in our own daemon threads.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import ip_address
from types import BuiltinFunctionType
from typing import Any, TypeVar

__all__ = ["new_loop"]

T = TypeVar("T")

_PIPES = 4  # their ends are at least as many as the files that a new loop opens: libuv's first opens 7


class _Resolving:
    """The two look-ups of a loop, done in daemon threads."""

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        look_up = partial(socket.getaddrinfo, host, port, family, type, proto, flags)
        return look_up() if _is_address(host) else await _in_a_daemon(look_up)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        return await _in_a_daemon(partial(socket.getnameinfo, sockaddr, flags))


if sys.platform == "win32":
    _AsyncioLoop = asyncio.ProactorEventLoop
else:
    _AsyncioLoop = asyncio.SelectorEventLoop


class _Loop(_Resolving, _AsyncioLoop):
    """asyncio's own loop."""


_FastLoop: Callable[[], asyncio.AbstractEventLoop] = _Loop
# Imported here, not on first use: a child forked while another thread is importing it would wait for ever.
with suppress(ImportError):
    import uvloop

    class _UvLoop(_Resolving, uvloop.Loop):  # type: ignore[misc]
        """uvloop's loop."""

    _FastLoop = _UvLoop


def new_loop() -> asyncio.AbstractEventLoop:
    """A new loop. The caller must close it.

    Raises:
        OSError: Too many files are open.
    """
    with ExitStack() as spare:  # try this first: libuv would abort the process, asyncio would print a traceback
        for _ in range(_PIPES):
            for end in os.pipe():
                spare.callback(os.close, end)
    if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
        # gevent or eventlet has turned threads into greenlets: libuv's loop would block all others for ever.
        return _Loop()
    for descriptor in (0, 1, 2):  # libuv would open a closed one as its own, and abort the process on closing it
        try:
            os.fstat(descriptor)
        except OSError:
            return _Loop()
    return _FastLoop()


def _is_address(host: Any) -> bool:
    try:
        ip_address(host if isinstance(host, str) else "")
    except ValueError:
        return False
    return True


async def _in_a_daemon(work: Callable[[], T]) -> T:
    """Do blocking work in a daemon thread, and wait for it."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # so that it cannot be cancelled: the thread may still set it

    def run() -> None:
        try:
            outcome.set_result(work())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="rusty-agent-lookup", daemon=True).start()
    return await asyncio.wrap_future(outcome)

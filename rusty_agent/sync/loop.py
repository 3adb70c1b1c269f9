"""The event loop of the blocking face: uvloop where it is installed, with a resolver that holds up no process.

In: nothing. Out: a new loop. Never touched: what runs on it.

asyncio looks names up in threads that the interpreter waits for when it exits, up to a minute with a name server that
does not answer. uvloop does so in libuv's threads: a forked child that ends normally waits for these, does not have
them, and crashes. So names are looked up in daemon threads of our own here.
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

_PIPES = 4  # with as many ends as a loop opens files: libuv's 7, the first time


class _Resolving:
    """A loop's two look-ups."""

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
    """asyncio's own."""


_FastLoop: Callable[[], asyncio.AbstractEventLoop] = _Loop
# Imported here, not on first use: a child forked while another thread imports it would wait for that import for ever.
with suppress(ImportError):
    import uvloop

    class _UvLoop(_Resolving, uvloop.Loop):  # type: ignore[misc]
        """libuv's."""

    _FastLoop = _UvLoop


def new_loop() -> asyncio.AbstractEventLoop:
    """A new loop, which is the caller's to close.

    Raises:
        OSError: Too many files are open.
    """
    with ExitStack() as spare:  # libuv would abort the process half-way, and asyncio's loop print a traceback
        for _ in range(_PIPES):
            for end in os.pipe():
                spare.callback(os.close, end)
    if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
        # gevent or eventlet has made threads greenlets: one of libuv's would let no other run, and nothing would end.
        return _Loop()
    for descriptor in (0, 1, 2):  # libuv would take a closed one for its own, and abort the process when it closes it
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
    outcome.set_running_or_notify_cancel()  # whoever waits no more leaves the thread alone

    def run() -> None:
        try:
            outcome.set_result(work())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="rusty-agent-lookup", daemon=True).start()
    return await asyncio.wrap_future(outcome)

"""Many prompts for threads without an event loop: `map` and `gather` of `Provider`.

In: prompts, taken on the caller's own thread. Out: items and results, on the same thread. Never touched: how prompts
are answered, which the core does.

The caller's generator may be bound to its thread (a database cursor), may block, or may use a `Provider` itself. So it
never runs on the loop's thread: the core asks for some prompts at a time, and the thread that waits for items takes
them meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import Any, Literal, TypeGuard, Unpack, overload

from ..checks import is_many, is_table
from ..keys import hide_secrets
from ..many import CUT_SHORT, RunItems
from ..parameters import Concurrency, Inputs, RunParameters, shows
from ..provider import AsyncProvider
from ..types import GenerateResult, MapItem
from .bridge import Crossing, Handover, read_alone, run
from .thread import LoopThread, loop_thread

__all__ = ["ManyPrompts", "MapItems"]

_AHEAD = 64  # prompts that are taken before they are needed, so that the loop need not wait for the other thread
_TAKING_SECONDS = 0.01  # how long to take prompts before looking for items again
_HIGH_WATER, _LOW_WATER = 64, 16  # items that may wait for the consuming thread


class _Prompts:
    """The prompts as the core sees them: an asynchronous iterator that asks the consuming thread for more.

    Prompts are handed over one by one, since the next one may take long; the loop is woken only if it is waiting. The
    core's side (`__anext__`, `_ask`) runs on the loop, `take` on the consuming thread.
    """

    def __init__(self, prompts: Iterable[Any], ahead: int) -> None:
        self._given = prompts
        self._prompts = iter(prompts)
        self._ahead = ahead
        self._taken: deque[Any] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._asked = False
        self._hungry = False
        self._news = asyncio.Event()
        self.handover: Handover[MapItem | _Prompts]  # set when the run begins

    def __len__(self) -> Any:
        return len(self._given)  # type: ignore[arg-type]  # raises what `len` raises if they have none

    def __aiter__(self) -> _Prompts:
        return self

    async def __anext__(self) -> Any:
        if len(self._taken) <= self._ahead // 2:
            self._ask()
        while not self._taken:
            self._news.clear()
            self._hungry = True
            if not (self._taken or self._ended):  # the other thread may not have seen the flag yet
                await self._news.wait()
            self._hungry = False
            if self._ended and not self._taken:  # in this order: the other thread appends the last prompt first
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._ask()
        return self._taken.popleft()

    def _ask(self) -> None:
        if not self._asked and not self._ended:
            self._asked = True
            self.handover.post(self)

    def take(self, thread: LoopThread) -> None:
        """Take some prompts from the caller's iterator, on this thread."""
        enough = monotonic() + _TAKING_SECONDS
        try:
            while len(self._taken) < self._ahead:
                self._taken.append(next(self._prompts))
                if self._hungry:
                    thread.post(self._news.set)
                if monotonic() > enough:
                    break
        except StopIteration:
            self._ended = True
        except Exception as error:
            self._error = error
            if isinstance(error, StopAsyncIteration):  # on the loop it would mean the end of the prompts
                self._error = RuntimeError("The iterator of prompts raised StopAsyncIteration")
                self._error.__cause__ = error
            self._ended = True
        self._asked = False
        thread.post(self._news.set)

    def drop(self) -> None:
        """Drop the caller's iterator: if nothing else holds it, it is closed here, and not on the loop's thread."""
        self._given = self._prompts = iter(())


class ManyPrompts:
    """The methods of `Provider` for many prompts at once."""

    _core: AsyncProvider

    @shows(RunParameters, AsyncProvider.map)
    def map(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        ordered: bool = True,
        **parameters: Unpack[RunParameters],
    ) -> Generator[MapItem, None, None]:
        """Answer many prompts, several at once; yield an item for each.

        Nothing is sent before you iterate. Prompts are taken on this thread, while it waits for items. Leaving the
        loop early cancels the calls under way. Otherwise like `AsyncProvider.map`.
        """
        hide_secrets(parameters)
        source = None
        if _is_taken_here(prompts):
            prompts = source = _Prompts(prompts, min(_AHEAD, concurrency) if isinstance(concurrency, int) else _AHEAD)
        items = self._core.map(prompts, concurrency=concurrency, ordered=ordered, **parameters)
        return MapItems(items, source)

    @overload
    def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: Literal[False] = False,
        include_usage: Literal[False] = False,
        **parameters: Unpack[RunParameters],
    ) -> list[str]: ...
    @overload
    def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: Literal[True],
        include_usage: Literal[False] = False,
        **parameters: Unpack[RunParameters],
    ) -> list[str | Exception]: ...
    @overload
    def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: Literal[False] = False,
        include_usage: Literal[True],
        **parameters: Unpack[RunParameters],
    ) -> list[GenerateResult]: ...
    @overload
    def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: Literal[True],
        include_usage: Literal[True],
        **parameters: Unpack[RunParameters],
    ) -> list[GenerateResult | Exception]: ...
    @overload
    def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: bool = False,
        include_usage: bool = False,
        **parameters: Unpack[RunParameters],
    ) -> list[Any]: ...
    @shows(RunParameters, AsyncProvider.gather)
    def gather(
        self,
        prompts: Inputs,
        *,
        concurrency: Concurrency = 64,
        return_exceptions: bool = False,
        include_usage: bool = False,
        **parameters: Unpack[RunParameters],
    ) -> list[Any]:
        """Answer many prompts, several at once; return the answers in the order of the prompts.

        An iterator is first read to its end, on this thread. Otherwise like `AsyncProvider.gather`.
        """
        hide_secrets(parameters)
        if _is_taken_here(prompts):
            prompts = list(prompts)
        return run(
            partial(
                self._core.gather,
                prompts,
                concurrency=concurrency,
                return_exceptions=return_exceptions,
                include_usage=include_usage,
                **parameters,
            )
        )


def _is_taken_here(prompts: Inputs) -> TypeGuard[Iterable[Any]]:
    """Whether iterating over the prompts may run the caller's code. It is the core that refuses invalid prompts."""
    return is_many(prompts) and not (isinstance(prompts, AsyncIterable | list | tuple) or is_table(prompts))


class MapItems(RunItems, Generator[MapItem, None, None]):
    """The items of a run, handed over one by one by the loop; prompts are taken when the core asks for some.

    This is no plain generator, which could not be closed while another thread reads it.
    """

    # On the class, for `close` after Ctrl-C in the constructor.
    _source: _Prompts | None = None
    _crossing: Crossing[None] | None = None
    _ended = False
    _cut = False

    def __init__(self, items: AsyncGenerator[MapItem, None], source: _Prompts | None) -> None:
        self._items = items
        self._source = source
        self._thread: LoopThread | None = None  # set by the first read
        self._reading = threading.Lock()

    def send(self, value: None) -> MapItem:
        if self._ended:
            raise StopIteration
        if self._cut:
            raise RuntimeError(CUT_SHORT)
        thread = self._thread or loop_thread()
        item = read_alone("run", thread, self._reading, partial(self._read, thread), self._lose)
        if item is None:
            raise StopIteration
        return item

    def throw(self, *error: Any) -> MapItem:
        self.close()
        return super().throw(*error)

    def close(self) -> None:
        """Cancel the calls under way, as leaving the loop does. Safe from any thread, also while another one reads."""
        if not self._ended:
            self._cut = True
            if self._crossing is not None:
                self._crossing.cancel()
            if self._source is not None:
                self._source.drop()

    def __del__(self) -> None:
        self.close()

    def _lose(self) -> None:
        self.close()
        if self._crossing is not None:
            self._handover.settle()

    def _begin(self, thread: LoopThread) -> None:
        handover: Handover[MapItem | _Prompts] = Handover(thread, _HIGH_WATER, _LOW_WATER)
        if self._source is not None:
            self._source.handover = handover
        self._thread, self._handover = thread, handover
        self._crossing = Crossing(thread, partial(_pump, self._items, handover), lambda _, error: handover.end(error))
        self._crossing.begin()
        if self._cut:  # just now, when `close` did not see the crossing to cancel
            raise RuntimeError(CUT_SHORT)

    def _read(self, thread: LoopThread) -> MapItem | None:
        if self._ended:  # another thread has read the end meanwhile: nothing more arrives
            return None
        if self._crossing is None:
            self._begin(thread)
        while True:
            arrival, error = self._handover.get()
            if self._cut:  # closed meanwhile, by another thread or a signal handler
                raise RuntimeError(CUT_SHORT)
            if error is not None:
                raise error
            if not isinstance(arrival, _Prompts):
                self._ended = arrival is None
                return arrival
            arrival.take(thread)


async def _pump(items: AsyncGenerator[MapItem, None], handover: Handover[MapItem | _Prompts]) -> None:
    async with aclosing(items):
        async for item in items:
            await handover.put(item, 1)

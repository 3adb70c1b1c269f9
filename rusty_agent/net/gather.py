"""Bounded concurrency: one coroutine function over many inputs, in order or as they finish.

In: any number of inputs, from a list, an iterator or an asynchronous iterator; a coroutine function. Out: a `MapItem`
for each. Never touched: what the function does.

There are as many workers as may be busy at once, not a task for every input. A worker takes the next input when it is
free and there is room for the result: results that nobody has taken yet are bounded too. Errors are values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeAlias

from ..errors import RustyAgentError
from ..parameters import Inputs
from ..types import MapItem

__all__ = ["PAUSE", "Stop", "Work", "spread", "work_off"]

Work: TypeAlias = Callable[[Any], Awaitable[Any]]

PAUSE = object()
"""Not an input: an iterator whose next input takes long may yield this first, to let the event loop run once."""

_END = object()
_WINDOW = 16  # if ordered, an answer may take about this many times longer than the others before they must wait


class Stop:
    """Ends a run early: no further input is taken; work in progress goes on, and finished items are handed out."""

    def __init__(self) -> None:
        self.requested = False
        self._crew: _Crew | None = None

    def request(self) -> None:
        """Take no further input, and stop waiting for one."""
        self.requested = True
        if self._crew is not None:
            self._crew.recall()


async def spread(
    inputs: Inputs,
    work: Work,
    *,
    concurrency: int | AbstractAsyncContextManager[int],
    ordered: bool,
    stop: Stop | None = None,
) -> AsyncGenerator[MapItem, None]:
    """Run `work` over the inputs; yield an item for each that was taken.

    Leaving the generator early cancels work in progress, and waits until it has ended.

    Args:
        inputs: Taken only as fast as they are worked off.
        work: Called with an input; what it returns or raises becomes the item's `result` or `error`.
        concurrency: How many are worked on at once, at least 1; or a context manager that gives the number, entered
            for the duration of the run.
        ordered: Yield in the order of the inputs. Up to 16 times `concurrency` results may then wait behind a slow
            one; beyond that, no further input is taken. Else, up to `concurrency` results wait for the consumer.
        stop: Ends the run early when requested.

    Raises:
        Exception: What taking the next input raised, after the items of all inputs before it.
    """
    async with nullcontext(concurrency) if isinstance(concurrency, int) else concurrency as at_once:
        crew = _Crew(inputs, work, at_once, ordered, stop or Stop())
        try:
            while await crew.has_more():
                while (item := crew.hand_over()) is not None:
                    yield item
        finally:
            await crew.dismiss()


async def work_off(
    inputs: Inputs,
    work: Work,
    *,
    concurrency: int,
    stop: Stop | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Run `work` over the inputs, and keep no results; other arguments and errors as for `spread`.

    Args:
        enough: Called when an input was taken: whether another would only wait, so that it needs no new worker.
    """
    crew = _Crew(inputs, work, concurrency, None, stop or Stop(), enough)
    try:
        await crew.has_more()
    finally:
        await crew.dismiss()


class _Crew:
    """The workers of one run, their inputs, and the items not taken yet; if `ordered` is None no items are kept."""

    def __init__(
        self,
        inputs: Inputs,
        work: Work,
        concurrency: int,
        ordered: bool | None,
        stop: Stop,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._asynchronous: AsyncIterator[Any] | None = aiter(inputs) if isinstance(inputs, AsyncIterable) else None
        self._inputs: Iterator[Any] = iter(()) if isinstance(inputs, AsyncIterable) else iter(inputs)
        self._work = work
        self._concurrency = concurrency
        self._enough = enough
        self._bound = concurrency * (1 + (_WINDOW if ordered else 1))
        self._done: dict[int, MapItem] = {}  # items by position in the output
        self._ordered = ordered
        self._taken = 0  # number of inputs taken
        self._given = 0  # number of items handed over, which is the position of the next
        self._exhausted = stop.requested  # no further input is taken
        self._pausing = False  # no input is taken in this iteration of the loop
        self._broken: BaseException | None = None  # what taking an input raised
        self._workers: set[asyncio.Task[None]] = set()
        self._free = 0  # number of free workers; while there is one, no other is needed
        self._taking = asyncio.Lock()
        self._taker: asyncio.Task[Any] | None = None  # the worker that waits for an input
        self._recalled = False
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        stop._crew = self
        self._hire()

    async def has_more(self) -> bool:
        """Wait until the next item is ready; False after the last."""
        while self._given not in self._done:
            if not self._workers:
                if self._broken is not None:
                    raise self._broken
                return False
            self._news.clear()
            await self._news.wait()
        return True

    def hand_over(self) -> MapItem | None:
        """The next item, or None if it is not ready."""
        item = self._done.pop(self._given, None)
        if item is not None:
            self._given += 1
            self._room.set()
        return item

    def wake(self) -> None:
        """Wake the workers that wait for room, and the consumer that waits for an item."""
        self._room.set()
        self._news.set()

    def recall(self) -> None:
        """Take no further input, and end the wait of a worker for one."""
        self._exhausted = True
        if self._taker is not None and not self._recalled:
            self._recalled = True
            self._taker.cancel()
        self.wake()

    async def dismiss(self) -> None:
        """End all workers, and release the inputs: an iterator that nobody else holds is closed here and now."""
        self._exhausted = True
        self._inputs, self._asynchronous = iter(()), None  # the run itself lives on until a garbage collection
        self._cancel()
        if self._workers:
            await asyncio.wait(self._workers)

    def _cancel(self) -> None:
        for worker in self._workers:
            worker.cancel()

    def _hire(self) -> None:
        self._free += 1
        worker = asyncio.ensure_future(self._run())
        self._workers.add(worker)
        worker.add_done_callback(self._leave)

    def _leave(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        try:
            broken = worker.exception()
        except asyncio.CancelledError:  # by being asked, the task lets go of it and of all that its frames hold
            broken = asyncio.CancelledError()
        self._broken = self._broken or broken  # no item carries it, so the run must raise it
        self._exhausted = True
        if isinstance(broken, KeyboardInterrupt | SystemExit):  # the program is to end: do not wait for anything
            self._cancel()
        self.wake()

    async def _run(self) -> None:
        if asyncio.current_task() not in self._workers:  # an eager loop runs a task before `_hire` has added it
            await asyncio.sleep(0)
        try:
            while True:
                if self._asynchronous is not None:
                    given = await self._take(self._asynchronous)
                else:
                    if self._taken - self._given >= self._bound:
                        await self._wait_for_room()
                    if self._pausing and not self._exhausted:
                        await asyncio.sleep(0)
                        continue
                    given = _END if self._exhausted else next(self._inputs, _END)
                if given is PAUSE:
                    self._pausing = True  # for all workers, or each free one would run the iterator to its next pause
                    await asyncio.sleep(0)
                    self._pausing = False
                    continue
                if given is _END:
                    return
                index = self._taken
                self._taken += 1
                self._free -= 1
                if not (self._free or len(self._workers) >= self._concurrency or self._enough()):
                    self._hire()
                result = error = None
                try:
                    result = await self._work(given)
                except Exception as raised:
                    error = raised
                    if isinstance(error, RustyAgentError):  # it may be kept for long, and its frames hold a whole call
                        error.__traceback__ = error.__context__ = None
                if self._ordered is None:
                    self._given += 1
                else:
                    self._hand_out(MapItem(index, given, result, error))
                self._free += 1
        finally:
            self._exhausted = True  # before the next worker can take an input: the iterator may be broken

    async def _take(self, inputs: AsyncIterator[Any]) -> Any:
        """The next input, once there is room for its result; or `_END`, also if the run was told to stop."""
        async with self._taking:  # one at a time
            await self._wait_for_room()
            if self._exhausted:
                return _END
            taker = self._taker = asyncio.current_task()
            try:
                given = await anext(inputs, _END)
                return _END if self._exhausted else given  # some iterators and hooks swallow a cancellation
            except asyncio.CancelledError:
                if taker is None or not self._recalled or taker.uncancel():
                    raise
                return _END
            finally:
                self._taker = None

    async def _wait_for_room(self) -> None:
        while self._taken - self._given >= self._bound and not self._exhausted:
            self._room.clear()
            await self._room.wait()

    def _hand_out(self, item: MapItem) -> None:
        self._done[item.index if self._ordered else self._given + len(self._done)] = item
        if self._given in self._done:
            self._news.set()

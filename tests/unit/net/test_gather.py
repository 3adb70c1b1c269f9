"""Bounded concurrency over many inputs: how many at once, how far ahead, in what order, how it ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from itertools import count
from typing import Any

import pytest

from rusty_agent.net.gather import PAUSE, Stop, spread, work_off
from rusty_agent.parameters import Inputs
from rusty_agent.types import MapItem
from tests.events import soon


class Worker:
    """A `work` that can be watched: it takes as long as its input says, in turns of the loop."""

    def __init__(self, turns: Callable[[Any], int] = lambda _: 3) -> None:
        self.turns = turns
        self.busy = self.peak = self.begun = self.cancelled = 0

    async def __call__(self, given: Any) -> Any:
        self.busy += 1
        self.begun += 1
        self.peak = max(self.peak, self.busy)
        try:
            for _ in range(self.turns(given)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.busy -= 1
        if isinstance(given, Exception):
            raise given
        return given


async def all_of(
    inputs: Inputs, work: Any, concurrency: int = 4, ordered: bool = True, **options: Any
) -> list[MapItem]:
    return [item async for item in spread(inputs, work, concurrency=concurrency, ordered=ordered, **options)]


async def asynchronously(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


KINDS: dict[str, Callable[[], Inputs]] = {
    "list": lambda: list(range(50)),
    "iterable": lambda: range(50),
    "iterator": lambda: iter(range(50)),
    "asynchronous": lambda: asynchronously(50),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [True, False])
async def test_every_input_gets_an_item(kind: str, ordered: bool) -> None:
    work = Worker(lambda given: given * 7 % 11)
    items: list[Any] = await all_of(KINDS[kind](), work, ordered=ordered)
    assert sorted(item.index for item in items) == list(range(50))
    assert all(item.input == item.result == item.index and item.error is None for item in items)
    assert work.peak == 4
    if ordered:
        assert [item.index for item in items] == list(range(50))


@pytest.mark.parametrize("kind", KINDS)
async def test_working_off_keeps_nothing(kind: str) -> None:
    finished: list[int] = []

    async def work(given: int) -> None:
        await asyncio.sleep(0)
        finished.append(given)
        if given % 2:
            raise ValueError(given)

    await work_off(KINDS[kind](), work, concurrency=4)
    assert sorted(finished) == list(range(50))


async def test_working_off_takes_no_more_than_is_enough() -> None:
    go, taken = asyncio.Event(), 0

    async def work(_: int) -> None:
        nonlocal taken
        taken += 1
        await go.wait()

    running = asyncio.ensure_future(work_off(range(40), work, concurrency=20, enough=lambda: 3 <= taken < 6))
    for _ in range(50):
        await asyncio.sleep(0)
    assert taken == 4  # one worker was hired by then
    go.set()
    await asyncio.wait_for(running, 5)
    assert taken == 40


async def test_working_off_raises_what_taking_an_input_raised_and_can_be_cancelled() -> None:
    def inputs() -> Iterator[int]:
        yield from range(10)
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        await work_off(inputs(), Worker(), concurrency=4)
    work = Worker(lambda _: 10**6)
    running = asyncio.ensure_future(work_off(range(100), work, concurrency=4))
    await soon(lambda: work.busy == 4)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (work.busy, work.cancelled) == (0, 4)


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_pause_among_the_inputs_is_none(ordered: bool) -> None:
    items: list[Any] = await all_of([PAUSE, 1, PAUSE, PAUSE, 2, PAUSE], Worker(), concurrency=1, ordered=ordered)
    assert [(item.index, item.result) for item in items] == [(0, 1), (1, 2)]


async def test_of_many_workers_one_goes_on_after_each_pause() -> None:
    """Between two pauses an iterator may take its time: the loop must not stand still once for each worker."""
    turns, asked = 0, []

    def inputs() -> Iterator[Any]:
        yield from range(8)
        for _ in range(100):
            asked.append(turns)
            yield PAUSE

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await work_off(inputs(), Worker(), concurrency=8)
    counting.cancel()
    assert len(set(asked)) == len(asked) == 100


async def test_without_an_order_items_come_as_they_finish() -> None:
    items = await all_of([30, 1, 20, 5], Worker(lambda given: given), ordered=False)
    assert [item.input for item in items] == [1, 5, 20, 30]


async def test_errors_are_values() -> None:
    wrong = KeyError("no")
    items = await all_of([1, wrong, 2], Worker())
    assert [(item.result, item.error) for item in items] == [(1, None), (None, wrong), (2, None)]


async def test_nothing_at_all() -> None:
    assert await all_of([], Worker()) == []


async def test_there_are_no_more_workers_than_inputs() -> None:
    before = len(asyncio.all_tasks())
    seen = 0

    async def work(given: int) -> int:
        nonlocal seen
        await asyncio.sleep(0)
        seen = max(seen, len(asyncio.all_tasks()) - before)
        return given

    await all_of([1, 2, 3], work, concurrency=1000)
    assert seen <= 4  # one of them finds that there is nothing left


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("ordered", "ahead"), [(True, 4 * 17), (False, 4 * 2)])
async def test_inputs_are_taken_only_as_fast_as_items_are(ordered: bool, ahead: int, asynchronous: bool) -> None:
    taken = 0

    def inputs() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    async def asynchronous_inputs() -> AsyncIterator[int]:
        for number in inputs():
            yield number

    given: Inputs = asynchronous_inputs() if asynchronous else inputs()
    async for item in spread(given, Worker(), concurrency=4, ordered=ordered):
        for _ in range(500):  # a slow consumer
            await asyncio.sleep(0)
        assert taken == min(item.index + 1 + ahead, 100)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="loops with eager tasks came with Python 3.12")
@pytest.mark.parametrize("ordered", [False, True])
async def test_as_many_as_may_be_with_eager_tasks(ordered: bool) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    worker = Worker()
    items = [item async for item in spread(range(100), worker, concurrency=4, ordered=ordered)]
    assert {item.index for item in items} == set(range(100))
    assert worker.peak == 4


async def test_a_slow_one_does_not_idle_the_others_until_the_window_is_full() -> None:
    work = Worker(lambda given: 10_000 if given == 0 else 1)
    items = spread(range(1000), work, concurrency=4, ordered=True)
    first = asyncio.ensure_future(items.__anext__())
    for _ in range(2000):
        await asyncio.sleep(0)
    assert work.begun == 4 * 17  # all the others that may wait behind it are done
    first.cancel()
    await asyncio.wait([first])
    await items.aclose()


async def test_leaving_early_cancels_what_is_under_way() -> None:
    work = Worker(lambda given: 1 if given == 0 else 10_000)
    async with aclosing(spread(range(100), work, concurrency=4, ordered=False)) as items:
        async for _ in items:
            break
    assert work.busy == 0
    assert work.cancelled >= 3
    assert len(asyncio.all_tasks()) == 1


async def test_a_broken_asynchronous_iterator_is_not_asked_again() -> None:
    """Not by the worker that stood behind the one in which it broke: a queue or a socket would never answer."""

    class Source:
        def __init__(self) -> None:
            self.items: asyncio.Queue[Any] = asyncio.Queue()

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> Any:
            item = await self.items.get()
            if isinstance(item, Exception):
                raise item
            return item

    source = Source()
    items = spread(source, Worker(), concurrency=2, ordered=False)
    source.items.put_nowait("a")
    assert (await anext(items)).input == "a"
    rest = asyncio.ensure_future(anext(items))
    for _ in range(10):  # both workers have nothing to do
        await asyncio.sleep(0)
    source.items.put_nowait(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await asyncio.wait_for(rest, 10)


async def test_a_broken_iterator_is_not_asked_again_by_a_worker_that_wakes_meanwhile() -> None:
    """Some, as readers of CSV, go on behind what they could not read."""
    awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked = 0

    class Source:
        def __iter__(self) -> Source:
            return self

        def __next__(self) -> int:
            nonlocal asked
            asked += 1
            if asked == 2:
                awaited.set_result(None)
                raise OSError("torn")
            return asked

    async def work(given: int) -> int:
        await awaited
        return given

    items = spread(Source(), work, concurrency=2, ordered=False)
    assert (await anext(items)).input == 1
    with pytest.raises(OSError, match="torn"):
        await anext(items)
    assert asked == 2


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_iterator_that_nobody_else_has_is_closed_with_the_run(asynchronous: bool) -> None:
    """Its clean-up does not wait for the garbage collector, which comes late and on any thread."""
    stop, ended = Stop(), []  # whoever has the one has the workers, and what they took the inputs from

    def now() -> Iterator[int]:
        try:
            yield from count()
        finally:
            ended.append("closed")

    async def later() -> AsyncIterator[int]:
        try:
            for number in count():
                yield number
        finally:
            ended.append("closed")

    items = spread(later() if asynchronous else now(), Worker(), concurrency=4, ordered=False, stop=stop)
    await anext(items)
    await items.aclose()
    for _ in range(5):  # the loop closes an asynchronous one in a task
        await asyncio.sleep(0)
    assert ended == ["closed"]
    assert not stop.requested


@pytest.mark.parametrize("swallows", ["inputs", "work"])
async def test_leaving_ends_also_where_a_cancellation_is_swallowed(swallows: str) -> None:
    async def polled() -> AsyncIterator[int]:
        for number in count():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)
            yield number

    begun = 0

    async def work(_: int) -> None:
        nonlocal begun
        begun += 1
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)

    inputs, doing = (polled(), Worker()) if swallows == "inputs" else (count(), work)
    async with asyncio.timeout(5):
        async with aclosing(spread(inputs, doing, concurrency=4, ordered=False)) as items:
            await anext(items)
            before = begun
    assert begun == before
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("kind", ["iterator", "asynchronous"])
async def test_leaving_ends_also_where_a_cancellation_is_swallowed_and_there_is_no_room(kind: str) -> None:
    async def work(given: int) -> None:
        if given > 4:  # the first fill all the places that there are, with those under way
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async with asyncio.timeout(5):
        items = spread(
            iter(range(99)) if kind == "iterator" else asynchronously(99), work, concurrency=4, ordered=False
        )
        async with aclosing(items):
            await anext(items)
            await asyncio.sleep(0.01)


async def test_cancelling_the_consumer_cancels_what_is_under_way() -> None:
    work = Worker(lambda _: 10_000)
    task = asyncio.ensure_future(all_of(range(100), work))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.busy == 0
    assert len(asyncio.all_tasks()) == 1


async def test_an_input_that_cannot_be_taken_ends_the_run_after_what_came_before() -> None:
    def inputs() -> Iterator[int]:
        yield from range(10)
        raise OSError("the file is gone")

    work = Worker(lambda given: 100 - given)
    items = []
    with pytest.raises(OSError, match="the file is gone"):
        async for item in spread(inputs(), work, concurrency=4, ordered=True):
            items.append(item.index)  # noqa: PERF401 - the error must find the others there
    assert items == list(range(10))


async def test_a_worker_that_somebody_cancels_is_no_silent_end() -> None:
    begun = 0

    async def work(given: int) -> int:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0)
        if given == 3:
            raise asyncio.CancelledError
        return given

    with pytest.raises(asyncio.CancelledError):
        await all_of(range(1000), work)
    assert begun < 20  # the run is over: nothing further is taken


async def test_a_worker_that_somebody_cancels_while_the_others_wait_for_its_turn() -> None:
    async def work(given: int) -> int:
        if given == 0:
            await asyncio.sleep(0.01)
            raise asyncio.CancelledError
        return given

    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await all_of(range(1000), work)


async def test_a_stop_hands_out_what_is_done() -> None:
    stop = Stop()
    work = Worker()
    seen = []
    async for item in spread(asynchronously(1000), work, concurrency=4, ordered=True, stop=stop):
        seen.append(item.index)
        if item.index == 20:
            stop.request()
    assert seen == list(range(work.begun))
    assert len(seen) < 21 + 4 * 17


async def test_a_stop_waits_for_no_further_input() -> None:
    stop = Stop()
    ended = []

    async def inputs() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with asyncio.timeout(5):
        async for item in spread(inputs(), Worker(), concurrency=4, ordered=False, stop=stop):
            assert item.index == 0
            stop.request()
            stop.request()
    assert ended == [True]


async def test_an_input_that_comes_in_spite_of_the_stop_is_not_worked_on() -> None:
    stop = Stop()
    work = Worker()

    async def inputs() -> AsyncIterator[int]:
        yield 1
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield 2

    async with asyncio.timeout(5):
        async for _ in spread(inputs(), work, concurrency=4, ordered=False, stop=stop):
            stop.request()
    assert work.begun == 1


async def test_a_cancellation_that_comes_with_the_stop_is_one() -> None:
    stop = Stop()
    begun = asyncio.Event()

    async def inputs() -> AsyncIterator[int]:
        begun.set()
        await asyncio.Event().wait()
        yield 1

    task = asyncio.ensure_future(work_off(inputs(), Worker(), concurrency=1, stop=stop))
    await begun.wait()
    task.cancel()
    stop.request()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stop_before_the_beginning() -> None:
    stop = Stop()
    stop.request()
    assert await all_of(range(10), Worker(), stop=stop) == []


async def test_a_stop_wakes_workers_that_wait_for_room() -> None:
    stop = Stop()
    items = spread(range(1000), Worker(), concurrency=2, ordered=False, stop=stop)
    await anext(items)
    for _ in range(100):
        await asyncio.sleep(0)
    stop.request()
    left = [item.index async for item in items]
    assert len(left) == 4

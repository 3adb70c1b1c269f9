"""The line at the door: who goes in next, and who no longer wants to."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from rusty_agent.errors import RateLimitError, RunStoppedError
from rusty_agent.net.caller import Caller
from rusty_agent.net.limits.limiter import Limiter, Permit
from rusty_agent.policy import Limits
from rusty_agent.types import Usage

from .door import now, on, settle, too_many


@on(in_flight=1)
async def test_callers_take_turns(door: Limiter) -> None:
    """A run with many workers does not keep a single call waiting."""
    order: list[str] = []

    async def go(name: str, caller: Caller) -> None:
        permit = await door.acquire(caller, 0)
        order.append(name)
        permit.release()

    first = await door.acquire(Caller(), 0)
    crowd, other = Caller(), Caller()
    tasks = [asyncio.ensure_future(go("crowd", crowd)) for _ in range(6)]
    await settle()
    tasks += [asyncio.ensure_future(go("other", other)) for _ in range(2)]
    tasks.append(asyncio.ensure_future(go("single", Caller())))
    await settle()
    first.release()
    await asyncio.wait(tasks)
    assert order == ["crowd", "other", "single", "crowd", "other", "crowd", "crowd", "crowd", "crowd"]


@pytest.mark.parametrize(("answered", "order"), [(False, ["again", "other", "new"]), (True, ["new", "other", "again"])])
@on(in_flight=1)
async def test_what_has_failed_goes_first_until_the_endpoint_has_answered(
    door: Limiter, answered: bool, order: list[str]
) -> None:
    """Before the caller's own others, not before other callers."""
    went: list[str] = []
    if answered:
        (await door.acquire(Caller(), 0)).succeeded({}, None)

    async def go(name: str, caller: Caller) -> None:
        permit = await door.acquire(caller, 0, again=name == "again")
        went.append(name)
        permit.release()

    first = await door.acquire(Caller(), 0)
    caller = Caller()
    tasks = []
    for name, whose in (("new", caller), ("other", Caller()), ("again", caller)):
        tasks.append(asyncio.ensure_future(go(name, whose)))
        await settle()
    first.release()
    await asyncio.wait(tasks)
    assert went == order


@on()
async def test_a_wider_run_gets_its_places_although_others_stand_in_line(door: Limiter) -> None:
    """Nobody needs to come back first: what a narrow run has left waiting goes in with it."""
    narrow, wide = Caller(), Caller()
    with door.adapting(16):
        tasks = [asyncio.ensure_future(door.acquire(narrow, 0)) for _ in range(20)]
        await settle()
        assert (door.in_flight, len(door._line.waiting[narrow])) == (16, 4)
        with door.adapting(64):
            tasks += [asyncio.ensure_future(door.acquire(wide, 0)) for _ in range(64)]
            await settle()
            assert (narrow.in_flight, wide.in_flight) == (20, 44)
            for task in tasks[:20]:
                task.result().release()
            await settle()
            assert (narrow.in_flight, wide.in_flight) == (0, 64)


@on()
async def test_runs_at_once_may_have_as_many_places_as_they_ask_for_in_all(door: Limiter) -> None:
    """While nothing is refused: a ceiling of 256 is for whoever does not know how many to ask for."""
    with door.adapting(200):
        with door.adapting(200):
            assert door._adaptive.ceiling == 400
        with door.adapting(100), door.adapting():
            assert door._adaptive.ceiling == 400  # nothing more is needed than there was
        with door.adapting(300):
            assert door._adaptive.ceiling == 500
    assert door._wanted == 0


@on(in_flight=1)
async def test_whoever_stops_waiting_takes_no_place(door: Limiter) -> None:
    caller = Caller()
    first = await door.acquire(caller, 0)
    waiting = [asyncio.ensure_future(door.acquire(caller, 0)) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    waiting[1].cancel()
    await settle()
    first.release()
    await settle()
    assert isinstance(waiting[2].result(), Permit)
    assert door.in_flight == 1
    waiting[2].result().release()
    assert (door.in_flight, door._line.waiting) == (0, {})


async def whose_turn_has_come(door: Limiter) -> tuple[Caller, asyncio.Task[Permit]]:
    """One who waits, and does not know yet that it has been let in."""
    caller = Caller()
    first = await door.acquire(caller, 0)
    waiting = asyncio.ensure_future(door.acquire(caller, 0))
    await settle()
    first.release()
    return caller, waiting


@on(in_flight=1)
async def test_whoever_gives_up_leaves_nothing_in_the_line(door: Limiter) -> None:
    """However long the first one waits: a kilobyte for each call that was given up meanwhile is a leak."""
    permit = await door.acquire(Caller(), 0)
    first = Caller()
    waiting = asyncio.ensure_future(door.acquire(first, 0))
    run = Caller()
    others = [asyncio.ensure_future(door.acquire(Caller(), 0)) for _ in range(5)]
    others += [asyncio.ensure_future(door.acquire(run, 0)) for _ in range(5)]
    await settle()
    for other in others:
        other.cancel()
    await settle()
    assert list(door._line.waiting) == [first]
    permit.release()
    (await waiting).release()
    assert (door.in_flight, len(door._line.waiting)) == (0, 0)


@on(in_flight=1)
async def test_a_permit_that_comes_in_the_moment_of_a_cancellation_goes_back(door: Limiter) -> None:
    _, waiting = await whose_turn_has_come(door)
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert door.in_flight == 0


@on(in_flight=1)
async def test_a_place_that_is_given_back_in_the_moment_of_a_cancellation_is_the_next_callers(door: Limiter) -> None:
    """The one who gives up is in the line still."""
    first = await door.acquire(Caller(), 0)
    given_up, waiting = (asyncio.ensure_future(door.acquire(Caller(), 0)) for _ in range(2))
    await settle()
    given_up.cancel()
    first.release()
    await settle()
    assert isinstance(waiting.result(), Permit)


@on(in_flight=1)
async def test_a_stopped_caller_is_turned_away_and_others_are_not(door: Limiter) -> None:
    stopped, other = Caller(), Caller()
    first = await door.acquire(stopped, 0)
    waiting = [asyncio.ensure_future(door.acquire(caller, 0)) for caller in (stopped, other, stopped)]
    await settle()
    waiting[2].cancel()
    why = RunStoppedError("enough")
    door.stop(stopped, why)
    await settle()
    assert waiting[0].exception() is why
    with pytest.raises(RunStoppedError):
        await door.acquire(stopped, 0)
    first.release()
    await settle()
    assert isinstance(waiting[1].result(), Permit)


@on(in_flight=1)
async def test_a_caller_that_is_stopped_in_the_moment_of_its_turn(door: Limiter) -> None:
    caller, waiting = await whose_turn_has_come(door)
    door.stop(caller, RunStoppedError("enough"))
    await settle()
    assert isinstance(waiting.exception(), RunStoppedError)
    assert door.in_flight == 0


def test_a_pace_of_thousands_on_uvloop() -> None:
    """uvloop gives another kind of handle for what is due within half a millisecond."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        door = Limiter(Limits(requests_per_minute=300_000), asyncio.get_running_loop())

        async def go() -> None:
            (await door.acquire(Caller(), 0)).release()

        await asyncio.wait_for(asyncio.gather(*(go() for _ in range(1500))), 5)
        assert door.in_flight == 0

    uvloop.run(main())


@on()
async def test_a_timer_that_was_set_for_later_gives_way(door: Limiter) -> None:
    first = await door.acquire(Caller(), 0)
    second = await door.acquire(Caller(), 0)
    first.failed(too_many(50.0))
    waiting = asyncio.ensure_future(door.acquire(Caller(), 0))
    await settle()
    second.release()
    door._opens = 1.0  # nobody does that; a pace that is raised by headers comes to the same
    door._line.look()
    await waiting
    assert now() == 1


@on(in_flight=1)
async def test_who_comes_while_the_garbage_collector_gives_a_place_back_is_not_forgotten(
    door: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come by before the queue of whoever comes holds anybody, and the line drops empty ones."""
    first = await door.acquire(Caller(), 0)

    class Queue(deque[Any]):
        def append(self, item: Any) -> None:
            first.release()  # as the end of a stream that was dropped does
            super().append(item)

    monkeypatch.setattr("rusty_agent.net.limits.line.deque", Queue)
    async with asyncio.timeout(1):
        await door.acquire(Caller(), 0)


@on(in_flight=1)
async def test_who_gives_up_while_the_garbage_collector_gives_a_place_back_takes_nobody_along(
    door: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come by when it was seen who is to be dropped, and the line drops them, too, and lets the next one in."""
    held = [await door.acquire(Caller(), 0)]

    class Turn(asyncio.Future[Any]):
        def done(self) -> bool:
            if self.cancelled() and held:
                held.pop().release()  # as the end of a stream that was dropped does
            return super().done()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_future", Turn)
    caller = Caller()
    given_up, second, third = (asyncio.ensure_future(door.acquire(caller, 0)) for _ in range(3))
    await settle()
    given_up.cancel()
    async with asyncio.timeout(1):
        (await second).release()
        (await third).release()
    assert given_up.cancelled()


@pytest.mark.parametrize(
    ("limits", "error", "why"),
    [
        ({"tokens_per_minute": 100}, None, "sending nothing for 300 s: the pace of tokens"),
        ({"requests_per_minute": 5}, None, "sending nothing for 12 s: the pace of requests"),
        ({}, too_many(30), "sending nothing for 30 s: the endpoint has refused requests"),
    ],
)
def test_a_long_wait_is_told(
    limits: dict[str, Any], error: RateLimitError | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even the one whose tokens are more than those of a minute waits without a word."""

    async def main(door: Limiter) -> None:
        first = await door.acquire(Caller(), 100)
        if error is None:
            first.succeeded({}, Usage(500, 500, 1000))
        else:
            first.failed(error)
        waiting = asyncio.ensure_future(door.acquire(Caller(), 100))
        await settle()
        waiting.cancel()

    with caplog.at_level("DEBUG", "rusty_agent"):
        on(**limits)(main)()
    assert caplog.messages == [why]


@on()
async def test_a_long_step_is_told_for_what_it_is(door: Limiter, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was refused, and there is no pace of tokens."""
    with caplog.at_level("DEBUG", "rusty_agent"), door.adapting():
        first = await door.acquire(Caller(), 0)
        await asyncio.sleep(300)
        first.succeeded({}, None)
        await door.acquire(Caller(), 0)
        await door.acquire(Caller(), 0)
        assert now() == pytest.approx(312.5, abs=0.1)
    assert caplog.messages == ["sending nothing for 12 s: answers take long, and few may be in flight at once"]

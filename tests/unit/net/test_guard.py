"""The guard of a loop: what is open closes with it, and with nothing else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from rusty_agent.net import guard as module
from rusty_agent.net.guard import close_later, dismiss_all, guard_of, release


class Session:
    """Stands in for aiohttp's; tells on which thread it was closed."""

    closed = False

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed, self.thread = True, threading.current_thread()


class Response:
    closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


async def opened() -> tuple[asyncio.AbstractEventLoop, Any, Any]:
    """The running loop, with a session and a response that its guard knows."""
    loop, session, response = asyncio.get_running_loop(), Session(), Response()
    assert guard_of(loop) is guard_of(loop)
    guard: Any = guard_of(loop)
    guard.sessions.add(session)
    guard.responses.add(response)
    return loop, session, response


def test_what_is_open_closes_with_its_loop() -> None:
    loop, session, response = asyncio.run(opened())
    assert (session.closed, response.closed, loop in module._guards) == (True, True, False)


def test_a_guard_that_is_dismissed_closes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a child to whose parent all of it belongs."""
    monkeypatch.setattr(module, "_guards", {})  # those of other tests stay on guard

    async def main() -> tuple[asyncio.AbstractEventLoop, Any, Any]:
        given = await opened()
        dismiss_all()
        return given

    _, session, response = asyncio.run(main())
    assert (session.closed, response.closed) == (False, False)


def test_a_guard_whose_loop_was_closed_without_a_word_goes_when_the_next_is_made() -> None:
    left = asyncio.new_event_loop()
    _, session, _ = left.run_until_complete(opened())
    left.close()
    assert left in module._guards
    asyncio.run(opened())
    assert (left in module._guards, session.closed) == (False, False)  # its loop can close it no more


async def test_a_response_is_released_now_or_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER_SECONDS", 0.01)
    (loop, _, first), (_, _, second) = await opened(), await opened()
    release(first, loop)
    release(second, loop, linger=True)
    assert (first.closed, second.closed, guard_of(loop).responses) == (True, False, {second})
    await asyncio.sleep(0.05)
    assert (second.closed, guard_of(loop).responses) == (True, set())
    release(second, loop, linger=True)  # closes it no second time


async def test_sessions_close_from_any_thread_on_their_own_loop() -> None:
    loop, session, _ = await opened()
    sessions: Any = {loop: session, object(): Session()}  # the other one's loop has no guard any more
    await asyncio.to_thread(close_later, sessions)
    while guard_of(loop).sessions:
        await asyncio.sleep(0.001)
    assert (session.closed, session.thread, sessions) == (True, threading.current_thread(), {})

"""Who stands in line: its waits between two attempts end when its run does."""

from __future__ import annotations

import asyncio

import pytest

from rusty_agent.errors import RunStoppedError
from rusty_agent.net.caller import Caller
from tests.simulation.virtual import run

from .limits.door import now, settle


def test_a_stop_ends_all_waits_and_the_first_reason_stays() -> None:
    why = RunStoppedError("enough")

    async def main() -> None:
        caller = Caller()
        caller.check()
        waits = [asyncio.ensure_future(caller.sleep(seconds)) for seconds in (5, 60, 60)]
        await asyncio.sleep(10)
        assert (waits[0].done(), waits[0].exception(), len(caller.asleep)) == (True, None, 2)
        waits[1].cancel()  # of this one nobody is told any more
        caller.stop(why)
        caller.stop(RunStoppedError("another reason"))
        await settle()
        assert now() == 10
        assert (waits[1].cancelled(), waits[2].exception(), caller.asleep) == (True, why, set())
        for late in (caller.sleep(60), caller.sleep(0)):
            with pytest.raises(RunStoppedError, match="enough"):
                await late
        assert now() == 10

    run(main())


def test_the_error_of_a_stop_does_not_grow() -> None:
    caller, lengths = Caller(), set()
    caller.stop(RunStoppedError("enough"))
    for _ in range(3):
        with pytest.raises(RunStoppedError) as raised:
            caller.check()
        lengths.add(len(raised.traceback))
    assert len(lengths) == 1

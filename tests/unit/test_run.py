"""One run over many inputs."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest

from rusty_agent.errors import RunStoppedError
from rusty_agent.net.limits.limiter import Limiter
from rusty_agent.policy import Limits
from rusty_agent.run import Run
from rusty_agent.stop_rule import StopRule


async def test_one_that_is_stopped_before_it_begins_sends_nothing() -> None:
    """As by a signal while a batch still opens its input."""

    async def answer(*_: Any) -> NoReturn:
        pytest.fail("it was sent")

    rule = StopRule()
    run = Run(answer, lambda: Limiter(Limits(), asyncio.get_running_loop()), concurrency=1, rule=rule)
    run.stop(rule.error("interrupt", "it was interrupted."))
    with pytest.raises(RunStoppedError, match="interrupted"):
        await run.work_off(["a"])

"""Many concurrent streams with random faults and cancellations leave nothing behind.

`SOAK_STREAMS` and `SOAK_ROUNDS` make it longer: 2000 streams at once, ten rounds, was run by hand.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random

import pytest

from rusty_agent import AsyncProvider, RetryPolicy, RustyAgentError, Timeout
from rusty_agent.testing import Received, stream
from rusty_agent.testing.answers import Answer

from ..events import soon
from .faces import Serve
from .faults import ALL

STREAMS = int(os.environ.get("SOAK_STREAMS", "200"))
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "3"))


def resident() -> int:
    """Resident memory in KiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.timeout(600)
async def test_soak(serve: Serve) -> None:
    dice = random.Random(7)
    faults = [fault.answer for fault in ALL if len(fault.answer.steps) < 30]

    def script(_: Received) -> Answer:
        return dice.choice(faults) if dice.random() < 0.5 else stream("Hello", " world")

    server = serve(script)
    ends: dict[str, int] = {}

    async def one(llm: AsyncProvider, number: int) -> None:
        opened = llm.stream_text(f"prompt {number}")
        try:
            async with asyncio.timeout(dice.choice([0.01, 0.05, 0.2, 2])):
                async for piece in opened:
                    if dice.random() < 0.1:
                        end = "left"
                        break
                    assert piece
                else:
                    end = "whole"
        except (RustyAgentError, TimeoutError) as error:
            end = type(error).__name__
        ends[end] = ends.get(end, 0) + 1

    async def round_of(llm: AsyncProvider) -> None:
        tasks = [asyncio.create_task(one(llm, number)) for number in range(STREAMS)]
        for task in dice.sample(tasks, STREAMS // 10):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    retry = RetryPolicy(max_retries=1, base_delay=0.001, budget=None)
    async with AsyncProvider("m", api_key="k" * 8, base_url=server.url, retry=retry, timeout=Timeout(idle=0.3)) as llm:
        memory = []
        for _ in range(ROUNDS):
            await round_of(llm)
            await soon(lambda: len(asyncio.all_tasks()) == 1)
            server.requests.clear()
            gc.collect()
            memory.append(resident())
            assert not llm._calls.under_way
    await soon(lambda: server.open_connections == 0)
    assert ends["whole"] > STREAMS // 10
    assert len(ends) >= 5, ends
    assert memory[-1] < memory[0] * 1.05 + 4096 * (ROUNDS < 5), memory

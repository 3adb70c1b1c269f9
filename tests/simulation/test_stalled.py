"""What progress says while nothing moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from rusty_agent import BadRequestError, Limits, Progress
from rusty_agent.progress.tally import Tally

from .virtual import Capacity, Endpoint, Restarting, Said, forever, provider, run, work_off


class _Refusing(Endpoint):
    """Refuses the second request, and asks for half a minute."""

    def answer(self, now: float) -> Said:
        refuses = len(self.served) == 1 and not self.refused
        return Said(0.1, 429, {"retry-after": "30"}) if refuses else Said(0.1)


@pytest.fixture(autouse=True)
def _virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = partial(Tally, clock=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr("rusty_agent.run.Tally", tally)


@pytest.mark.parametrize(
    ("endpoint", "options", "said"),
    [
        (_Refusing(), {"concurrency": 1}, "nothing for 10 s (the endpoint has refused requests, next in 20 s)"),
        (_Refusing(), {"concurrency": 2}, "nothing for 10 s (the endpoint has refused requests, next in 20 s)"),
        (Capacity(forever(9)), {"limits": Limits(requests_per_minute=3)}, " (the pace of requests, next in 5 s)"),
        (Restarting(0.4, away=1, back=20), {"concurrency": 1}, "nothing for 9 s (last error: HTTP 503: too many)"),
        (Capacity(forever(9), latency=20), {"concurrency": 1}, "nothing for 9 s"),
    ],
)
def test_it_says_what_is_waited_for(endpoint: Endpoint, options: dict[str, Any], said: str) -> None:
    seen: list[Progress] = []
    assert run(work_off(endpoint, 4, progress=seen.append, **options)) == 0
    told = [now.stalled for now in seen]
    assert any(text is not None and text.endswith(said) for text in told), told
    assert told[-1] is None


def test_it_blames_no_error_where_nobody_waits_for_the_endpoint() -> None:
    """It is the source of the prompts that takes its time."""

    async def prompts() -> AsyncIterator[str]:
        yield "refused"
        await asyncio.sleep(20)

    async def main() -> None:
        llm = provider(Capacity(forever(0), status=400))
        assert [type(item.error) async for item in llm.map(prompts(), progress=seen.append)] == [BadRequestError]

    seen: list[Progress] = []
    run(main())
    assert "nothing for 9 s" in [now.stalled for now in seen]

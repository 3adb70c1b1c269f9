"""An event loop whose clock is virtual, and endpoints that exist only in it: minutes pass in milliseconds.

Everything above the socket is the library's own code. The clock stands still while code runs, and jumps to the next
timer when all tasks wait, so every run is the same.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import attrs
from multidict import CIMultiDict

from rusty_agent import AsyncProvider, RetryPolicy
from rusty_agent.net.http.transport import Transport
from rusty_agent.testing.answers import completion
from rusty_agent.wire.codec import dumps

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits, and nothing will ever happen"
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


@attrs.define
class Said:
    """What an endpoint answers, after `seconds`."""

    seconds: float
    status: int = 200
    headers: dict[str, str] = attrs.field(factory=dict)


class Endpoint:
    """An endpoint. Subclasses define its behaviour in `answer`, which is called when a request comes.

    Attributes:
        in_flight: How many requests it works on.
        served: When each request was answered with 200, in seconds.
        refused: How many requests were refused.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self.peak = 0
        self.served: list[float] = []
        self.refused = 0

    def answer(self, now: float) -> Said:
        raise NotImplementedError

    async def handle(self) -> Said:
        loop = asyncio.get_running_loop()
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            said = self.answer(loop.time())
            await asyncio.sleep(said.seconds)
        finally:
            self.in_flight -= 1
        if said.status == 200:
            self.served.append(loop.time())
        else:
            self.refused += 1
        return said

    @property
    def throughput(self) -> float:
        """Answers per second, from the start to the last answer."""
        return len(self.served) / self.served[-1]

    @property
    def wasted(self) -> float:
        """The share of requests that were refused."""
        return self.refused / (self.refused + len(self.served))


class RateLimited(Endpoint):
    """Takes `rate` requests a second, with a burst (a token bucket), and answers each in about `latency` seconds.

    Args:
        say: Makes the headers of an answer from the bucket and whether the request was taken; None for no headers.
    """

    def __init__(
        self,
        rate: float = 100,
        burst: float = 100,
        latency: float = 0.2,
        refusal_latency: float = 0.002,
        say: Callable[[RateLimited, bool], dict[str, str]] | None = None,
    ) -> None:
        super().__init__()
        self.rate, self.burst, self.latency, self.refusal_latency = rate, burst, latency, refusal_latency
        self.level, self.at, self.say = burst, 0.0, say
        self.dice = random.Random(1)

    def answer(self, now: float) -> Said:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        taken = self.level >= 1
        self.level -= taken
        headers = self.say(self, taken) if self.say is not None else {}
        latency = self.latency if taken else self.refusal_latency
        return Said(latency * self.dice.uniform(0.9, 1.1), 200 if taken else 429, headers)


class Windowed(Endpoint):
    """Takes `rate * window` requests in each window, each in half a second, and sends no headers when it refuses.

    Args:
        counts_refused: Whether the window slides, and refused requests count too.
    """

    def __init__(self, rate: float, window: float, counts_refused: bool = False) -> None:
        super().__init__()
        self.most, self.window, self.counts_refused = round(rate * window), window, counts_refused
        self.came: deque[float] = deque(maxlen=self.most)

    def answer(self, now: float) -> Said:
        since = now - self.window if self.counts_refused else now // self.window * self.window
        taken = len(self.came) < self.most or self.came[0] < since
        if taken or self.counts_refused:
            self.came.append(now)
        return Said(0.5 if taken else 0.002, 200 if taken else 429)


class Capacity(Endpoint):
    """Works on `capacity` requests at once and refuses others."""

    def __init__(
        self,
        capacity: Callable[[float], float],
        latency: float = 0.2,
        status: int = 429,
        refusal_latency: float = 0.002,
    ) -> None:
        super().__init__()
        self.capacity, self.latency, self.status, self.refusal_latency = capacity, latency, status, refusal_latency
        self.dice = random.Random(1)

    def answer(self, now: float) -> Said:
        if self.in_flight > self.capacity(now):
            return Said(self.refusal_latency, self.status)
        return Said(self.latency * self.dice.uniform(0.9, 1.1))


class PartlyIll(Capacity):
    """One of its servers answers 503 at once, whatever the load; it gets `share` of all requests."""

    def __init__(self, capacity: float, share: float, latency: float = 0.2) -> None:
        super().__init__(forever(capacity), latency, status=503)
        self.share = share

    def answer(self, now: float) -> Said:
        return Said(0.002, 503) if self.dice.random() < self.share else super().answer(now)


class Restarting(Endpoint):
    """Goes away at `away`, answering `broken` to all that it works on, and comes back at `back`."""

    def __init__(self, latency: float, away: float, back: float, broken: int = 502) -> None:
        super().__init__()
        self.latency, self.away, self.back, self.broken = latency, away, back, broken

    def answer(self, now: float) -> Said:
        if now < self.away < now + self.latency:
            return Said(self.away - now, self.broken)
        return Said(0.002, 503) if self.away <= now < self.back else Said(self.latency)


class Flapping(Capacity):
    """Serves nobody in the second half of each period."""

    def __init__(self, period: float, latency: float) -> None:
        super().__init__(forever(64), latency, status=503)
        self.period = period

    def answer(self, now: float) -> Said:
        return Said(0.002, 503) if now % self.period >= self.period / 2 else super().answer(now)


class Batching(Endpoint):
    """Answers every request: in `latency` with up to `width` in flight, beyond that in proportion to their number."""

    def __init__(self, width: int = 64, latency: float = 0.2) -> None:
        super().__init__()
        self.width, self.latency = width, latency

    def answer(self, now: float) -> Said:
        return Said(self.latency * max(1.0, self.in_flight / self.width))


class Queueing(Endpoint):
    """Answers `rate` requests a second, one after another; refuses none, and drops those whose clients have gone."""

    def __init__(self, rate: float = 3) -> None:
        super().__init__()
        self.rate = rate
        self.one = asyncio.Lock()

    async def handle(self) -> Said:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            async with self.one:
                await asyncio.sleep(1 / self.rate)
        finally:
            self.in_flight -= 1
        self.served.append(asyncio.get_running_loop().time())
        return Said(0)


class Tailed(Endpoint):
    """Answers in `latency`, but one request in twenty takes ten times as long."""

    def __init__(self, latency: float = 0.2, seed: int = 1) -> None:
        super().__init__()
        self.latency, self.dice = latency, random.Random(seed)

    def answer(self, now: float) -> Said:
        return Said(self.latency * (10 if self.dice.random() < 0.05 else 1))


class _Content:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._read = False

    def is_eof(self) -> bool:
        return True

    def at_eof(self) -> bool:
        return self._read

    def read_nowait(self) -> bytes:
        self._read = True
        return self._body

    async def readany(self) -> bytes:
        return b"" if self._read else self.read_nowait()


class _Response:
    closed = True

    def __init__(self, said: Said, body: bytes) -> None:
        self.status = said.status
        self.headers = CIMultiDict(said.headers)
        self.content = _Content(body)

    def close(self) -> None:
        pass


_GOOD = dumps(completion("yes"))
_BAD = dumps({"error": {"message": "too many", "code": "rate_limit_exceeded"}})


class VirtualTransport(Transport):
    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def post(self, *_: Any, sending: Callable[[], None], **__: Any) -> Any:
        sending()
        said = await self._endpoint.handle()
        return _Response(said, _GOOD if said.status == 200 else _BAD)


def provider(endpoint: Endpoint, **options: Any) -> AsyncProvider:
    options.setdefault("retry", RetryPolicy())
    llm = AsyncProvider("m", api_key="k" * 8, base_url="http://endpoint/v1", **options)
    llm._calls.transport = VirtualTransport(endpoint)
    return llm


async def work_off(endpoint: Endpoint, prompts: int, **options: Any) -> int:
    """Send this many prompts through `map`; return how many failed."""
    limits = options.pop("limits", None)
    failed = 0
    async for item in provider(endpoint, limits=limits).map((str(n) for n in range(prompts)), ordered=False, **options):
        failed += item.error is not None
    return failed


def forever(value: float) -> Callable[[float], float]:
    return lambda _: value

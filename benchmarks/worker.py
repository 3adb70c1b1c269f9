"""`python -m benchmarks.worker CLIENT LOOP URL`: a client in its own process, which does works and measures them.

In: works as lines of JSON on standard input. Out: figures as lines of JSON on standard output. A process does several
works, so that imports and connections are warm, and waits between them while other clients have their turn.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import json
import math
import os
import resource
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path
from typing import Any

from .clients import CLIENTS, Client
from .server import STAMP, raise_limits

Work = Callable[..., Awaitable[dict[str, Any]]]
AT_ONCE = 200  # how many streams are being opened at once, when thousands are to stay open


class Measured:
    """Measures the time that work takes, and the CPU time of the client and of the endpoint."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cpu = self.wall = self.server = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        gc.collect()
        server, wall, cpu = self.ask(), time.perf_counter(), _cpu()
        yield
        self.cpu, self.wall = _cpu() - cpu, time.perf_counter() - wall
        after = self.ask()
        self.server = (after["cpu"] - server["cpu"]) / (after["wall"] - server["wall"])

    def ask(self) -> dict[str, float]:
        """The endpoint's CPU time so far, and its clock."""
        with urllib.request.urlopen(self.url, data=b"{}") as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def figures(self, units: int) -> dict[str, Any]:
        """Times per unit, in microseconds; and the shares of their cores that the client and the endpoint have used."""
        return {
            "cost": self.cpu / units * 1e6,
            "wall": self.wall / units * 1e6,
            "client": self.cpu / self.wall,
            "server": self.server,
        }


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def requests(
    client: Client, measured: Measured, *, count: int, in_flight: int, prompt: str = "json"
) -> dict[str, Any]:
    """Whole answers."""
    expected = await client.request(prompt)
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            if await client.request(prompt) != expected:
                raise AssertionError("another text")

    await _warm(client.request, prompt, in_flight, client)
    with measured():
        await _together(client, work, in_flight)
    return {**measured.figures(count), "text": _digest(expected)}


async def streams(
    client: Client, measured: Measured, *, count: int, in_flight: int, chunks: int, gap: int = 0
) -> dict[str, Any]:
    """Streams, with all chunks at once or paced; for paced ones also how late the chunks are seen."""
    prompt = f"paced {chunks} {gap}" if gap else f"burst {chunks}"
    lags: list[int] = []
    texts: set[str] = set()
    left = iter(range(count))

    def punctual() -> Callable[[str], None]:
        """A callback that notes the lag of each chunk but the first, which is late because streams are still opened."""
        first = True

        def seen(piece: str) -> None:
            nonlocal first
            now = time.monotonic_ns()
            lags.extend(now - int(piece[at : at + STAMP]) for at in range(STAMP if first else 0, len(piece), STAMP))
            first = False

        return seen

    async def work() -> None:
        for _ in left:
            if gap:
                await client.stream(prompt, punctual())
            else:
                parts: list[str] = []
                await client.stream(prompt, parts.append)
                texts.add("".join(parts))

    async def warm(prompt: str) -> None:
        await client.stream(prompt, lambda _: None)

    await _warm(warm, f"burst {min(chunks, 20)}", in_flight, client)
    with measured():
        await _together(client, work, in_flight)
    figures = measured.figures(count * chunks)
    if not gap:
        assert len(texts) == 1, "the texts differ"
        return {**figures, "text": _digest(texts.pop())}
    assert len(lags) == count * (chunks - 1), f"{len(lags)} of {count * (chunks - 1)} chunks were seen"
    lags.sort()
    late = {f"lag_p{share}": lags[math.ceil(len(lags) * share / 100) - 1] / 1e6 for share in (50, 99)}
    return {**figures, **late, "text": ""}


async def first(client: Client, measured: Measured, *, count: int) -> dict[str, Any]:
    """The time from a call to the first piece of its stream, one call at a time."""
    times: list[float] = []
    for number in range(-5, count):
        pieces: list[float] = []
        began = time.perf_counter()
        await client.stream("burst 1", lambda _, seen=pieces: seen.append(time.perf_counter()))  # type: ignore[misc]
        if number >= 0:
            times.append((pieces[0] - began) * 1e6)
    times.sort()
    return {"cost": times[count // 2], "p99": times[math.ceil(count * 0.99) - 1], "server": 0.0, "text": ""}


async def many(client: Client, measured: Measured, *, count: int, in_flight: int, delay: int = 0) -> dict[str, Any]:
    """Many prompts, sent with what the client has for that; also its share of the possible throughput."""
    prompt = f"delayed {delay}" if delay else "json"
    await _warm(client.request, prompt, in_flight, client)
    with measured():
        await client.many(repeat(prompt, count), in_flight)
    figures = measured.figures(count)
    figures["share"] = math.ceil(count / in_flight) * delay / 1000 / measured.wall
    return {**figures, "text": ""}


async def hold(client: Client, measured: Measured, *, count: int, seconds: float = 2.0) -> dict[str, Any]:
    """Streams that stay open and silent: the memory of each in KiB, and the CPU time of all in ms per second."""
    opened = 0
    news = asyncio.Event()

    def seen(_: str) -> None:
        nonlocal opened
        opened += 1
        news.set()

    await client.request("json")
    before = _resident()
    tasks: list[asyncio.Task[None]] = []
    while opened < count:
        if len(tasks) < count and len(tasks) - opened < AT_ONCE:
            tasks.append(asyncio.ensure_future(client.stream("open", seen)))
            continue
        news.clear()
        await asyncio.wait_for(news.wait(), 60)
    await asyncio.sleep(seconds / 2)
    memory = _resident() - before
    with measured():
        await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"cost": memory / count / 1024, "idle": measured.cpu / seconds * 1000, "server": 0.0, "text": ""}


WORKS: dict[str, Work] = {work.__name__: work for work in (requests, streams, first, many, hold)}


async def _warm(ask: Callable[[str], Awaitable[object]], prompt: str, in_flight: int, client: Client) -> None:
    async def work() -> None:
        for _ in range(2 if client.slow > 1 or in_flight > 100 else 10):
            await ask(prompt)

    await _together(client, work, min(in_flight, 20) if client.slow > 1 else in_flight)


async def _together(client: Client, work: Callable[[], Coroutine[Any, Any, None]], in_flight: int) -> None:
    if client.blocking:
        await work()
    else:
        await asyncio.gather(*(work() for _ in range(in_flight)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _resident() -> int:
    """Bytes of memory in use, after unused memory was given back to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _peak() -> float:
    """The peak of memory in MB, since the last call on Linux, elsewhere since the start of the process."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _run_blocking(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, without a loop."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a blocking client has waited")


def main(name: str, loop: str, url: str) -> None:
    raise_limits()
    client, measured = CLIENTS[name](url), Measured(url)
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        run: Callable[[Any], Any] = _run_blocking if client.blocking else runner.run
        run(client.open())
        print("{}", flush=True)
        for line in sys.stdin:
            given = json.loads(line)
            _peak()
            figures = run(WORKS[given.pop("work")](client, measured, **given))
            print(json.dumps({**figures, "peak": _peak()}), flush=True)
    os._exit(0)  # the system closes the connections of the hand-written clients


if __name__ == "__main__":
    main(*sys.argv[1:])

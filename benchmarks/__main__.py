"""`python -m benchmarks`: client CPU per request and per chunk, beside aiohttp loops written by hand.

Each client runs in a process of its own, pinned to one core where the system allows, round by round in turn, so that
a ratio is taken within one round. The figures are CPU microseconds (user and system) per request or chunk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable

from .server import LOOPS, run

PARTS = {
    # name: (prompt, streamed, requests, in flight, units of one request)
    "request": ("json", False, 2000, 64, 1),
    "burst": ("burst 200", True, 200, 20, 200),
    "paced": ("paced 100 10", True, 50, 50, 100),
}
ROUNDS = 5
KEPT: list[object] = []  # sessions of the hand-written clients, which would complain if they were dropped unclosed


async def plain(url: str, prompt: str, streamed: bool) -> Callable[[], Awaitable[str]]:
    """aiohttp as people write it."""
    import aiohttp

    session = aiohttp.ClientSession()
    KEPT.append(session)
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": streamed}
    headers = {"Authorization": "Bearer key"}

    async def whole() -> str:
        async with session.post(url + "/chat/completions", json=body, headers=headers) as response:
            return (await response.json())["choices"][0]["message"]["content"]  # type: ignore[no-any-return]

    async def stream() -> str:
        parts = []
        async with session.post(url + "/chat/completions", json=body, headers=headers) as response:
            async for line in response.content:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    content = json.loads(line[6:])["choices"][0]["delta"].get("content")
                    if content:
                        parts.append(content)
        return "".join(parts)

    return stream if streamed else whole


async def tuned(url: str, prompt: str, streamed: bool) -> Callable[[], Awaitable[str]]:
    """aiohttp and orjson as an expert writes it."""
    import aiohttp
    import orjson

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    KEPT.append(session)
    headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": streamed}

    async def whole() -> str:
        async with session.post(url + "/chat/completions", data=orjson.dumps(body), headers=headers) as response:
            return orjson.loads(await response.read())["choices"][0]["message"]["content"]  # type: ignore[no-any-return]

    async def stream() -> str:
        parts = []
        rest = b""
        async with session.post(url + "/chat/completions", data=orjson.dumps(body), headers=headers) as response:
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event == b"data: [DONE]":
                        break
                    content = orjson.loads(event[6:])["choices"][0]["delta"].get("content")
                    if content:
                        parts.append(content)
        return "".join(parts)

    return stream if streamed else whole


async def ours(url: str, prompt: str, streamed: bool) -> Callable[[], Awaitable[str]]:
    """rusty_agent."""
    from rusty_agent import AsyncProvider

    provider = AsyncProvider("m", api_key="key-key-key", base_url=url)

    async def whole() -> str:
        return await provider.generate_text(prompt)

    async def stream() -> str:
        return "".join([piece async for piece in provider.stream_text(prompt)])

    return stream if streamed else whole


CLIENTS = {"plain": plain, "tuned": tuned, "ours": ours}


async def measure(client: str, part: str, url: str) -> None:
    prompt, streamed, requests, in_flight, units = PARTS[part]
    call = await CLIENTS[client](url, prompt, streamed)
    expected = await call()
    for _ in range(3):  # warm up: connections and caches
        await asyncio.gather(*(call() for _ in range(min(in_flight, 20))))
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            if await call() != expected:
                raise AssertionError("a client returned another text")

    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    print(json.dumps({"us": cpu / requests / units * 1e6, "characters": len(expected)}))


def child(client: str, part: str, url: str, loop: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks", "--child", client, part, url, loop]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)  # type: ignore[no-any-return]


def run_child(client: str, part: str, url: str, loop: str) -> None:
    if hasattr(os, "sched_setaffinity") and len(cores := sorted(os.sched_getaffinity(0))) > 1:
        os.sched_setaffinity(0, {cores[-1]})
    run(measure(client, part, url), loop)
    sys.stdout.flush()
    os._exit(0)


def main(parts: list[str]) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(server.pid, {min(os.sched_getaffinity(0))})
    loops = os.environ.get("BENCH_LOOPS", " ".join(LOOPS)).split()
    print(f"{'part':10}{'loop':10}{'client':10}{'µs':>8}{'spread':>16}{'of plain':>10}{'of tuned':>10}")
    for part in parts:
        for loop in loops:
            figures: dict[str, list[float]] = {name: [] for name in CLIENTS}
            for _ in range(ROUNDS):
                rounds = {name: child(name, part, url, loop) for name in CLIENTS}
                assert len({figure["characters"] for figure in rounds.values()}) == 1
                for name, figure in rounds.items():
                    figures[name].append(figure["us"])
            for name, values in figures.items():
                ratios = [
                    statistics.median(a / b for a, b in zip(values, figures[other], strict=True))
                    for other in ("plain", "tuned")
                ]
                spread = f"{min(values):.1f}-{max(values):.1f}"
                print(
                    f"{part:10}{loop:10}{name:10}{statistics.median(values):8.1f}{spread:>16}"
                    f"{ratios[0]:10.2f}{ratios[1]:10.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(*sys.argv[2:6])
    else:
        parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
        parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them without one")
        chosen = parser.parse_args().parts
        if unknown := set(chosen) - PARTS.keys():
            parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
        main(chosen or list(PARTS))

"""`python -m benchmarks.batch [--rows N] [--rounds N]`: rows per second of a batch, compared with other ways.

Each way runs in its own process on one core, against an endpoint on another core that answers at once. The ways take
turns round by round, so that each ratio is taken within one round. `batch` writes a line for each row, durably.
`workers` is the same client in a bare loop of as many workers, and keeps no answer. `script` is what people write for
themselves with the same client: as many workers, which write each answer down as it comes, but cannot resume after a
crash. The others are what people write with other clients. Times exclude the interpreter's start and the imports.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import server

IN_FLIGHT = 64
KEY = "key-key-key"
SLOW = frozenset({"gather", "litellm", "cookbook"})  # for these a tenth of the rows is enough


async def batch(url: str, source: Path) -> None:
    """rusty_agent's batch, with group commit."""
    from rusty_agent import AsyncProvider
    from rusty_agent.batch.runner import run_batch

    async with AsyncProvider("m", api_key=KEY, base_url=url) as provider:
        result = await run_batch(source, source.with_name("out.jsonl"), provider, concurrency=IN_FLIGHT)
    assert result.done == result.total


async def workers(url: str, source: Path) -> None:
    """The same client in a bare loop; answers are dropped."""
    from rusty_agent import AsyncProvider

    async with AsyncProvider("m", api_key=KEY, base_url=url) as provider:
        lines = iter(source.read_bytes().splitlines())

        async def work() -> None:
            for line in lines:
                await provider.generate_text(json.loads(line)["prompt"])

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


async def script(url: str, source: Path) -> None:
    """The same client in a bare loop that writes a line for each answer as it comes."""
    from rusty_agent import AsyncProvider

    async with AsyncProvider("m", api_key=KEY, base_url=url) as provider:
        lines = enumerate(source.read_bytes().splitlines())
        with source.with_name("out.jsonl").open("a") as file:

            async def work() -> None:
                for number, line in lines:
                    result = await provider.generate_text(json.loads(line)["prompt"], include_usage=True)
                    file.write(json.dumps({"id": number, "answer": result.raw, "seconds": result.duration}) + "\n")

            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


async def gather(url: str, source: Path) -> None:
    """openai-python with a task per row behind a semaphore; answers are kept in memory and written at the end."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key=KEY, base_url=url)
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(prompt: str) -> str:
        async with gate:
            completion = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
            return str(completion.model_dump_json())

    prompts = [json.loads(line)["prompt"] for line in source.read_bytes().splitlines()]
    answers = await asyncio.gather(*(one(prompt) for prompt in prompts))
    source.with_name("out.jsonl").write_text("\n".join(answers))
    await client.close()


async def litellm(url: str, source: Path) -> None:
    """litellm's acompletion, likewise: its abatch_completion asks several models, its batch_completion uses threads."""
    import litellm as library

    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(prompt: str) -> Any:
        async with gate:
            return await library.acompletion(
                "openai/m", messages=[{"role": "user", "content": prompt}], api_key=KEY, api_base=url
            )

    prompts = [json.loads(line)["prompt"] for line in source.read_bytes().splitlines()]
    await asyncio.gather(*(one(prompt) for prompt in prompts))


async def cookbook(url: str, source: Path) -> None:
    """Like openai-cookbook's api_request_parallel_processor: a task per row, one a millisecond, each appends a line."""
    import aiohttp

    headers = {"Authorization": f"Bearer {KEY}"}
    output = source.with_name("out.jsonl")
    tasks = set()
    async with aiohttp.ClientSession() as session:

        async def one(prompt: str) -> None:
            body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
            async with session.post(url + "/chat/completions", headers=headers, json=body) as response:
                value = await response.json()
            with output.open("a") as file:
                file.write(json.dumps([body, value]) + "\n")

        for line in source.read_bytes().splitlines():
            task = asyncio.create_task(one(json.loads(line)["prompt"]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)


WAYS: dict[str, Callable[[str, Path], Awaitable[None]]] = {
    "batch": batch,
    "workers": workers,
    "script": script,
    "gather": gather,
    "litellm": litellm,
    "cookbook": cookbook,
}
NEEDS = {
    "batch": "rusty_agent.batch.runner",
    "workers": "rusty_agent.provider",
    "script": "rusty_agent.provider",
    "gather": "openai.resources.chat",
    "litellm": "litellm",
    "cookbook": "aiohttp",
}


def child(way: str, loop: str, url: str, source: str) -> None:
    """Run one way; print its seconds of wall clock and of CPU, imports excluded."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else litellm fetches prices from the network
    import_module(NEEDS[way])
    import_module("aiohttp")

    async def main() -> None:
        before, cpu = time.perf_counter(), time.process_time()
        await WAYS[way](url, Path(source))
        print(json.dumps({"wall": time.perf_counter() - before, "cpu": time.process_time() - cpu}))

    server.run(main(), loop)


def measure(way: str, loop: str, url: str, rows: int) -> tuple[float, float]:
    """Rows per second, and microseconds of CPU per row."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.jsonl")
        source.write_text("".join(f'{{"prompt":"json {number}"}}\n' for number in range(rows)))
        command = [sys.executable, "-m", "benchmarks.batch", "--child", way, loop, url, str(source)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            server.pin(process.pid, -1)
            out, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{way} failed")
    took = json.loads(out)
    return rows / took["wall"], took["cpu"] / rows * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with server.endpoint() as url:
        print(f"{'loop':10}{'way':10}{'rows/s':>8}{'spread':>14}{'CPU µs/row':>12}{'of workers':>12}{'of script':>11}")
        for loop in server.LOOPS:
            table(loop, url, arguments)


def table(loop: str, url: str, arguments: argparse.Namespace) -> None:
    ways = [way for way in WAYS if find_spec(NEEDS[way].partition(".")[0])]
    figures: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way in ways:
            rows = arguments.rows // 10 if way in SLOW else arguments.rows
            figures[way].append(measure(way, loop, url, rows))
    for way, values in figures.items():
        rates, costs = zip(*values, strict=True)
        ratios = [
            statistics.median(a[0] / b[0] for a, b in zip(values, figures[other], strict=True))
            for other in ("workers", "script")
        ]
        spread = f"{min(rates):,.0f}-{max(rates):,.0f}"
        print(
            f"{loop:10}{way:10}{statistics.median(rates):8,.0f}{spread:>14}{statistics.median(costs):12.0f}"
            f"{ratios[0]:12.2f}{ratios[1]:11.2f}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:6])
    else:
        main()

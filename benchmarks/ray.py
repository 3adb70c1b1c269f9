"""`python -m benchmarks.ray [PART …]`: `contrib.ray` compared with the batch runner and Ray's HTTP stage, and killed.

Needs the extra `ray` (and pydantic, for Ray's HTTP stage); takes some minutes. Every job runs in its own process
against a loopback endpoint, which counts and measures: rates are taken from its first request to its last answer, so
they exclude Ray's start. Ray listens on the loopback interface only.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from .server import Endpoint, listen

MARK = "RUSTY_AGENT_BENCHMARK"  # the environment variable that marks the processes of a job
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes Ray listen on 127.0.0.1 only
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "BENCHMARK_KEY": "none",
}
REQUEST = re.compile(rb"(?P<method>\w+) /(?P<delay>\d+)/(?P<every>\d+)/")
PROMPT = re.compile(rb'"content": ?"row (\d+)"')
SLOWER = 10


class Rows(Endpoint):
    """Answers `row N` after DELAY ms of the path `/DELAY/EVERY/`; each EVERY-th row takes ten times as long."""

    asked: ClassVar[Counter[int]] = Counter()
    first = last = 0.0
    in_flight = peak = 0

    def requested(self, head: bytes, body: bytes) -> None:
        request = REQUEST.match(head)
        if request is None:
            self.tell()
            return
        row = int(PROMPT.search(body)[1])  # type: ignore[index]
        delay, every = int(request["delay"]) / 1000, int(request["every"])
        cls, loop = type(self), asyncio.get_running_loop()
        cls.first = cls.first or loop.time()
        cls.asked[row] += 1
        cls.in_flight += 1
        cls.peak = max(cls.peak, cls.in_flight)
        loop.call_later(delay * (SLOWER if every and row % every == 0 else 1), self.answer, row)

    def answer(self, row: int) -> None:
        cls = type(self)
        cls.in_flight -= 1
        cls.last = asyncio.get_running_loop().time()
        message = {"role": "assistant", "content": f"answer {row}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        self.send({"id": f"c{row}", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    def tell(self) -> None:
        """Send what was seen so far."""
        cls = type(self)
        told = {"rows": len(cls.asked), "requests": cls.asked.total(), "most": max(cls.asked.values(), default=0)}
        self.send({**told, "seconds": cls.last - cls.first, "peak": cls.peak, "in_flight": cls.in_flight})

    def send(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


# The jobs: each runs in its own process.


async def plain(job: dict[str, Any]) -> None:
    """The batch runner."""
    from rusty_agent import AsyncProvider, Limits
    from rusty_agent.batch.runner import run_batch

    limits = Limits(in_flight=job["in_flight"])
    provider = AsyncProvider("m", api_key="none", base_url=job["url"], limits=limits)
    await run_batch(job["input"], job["output"], provider, concurrency=job["in_flight"])


def start_ray(cpus: int) -> Any:
    import ray
    import ray.data

    ray.init(num_cpus=cpus, include_dashboard=False, logging_level="error", object_store_memory=2**28)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def ours(job: dict[str, Any]) -> None:
    """`contrib.ray.generate`, from a file to files."""
    from rusty_agent.contrib.ray import checkpoint, generate

    ray = start_ray(job.get("cpus", 2))
    if "checkpoint" in job:
        checkpoint(job["checkpoint"])
    ds = generate(
        ray.data.read_json(job["input"]),
        provider={"model": "m", "base_url": job["url"], "api_key_env": "BENCHMARK_KEY"},
        prompt="prompt",
        actors=job["actors"],
        max_in_flight=job["in_flight"],
        rows_per_block=job.get("rows_per_block"),
    )
    ds.write_parquet(job["output"])


def rays(job: dict[str, Any]) -> None:
    """Ray's own HTTP stage."""
    ray = start_ray(2)
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "payload": {"model": "m", "messages": [{"role": "user", "content": row["prompt"]}]}}

    config = HttpRequestProcessorConfig(url=job["url"] + "/chat/completions", batch_size=64, concurrency=1)
    processor = build_processor(config, preprocess=preprocess)
    processor(ray.data.read_json(job["input"])).write_parquet(job["output"])


JOBS: dict[str, Callable[[dict[str, Any]], None]] = {
    "plain": lambda job: asyncio.run(plain(job)),
    "ours": ours,
    "rays": rays,
}


# The parts: each compares jobs.


def child(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.ray", *arguments], **options)


@contextmanager
def endpoint() -> Iterator[int]:
    process = child("serve", stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def told(port: int) -> dict[str, Any]:
    """What the endpoint has seen so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def start(kind: str, port: int, folder: Path, rows: int, *, delay: int, every: int = 0, **job: Any) -> Job:
    """Start a job over `rows` rows."""
    path = folder / f"{rows}.jsonl"
    if not path.exists():
        lines = [json.dumps({"custom_id": f"id {row}", "prompt": f"row {row}"}) + "\n" for row in range(rows)]
        path.write_text("".join(lines))
    mark = secrets.token_hex(8)
    output = job.setdefault("output", str(folder / mark))
    job |= {"url": f"http://127.0.0.1:{port}/{delay}/{every}/v1", "input": str(path)}
    environment = {**os.environ, **ENVIRONMENT, MARK: mark}
    return Job(child("job", kind, json.dumps(job), env=environment, stderr=subprocess.PIPE), mark, Path(output))


class Job:
    """A job under way."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str, output: Path) -> None:
        self.process = process
        self.mark = mark
        self.output = output

    def finish(self) -> None:
        said = self.process.communicate()[1].decode()
        assert self.process.returncode == 0, said[-4000:]
        assert "Unclosed" not in said, said[-4000:]

    def others(self) -> dict[int, str]:
        """The processes that the job has started, Ray's own and its actors, by id: their command lines."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    found[int(path.name)] = (path / "cmdline").read_bytes().decode()
        found.pop(self.process.pid, None)
        return found

    def answers(self) -> dict[str, str]:
        """The answers in its output, by `custom_id`. Fails if a row is there twice."""
        if self.output.is_file():
            lines = [json.loads(line) for line in self.output.read_text().splitlines()]
            rows = [(row["custom_id"], row["response"]["body"]["choices"][0]["message"]["content"]) for row in lines]
        else:
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(self.output, columns=["custom_id", "answer"])
            rows = list(zip(table["custom_id"].to_pylist(), table["answer"].to_pylist(), strict=True))
        assert len(dict(rows)) == len(rows), "a row stands there twice"
        return dict(rows)


def run(kind: str, folder: Path, rows: int, **settings: Any) -> tuple[float, Job]:
    """Run a job to its end; return the rows per second that the endpoint saw, and the job."""
    began = time.monotonic()
    with endpoint() as port:
        job = start(kind, port, folder, rows, **settings)
        job.finish()
        seen = told(port)
    assert seen["rows"] == seen["requests"] == rows, seen
    rate = rows / seen["seconds"]
    wall = time.monotonic() - began
    print(f"  {kind:5} {rate:7.1f} rows/s, at most {seen['peak']:3} in flight, {wall:5.1f} s in all", flush=True)
    return rate, job


def same(folder: Path) -> None:
    """20,000 rows over two actors: the same answers as the batch runner's."""
    _, one = run("plain", folder, 20_000, delay=20, in_flight=64)
    _, two = run("ours", folder, 20_000, delay=20, in_flight=32, actors=2)
    assert one.answers() == two.answers()
    print("  the same 20,000 answers")


def even(folder: Path) -> None:
    """200 ms for each row."""
    compare(folder, "plain", "ours", rows=6000, delay=200)


def tail(folder: Path) -> None:
    """200 ms, and ten times that for every twentieth row."""
    compare(folder, "plain", "ours", rows=6000, delay=200, every=20)


def http(folder: Path) -> None:
    """Beside Ray's own HTTP stage, one actor each."""
    compare(folder, "rays", "ours", rows=1500, delay=200)


def compare(folder: Path, one: str, other: str, **settings: Any) -> None:
    rates = [run(kind, folder, **settings, in_flight=128, actors=1)[0] for kind in (one, other)]
    print(f"  {other} / {one} = {rates[1] / rates[0]:.2f}")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def actor(folder: Path) -> None:
    """An actor is killed in the middle."""
    with endpoint() as port:
        job = start("ours", port, folder, 4000, delay=500, in_flight=64, actors=2)
        wait_for(lambda: told(port)["rows"] >= 2000)
        killed = next(pid for pid, name in job.others().items() if name.startswith("ray::") and "Generate" in name)
        os.kill(killed, signal.SIGKILL)
        job.finish()
        report(told(port), job)


def driver(folder: Path) -> None:
    """The program is killed in the middle, and started again."""
    settings: dict[str, Any] = {"delay": 500, "in_flight": 128, "actors": 1, "checkpoint": str(folder / "checkpoint")}
    with endpoint() as port:
        job = start("ours", port, folder, 4000, **settings)
        wait_for(lambda: told(port)["rows"] >= 2000)
        job.process.kill()
        job.process.communicate()
        at_death = told(port)["requests"]
        wait_for(lambda: not job.others())
        print(f"  {told(port)['requests'] - at_death} requests were sent before Ray had noticed")
        job = start("ours", port, folder, 4000, **settings, output=str(job.output))
        job.finish()
        report(told(port), job)
        job = start("ours", port, folder, 4000, **settings, output=str(job.output))
        job.finish()
        assert told(port)["requests"] == report(told(port), job), "a job that was done has sent something"


def report(seen: dict[str, Any], job: Job) -> int:
    assert len(job.answers()) == 4000
    assert all(answer == f"answer {name.split()[1]}" for name, answer in job.answers().items())
    again = seen["requests"] - seen["rows"]
    print(f"  4000 of 4000 rows, none twice; {again} requests were sent again, none more than {seen['most']} times")
    return int(seen["requests"])


PARTS = {part.__name__: part for part in (same, even, tail, http, actor, driver)}


def main(arguments: list[str]) -> None:
    match arguments:
        case ["serve"]:
            asyncio.run(listen(Rows))
        case ["job", kind, settings]:
            JOBS[kind](json.loads(settings))
        case _ if not PARTS.keys() >= set(arguments):
            sys.exit(f"usage: python -m benchmarks.ray [{' | '.join(PARTS)}] … (http needs pydantic too)")
        case _:
            for name in arguments or PARTS:
                print(f"{name}: {PARTS[name].__doc__}", flush=True)
                with TemporaryDirectory() as folder:
                    PARTS[name](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])

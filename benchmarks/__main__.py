"""`python -m benchmarks [PART …]`: what clients cost, compared with hand-written loops and with other libraries.

Each client works in its own process on one core, the endpoint on another where the system allows. The clients take
turns round by round, so that each ratio is taken within one round. The run ends if clients return different texts
(compared for whole answers and unpaced streams), or if the endpoint was the bottleneck.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import counts, imports, page, wire
from .clients import CLIENTS, missing
from .parts import PARTS, Part
from .server import LOOPS, endpoint, pin

OTHERS = {"import": imports.measure, "wire": wire.measure, "instructions": counts.measure}
LONG = {"instructions"}  # left out in a hurry
CROWD = 1000  # streams at once: a slow client takes seconds just to open so many, so `--quick` leaves it out
BUSY = 0.97  # of a core: if the endpoint uses more than this, and the client
IDLE = 0.9  # … less than this, the endpoint is what was measured
DISTRIBUTIONS = ("rusty-agent", "aiohttp", "orjson", "uvloop", "openai", "httpx", "litellm", "rusty-agent-sdk")


class Worker:
    """A client in a process of its own."""

    def __init__(self, client: str, loop: str, url: str) -> None:
        self.client = client
        command = [sys.executable, "-m", "benchmarks.worker", client, loop, url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pin(self.process.pid, -1)
        self._answer()

    def run(self, work: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(work) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.client} failed, see above")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.process.communicate()


class Bench:
    """A run of the benchmark on one event loop, with the workers for it."""

    def __init__(self, url: str, loop: str, quick: bool, rounds: int) -> None:
        self.url = url
        self.loop = loop
        self.quick = quick
        self.rounds = rounds
        self.workers: dict[str, Worker] = {}

    def run(self, name: str) -> list[dict[str, Any]]:
        """Run every work of a part; return the results."""
        part = PARTS[name]
        results = []
        for label, work in part.works.items():
            rows = self._rounds(part, work)
            results += [
                {"part": name, "label": label, "loop": self.loop, "client": client, "rounds": rows[client]}
                for client in rows
            ]
            page.show(results[-len(rows) :], part)
        return results

    def _rounds(self, part: Part, work: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        hurry = self.quick and work.get("in_flight", 0) >= CROWD
        clients = [
            client for client in part.clients if missing(client) is None and not (hurry and CLIENTS[client].slow > 1)
        ]
        rows: dict[str, list[dict[str, Any]]] = {client: [] for client in clients}
        for _ in range(self.rounds):
            if part.redrawn and not self.quick:
                self.close()
            texts = set()
            for client in clients:
                worker = self._worker(client, part)
                figures = worker.run(self._share(part, client, work))
                if part.fresh:
                    worker.close()
                _check(client, figures)
                texts.add(figures.pop("text"))
                rows[client].append(figures)
            if len(texts) > 1:
                raise SystemExit(f"not all of {', '.join(clients)} returned the same text")
        return rows

    def _worker(self, client: str, part: Part) -> Worker:
        if part.fresh:
            return Worker(client, self.loop, self.url)
        if client not in self.workers:
            self.workers[client] = Worker(client, self.loop, self.url)
        return self.workers[client]

    def _share(self, part: Part, client: str, work: dict[str, Any]) -> dict[str, Any]:
        """The client's share of the work: less if it is slow, or with `--quick`, but at least `in_flight` calls."""
        parts = CLIENTS[client].slow * (part.quick if self.quick else 1)
        less = {**work, "count": max(work.get("in_flight", 10), work["count"] // parts)}
        if self.quick and part.fresh:
            less["seconds"] = 0.4
        if self.quick and "gap" in work:
            less["chunks"] //= part.quick
        return less

    def close(self) -> None:
        """End the workers; the next work starts new ones."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


def _check(client: str, figures: dict[str, Any]) -> None:
    if figures["server"] > BUSY and figures["client"] < IDLE and client != "raw":
        raise SystemExit(f"the endpoint was the bottleneck of {client}, so the figures say nothing: {figures}")


def machine() -> dict[str, Any]:
    """The machine and the versions with which this was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "when": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "versions": {name: found for name in DISTRIBUTIONS if (found := _version(name)) is not None},
    }


def _processor() -> str:
    with suppress(OSError, StopIteration):  # Linux names only some processors
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def measure(names: list[str], quick: bool, rounds: int, loops: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Run the parts; yield the results of each."""
    for client in CLIENTS:
        if (lacks := missing(client)) is not None:
            print(f"without {client}: {lacks} is not installed (benchmarks/requirements.txt)", file=sys.stderr)
    with endpoint() as url:
        for loop in loops:
            bench = Bench(url, loop, quick, rounds)
            for name in names:
                if name in PARTS:
                    yield bench.run(name)
            bench.close()
    for name in names:
        if name in OTHERS:
            if found := OTHERS[name](rounds, quick):
                page.show(found)
            yield found


def main() -> None:
    names = [*PARTS, *OTHERS]
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(names)}; all of them without one")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="less work, two rounds, one loop, no slow client with a thousand streams: two minutes, rough",
    )
    parser.add_argument("--rounds", type=int, help="how many rounds (default 5, with --quick 2)")
    parser.add_argument("--loop", choices=LOOPS, action="append", help="only this event loop")
    parser.add_argument("-o", "--output", type=Path, help="write the figures here, as JSON, part by part")
    parser.add_argument("--page", action="store_true", help="make docs/benchmarks.md of the figures")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(names):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    loops = arguments.loop or list(LOOPS[: 1 if arguments.quick else None])
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    parts = arguments.parts or [name for name in names if not (arguments.quick and name in LONG)]
    results: list[dict[str, Any]] = []
    found = {"machine": machine(), "rounds": rounds, "quick": arguments.quick, "results": results}
    for of_one in measure(parts, arguments.quick, rounds, loops):
        results += of_one
        if arguments.output is not None:  # after each part: the whole takes an hour, and may be cut short
            arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    page.show_bars(results)
    if arguments.page:
        page.write(found)


if __name__ == "__main__":
    main()

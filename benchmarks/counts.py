"""Instructions per request, chunk and prompt: figures that do not change with the machine's other load.

`perf` counts them, or valgrind if the machine has no counter; without either they are left out. What happens only once
(the interpreter's start, imports, warming up) is taken out: we count some work, then more of it, and subtract.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .server import LOOPS, endpoint

COUNTERS = (  # a command to put before another, and the pattern that finds the count in its stderr
    ("perf stat -x, -e instructions:u", r"^(\d+),,instructions"),
    (f"valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file={os.devnull}", r"I +refs: +([\d,]+)"),
)
BY_HAND = ("raw", "plain", "tuned", "ours")
# Label → the work of `benchmarks.worker`, which argument grows, from what to what, and how many units one more adds.
# It grows by so much that a full garbage collection, a few million instructions, hardly matters.
WORKS: dict[str, tuple[dict[str, Any], str, int, int, int]] = {
    "request": ({"work": "requests", "in_flight": 16}, "count", 200, 600, 1),
    "burst, chunk": ({"work": "streams", "in_flight": 4, "chunks": 200}, "count", 8, 40, 200),
    "paced, chunk": ({"work": "streams", "count": 10, "in_flight": 10, "gap": 40}, "chunks", 20, 70, 10),
    "map, prompt": ({"work": "many", "in_flight": 16}, "count", 200, 600, 1),
}
CLIENTS = dict.fromkeys(WORKS, BY_HAND) | {"map, prompt": ("plain", "tuned", "ours", "ours-workers")}


def count(command: list[str], told: str = "") -> int | None:
    """The instructions of a command that gets `told` on standard input; None if nothing can count them."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # else no two interpreters start alike
    for counter, pattern in COUNTERS:
        try:
            done = subprocess.run(
                [*counter.split(), *command], input=told, capture_output=True, text=True, check=False, env=environment
            )
        except OSError:
            continue
        if found := re.search(pattern, done.stderr, re.MULTILINE):
            return int(found[1].replace(",", ""))
    return None


def measure(_: int, __: bool) -> list[dict[str, Any]]:
    """A result for each work, loop and client; each is counted only once, because counts hardly vary."""
    every = [(label, loop, client) for label in WORKS for loop in LOOPS for client in CLIENTS[label]]
    with endpoint() as url, ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = list(pool.map(lambda what: _per_unit(url, *what), every))
    return [
        {"part": "instructions", "label": label, "loop": loop, "client": client, "rounds": [{"cost": cost}]}
        for (label, loop, client), cost in zip(every, counted, strict=True)
        if cost is not None
    ]


def _per_unit(url: str, label: str, loop: str, client: str) -> float | None:
    work, growing, some, more, units = WORKS[label]
    command = [sys.executable, "-m", "benchmarks.worker", client, loop, url]
    counts = [count(command, json.dumps({**work, growing: amount}) + "\n") for amount in (some, more)]
    if counts[0] is None or counts[1] is None:
        return None
    return (counts[1] - counts[0]) / ((more - some) * units)

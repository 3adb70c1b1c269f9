"""What is measured, and the bars that the figures must meet.

In: nothing. Out: the parts, each with its works and the clients that do them; the bars. Never touched: processes,
files.
"""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

__all__ = ["BARS", "PARTS", "Bar", "Part"]

ALL = ["raw", "plain", "tuned", "ours", "openai", "openai-aiohttp", "litellm"]
BY_HAND = ["raw", "plain", "tuned", "ours"]
BLOCKING = ["ours-sync", "sdk-sync", "openai-sync"]


@define
class Part:
    """One part of the benchmark.

    Attributes:
        title: What is compared.
        unit: The unit of the main figure.
        works: Label → the full work for `benchmarks.worker`; `slow` clients do less of it.
        clients: The clients that take part.
        columns: Further figures to show → their headings.
        fresh: Whether each work has its own process, because what earlier works left behind would blur the figure.
        redrawn: Whether each round has new processes, except with `--quick`: a process gets its memory layout at random
            when it starts, and with cold caches that alone made a paced chunk cost 0.96 to 1.23 of the tuned loop's.
        quick: By how much `--quick` divides the work.
        note: What to know when reading the figures.
    """

    title: str
    unit: str
    works: dict[str, dict[str, Any]]
    clients: list[str] = Factory(lambda: list(ALL))
    columns: dict[str, str] = Factory(dict)
    fresh: bool = False
    redrawn: bool = False
    quick: int = 4
    note: str = ""


@define
class Bar:
    """A bar for one figure: that of `of` divided by that of `over`, or by the best of several.

    Attributes:
        part: The part's name.
        label: The work's label.
        of: The client whose figure it is.
        over: The clients whose figure it is divided by; empty for the figure itself.
        most: The most that the value may be; None if `least` is given.
        least: The least that the value must be.
        figure: The name of the figure.
        over_label: The label of the divisor's work, if it is another.
    """

    part: str
    label: str
    of: str
    over: list[str]
    most: float | None = None
    least: float | None = None
    figure: str = "cost"
    over_label: str | None = None


PARTS: dict[str, Part] = {
    "request": Part(
        "CPU time of a whole answer",
        "µs of CPU per request",
        {
            "1 in flight": {"work": "requests", "count": 1000, "in_flight": 1},
            "64 in flight": {"work": "requests", "count": 6400, "in_flight": 64},
            "512 in flight": {"work": "requests", "count": 6144, "in_flight": 512},
        },
        quick=8,
    ),
    "burst": Part(
        "CPU time of a streamed chunk, when they come all at once",
        "µs of CPU per chunk",
        {"20 streams": {"work": "streams", "count": 400, "in_flight": 20, "chunks": 200}},
    ),
    "paced": Part(
        "CPU time of a streamed chunk, when they come one by one",
        "µs of CPU per chunk",
        {
            "50 streams, 10 ms": {"work": "streams", "count": 100, "in_flight": 50, "chunks": 100, "gap": 10},
            "1000 streams, 200 ms": {"work": "streams", "count": 1000, "in_flight": 1000, "chunks": 20, "gap": 200},
        },
        columns={"lag_p50": "lag p50, ms", "lag_p99": "lag p99, ms"},
        redrawn=True,
        quick=4,
        note="The lag is the time from the endpoint's write to the caller's receipt, of all chunks but the first. 1000 "
        "streams have a chunk each 200 ms, because at 20 ms no client keeps up on one core. A client that does not "
        "keep up has a lag of seconds.",
    ),
    "ttft": Part(
        "Time to the first piece",
        "µs from the call to the first piece (median)",
        {"one call at a time": {"work": "first", "count": 300}},
        columns={"p99": "p99, µs"},
        redrawn=True,
        quick=1,
    ),
    "sync": Part(
        "The blocking faces",
        "µs of CPU per request or chunk",
        {
            "request": {"work": "requests", "count": 500, "in_flight": 1},
            "stream": {"work": "streams", "count": 60, "in_flight": 1, "chunks": 200},
        },
        clients=[*BLOCKING, "ours"],
        note="ours is the asynchronous face, asked for one answer at a time.",
    ),
    "map": Part(
        "10,000 prompts, 256 in flight, an endpoint that takes 50 ms",
        "µs of CPU per prompt",
        {"50 ms": {"work": "many", "count": 10_240, "in_flight": 256, "delay": 50}},
        columns={"share": "of the possible throughput"},
        clients=["raw", "plain", "tuned", "ours", "ours-gc", "ours-workers", "openai", "openai-aiohttp", "litellm"],
        redrawn=True,
        quick=4,
        note="ours is `map`, with its limits and its count of failures; ours-workers the bare calls, as the others. "
        "What `raw` lacks of the possible throughput is taken by the endpoint's timer and the system.",
    ),
    "open": Part(
        "Streams that are open and silent",
        "KiB of memory per stream",
        {
            "2,000 streams": {"work": "hold", "count": 2000},
            "10,000 streams": {"work": "hold", "count": 10_000},
        },
        clients=["plain", "tuned", "ours"],
        columns={"idle": "ms of CPU a second, all together"},
        fresh=True,
        quick=10,
    ),
    "growth": Part(
        "What a unit costs as they become more",
        "µs of CPU per chunk or prompt",
        {
            "10 streams": {"work": "streams", "count": 1000, "in_flight": 10, "chunks": 50},
            "100 streams": {"work": "streams", "count": 1000, "in_flight": 100, "chunks": 50},
            "500 streams": {"work": "streams", "count": 1000, "in_flight": 500, "chunks": 50},
            "2,000 streams": {"work": "streams", "count": 2000, "in_flight": 2000, "chunks": 50},
            "1,000 prompts": {"work": "many", "count": 1000, "in_flight": 64},
            "10,000 prompts": {"work": "many", "count": 10_000, "in_flight": 64},
            "100,000 prompts": {"work": "many", "count": 100_000, "in_flight": 64},
        },
        clients=["raw", "tuned", "tuned-gc", "ours", "ours-gc"],
        quick=25,
    ),
}

_FIRST_USE = "aiohttp, orjson, attrs"
_OPENAI = ["openai", "openai-aiohttp"]
BARS = [
    Bar("request", "64 in flight", "ours", ["plain"], most=1.0),
    Bar("request", "64 in flight", "ours", ["tuned"], most=1.1),
    Bar("request", "64 in flight", "ours", _OPENAI, most=1 / 10),
    Bar("request", "64 in flight", "ours", ["litellm"], most=1 / 25),
    Bar("burst", "20 streams", "ours", ["plain"], most=0.6),
    Bar("burst", "20 streams", "ours", ["tuned"], most=1.05),
    Bar("burst", "20 streams", "ours", _OPENAI, most=1 / 15),
    Bar("burst", "20 streams", "ours", ["litellm"], most=1 / 100),
    Bar("paced", "50 streams, 10 ms", "ours", ["tuned"], most=1.05),
    Bar("paced", "50 streams, 10 ms", "ours", _OPENAI, most=1 / 2),
    Bar("paced", "50 streams, 10 ms", "ours", ["litellm"], most=1 / 10),
    Bar("paced", "50 streams, 10 ms", "ours", ["tuned"], most=1.1, figure="lag_p99"),
    Bar("paced", "1000 streams, 200 ms", "ours", ["tuned"], most=1.05),
    Bar("paced", "1000 streams, 200 ms", "ours", ["tuned"], most=1.1, figure="lag_p99"),
    Bar("ttft", "one call at a time", "ours", ["tuned"], most=1.1),
    Bar("sync", "request", "ours-sync", ["sdk-sync"], most=1 / 20),
    Bar("sync", "request", "ours-sync", ["openai-sync"], most=1 / 3),
    Bar("sync", "stream", "ours-sync", ["sdk-sync"], most=1 / 8),
    Bar("sync", "stream", "ours-sync", ["openai-sync"], most=1 / 12),
    Bar("sync", "stream", "ours-sync", ["ours"], most=1.3),
    Bar("map", "50 ms", "ours", [], least=0.95, figure="share"),
    Bar("map", "50 ms", "ours", ["ours-workers"], most=1.1),
    Bar("open", "10,000 streams", "ours", ["tuned"], most=1.15),
    Bar("import", "cold", "import rusty_agent", [], most=60),
    Bar("import", "cold", "… and AsyncProvider", [_FIRST_USE], most=1.15),
    Bar("growth", "2,000 streams", "ours", ["ours"], most=1.15, over_label="10 streams"),
    Bar("growth", "100,000 prompts", "ours", ["ours"], most=1.15, over_label="1,000 prompts"),
]

"""What an import costs in a new interpreter: milliseconds beyond a bare one, and the number of modules."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

STATEMENTS = {
    "nothing": "pass",
    "import rusty_agent": "import rusty_agent",
    "… and AsyncProvider": "from rusty_agent import AsyncProvider",
    "aiohttp, orjson, attrs": "import aiohttp, orjson, attrs",
    "rusty_agent_sdk": "import rusty_agent_sdk",
    "openai": "import openai; openai.AsyncOpenAI",
    "litellm": "import os; os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'; import litellm; litellm.acompletion",
}
COUNT = "; import sys; print(len(sys.modules))"
PEERS = frozenset({"rusty_agent_sdk", "openai", "litellm"})
REPEATS = 5  # starts of an interpreter differ by up to a fifth, which is more than the differences to be measured


def measure(rounds: int, _: bool) -> list[dict[str, Any]]:
    """A result for each statement; the statements take turns round by round.

    The first round is thrown away: it fills the disk's cache and compiles what has changed, as an installer does. For
    that, bytecode is written even if the environment forbids it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ways = {name: code for name, code in STATEMENTS.items() if _is_there(name)}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        for name, code in ways.items():
            repeats = 1 if number < 0 or name in PEERS else REPEATS
            taken = [_import(code, environment) for _ in range(repeats)]
            if number >= 0:
                rows[name].append({"cost": statistics.median(cost for cost, _ in taken), "modules": taken[0][1]})
    bare = statistics.median(row["cost"] for row in rows["nothing"])
    for row in [row for name in ways for row in rows[name]]:
        row["cost"] -= bare
    return [
        {"part": "import", "label": "cold", "loop": "", "client": name, "rounds": rows[name]}
        for name in ways
        if name != "nothing"
    ]


def _import(code: str, environment: dict[str, str]) -> tuple[float, int]:
    """The milliseconds it takes, and how many modules are loaded then."""
    began = time.perf_counter()
    command = [sys.executable, "-c", code + COUNT]
    out = subprocess.run(command, check=True, capture_output=True, env=environment).stdout
    return (time.perf_counter() - began) * 1e3, int(out)


def _is_there(name: str) -> bool:
    return name not in PEERS or find_spec(name) is not None

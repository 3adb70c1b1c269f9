"""Watching processes: the model's, and those of scripts that are run to see what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rusty_agent import AsyncProvider, Provider
from rusty_agent.local.process import Child
from rusty_agent.local.transport import LocalTransport

from .. import processes

SMALL: dict[str, Any] = {"threads": 1, "context": 512, "parallel": 2}
LONG = "Write a very long story about a fox and a goose."

_PREAMBLE = """
import asyncio, logging, os, signal, sys, time, warnings
logging.getLogger("asyncio").setLevel(logging.ERROR)  # dev mode reports slow callbacks, which busy machines have
from rusty_agent import AsyncProvider, LocalModelError, Provider
from tests.local.process import LONG, SMALL, child_of

def tell(*what):
    print(*what, flush=True)
"""


def child_of(provider: Provider | AsyncProvider) -> Child:
    """The child process of a local provider; it is started if none runs."""
    core = provider._core if isinstance(provider, Provider) else provider
    assert isinstance(core._calls.transport, LocalTransport)
    return core._calls.transport._server.child()


def pid_of(provider: Provider | AsyncProvider) -> int:
    """The id of the child process, which may just be starting."""
    child = child_of(provider)
    assert until(lambda: child.pid is not None)
    assert child.pid is not None
    return child.pid


def start(script: str) -> subprocess.Popen[bytes]:
    """Start a script in which every warning is an error."""
    return processes.start(
        sys.executable, *processes.STRICT, "-c", _PREAMBLE + script, env=processes.environment({}), alone=True
    )


def line(script: subprocess.Popen[bytes]) -> str:
    """The next line that a script prints."""
    assert script.stdout is not None
    return script.stdout.readline().decode().strip()


def vanishes(pid: int, seconds: float = 10) -> bool:
    """Whether the process ends within this time."""
    return until(lambda: not _lives(pid), seconds)


def until(condition: Any, seconds: float = 10) -> bool:
    """Whether the condition comes true within this time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _lives(pid: int) -> bool:
    """Whether the process lives. A zombie does not: in a container, init may never reap it."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not sys.platform.startswith("linux")
    return state != "Z"

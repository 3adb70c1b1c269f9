"""Runs the real program in child processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from .. import processes
from ..processes import Ended, finish

PROGRAM = (sys.executable, "-m", "rusty_agent")
# For local models: llama.cpp has a thread for each core, and they wait for each other in busy loops: for long, if other
# tests want the cores too.
ON_ONE_CORE = (
    sys.executable,
    "-c",
    "import os, runpy\n"
    "if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
    "runpy.run_module('rusty_agent', run_name='__main__', alter_sys=True)\n",
)
KEY = {"OPENROUTER_API_KEY": "test-key-12345", "RUSTY_AGENT_MODEL": "some/model"}


def environment(extra: Mapping[str, str] = KEY) -> dict[str, str]:
    """The program's environment: warnings are errors, and there are no retries."""
    return processes.environment({"PYTHONWARNINGS": "error", "RUSTY_AGENT_MAX_RETRIES": "0", **extra})


def start(
    *arguments: str, env: Mapping[str, str] = KEY, program: tuple[str, ...] = PROGRAM, **options: Any
) -> subprocess.Popen[bytes]:
    return processes.start(*program, *arguments, env=environment(env), **options)


def run(*arguments: str, sent: bytes | None = None, seconds: float = 50, **options: Any) -> Ended:
    """Run the program to its end; `sent` goes to its standard input, which is /dev/null otherwise."""
    if sent is not None:
        options["stdin"] = subprocess.PIPE
    return finish(start(*arguments, **options), sent, seconds)

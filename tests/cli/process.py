"""Runs the real program in child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import rusty_agent

PROGRAM = (sys.executable, "-m", "rusty_agent")
KEY = {"OPENROUTER_API_KEY": "test-key-12345", "RUSTY_AGENT_MODEL": "some/model"}

File: TypeAlias = int | IO[Any]


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str] = KEY) -> dict[str, str]:
    """A child's environment: nothing of the tester's own settings, warnings are errors."""
    ours = ("PATH", "SYSTEMROOT", "TEMP", "HOME")
    kept = {name: value for name, value in os.environ.items() if name in ours or name.startswith("COVERAGE_")}
    root = str(Path(rusty_agent.__file__).parents[1])
    own = {"PYTHONPATH": root, "PYTHONWARNINGS": "error", "RUSTY_AGENT_MAX_RETRIES": "0"}
    return {**kept, **own, **extra}


def start(
    *arguments: str,
    stdin: File = subprocess.DEVNULL,
    stdout: File = subprocess.PIPE,
    env: Mapping[str, str] = KEY,
    program: tuple[str, ...] = PROGRAM,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*program, *arguments], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment(env)
    )


def finish(child: subprocess.Popen[bytes], sent: bytes | None = None, seconds: float = 15) -> Ended:
    """Wait for the end, and see that nothing but the code says how it ended."""
    try:
        out, err = child.communicate(sent, timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise
    return Ended(child.returncode, (out or b"").decode(), err.decode())


def run(*arguments: str, sent: bytes | None = None, seconds: float = 15, **options: Any) -> Ended:
    """Run the program to its end; `sent` goes to its standard input, which is /dev/null otherwise."""
    if sent is not None:
        options["stdin"] = subprocess.PIPE
    return finish(start(*arguments, **options), sent, seconds)

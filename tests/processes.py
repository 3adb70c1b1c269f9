"""Child processes, for what only a whole process can show: fork, signals, exit, the command line itself."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import rusty_agent

STRICT = ("-X", "dev", "-W", "error")

File: TypeAlias = int | IO[Any]


class Ended(NamedTuple):
    """How a child process ended."""

    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """A child's environment, with nothing of the tester's own settings.

    And with no certificate authorities: to read those of the machine, of which none of these children connects to an
    endpoint, takes a fifth of the time in which the library is imported.
    """
    ours = ("PATH", "SYSTEMROOT", "TEMP", "TMPDIR", "HOME")
    kept = {name: value for name, value in os.environ.items() if name in ours or name.startswith(("RAY_", "COVERAGE_"))}
    kept["SSL_CERT_FILE"] = os.devnull
    return {**kept, "PYTHONPATH": str(Path(rusty_agent.__file__).parents[1]), **extra}


def start(
    *command: str,
    env: Mapping[str, str],
    stdin: File = subprocess.DEVNULL,
    stdout: File = subprocess.PIPE,
    alone: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a child; `alone` in a session of its own, so that signals can be sent to all that it starts."""
    return subprocess.Popen(
        command, env=env, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=alone
    )


def finish(child: subprocess.Popen[bytes], sent: bytes | None = None, seconds: float = 50) -> Ended:
    """Wait for the end; what is left of its output. `sent` goes to its standard input.

    A child that hangs is told from one on a busy machine by nothing but time, so it gets nearly all that a test has.
    """
    try:
        out, err = child.communicate(sent, timeout=seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(getattr(signal, "SIGABRT", signal.SIGTERM))  # in dev mode it tells where it was
        out, err = child.communicate()
        raise AssertionError(f"the child hung: {(out or b'').decode()}\n{err.decode()}") from None
    return Ended(child.returncode, (out or b"").decode(), err.decode())

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
    """A child's environment, without the tester's own settings.

    It has no certificate authorities either: reading those of the machine takes a fifth of the time that importing the
    library takes, and none of these children needs them to connect.
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
    """Start a child; if `alone`, in its own session, so that a signal can reach all processes that it starts."""
    return subprocess.Popen(
        command, env=env, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, start_new_session=alone
    )


def finish(child: subprocess.Popen[bytes], sent: bytes | None = None, seconds: float = 50) -> Ended:
    """Wait for the end; return how the child ended, with the rest of its output. `sent` goes to its standard input.

    Only time tells a hanging child from one on a busy machine, so it gets nearly all the time that a test has.
    """
    try:
        out, err = child.communicate(sent, timeout=seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(getattr(signal, "SIGABRT", signal.SIGTERM))  # in dev mode it prints where it hung
        out, err = child.communicate()
        raise AssertionError(f"the child hung: {(out or b'').decode()}\n{err.decode()}") from None
    return Ended(child.returncode, (out or b"").decode(), err.decode())

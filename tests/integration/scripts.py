"""Programs for child processes: what only a whole process can show (fork, signals, exit)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from attrs import define

ROOT = Path(__file__).parents[2]
STRICT = ("-X", "dev", "-W", "error")

_PATIENT = """
import logging  # dev mode reports slow callbacks, which busy machines have
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing "))
"""


@define
class Ended:
    """How a child process ended."""

    code: int
    out: str
    err: str


def environment(url: str, covered: bool = True) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if covered or not name.startswith("COVERAGE_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "URL": url,
        "RUSTY_AGENT_RETRY_BACKOFF_MS": "1",
        "OPENROUTER_API_KEY": "sk-test-0123456789",
    }


def start(url: str, code: str, *flags: str, before: str = "", covered: bool = True) -> subprocess.Popen[str]:
    """Start Python on this program; `URL` is the server's. `before` runs before the library is imported.

    What is not `covered` is left out of the coverage measurement, which takes three times as long.
    """
    patient = _PATIENT if flags == STRICT else ""
    prelude = f"import os, sys\n{patient}{before}\nfrom rusty_agent import *\nURL = os.environ['URL']\n"
    return subprocess.Popen(
        [sys.executable, *flags, "-c", prelude + dedent(code)],
        env=environment(url, covered),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str], seconds: float = 20) -> Ended:
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)
        out, err = child.communicate()
        raise AssertionError(f"the child hung: {out}\n{err}") from None
    return Ended(child.returncode, out, err)


def run(url: str, code: str, *flags: str, before: str = "", covered: bool = True) -> Ended:
    return finish(start(url, code, *flags, before=before, covered=covered))

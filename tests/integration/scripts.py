"""Running short programs in child processes against a server."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

from .. import processes
from ..processes import STRICT, Ended, finish

_PATIENT = """
import logging  # dev mode reports slow callbacks, which busy machines have
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing "))
"""
_FORKS = """
import warnings  # children are made while the library's thread runs
warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
"""


def start(url: str, code: str, *flags: str, before: str = "") -> subprocess.Popen[bytes]:
    """Start Python on this program; `URL` is the server's. `before` runs before the library is imported."""
    patient = _PATIENT if flags == STRICT else ""
    prelude = f"import os, sys\n{patient}{_FORKS}{before}\nfrom rusty_agent import *\nURL = os.environ['URL']\n"
    own = {"URL": url, "RUSTY_AGENT_RETRY_BACKOFF_MS": "1", "OPENROUTER_API_KEY": "sk-test-0123456789"}
    return processes.start(sys.executable, *flags, "-c", prelude + dedent(code), env=processes.environment(own))


def run(url: str, code: str, *flags: str, before: str = "") -> Ended:
    """Run such a program to its end."""
    return finish(start(url, code, *flags, before=before))

"""How the end of the model's process is told."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from rusty_agent.local.ending import ending_error


def _told(said: bytes = b"", *, ready: bool = True, code: int = 1) -> str:
    return str(ending_error(Path("/m.gguf"), said, ready=ready, cause=code))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_signal_is_told_by_name() -> None:
    assert "signal SIGSEGV" in _told(code=-signal.SIGSEGV)
    assert "signal 99" in _told(code=-99)
    assert "runs out of memory" in _told(code=-signal.SIGKILL)
    assert "runs out of memory" not in _told(code=-signal.SIGSEGV)


def test_an_exit_code_is_told() -> None:
    assert "exit code 3" in _told(code=3)
    assert "0xc0000005" in _told(code=0xC0000005)


def test_the_cause_comes_first_when_loading_fails_and_last_in_a_crash() -> None:
    said = b"\n".join(b"0.00.005.498 E line %d" % n for n in range(9))
    assert "«line 0 | line 1»" in _told(said, ready=False)
    assert "«line 5 | line 6 | line 7 | line 8»" in _told(said, ready=True)


def test_what_it_said_is_capped_and_cannot_steer_a_terminal() -> None:
    told = _told(b"\x1b[2J\xff" + b"x" * 5000)
    assert "\x1b" not in told
    assert "\\x1b[2J" in told
    assert len(told) < 1000

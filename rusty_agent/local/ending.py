"""How a child process ended → an error with an explanation.

In: its exit code, its last output, what else is known. Out: the error to raise. Never touched: processes.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from ..errors import LocalModelError
from ..wire.words import printable

__all__ = ["ending_error"]

_STAMP = re.compile(r"^[\d.]+ [DIWE] +")  # llama.cpp's time and level
_CAUSE_LINES = 2
_LAST_LINES = 4
_MAX_SAID = 700


def ending_error(model: Path, said: bytes, *, ready: bool, cause: int | str) -> LocalModelError:
    """The error for a child process that could not be started, or has ended.

    Args:
        model: The model that it was to run.
        said: The end of its output.
        ready: Whether it had loaded the model.
        cause: Its exit code, or minus the number of the signal that killed it; or what went wrong in this process.
    """
    name = repr(str(model))
    if isinstance(cause, str):
        return LocalModelError(f"The local model {name} is not running: {cause}.{_quote(said, first=not ready)}")
    how = _ending(cause)
    if ready:
        return LocalModelError(
            f"The process of the local model {name} ended unexpectedly: {how}.{_quote(said, first=False)} "
            f"The next call starts it again.{_hint(cause)}"
        )
    return LocalModelError(
        f"The local model {name} could not be loaded: its process ended with {how}.{_quote(said, first=True)} "
        "Check that it is a complete GGUF file, that llama.cpp supports it, and that there is enough memory."
        f"{_hint(cause)}"
    )


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}" if code < 2**31 else f"exit code {code:#x}"  # Windows: NTSTATUS
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _hint(code: int) -> str:
    if code == -getattr(signal, "SIGKILL", 0):
        return " A system that runs out of memory kills processes like this: try a smaller model, context or parallel."
    return ""


def _quote(said: bytes, *, first: bool) -> str:
    """Its output, each line once, in part: the cause comes first if loading fails, and last in a crash."""
    lines = [_STAMP.sub("", line).strip() for line in said.decode("utf-8", "replace").splitlines()]
    distinct = list(dict.fromkeys(line for line in lines if line))
    chosen = distinct[:_CAUSE_LINES] if first else distinct[-_LAST_LINES:]
    return f" It said: «{printable(' | '.join(chosen), _MAX_SAID)}»." if chosen else ""

"""What the program reads: standard input and the schema file.

In: arguments, the process's standard input, a named file. Out: the prompt, a response format. Never touched: the
network.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from codecs import BOM_UTF8
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..remedy import with_remedy
from .arguments import Arguments
from .output import UsageError, complain

__all__ = ["check_prompt", "read_prompt", "schema_format"]

_PATIENCE_SECONDS = 1.0  # how long to wait for a pipe if a prompt was given too


def check_prompt(arguments: Arguments) -> None:
    """Refuse to wait at a terminal when no prompt was given.

    Raises:
        UsageError: There is no prompt, and none can come from standard input.
    """
    if arguments.prompt is None and not arguments.wait_for_stdin and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError('no prompt: rusty-agent [options] "PROMPT" (or pipe one in; see rusty-agent --help)')


def read_prompt(arguments: Arguments) -> str:
    """The prompt from the arguments, from standard input, or from both with a blank line between them.

    If a prompt was given, standard input may be meant too (`git diff | rusty-agent "Explain:"`), or it may merely be
    inherited from a supervisor, a CI job or ssh, as a pipe that stays silent and never ends. Only what arrives tells
    the two apart. So a file is read; a pipe is read if something arrives on it within a second, else it is left out,
    and a line on stderr says so; terminals and devices are not read. `-` waits for standard input without a limit.

    Raises:
        UsageError: There is no prompt, or standard input cannot be read.
    """
    told = arguments.prompt or ""
    try:
        beside = arguments.prompt is not None and not arguments.wait_for_stdin
        read = _beside_prompt() if beside else _whole_stdin()
    except OSError as error:
        raise UsageError(f"standard input cannot be read: {with_remedy(error)}") from error
    piped = read.decode("utf-8-sig", "replace").rstrip("\r\n")
    prompt = "\n\n".join(part for part in (told, piped) if part.strip())
    if not prompt:
        raise UsageError("the prompt is empty: put one in quotes, or pipe one in")
    return prompt


def _whole_stdin() -> bytes:
    if sys.stdin is None:
        return b""
    buffer = getattr(sys.stdin, "buffer", None)  # a caller of main() may have put a StringIO there
    return sys.stdin.read().encode("utf-8", "replace") if buffer is None else buffer.read()


def _beside_prompt() -> bytes:
    try:
        number = sys.stdin.fileno()
        mode = os.fstat(number).st_mode
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return b""
    if stat.S_ISREG(mode):
        return _whole_stdin()
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return _read_pipe(number)
    return b""


def _read_pipe(number: int) -> bytes:
    """All bytes of a pipe, or none if it stays silent. A thread reads, because Windows cannot poll a pipe."""
    arrived: SimpleQueue[bytes | OSError] = SimpleQueue()

    def read() -> None:
        data: bytes | OSError = b"-"
        while data and isinstance(data, bytes):
            try:
                data = os.read(number, 2**16)
            except OSError as error:
                data = error
            arrived.put(data)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    try:
        data = arrived.get(timeout=_PATIENCE_SECONDS)
    except Empty:
        complain(
            "rusty-agent: note: standard input is a silent pipe and was ignored "
            "(add - to wait for it, or redirect it from /dev/null)"
        )
        return b""
    read_so_far = []
    while data:
        if isinstance(data, OSError):
            raise data
        read_so_far.append(data)
        data = arrived.get()
    return b"".join(read_so_far)


def schema_format(file: str) -> dict[str, Any]:
    """The response format for a file that holds a JSON Schema.

    Raises:
        UsageError: The file cannot be read, or holds no JSON object.
    """
    from ..wire.codec import loads_exact

    try:
        schema = loads_exact(Path(file).read_bytes().removeprefix(BOM_UTF8))
    except OSError as error:
        raise UsageError(f"--schema: {file} cannot be read: {with_remedy(error)}") from error
    except ValueError as error:
        raise UsageError(f"--schema: {file} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise UsageError(f"--schema: {file} is not a JSON Schema, which must be a JSON object")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(file).stem)[:64] or "answer"  # what OpenAI allows
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}

"""What the program says: the answer on stdout, everything else on stderr.

In: pieces of text. Out: the same, written at once, and made safe for a terminal. Never touched: what the text means.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from ..remedy import with_remedy

__all__ = ["Output", "UsageError", "complain", "one_line", "settle_stderr"]

# Control characters could steer the terminal: move the cursor, rename the window, write to the clipboard.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_ESCAPED[0x0D] = ""  # half of a Windows line end, whose other half may come with the next piece


class UsageError(Exception):
    """The program was called in a wrong way."""


class Output:
    """Standard output, written piece by piece.

    Always UTF-8, whatever the locale. On a terminal, control characters other than newline and tab are escaped, and
    carriage returns left out; a pipe or a file gets them unchanged.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._open_line = False
        self._terminal = stream is not None and stream.isatty()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raise OSError if there is no standard output, before an answer is paid for."""
        if self._stream is None:
            raise OSError("standard output is closed")

    def write(self, text: str) -> None:
        """Write a piece and flush it.

        Raises:
            BrokenPipeError: The reader has gone.
            OSError: It cannot be written for another reason.
        """
        if not text:
            return
        self._open_line = not text.endswith("\n")
        self.put(text.translate(_ESCAPED) if self._terminal else text)

    def end_line(self, *, interrupted: bool = False) -> None:
        """Add a newline unless the last line has one. After Ctrl-C a terminal gets one anyway: it has shown ^C."""
        if self._open_line or (interrupted and self._terminal):
            self._open_line = False
            with suppress(OSError):
                self.put("\n")

    def close(self) -> None:
        """Flush, so that the interpreter has nothing left to complain about."""
        with suppress(OSError):
            self.put("")

    def put(self, text: str) -> None:
        """Write text as it is, control characters too, and flush it; errors as for `write`."""
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError as error:
            self._abandon()
            if error.errno in (errno.EPIPE, errno.EINVAL):  # Windows says EINVAL
                raise BrokenPipeError(*error.args) from None
            raise OSError(f"standard output cannot be written: {with_remedy(error)}") from error
        except BaseException:  # Ctrl-C while the reader was slow: do not wait for it again
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Write no more; send what is still buffered to /dev/null, so that the interpreter's flush at exit succeeds."""
        stream, self._stream = self._stream, None
        assert stream is not None
        _lead_nowhere(stream)


def _lead_nowhere(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def settle_stderr() -> None:
    """If stderr cannot be flushed, send it to /dev/null: else the interpreter fails to flush it, and exits with 120."""
    if sys.stderr is not None:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            _lead_nowhere(sys.stderr)


def complain(text: str) -> None:
    """Print something on stderr, if there is one."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """The text as one line that cannot steer a terminal."""
    return " ".join(text.split()).translate(_ESCAPED)

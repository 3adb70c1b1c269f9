"""The command line: `rusty-agent [PROMPT]` and `rusty-agent batch INPUT -o OUTPUT`.

In: arguments, standard input, the environment. Out: the answer on stdout as it comes, all else on stderr, an exit
code. Never touched: files that were not named.

Exit codes: 0 the endpoint has finished its answer; 1 an error, a refusal or tool calls; 2 nothing was sent: wrong usage
or a missing key; 130 Ctrl-C; 141 the reader of stdout has gone, as the shell reports for other filters (128 + SIGPIPE).
`batch` has its own codes, see `batch.py`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .output import Output

__all__ = ["main"]

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code. It takes over the whole process, so call it only once.

    Args:
        argv: The arguments, without the program's name. Default: the process's own.

    Raises:
        SystemExit: `--help` or `--version` was given, or the arguments are invalid.
    """
    # While nothing is under way Ctrl-C just ends the process: a KeyboardInterrupt in the middle of an import would
    # print a traceback, or get lost.
    with suppress(ValueError):  # not the main thread, which alone may handle signals
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)
    _settle_descriptors()
    from .output import Output, settle_stderr

    out = Output(sys.stdout)
    words = sys.argv[1:] if argv is None else list(argv)
    batch = words[:1] == ["batch"]
    try:
        return _batch(words[1:], out) if batch else _answer(words, out)
    except KeyboardInterrupt:
        out.end_line(interrupted=True)
        return _INTERRUPTED
    except BrokenPipeError:
        return 141
    except Exception as error:
        out.end_line()
        code = _report(error, "rusty-agent batch" if batch else "rusty-agent", debug="--debug" in words)
        return 1 if batch else code
    finally:
        out.close()
        settle_stderr()
        if batch:
            _stay_to_the_end()


def _answer(words: list[str], out: Output) -> int:
    from .arguments import parse

    arguments = parse(words)
    from .ask import ask, prepare  # after parsing: --help and --version do without it

    out.check()
    request = prepare(arguments)
    with _interruptible():
        return ask(arguments, request, out)


def _batch(words: list[str], out: Output) -> int:
    # The process is ours, and the work in flight is not garbage: collecting after every 700 objects takes 5 % of a run.
    gc.set_threshold(50_000)
    _leave_in_words()
    from .batch import batch
    from .batch_arguments import parse_batch

    return batch(parse_batch(words), out)


def _report(error: Exception, program: str, *, debug: bool) -> int:
    """Say what went wrong, in one line unless the error lists lines of an input; return the exit code."""
    from ..errors import BatchError, RustyAgentError
    from ..remedy import with_remedy
    from .output import UsageError, complain, one_line
    from .words import in_our_words

    if debug:
        import traceback

        complain(traceback.format_exc().rstrip())
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:  # its text would begin with that number
        text = f"{error.filename}: " * (error.filename is not None) + with_remedy(error)
    lines = text.splitlines() if isinstance(error, BatchError) else [text]
    said = in_our_words("\n  ".join(map(one_line, lines)))
    said = said.replace("what arrived is in partial_text", "what arrived is above")  # a batch has it in the errors file
    if not isinstance(error, UsageError | RustyAgentError | ValueError | OSError):
        said = f"unexpected {type(error).__name__}: {said} (--debug shows where)"
    complain(f"{program}: error: {said}")
    # The library raises a plain ValueError for an invalid argument, before anything is sent.
    misused = isinstance(error, UsageError | ValueError) and not isinstance(error, RustyAgentError)
    return 2 if misused else 1


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt in this context, so that the connection is closed and the line ended."""
    ours = signal.getsignal(signal.SIGINT) is _leave
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, _leave)


def _settle_descriptors() -> None:
    """Open /dev/null in place of closed standard descriptors, and make the others blocking.

    If one stayed closed, a socket would get its number, and `print` would write into that socket; libuv aborts when it
    closes such a descriptor. A parent may have left the others non-blocking: Python's text streams then lose what does
    not fit into a full pipe, and take an empty pipe for its end. They are not set back at the end, because a sibling
    process that still writes may share them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if os.name == "posix":
            with suppress(OSError):
                os.set_blocking(number, True)


def _leave_in_words() -> None:
    """Let SIGINT and SIGTERM end a batch at once, with a message, until the batch itself handles them."""

    def leave(*_: object) -> None:
        with suppress(OSError):  # `os.write`, because `print` could be in the middle of another line
            os.write(2, b"rusty-agent batch: interrupted while nothing was under way; run the same command again\n")
        os._exit(_INTERRUPTED)

    with suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, leave)
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, leave)


def _stay_to_the_end() -> None:
    """Ignore signals once a batch is over, so that none changes its exit code: Python takes some 40 ms to exit."""
    with suppress(ValueError):  # not the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _leave(*_: object) -> None:
    with suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\n")  # after the ^C that the terminal has shown
    os._exit(_INTERRUPTED)

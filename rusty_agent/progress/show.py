"""The progress of a run → a line redrawn on a terminal, lines in a log, JSON for a program, or calls of a function.

In: a tally. Out: text on standard error, calls of the caller's function. Never touched: standard output, the run: if
standard error is closed, broken or stopped, only the display suffers.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import select
import sys
import threading
from collections.abc import Callable
from itertools import count
from typing import Any, Literal, Self, TextIO, TypeAlias
from unicodedata import east_asian_width

import attrs

from .figures import line
from .tally import SAMPLE_SECONDS, Progress, Tally

__all__ = ["Display", "ProgressOption", "say"]

ProgressOption: TypeAlias = bool | Literal["auto", "plain", "json", "off"] | Callable[[Progress], object]
"""What `progress=` takes wherever many calls run: True is `"auto"`, False is `"off"`."""

_MODES = ("auto", "plain", "json", "off")
_REDRAW_SECONDS = 0.2
_LINE_SECONDS = 10.0
_REPORT_SECONDS = 1.0
_COLUMNS = 80  # if the terminal does not tell its width


class _Stderr:
    """Standard error as it was when the run began; writing to it never raises.

    A write that would block (a full pipe, a terminal stopped with Ctrl-S) is skipped, so that it does not hold up the
    event loop. After the first error nothing more is written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"  # tqdm asks whether blocks may be drawn

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except Exception:  # closed, or a replacement that has only `write`
            return False

    def columns(self) -> int:
        """How many characters fit in a line without wrapping."""
        try:
            width = 0 if self._stream is None else os.get_terminal_size(self._stream.fileno()).columns
        except Exception:  # closed in the meantime, or a replacement that only claims to be a terminal
            width = 0
        return max(1, (width or _COLUMNS) - 1)  # tqdm takes 0 for no limit

    def write(self, text: str) -> None:
        """Write and flush, if that does not block."""
        if self._stream is None:
            return
        try:
            if _ready(self._stream):
                self._stream.write(text)
                self._stream.flush()
        except Exception:  # closed, no reader, a full disk, a failing replacement: none of these may end a run
            self._stream = None

    def flush(self) -> None:
        """Do nothing: `write` flushes, but tqdm calls this."""


def _ready(stream: TextIO) -> bool:
    """Whether a write would not block."""
    try:
        return bool(select.select([], [stream.fileno()], [], 0)[1])
    except Exception:  # not a file (in a notebook, a replacement), or Windows, where `select` takes sockets only
        return True


def say(text: str) -> None:
    """Write a line to standard error, below the progress line that may be drawn there."""
    stderr = _Stderr(sys.stderr)
    stderr.write("\n" * stderr.isatty() + text + "\n")


_View: TypeAlias = tuple[float, Callable[[Progress, bool], object] | None]
"""One way to show: seconds between two calls; the function to call, with True for the last call, or None."""


def _width(text: str) -> int:
    """How many columns of a terminal a text takes. Errors may be in Chinese, and too long a line would wrap."""
    return len(text) if text.isascii() else sum(1 + (east_asian_width(each) in "FW") for each in text)


def _cut(text: str, width: int) -> str:
    """As much of a text as fits into `width` columns."""
    text = text[:width]
    while _width(text) > width:
        text = text[:-1]
    return text


class _InPlace:
    """One line of a terminal, redrawn in place."""

    def __init__(self, stderr: _Stderr) -> None:
        self._stderr = stderr
        self._shown = ""

    def show(self, progress: Progress, last: bool) -> None:
        width = self._stderr.columns()
        text = line(progress)
        if not last:
            text = _cut(text, width)
            if text == self._shown:
                return
        padding = " " * (min(_width(self._shown), width) - _width(text))
        self._stderr.write(f"\r{text}{padding}" + "\n" * last)
        self._shown = text


class _Bar:
    """The same line behind a tqdm bar."""

    def __init__(self, stderr: _Stderr, tqdm: type[Any]) -> None:
        # Without tqdm's monitor thread and its lock shared by processes: nothing else draws here.
        self._class = type("_Bar", (tqdm,), {"monitor_interval": 0, "_lock": threading.RLock()})
        self._stderr = stderr
        self._bar: Any = None
        self._shown = ""

    def show(self, progress: Progress, last: bool) -> None:
        text = line(progress)
        if text == self._shown and not last:
            return
        self._shown = text
        if self._bar is None:
            self._bar = self._class(file=self._stderr, leave=True, bar_format="{desc}")
        self._bar.n = progress.skipped + progress.failed_earlier + progress.finished
        self._bar.total = progress.total
        self._bar.bar_format = "{percentage:3.0f}%|{bar:10}| {desc}" if progress.total else "{desc}"
        self._bar.ncols = None if last else self._stderr.columns()
        self._bar.set_description_str(text, refresh=False)
        if last:
            self._bar.close()
        else:
            self._bar.refresh()


class Display:
    """Shows a tally while the body of `async with` runs, and samples it once a second; closes it at the end.

    Args:
        progress: `"auto"` or True: redrawn in place on a terminal (with a bar if tqdm is installed), else `"plain"`.
            `"plain"`: a line every ten seconds and one at the end. `"json"`: a JSON object each second and one at the
            end. `"off"` or False: nothing. A function: called with a `Progress` at most once a second, and at the
            end, on the event loop, which it must not block.
        tally: The counts to show.
        on_error: Called when the function has raised, so that the run can be ended early.

    Raises:
        ValueError: `progress` is none of these, or a coroutine function.
        Exception: Raised by the caller's function; raised again on leaving, unless the body itself failed.
    """

    def __init__(
        self, progress: ProgressOption, tally: Tally, *, on_error: Callable[[], object] = lambda: None
    ) -> None:
        self._tally = tally
        self._every, self._view = _view(progress)
        self._on_error = on_error
        self._task: asyncio.Task[None]  # while the body runs

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="rusty_agent progress")
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._task.cancel()
        self._tally.close()
        try:
            if self._task.done() and not self._task.cancelled():  # it ended by itself, so it failed
                self._task.result()
            self._show(last=True)
        except Exception:
            if error is None:
                raise

    async def _run(self) -> None:
        pause = min(SAMPLE_SECONDS, self._every)
        rounds = round(self._every / pause)
        for number in count(1):
            await asyncio.sleep(pause)
            self._tally.sample()
            if number % rounds == 0:
                try:
                    self._show(last=False)
                except BaseException:  # also `sys.exit()`, which would otherwise take effect only at the end of the run
                    self._on_error()
                    raise

    def _show(self, last: bool) -> None:
        if self._view is not None:
            self._view(self._tally.snapshot(), last)


def _view(progress: ProgressOption) -> _View:
    if callable(progress):
        if inspect.iscoroutinefunction(progress):
            raise ValueError("progress must be a plain function: nothing would await a coroutine function")
        return _REPORT_SECONDS, lambda now, last: progress(now)
    mode = ("off", "auto")[progress] if isinstance(progress, bool) else progress
    if mode not in _MODES:
        raise ValueError(
            f"progress must be True, False, {', '.join(map(repr, _MODES))} or a function, not {progress!r}"
        )
    if mode == "off":
        return SAMPLE_SECONDS, None
    stderr = _Stderr(sys.stderr)
    if mode == "json":
        return _REPORT_SECONDS, lambda now, last: stderr.write(json.dumps(attrs.asdict(now)) + "\n")
    if mode == "plain" or not stderr.isatty() or os.environ.get("TERM") == "dumb":  # a terminal that cannot redraw
        return _LINE_SECONDS, lambda now, last: stderr.write(line(now) + "\n")
    try:
        from tqdm import tqdm
    except ImportError:  # the extra `progress` is optional
        return _REDRAW_SECONDS, _InPlace(stderr).show
    return _REDRAW_SECONDS, _Bar(stderr, tqdm).show

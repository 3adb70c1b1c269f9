"""Lines → the end of a file, so that a crash costs as little as was asked for.

In: finished lines, on the event loop. Out: whole lines in the file, and a word when they are durable. Never touched:
what the lines mean; other files.

A line is with the system at the end of the loop's iteration, so a kill of the process loses nothing that came
before. What a loss of power costs is the choice of `sync`.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

from ..errors import BatchError
from .files import BLOCK_BYTES, not_regular_error, sync_folder

__all__ = ["Journal", "Sync"]

Sync = Literal["row", "group", "off"]
"""When lines become durable: when `commit` asks, so for each row; by themselves within a moment; never."""

_SYNC_SECONDS = 0.25  # how long a line may stay with the system before it is made durable
_SYNC_LINES = 1000  # … and how many may: 151,000 lines a second were measured with this, 2,900 with one
_BUFFER_BYTES = 4 * BLOCK_BYTES  # no more is held back for the end of the loop's iteration

_NEWLINE = b"\n"[0]  # looked for as a number: bytes in bytes raise an error within, which takes five times as long

_datasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # Windows and macOS have no fdatasync


class Journal:
    """The end of one file of lines. It has one writer, who holds the batch's lock; all but `__init__` on its loop.

    Opening creates the file if needed, and cuts off a last line that a crash has left without its end.

    The first failure is final: the file is cut back to whole lines, `on_error` is called once with the error, and
    `append`, `commit` and `aclose` raise it from then on. A failed sync is not tried again, because the system may
    have dropped what it could not write and report success the second time.

    Args:
        path: The file; absolute, if the working folder may change.
        sync: When lines become durable.
        on_error: Called once, on the loop, when the file cannot be written any more.

    Raises:
        BatchError: The file cannot be opened, or is no regular file.
    """

    def __init__(
        self, path: Path, sync: Sync = "group", *, on_error: Callable[[BatchError], object] = lambda error: None
    ) -> None:
        self._path = path
        self._sync: Sync = sync
        self._on_error = on_error
        self._buffer: list[bytes] = []
        self._buffered = 0  # bytes in _buffer
        self._unsynced = 0  # lines that no sync, begun or done, covers
        self._durable = 0  # bytes from the file's beginning; what an earlier run left may not be
        self._timer: asyncio.TimerHandle | None = None
        self._syncing: asyncio.Future[None] | None = None
        self._sync_failed = False
        self._closing = False  # nothing more is taken
        self._closed = False  # nothing more is synced: the file may be closed
        self._error: BatchError | None = None
        try:
            self._number, self._size = _open(path)
        except OSError as error:
            raise BatchError(
                f"{path} cannot be opened for writing: {error.strerror or error}. Name an output where you may write."
            ) from error

    def append(self, line: bytes) -> None:
        """Take a line, without its newline; it is written at the end of the loop's iteration.

        Raises:
            BatchError: The file cannot be written any more.
            ValueError: The line holds a newline, or the journal is closed.
        """
        if self._error is not None or self._closing:
            self._refuse()
        if _NEWLINE in line:
            raise ValueError("a line of a journal must not hold a newline")
        if not self._buffer:
            asyncio.get_running_loop().call_soon(self._flush)
        self._buffer.append(line)
        self._buffered += len(line)
        if self._buffered > _BUFFER_BYTES:
            self._flush()

    async def commit(self) -> None:
        """Wait until everything appended so far is durable; with `sync="off"`, only written.

        Whoever waits at the same time shares one sync.

        Raises:
            BatchError: It cannot be made so.
        """
        self._flush()
        if self._error is not None:
            self._refuse()
        if self._sync != "off":
            await self._settle()

    async def aclose(self) -> None:
        """Write what is left, make it durable unless `sync="off"`, and close the file. More calls do nothing more.

        Raises:
            BatchError: It was not possible, or a failure came before: what had been written until then is durable.
        """
        self._closing = True
        try:
            self._flush()
            if self._sync != "off" and not self._closed:
                await self._settle()
            if not self._closed:
                self._look()
        finally:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._release()
        if self._error is not None:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self._error is not None:
            raise BatchError(self._error.message) from self._error  # a new one each: many tasks may get it
        raise ValueError(f"the journal of {self._path} is closed")

    def _flush(self) -> None:
        if not self._buffer:
            return
        count = len(self._buffer)
        self._buffer.append(b"")
        data = memoryview(b"\n".join(self._buffer))
        self._buffer.clear()
        self._buffered = 0
        done = 0
        try:
            while done < len(data):
                done += os.write(self._number, data[done:])
        except OSError as error:
            count, done = self._cut_back(data[:done].tobytes())
            self._fail(error)
        self._size += done
        self._unsynced += count
        self._plan_sync()

    def _cut_back(self, written: bytes) -> tuple[int, int]:
        """Leave only the whole lines of what was written: how many, and their bytes."""
        whole = written.rfind(b"\n") + 1
        with suppress(OSError):  # then the next opening does it
            os.ftruncate(self._number, self._size + whole)
        return written.count(b"\n"), whole

    def _plan_sync(self) -> None:
        """See to it that what is written becomes durable soon, if that is wanted and not already under way."""
        idle = self._syncing is None and not self._closing and not self._sync_failed
        if self._sync != "group" or not idle or self._durable == self._size:
            return
        if self._unsynced >= _SYNC_LINES:
            self._begin_sync()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SYNC_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._syncing is None and self._durable < self._size and not self._sync_failed:
            self._begin_sync()

    def _begin_sync(self) -> asyncio.Future[None]:
        self._unsynced = 0
        self._look()
        syncing = self._syncing = asyncio.get_running_loop().run_in_executor(None, _datasync, self._number)
        syncing.add_done_callback(partial(self._end_sync, self._size))
        return syncing

    def _end_sync(self, covered: int, syncing: asyncio.Future[None]) -> None:
        self._syncing = None
        error = syncing.exception()
        if error is None:
            self._durable = covered
            self._plan_sync()
        else:
            self._sync_failed = True
            self._fail(error)
        if self._closed:
            self._release()

    def _look(self) -> None:
        """See whether what is written can still be found under the file's name."""
        held = os.fstat(self._number)
        try:
            there = os.stat(self._path)
            found = (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino) and held.st_size >= self._size
        except OSError:  # gone, or its folder is out of reach
            found = False
        if not found:
            self._fail(
                BatchError(
                    f"{self._path} was removed, replaced or cut while it was written: what it held is not there any "
                    "more. If it was moved, move it back; then run the same command again, without --fresh."
                )
            )

    async def _settle(self) -> None:
        """Wait until what is written now is durable, or cannot become so."""
        wanted = self._size
        while self._durable < wanted and not self._sync_failed:
            await asyncio.wait([self._syncing or self._begin_sync()])  # which a cancellation leaves alone
        if self._sync_failed:
            self._refuse()

    def _fail(self, error: BaseException) -> None:
        if self._error is not None:
            return
        if isinstance(error, BatchError):
            self._error = error
        else:
            reason = getattr(error, "strerror", None) or error
            self._error = BatchError(
                f"{self._path} cannot be written any more: {reason}. What it holds is kept: mend this (most often by "
                "making room on the disk), then run the same command again, without --fresh, and it goes on from there."
            )
            self._error.__cause__ = error
        self._on_error(self._error)

    def _release(self) -> None:
        """Close the file, unless a thread still uses it: then its end does."""
        if self._syncing is None and self._number >= 0:
            os.close(self._number)
            self._number = -1


def _open(path: Path) -> tuple[int, int]:
    """Open a file for appending, cut to whole lines: its descriptor and its bytes."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise not_regular_error(path)
        size = _end_of_last_line(number, status.st_size)
        if size < status.st_size:
            os.ftruncate(number, size)
            os.fsync(number)
        sync_folder(path.parent)
    except BaseException:
        os.close(number)
        raise
    return number, size


def _end_of_last_line(number: int, end: int) -> int:
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        os.lseek(number, start, os.SEEK_SET)
        newline = os.read(number, end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0

"""Lines → the end of a file, so that a crash costs no more than the caller has chosen.

In: finished lines, on the event loop. Out: whole lines in the file, and notice when they are durable. Never touched:
what the lines mean; other files.

A line reaches the operating system in the loop's next iteration, so killing the process loses nothing that came
before. `sync` decides how much a loss of power may cost.
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
from ..remedy import with_remedy
from .files import BLOCK_BYTES, not_regular_error, sync_folder

__all__ = ["Journal", "Sync"]

Sync = Literal["row", "group", "off"]
"""When lines become durable: only when `commit` asks, so for each row; on their own, in a moment; never."""

_SYNC_SECONDS = 0.25  # how long a written line may wait for a sync
_SYNC_LINES = 1000  # … and how many may: 151,000 lines a second were measured with this, 2,900 with one
_BUFFER_BYTES = 4 * BLOCK_BYTES  # more than this is written at once, without waiting for the loop's next iteration

_NEWLINE = b"\n"[0]  # a number: `in` with bytes raises and catches an error internally, and takes five times as long

_datasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # Windows and macOS have no fdatasync


class Journal:
    """Appends to one file of lines, for the holder of the batch's lock. All but `__init__` runs on one event loop.

    Opening creates the file if needed, and cuts off a last line that a crash has left incomplete.

    The first failure is final: the file is cut back to whole lines, `on_error` is called once with the error, and
    `append`, `commit` and `aclose` raise it from then on. A failed sync is not tried again, because the system may have
    dropped what it could not write, and would then report success the second time.

    Args:
        path: The file; absolute, if the working folder may change.
        sync: When lines become durable.
        on_error: Called once, on the loop, when the file cannot be written any more.

    Raises:
        BatchError: The file cannot be opened, or is not a regular file.
    """

    def __init__(
        self, path: Path, sync: Sync = "group", *, on_error: Callable[[BatchError], object] = lambda error: None
    ) -> None:
        self._path = path
        self._sync: Sync = sync
        self._on_error = on_error
        self._buffer: list[bytes] = []
        self._buffered = 0  # bytes in _buffer
        self._unsynced = 0  # lines written since the last sync began
        self._durable = 0  # bytes from the file's beginning; 0, because what an earlier run left may not be synced
        self._timer: asyncio.TimerHandle | None = None
        self._syncing: asyncio.Future[None] | None = None
        self._sync_failed = False
        self._closing = False  # no more lines are taken
        self._closed = False  # no more syncs begin: the file may be closed
        self._error: BatchError | None = None
        try:
            self._number, self._size = _open(path)
        except OSError as error:
            raise BatchError(
                f"{path} cannot be opened for writing: {with_remedy(error)} Or name another output."
            ) from error

    def append(self, line: bytes) -> None:
        """Take a line, without its newline; it is written in the loop's next iteration.

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
        """Wait until everything appended so far is durable; with `sync="off"`, only write it.

        Callers that wait at the same time share one sync.

        Raises:
            BatchError: The file cannot be written or synced.
        """
        self._flush()
        if self._error is not None:
            self._refuse()
        if self._sync != "off":
            await self._settle()

    async def aclose(self) -> None:
        """Write what is left, make it durable unless `sync="off"`, and close the file. Further calls do no more.

        Raises:
            BatchError: This failed, or something before. Whole lines that were written are still synced, unless
                `sync="off"` or a sync was what failed.
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
            raise BatchError(self._error.message) from self._error  # a new one each time: many tasks may get it
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
        """Cut the file back to the whole lines of what was written: how many these are, and their length in bytes."""
        whole = written.rfind(b"\n") + 1
        with suppress(OSError):  # if this fails, the next opening does it
            os.ftruncate(self._number, self._size + whole)
        return written.count(b"\n"), whole

    def _plan_sync(self, *, due: bool = False) -> None:
        """With `sync="group"`, begin or schedule a sync of what is written, unless one is under way."""
        idle = self._syncing is None and not self._closing and not self._sync_failed
        if self._sync != "group" or not idle or self._durable == self._size:
            return
        if due or self._unsynced >= _SYNC_LINES:
            self._begin_sync()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SYNC_SECONDS, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._plan_sync(due=True)

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
        """Check that what was written is still there under the file's name."""
        held = os.fstat(self._number)
        try:
            there = os.stat(self._path)
            found = (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino) and held.st_size >= self._size
        except OSError:  # the file is gone, or its folder cannot be reached
            found = False
        if not found:
            self._fail(
                BatchError(
                    f"{self._path} was removed, replaced or truncated while the batch wrote to it, so what it held is "
                    "gone. If it was moved, move it back; then run the batch again, without fresh=True."
                )
            )

    async def _settle(self) -> None:
        """Wait until everything written so far is durable, or a sync has failed."""
        wanted = self._size
        while self._durable < wanted and not self._sync_failed:
            await asyncio.wait([self._syncing or self._begin_sync()])  # cancelling the wait does not cancel the sync
        if self._sync_failed:
            self._refuse()

    def _fail(self, error: BaseException) -> None:
        if self._error is not None:
            return
        if isinstance(error, BatchError):
            self._error = error
        else:
            self._error = BatchError(
                f"{self._path} can no longer be written: {with_remedy(error)} Then run the batch again, without "
                "fresh=True: what the file holds is kept, and the run continues from there."
            )
            self._error.__cause__ = error
        self._on_error(self._error)

    def _release(self) -> None:
        """Close the file. If a sync in a thread still uses it, the end of that sync closes it."""
        if self._syncing is None and self._number >= 0:
            os.close(self._number)
            self._number = -1


def _open(path: Path) -> tuple[int, int]:
    """Open a file for appending and cut it to whole lines; return its descriptor and its size in bytes."""
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

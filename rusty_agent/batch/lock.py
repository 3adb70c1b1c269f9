"""A lock: one batch at a time per output.

In: the path of the lock file. Out: the lock, or an error that names the process that holds it. Never touched: the
files it protects.

The system drops the lock when the process ends, however it ends, so nothing has to be cleaned up after a crash. The
holder removes the file before it drops the lock. Another process may have opened the file before that, so when it gets
the lock it checks that the file is still there. On Windows, which cannot remove an open file, the file stays.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..errors import BatchError
from ..remedy import with_remedy
from .files import not_ours_error

__all__ = ["Lock"]

_LONGEST = 32  # bytes: no process id has as many digits
_TRIES = 100  # far more than needed: a try fails only if a holder removes the file while we open and lock it
_PLACE = 2**30  # the byte that Windows locks: beyond the process id, which others must be able to read

if sys.platform == "win32":
    import msvcrt

    def _take(number: int) -> bool:
        os.lseek(number, _PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _drop(number: int) -> None:
        os.lseek(number, _PLACE, os.SEEK_SET)
        msvcrt.locking(number, msvcrt.LK_UNLCK, 1)

    def _has_name(number: int, path: Path) -> bool:
        return True  # while it is open it cannot be removed

else:
    import fcntl

    def _take(number: int) -> bool:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _drop(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_UN)

    def _has_name(number: int, path: Path) -> bool:
        """Whether the open file is still the one with this name."""
        try:
            return os.path.samestat(os.fstat(number), path.stat())
        except FileNotFoundError:
            return False


class Lock:
    """Holds a batch's lock file while the context lasts. It is advisory: some network filesystems do not enforce it.

    Args:
        path: The file; absolute, if the working folder may change.

    Raises:
        BatchError: On entering: another process holds it, or the file cannot be locked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            if not any(self._hold() for _ in range(_TRIES)):
                raise OSError(errno.ESTALE, "the file keeps being replaced")
        except OSError as error:
            raise BatchError(f"{self._path} cannot be locked: {with_remedy(error)} Or name another output.") from error
        return self

    def _hold(self) -> bool:
        """Open the file and lock it; False if its name belongs to another file, or none, by then."""
        number = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _take(number):
                raise BatchError(
                    f"Another batch is writing here: {_holder(number)} holds {self._path}. Wait until it has ended, "
                    "or name another output."
                )
            if not _has_name(number, self._path):
                os.close(number)
                return False
            if not _is_ours(number):
                raise not_ours_error(self._path)
            os.ftruncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)
            os.write(number, b"%d\n" % os.getpid())
        except BaseException:
            os.close(number)
            raise
        self._number = number
        return True

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if _has_name(self._number, self._path):
                self._path.unlink()
        with suppress(OSError):
            _drop(self._number)  # closing alone would not drop it while a forked child has it open
        os.close(self._number)


def _told(number: int) -> bytes:
    """The beginning of the file, stripped; a loss of power may have turned it into zeros."""
    os.lseek(number, 0, os.SEEK_SET)
    return os.read(number, _LONGEST).strip(b"\0\r\n")


def _is_ours(number: int) -> bool:
    """Whether the file is empty or holds only a process id, so that no other program has written it."""
    told = _told(number)
    return not told or (told.isdigit() and os.fstat(number).st_size < _LONGEST)


def _holder(number: int) -> str:
    told = _told(number)
    return f"process {told.decode()}" if told.isdigit() else "another process"

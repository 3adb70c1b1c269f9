"""How a batch refuses to write over files that are not its own.

In: a batch's files, its input, its report. Out: a `BatchError` that names the file in the way. Never touched: any file.
`index.py` judges the lines of the output and of the errors file.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..errors import BatchError
from ..remedy import with_remedy
from .files import Files, beside, not_ours_error, not_regular_error
from .manifest import is_manifest
from .report import is_report
from .summary import is_summary

__all__ = ["refuse_foreign", "refuse_overwriting"]

_TITLE_BYTES = 2**16  # the title of a page is within these


def refuse_overwriting(files: Files, source: str | os.PathLike[str] | None, report: Path | None) -> None:
    """Refuse files that cannot be written or are the input, and a report that would replace anything but a report.

    Args:
        files: What the batch writes.
        source: The input's path, or None if it is not a file.
        report: Where a report is to be written, or None.

    Raises:
        BatchError: The message says which path is in the way.
    """
    written = _of_batch(files)
    if report is not None:
        written += _of_report(report, written)
    if source is not None and (path := _shared(written, [Path(source)])):
        raise BatchError(f"{path} is the input, but the batch would write to it too. Name another output or report.")
    if report is not None and (beginning := _read(report, _TITLE_BYTES)) and not is_report(beginning):
        raise BatchError(  # most likely the file holds the answers of another batch
            f"{report}, where the report is to be written, exists and is not a report, so it is left alone. Name "
            "another file, or move it away."
        )


def refuse_foreign(files: Files) -> None:
    """Refuse to replace a manifest or a summary that no batch has written.

    Raises:
        BatchError: One is there, or cannot be read.
    """
    for path, is_ours in ((files.manifest, is_manifest), (files.summary, is_summary)):
        data = _read(path)
        if data.strip(b"\0") and not is_ours(data):  # a loss of power may leave a file of zeros
            raise not_ours_error(path)


def _of_batch(files: Files) -> list[Path]:
    """The files that the batch writes. Raises if one cannot be written."""
    ours = [files.output, files.errors, files.manifest, files.lock, files.summary]
    for path in ours:
        if os.path.exists(path) and not path.is_file():  # a folder, or a pipe, which would be read for ever
            raise not_regular_error(path)
    return _with_temporary(files.output, ours)


def _of_report(report: Path, batch: list[Path]) -> list[Path]:
    """The files written for the report. Raises if one cannot be written, or belongs to the batch."""
    if os.path.exists(report) and not report.is_file():
        raise BatchError(f"{report}, where the report is to be written, is not a regular file. Name another one.")
    if not os.access(report.parent, os.W_OK | os.X_OK):
        raise BatchError(
            f"The report {report} cannot be written: its folder must exist, and you must be able to write there."
        )
    pages = _with_temporary(report, [report])
    if _shared(pages, batch):
        raise BatchError(
            f"{report}, where the report is to be written, is one of the batch's own files. Name another one."
        )
    return pages


def _with_temporary(given: Path, paths: list[Path]) -> list[Path]:
    """These paths and their temporary files. Raises if a name becomes too long with what is added to it."""
    written = [name for path in paths for name in (path, beside(path))]
    for path in written:
        try:
            os.lstat(path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise BatchError(
                    f"The name of {given}, or of {path.name} beside it, is too long: shorten it."
                ) from None
    return written


def _shared(written: list[Path], others: list[Path]) -> Path | None:
    """The first of these files that is also one of the others."""
    return next((path for path in written if any(_same(path, other) for other in others)), None)


def _same(one: Path, other: Path) -> bool:
    """Whether both names are of one file, or would be if it existed."""
    if os.path.exists(one) and os.path.exists(other):  # unlike Path.exists it never raises
        return one.samefile(other)
    return os.path.realpath(one) == os.path.realpath(other)


def _read(path: Path, size: int = -1) -> bytes:
    """The first `size` bytes of a file, or all of it; nothing if it is missing."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {with_remedy(error)}") from error

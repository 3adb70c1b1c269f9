"""Files under a batch's names that are not its own → a refusal.

In: a batch's files, its report. Out: a `BatchError` that names the one in the way. Never touched: any file. What the
output and the errors file hold line by line `index.py` judges.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BatchError
from .files import Files
from .manifest import is_manifest
from .report import is_report
from .summary import is_summary

__all__ = ["refuse_foreign", "refuse_foreign_report"]

_TITLE_BYTES = 2**16  # a page's title lies within these


def refuse_foreign(files: Files) -> None:
    """Refuse to replace a manifest or a summary that no batch has written, and to share a file with another batch.

    Raises:
        BatchError: One is there, or is shared; or one cannot be read.
    """
    for path, is_ours in ((files.manifest, is_manifest), (files.summary, is_summary)):
        data = _read(path)
        if data.strip(b"\0") and not is_ours(data):  # zeros are what a loss of power may leave
            raise BatchError(
                f"{path} exists and was not written by a batch, so it is left alone. Name another output, or move it "
                "away."
            )
    name = files.output.name
    if name.endswith((".errors.jsonl", "-errors.jsonl")):
        owner = files.output.with_name(f"{name.removesuffix('errors.jsonl')}manifest.json")
        _refuse_shared(files.output, owner)
    _refuse_shared(files.errors, Files.of(files.errors).manifest)


def refuse_foreign_report(page: str | os.PathLike[str]) -> None:
    """Refuse to replace a file by a report that is none itself: the answers of another batch, most likely.

    Raises:
        BatchError: It is there, and neither empty nor a report; or it cannot be read.
    """
    beginning = _read(page, _TITLE_BYTES)
    if beginning and not is_report(beginning):
        raise BatchError(
            f"{page}, where the report is to be written, exists and is no report, so it is left alone. Name another "
            "file, or move it away."
        )


def _refuse_shared(path: Path, manifest: Path) -> None:
    """Refuse a file that another batch writes, whose manifest that would be."""
    if is_manifest(_read(manifest)):
        raise BatchError(f"{path} belongs to another batch, whose manifest is {manifest}. Name another output.")


def _read(path: str | os.PathLike[str], size: int = -1) -> bytes:
    """The beginning of a file, or all of it; nothing if it is missing."""
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {error.strerror or error}. Give the permission.") from error

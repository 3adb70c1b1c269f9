"""Files under a batch's names that are not its own → a refusal.

In: a batch's files. Out: a `BatchError` that names the one in the way. Never touched: any file. What the output and the
errors file hold line by line `index.py` tells.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import BatchError
from ..wire.codec import loads
from .files import Files

__all__ = ["refuse_foreign"]

_MANIFEST = {"version", "input_sha256", "parameters"}
_SUMMARY = {"version", "started", "rows"}


def refuse_foreign(files: Files) -> None:
    """Refuse to replace a manifest or a summary that no batch has written.

    Raises:
        BatchError: One is there, or one of them cannot be read.
    """
    for path, fields in ((files.manifest, _MANIFEST), (files.summary, _SUMMARY)):
        if not _is_ours(path, fields):
            raise BatchError(
                f"{path} exists and was not written by a batch, so it is left alone. Name another output, or move it "
                "away."
            )


def _is_ours(path: Path, fields: set[str]) -> bool:
    """Whether a batch may have written it, which is true of what is missing, or what a loss of power has emptied."""
    if not path.is_file():  # a pipe would be read for ever
        return not path.exists()
    try:
        data = path.read_bytes()
        told = loads(data) if data.strip(b"\0") else dict.fromkeys(fields)
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {error.strerror or error}. Give the permission.") from error
    except ValueError:
        return False
    return isinstance(told, dict) and told.keys() >= fields

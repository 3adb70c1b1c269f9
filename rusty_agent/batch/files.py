"""The files of a batch: their names, and how one is replaced as a whole.

In: the output's path; bytes. Out: paths; files that hold either the old bytes or the new ones, whenever the machine
stops. Never touched: what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from attrs import define

from ..errors import BatchError
from ..remedy import with_remedy

__all__ = [
    "BLOCK_BYTES",
    "LOOK_EVERY",
    "Files",
    "beside",
    "given_up_error",
    "not_ours_error",
    "not_regular_error",
    "remove",
    "replace_atomically",
    "sync_folder",
]

BLOCK_BYTES = 2**20
"""How much is read or written at a time, in bytes: so much that the cost of the call itself does not matter."""

LOOK_EVERY = 1000
"""Readers check after every so many lines, or rows, whether the batch was given up."""

_NO_FOLDER_SYNC = {errno.EACCES, errno.EINVAL, errno.ENOTSUP}  # an unreadable folder; a filesystem that cannot do it


def given_up_error(name: str | Path) -> BatchError:
    """The error that ends reading for a batch that was given up."""
    return BatchError(f"{name} was given up before its end.")


def not_ours_error(path: Path) -> BatchError:
    """The error for a file that is in the way and that no batch has written."""
    said = f"{path} exists and was not written by a batch, so it is left alone"
    return BatchError(f"{said}. Name another output, or move it away.")


def not_regular_error(path: Path) -> BatchError:
    """The error for an output that is a folder, a pipe, a device or the like."""
    if path.is_dir():
        return BatchError(f"{path} is a folder, but a batch writes files. Name another output, such as a file in it.")
    return BatchError(f"{path} is not a regular file, so a batch could not resume after a crash. Name another one.")


@define(frozen=True)
class Files:
    """The files of a batch, all in the folder of the output.

    Attributes:
        output: One line per result.
        errors: One line per failed row.
        manifest: What was run.
        lock: Held while a batch runs.
        summary: How the last run went.
    """

    output: Path
    errors: Path
    manifest: Path
    lock: Path
    summary: Path

    @classmethod
    def of(cls, output: Path) -> Self:
        """The files of the batch that writes `output`; their endings replace its `.jsonl`.

        Where the output has another ending or none, theirs are added after a hyphen, so that `out` and `out.jsonl` do
        not share files. A symbolic link is followed: one output has one lock under all its names, and replacing the
        output leaves the link in place.

        Raises:
            ValueError: The path names no file, or one with the ending `.gz`.
        """
        if not output.name:
            raise ValueError(f"output must be the path of a file, not {str(output)!r}")
        if output.name.lower().endswith(".gz"):
            raise ValueError(
                f"{output}: the output cannot be compressed, because a batch appends to it. Leave out .gz."
            )
        if os.path.islink(output):  # unlike Path.is_symlink it never raises
            output = Path(os.path.realpath(output))  # `resolve` would raise on links in a circle
        stem = output.name.removesuffix(".jsonl")
        start = f"{output.name}-" if stem in ("", output.name) else f"{stem}."
        return cls(
            output=output,
            errors=output.with_name(f"{start}errors.jsonl"),
            manifest=output.with_name(f"{start}manifest.json"),
            lock=output.with_name(f"{start}lock"),
            summary=output.with_name(f"{start}summary.json"),
        )

    def remove_halves(self) -> None:
        """Remove the temporary files that a killed run left behind."""
        for half in map(beside, (self.output, self.errors, self.manifest, self.summary)):
            if half.exists():
                remove(half)


def replace_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace a file: at any moment it is either the old one or the new one, and in the end the new one is durable.

    The chunks are written to a temporary file beside it, `NAME.rusty-agent.tmp`, so they may be read from the old file
    meanwhile. The permissions stay. Only the holder of the batch's lock may do this: the temporary file has a fixed
    name, so that the next run finds and removes what a killed one left of it.

    Raises:
        BatchError: It cannot be written. The file is whole, and almost always the old one.
    """
    half = beside(path)
    try:
        try:
            half.unlink(missing_ok=True)
            with half.open("xb", buffering=BLOCK_BYTES) as file:  # x: never write through a link planted there
                if path.exists():
                    shutil.copymode(path, half)
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(half, path)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise BatchError(
            f"{path} cannot be written: {with_remedy(error)} Nothing it held is lost: run the batch again then, "
            "without fresh=True."
        ) from error


def remove(path: Path) -> None:
    """Remove a file durably, if it exists.

    Raises:
        BatchError: It cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise BatchError(
            f"{path} cannot be removed: {with_remedy(error)} It is no longer needed: you may also delete it by hand. "
            "Then run the batch again."
        ) from error


def beside(path: Path) -> Path:
    """The temporary file that will replace this one. Only we use such names: any file of this name is removed."""
    return path.with_name(f"{path.name}.rusty-agent.tmp")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can do that.

    Raises:
        OSError: The disk failed.
    """
    if os.name == "nt":  # Windows cannot open folders
        return
    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise

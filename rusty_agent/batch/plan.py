"""Everything that a batch settles before it sends its first request.

In: the source, the output, what an earlier run has left. Out: a `Plan`, or an error that says why not. Never
touched: the network. All of it blocks: on an event loop, run it in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import define, field

from ..errors import BatchError
from .files import Files
from .index import Index, repair, scan
from .manifest import Manifest
from .rows import BadLine, Checked
from .source import FileSource, open_source
from .template import Template

__all__ = ["OnBadLine", "Plan", "Source", "make_plan"]

Source: TypeAlias = str | PathLike[str] | Iterable[Any] | AsyncIterable[Any]
OnBadLine: TypeAlias = Literal["fail", "skip"]

_SHOWN = 20  # bad lines in an error


@define
class Plan:
    """What is to be done.

    Attributes:
        rows: The input as a file, or None where the caller gives rows one by one.
        index: What earlier runs have left.
        total: How many rows there are, or None while that is unknown.
        template: Makes the prompts of rows that are columns, or None.
        dropped: Lines of the output that were of no use and have been dropped.
        bad: Lines of the input that are no requests, if it was checked now; a thousand at most.
    """

    rows: FileSource | None
    index: Index
    total: int | None
    template: Template | None = None
    dropped: int = 0
    bad: list[BadLine] = field(factory=list)


def make_plan(
    source: Source,
    files: Files,
    parameters: dict[str, Any],
    *,
    template: str | None = None,
    limit: int | None = None,
    on_bad_line: OnBadLine = "fail",
    fresh: bool = False,
    retry_permanent: bool = False,
    allow_changed: bool = False,
) -> Plan:
    """Check the input, and find out what is left to do. The batch's lock is held.

    An input that an earlier run has checked is not checked again.

    Raises:
        BatchError: The input has bad lines, it or the parameters have changed, or a file cannot be used.
        ValueError: The template is none.
    """
    if fresh:
        for path in (files.output, files.errors, files.manifest, files.summary):
            path.unlink(missing_ok=True)
    before = Manifest.load(files.manifest)
    made = None if template is None else Template(template)
    rows = checked = None
    sha256 = size = total = None
    if isinstance(source, str | PathLike):
        _refuse_overwriting(source, files)
        rows = open_source(source, template=made, spool_folder=files.output.parent)
        sha256, size = rows.digest()
        known = before is not None and before.input_sha256 == sha256 and before.rows is not None
        if known and before is not None:
            total = before.rows
        else:
            checked = rows.check(limit=limit)
            total = checked.rows
    complete = limit is None or (checked is None and total is not None)
    now = Manifest(sha256, size, total if complete else None, parameters)
    if before is not None and not allow_changed:
        _refuse_changes(files, before.changes(now))
    if checked is not None and checked.bad and on_bad_line == "fail":
        raise BatchError(bad_lines_said(checked))
    index = scan(files, retry_permanent=retry_permanent)
    dropped = repair(files, index)
    now.save(files.manifest)
    if limit is not None:
        total = limit if total is None else min(limit, total)
    return Plan(rows, index, total, made, dropped, [] if checked is None else checked.bad)


def bad_lines_said(checked: Checked) -> str:
    """What is wrong with the input, in words."""
    shown = "\n".join(f"  line {bad.line}: {bad.reason}" for bad in checked.bad[:_SHOWN])
    more = f"\n  … and {checked.bad_count - _SHOWN:,} more" if checked.bad_count > _SHOWN else ""
    return (
        f"{checked.bad_count:,} of the input's lines are no requests; nothing was sent.\n{shown}{more}\n"
        'Mend them, or leave them out with on_bad_line="skip" (--on-bad-line skip).'
    )


def _refuse_overwriting(source: str | PathLike[str], files: Files) -> None:
    if source != "-" and files.output.exists() and Path(source).exists() and files.output.samefile(source):
        raise BatchError(f"{files.output} is the input: name another output.")


def _refuse_changes(files: Files, changes: list[str]) -> None:
    if changes:
        said = "\n".join(f"  {change}" for change in changes)
        raise BatchError(
            f"{files.output} was begun with something else, and its results would not belong together:\n{said}\n"
            "Name another output; or go on all the same with allow_changed=True (--allow-changed); or throw away what "
            "is there with fresh=True (--fresh)."
        )

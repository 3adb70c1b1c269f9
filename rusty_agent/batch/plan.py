"""Everything that a batch settles before it sends its first request.

In: the source, the output, what an earlier run has left. Out: a `Plan`, or an error that says why not. Never
touched: the network. All of it blocks: on an event loop, run it in a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence, Sized
from io import IOBase
from itertools import islice
from os import PathLike
from typing import Any, Literal, TypeAlias

from attrs import define, evolve, field

from ..errors import BatchError
from .files import Files, remove
from .foreign import refuse_foreign
from .index import Index, repair, scan
from .manifest import Manifest
from .rows import BadLine, Checked, Row, as_bytes, parse_new, parse_row
from .source import FileSource, open_source
from .template import Template

__all__ = ["OnBadLine", "Plan", "Source", "check_source", "is_another", "make_plan", "moved"]

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
        bad_lines: How many lines are no requests, so that each must be checked when it is read again; 0 where rows come
            one by one.
        repeated: Lines of the file whose `custom_id` an earlier line has: bad ones that a single line does not show.
        moved: Whether rows may stand elsewhere in the input than they did when they were answered.
        marks: Of rows that come one by one and have no name: what those asked that were answered, by `custom_id`; None
            where it was looked at beforehand, or cannot be told.
    """

    rows: FileSource | None
    index: Index
    total: int | None
    template: Template | None = None
    bad_lines: int = 0
    repeated: set[int] = field(factory=set)
    moved: bool = False
    marks: dict[str, str] | None = None


def check_source(source: Source, template: str | None) -> None:
    """Refuse what is neither a source nor a template, before any file is touched.

    Raises:
        ValueError: One of them is none.
    """
    known = isinstance(source, str | PathLike | Iterable | AsyncIterable)
    if not known or isinstance(source, bytes | bytearray | Mapping):
        raise ValueError(f"source must be a path, '-' or an iterable of rows, not {type(source).__name__}")
    if type(source).__name__ == "DataFrame":  # of any library: only pandas and polars can be iterated over so
        raise ValueError(
            'a DataFrame gives its columns, not its rows: take source=frame.to_dict("records") of pandas, '
            "frame.to_dicts() of polars"
        )
    if isinstance(source, IOBase):  # whose lines would be sent as prompts, with their JSON
        raise ValueError("source is an open file: give its path, '-' for standard input, or an iterable of rows")
    if template is not None:
        Template(template)


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
    given_up: Callable[[], bool] = lambda: False,
) -> Plan:
    """Check the input, and find out what is left to do. The batch's lock is held.

    An input that an earlier run has found good is not checked again. Nothing is changed before all is found right.

    Args:
        source: As `run_batch`'s.
        files: The batch's files.
        parameters: What the answers depend on, for the manifest; that of the template is added.
        template: As `run_batch`'s, and so on.
        given_up: As `open_source`'s.

    Raises:
        BatchError: The input has bad lines, it or the parameters have changed, or a file cannot be used.
        ValueError: The template is none.
    """
    made = None if template is None else Template(template)
    before = None if fresh else Manifest.load(files.manifest)
    rows = None
    if isinstance(source, str | PathLike):
        rows = open_source(source, template=made, spool_folder=files.output.parent, given_up=given_up)
    now, found, total = _look(rows or source, before, {**parameters, "template": template}, made, limit)
    if before is not None and not allow_changed:
        _refuse_changes(files, before.changes(now))
    if on_bad_line == "fail" and found.bad_count:
        raise BatchError(bad_lines_said(found))
    refuse_foreign(files)
    unlike = before is None or before.input_sha256 != now.input_sha256
    once = now.input_sha256 is None
    index = scan(files, retry_permanent=retry_permanent, keep_marks=not fresh and (unlike or once))
    if fresh:
        index = _begin_anew(files)
    elif unlike and (index.done or index.permanent):
        _refuse_others(rows or source, made, index)
    repair(files, index)
    if index.done or index.failed:
        now = evolve(now, moved=unlike or once or (before is not None and before.moved))
    now.save(files.manifest)
    marks = index.marks if once else None
    index.marks = {}  # they are large
    return Plan(
        rows,
        index,
        total if total is None or limit is None else min(limit, total),
        template=made,
        bad_lines=found.bad_count,
        repeated=found.repeated,
        moved=now.moved,
        marks=marks,
    )


def _look(
    source: Any, before: Manifest | None, parameters: dict[str, Any], template: Template | None, limit: int | None
) -> tuple[Manifest, Checked, int | None]:
    """What is to be run, what a look at its rows has found if they can be read twice, and how many there are."""
    if isinstance(source, FileSource):
        now, found = _look_at_file(source, before, parameters, limit)
    elif isinstance(source, Sequence):
        now, found = Manifest(*_digest(source), len(source), parameters), _checked(source, template, limit)
    else:
        return Manifest(None, None, None, parameters), Checked(), len(source) if isinstance(source, Sized) else None
    return now, found, found.rows


def _look_at_file(
    rows: FileSource, before: Manifest | None, parameters: dict[str, Any], limit: int | None
) -> tuple[Manifest, Checked]:
    """What a file is, and what its rows are; not looked at if an earlier run, reading alike, has found all good."""
    if rows.delimiter is not None:
        parameters = {**parameters, "delimiter": rows.delimiter}
    now = Manifest(*rows.digest(), None, parameters)
    read_alike = before is not None and all(
        before.parameters.get(name) == parameters.get(name) for name in ("template", "delimiter")
    )
    if before is not None and read_alike and before.rows is not None and before.input_sha256 == now.input_sha256:
        return evolve(now, rows=before.rows), Checked(rows=before.rows)
    found = rows.check(limit=limit)
    return evolve(now, rows=None if found.bad_count or limit else found.rows), found


def _digest(rows: Iterable[Any]) -> tuple[str, int]:
    """The SHA-256 of rows, in hexadecimal, and how many bytes they take."""
    digest, size = hashlib.sha256(), 0
    for row in rows:
        data = as_bytes(row)
        digest.update(data + b"\n")
        size += len(data) + 1
    return digest.hexdigest(), size


def _refuse_others(source: Any, template: Template | None, index: Index) -> None:
    """Rows without a name are known by their line: where another row stands there now, none is known any more.

    So is a name that is the number of a line which was answered when it had none.
    """
    answered = index.done | index.permanent
    for row in _parsed(source, template):
        if isinstance(row, BadLine) or row.custom_id not in answered:
            continue
        answered.remove(row.custom_id)  # a later one with the same name is a bad line
        if is_another(row, index.marks):
            raise moved(row.line)


def is_another(row: Row, known: Mapping[str, str]) -> bool:
    """Whether a row is not the one that was answered under its name, by the marks of those that had none."""
    return (row.custom_id in known or not row.named) and known.get(row.custom_id) != row.mark


def moved(line: int) -> BatchError:
    """The error for a line where another row stands now."""
    return BatchError(
        f"Line {line} of the input is not the one that was answered: lines were put in, taken out or changed, or the "
        "template takes other columns; and rows without a custom_id are known by their line, so nobody can tell which "
        "of them are answered. Give the rows a custom_id and name another output; or throw away what is there with "
        "fresh=True (--fresh)."
    )


def _parsed(source: Any, template: Template | None) -> Iterable[Row | BadLine]:
    """The rows of what can be read more than once; of anything else none."""
    if isinstance(source, FileSource):
        return source.rows()
    if isinstance(source, Sequence):
        return (parse_row(value, line, template=template, check=False) for line, value in enumerate(source, 1))
    return ()


def _checked(rows: Sequence[Any], template: Template | None, limit: int | None) -> Checked:
    """A look at rows that can be read twice: good and bad ones are counted."""
    checked, seen = Checked(), set[str]()
    for line, value in enumerate(islice(rows, limit), 1):
        row = parse_new(value, line, seen, template=template)
        if isinstance(row, BadLine):
            checked.add_bad(row)
        else:
            checked.rows += 1
    return checked


def _begin_anew(files: Files) -> Index:
    """Throw away what earlier runs have left. Errors go first: results without errors are a batch, too."""
    for path in (files.errors, files.output, files.summary):
        remove(path)
    return Index()


def bad_lines_said(checked: Checked) -> str:
    """What is wrong with the input, in words."""
    shown = "\n".join(f"  line {bad.line}: {bad.reason}" for bad in checked.bad[:_SHOWN])
    more = f"\n  … and {checked.bad_count - _SHOWN:,} more" if checked.bad_count > _SHOWN else ""
    are = "is no request" if checked.bad_count == 1 else "are no requests"
    return (
        f"{checked.bad_count:,} of the input's lines {are}; nothing was sent.\n{shown}{more}\n"
        'Mend them, or leave them out with on_bad_line="skip" (--on-bad-line skip).'
    )


def _refuse_changes(files: Files, changes: list[str]) -> None:
    if changes:
        said = "\n".join(f"  {change}" for change in changes)
        raise BatchError(
            f"{files.output} was begun with something else, and its results would not belong together:\n{said}\n"
            "Name another output; or go on all the same with allow_changed=True (--allow-changed); or throw away what "
            "is there with fresh=True (--fresh)."
        )

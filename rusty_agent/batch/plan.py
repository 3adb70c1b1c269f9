"""Everything that a batch settles before it sends its first request.

In: the source, the output, what an earlier run has left. Out: a `Plan`, or an error that says why there is none. Never
touched: the network. All of it blocks: on an event loop, run it in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from ..checks import count_of
from ..errors import BatchError
from .files import Files, remove
from .foreign import refuse_foreign
from .index import Index, repair, scan
from .input import Checked, Input
from .manifest import Manifest
from .rows import BadLine, Row
from .settings import JobSettings, Source
from .source import ListSource, open_source

__all__ = ["Plan", "make_plan", "refuse_another"]

_READ_BY = ("template", "delimiter")  # parameters that decide which rows the input has
_SERVED_BY = ("model", "url")  # … and those that decide who answers them


@define
class Plan:
    """What a run is to do.

    Attributes:
        input: The rows as a file or a list, or None if the caller gives rows one by one.
        index: What earlier runs have left.
        total: How many rows there are, or None while that is unknown. If they come one by one it includes bad ones,
            which cannot be told before they come.
        bad_lines: How many lines are not requests. If there are any, each line must be checked when it is read again. 0
            if rows come one by one.
        repeated: The numbers of lines whose `custom_id` an earlier line has: bad lines that look good by themselves.
        served: Whether earlier runs had answers of this model at this address.
        moved: Whether rows may stand elsewhere in the input than they did when they were answered.
        marks: If rows come one by one, and so must be compared as they come: the marks of the rows without a name that
            earlier runs have tried, by `custom_id`; else None.
    """

    input: Input | None
    index: Index
    total: int | None
    bad_lines: int = 0
    repeated: set[int] = field(factory=set)
    served: bool = False
    moved: bool = False
    marks: dict[str, str] | None = None


def make_plan(
    source: Source,
    settings: JobSettings,
    parameters: dict[str, Any],
    *,
    given_up: Callable[[], bool] = lambda: False,
) -> Plan:
    """Check the input, and find out what is left to do. The caller holds the batch's lock.

    An input that an earlier run has found good is not checked again. No file is changed before every check has passed.

    Args:
        source: As in `run_batch`.
        settings: The settings of the batch.
        parameters: What the answers depend on, for the manifest; the template and a table's delimiter are added.
        given_up: As in `open_source`.

    Raises:
        BatchError: The input has bad lines, it or the parameters have changed, or a file cannot be used.
    """
    plan, manifest, dropped = _decide(source, settings, parameters, given_up)
    for path in dropped:
        remove(path)
    settings.files.remove_halves()
    repair(settings.files, plan.index)
    manifest.save(settings.files.manifest)
    return plan


def _decide(
    source: Source, settings: JobSettings, parameters: dict[str, Any], given_up: Callable[[], bool]
) -> tuple[Plan, Manifest, Sequence[Path]]:
    """The plan, its manifest, and the files to drop as a whole. No file is changed here."""
    files, template, limit = settings.files, settings.template, settings.limit
    before = None if settings.fresh else Manifest.load(files.manifest)
    input = _opened(source, settings, given_up)
    parameters = {**parameters, "template": None if template is None else template.text}
    now, found = _look(input, before, parameters, limit)
    total = count_of(source) if input is None else found.rows
    refuse_foreign(files)
    unlike = input is None or before is None or before.input_sha256 != now.input_sha256
    marks: dict[str, str] | None = {} if unlike and not settings.fresh else None
    index = scan(files, marks, given_up)
    changes = [] if before is None else before.changes(now)
    if changes and index.done and not settings.allow_changed:
        raise _changed_error(files, changes)
    if settings.on_bad_line == "fail" and found.bad_count:
        raise BatchError(found.complaint())
    index, dropped = _kept(index, settings, changed=bool(changes))
    if marks is not None and input is not None:
        _refuse_others(input, index, marks)
    moved = bool(index.done or index.failed) and (unlike or before is None or before.moved)
    others = 0
    if before is not None:
        others = before.others if _alike(before, parameters, _SERVED_BY) else len(index.done)
    now = evolve(now, moved=moved, others=min(others, len(index.done)))  # the output may have been cut
    plan = Plan(
        input,
        index,
        total if total is None or limit is None else min(limit, total),
        bad_lines=found.bad_count,
        repeated=found.repeated,
        served=len(index.done) > now.others,
        moved=moved,
        marks=marks if input is None else None,
    )
    return plan, now, dropped


def _opened(source: Source, settings: JobSettings, given_up: Callable[[], bool]) -> Input | None:
    """The rows, if they can be read again; None if they come one by one."""
    if isinstance(source, str | PathLike):
        folder = settings.files.output.parent
        return open_source(source, template=settings.template, spool_folder=folder, given_up=given_up)
    return ListSource(source, settings.template, given_up) if isinstance(source, Sequence) else None


def _look(
    input: Input | None, before: Manifest | None, parameters: dict[str, Any], limit: int | None
) -> tuple[Manifest, Checked]:
    """The input's manifest, and the check of its rows, which is skipped if an earlier run found the same rows good."""
    if input is None:
        return Manifest(None, None, None, parameters), Checked()
    if input.delimiter is not None:
        parameters = {**parameters, "delimiter": input.delimiter}
    now = Manifest(*input.digest(), None, parameters)
    if (
        before is not None
        and before.rows is not None
        and before.input_sha256 == now.input_sha256
        and _alike(before, parameters, _READ_BY)
    ):
        return evolve(now, rows=before.rows), Checked(rows=before.rows)
    found = input.check(limit=limit)
    return evolve(now, rows=None if found.bad_count or limit else found.rows), found


def _alike(before: Manifest, parameters: Mapping[str, Any], names: Iterable[str]) -> bool:
    return all(before.parameters.get(name) == parameters.get(name) for name in names)


def _kept(index: Index, settings: JobSettings, *, changed: bool) -> tuple[Index, Sequence[Path]]:
    """What this run keeps of the earlier ones' index, and the files to drop, in this order."""
    files = settings.files
    if settings.fresh:
        return Index(), (files.errors, files.output, files.summary)  # results without errors still make a batch
    if changed:  # old errors answer another request, and this run may be stopped before it reaches those rows
        return Index(index.done, useless_results=index.useless_results), (files.errors,)
    return evolve(index, permanent=set()) if settings.retry_permanent else index, ()


def _refuse_others(input: Input, index: Index, marks: Mapping[str, str]) -> None:
    """Refuse an input that has another row in the line of an answered row without a name, known by its line alone.

    Refuse also an input in which the name of a row is the number of such a line.
    """
    answered = index.done | index.permanent
    for row in input.rows() if answered else ():
        if isinstance(row, BadLine) or row.custom_id not in answered:
            continue
        answered.remove(row.custom_id)  # a later row with the same name is a bad line
        refuse_another(row, marks)


def refuse_another(row: Row, marks: Mapping[str, str]) -> None:
    """Refuse a row that is not the one that was answered under its `custom_id`.

    Args:
        row: The row.
        marks: The marks of the answered rows that had no name of their own, by `custom_id`.

    Raises:
        BatchError: It is another row.
    """
    if (row.custom_id in marks or not row.named) and marks.get(row.custom_id) != row.mark:
        raise BatchError(
            f"Line {row.line} of the input is not the one that was answered: lines were added, removed or changed, or "
            "the template uses other columns. Rows without a custom_id are identified by their line, so there is no "
            "telling which of them are answered. Give the rows a custom_id and name another output; or discard what is "
            "there with fresh=True."
        )


def _changed_error(files: Files, changes: list[str]) -> BatchError:
    said = "\n".join(f"  {change}" for change in changes)
    return BatchError(
        f"{files.output} was begun with another input or other parameters, so its results would not belong "
        f"together:\n{said}\n"
        "Name another output; or continue anyway with allow_changed=True; or discard what "
        "is there with fresh=True."
    )

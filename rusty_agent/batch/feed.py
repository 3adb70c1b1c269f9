"""The rows that are left to do, one by one.

In: the source and the plan. Out: rows that earlier runs have not finished, and lines that are no rows. Never touched:
requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from ..errors import BatchError
from .lines import bad_line_id
from .plan import OnBadLine, Plan, Source
from .rows import BadLine, Row, parse_row

__all__ = ["Feed"]

_PAUSE_EVERY = 2000  # rows passed over: an event loop must not stand still while a million of them go by


class Feed:
    """An asynchronous iterator of what is left.

    Attributes:
        skipped: Rows passed over so far, because earlier runs have answered them.
        failed_earlier: Rows passed over so far, because they failed for good in earlier runs.
        bad_lines: Lines so far that are no rows.
        expected_skips: How many rows will be passed over, as far as can be told beforehand.
        name: What the source is called, or None.
    """

    def __init__(self, source: Source, plan: Plan, on_bad_line: OnBadLine, limit: int | None) -> None:
        self._source = source
        self._plan = plan
        self._on_bad_line = on_bad_line
        self._limit = limit
        self.skipped = 0
        self.failed_earlier = 0
        self.bad_lines = 0
        known = len(plan.index.done) + len(plan.index.permanent)
        self.expected_skips = known if plan.total is None else min(known, plan.total)
        self.name = None if plan.rows is None else plan.rows.name

    async def __aiter__(self) -> AsyncIterator[Row | BadLine]:
        index = self._plan.index
        passed = 0
        async for taken in self._all():
            if isinstance(taken, BadLine):
                self.bad_lines += 1
                if bad_line_id(taken) not in index.permanent:
                    yield taken
                continue
            if taken.custom_id in index.done:
                self.skipped += 1
            elif taken.custom_id in index.permanent:
                self.failed_earlier += 1
            else:
                yield taken
                continue
            passed += 1
            if passed % _PAUSE_EVERY == 0:
                await asyncio.sleep(0)

    async def _all(self) -> AsyncIterator[Row | BadLine]:
        if self._plan.rows is not None:  # checked already; what is wrong with a line must be found again to skip it
            for taken in self._plan.rows.rows(limit=self._limit, check=self._on_bad_line == "skip"):
                yield taken
            return
        line = 0
        seen: set[str] = set()
        async for value in _each(self._source):
            if line == self._limit:
                return
            line += 1
            given = parse_row(value, line, template=self._plan.template)
            if isinstance(given, Row):
                if given.custom_id in seen:
                    given = BadLine(line, f"custom_id {given.custom_id!r} was used before")
                else:
                    seen.add(given.custom_id)
            if isinstance(given, BadLine) and self._on_bad_line == "fail":
                raise BatchError(
                    f"Row {given.line} of the source is no request: {given.reason}. Mend it, or leave such rows out "
                    'with on_bad_line="skip". What was done until here is kept; the same call goes on from there.'
                )
            yield given


async def _each(source: Any) -> AsyncIterator[Any]:
    """The values of an iterable or an asynchronous one; only one of the two is asked for."""
    if isinstance(source, AsyncIterable):
        async for value in source:
            yield value
    elif isinstance(source, Iterable):
        for value in source:
            yield value
    else:
        raise ValueError(f"source must be a path, '-' or an iterable of rows, not {type(source).__name__}")

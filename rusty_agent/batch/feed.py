"""The rows that are left to do, one by one.

In: the source and the plan. Out: the rows that no earlier run has finished; bad lines go to `refuse`. Never touched:
requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from time import monotonic
from typing import Any, TypeGuard

from ..errors import BatchError
from ..net.gather import PAUSE
from ..parameters import Inputs
from ..progress.tally import Tally
from .input import Input
from .plan import Plan, refuse_another
from .rows import BadLine, Row, parse_row, repeats
from .settings import JobSettings, Source

__all__ = ["Feed"]

_PAUSE_AFTER = 0.01  # seconds: passing over a million rows must not block the event loop


class Feed:
    """Gives the rows that are left to do, and counts the others.

    Args:
        source: What the caller gave; iterated over only if the plan has no input that can be read again.
        plan: What is to be done.
        settings: The settings of the batch. Its `on_bad_line` matters here only for rows that come one by one; for an
            input that can be read again the plan has applied it already.
        tally: Gets the number of rows, and how many of them earlier runs have finished: counted as they are passed
            over; or at once if there is no limit and an input that can be read again has not changed, because then
            every row in the index will be passed over.
        refuse: Called with each bad line.

    Attributes:
        skipped: Rows passed over so far because earlier runs have answered them.
        failed_earlier: Rows passed over so far because they failed for good in earlier runs.
        bad_lines: Lines so far that are not rows.
        lines: The line number of each row so far, by `custom_id`; None unless sorting needs them.
    """

    def __init__(
        self, source: Source, plan: Plan, settings: JobSettings, tally: Tally, *, refuse: Callable[[BadLine], object]
    ) -> None:
        self._source: Any = source
        self._plan = plan
        self._settings = settings
        self._tally = tally
        self._refuse = refuse
        self.skipped = 0
        self.failed_earlier = 0
        self.bad_lines = 0
        self.lines: dict[str, int] | None = {} if settings.sort and plan.moved else None
        self._foreseen = not plan.moved and settings.limit is None
        tally.total = plan.total
        if self._foreseen:
            tally.skipped, tally.failed_earlier = len(plan.index.done), len(plan.index.permanent)

    @asynccontextmanager
    async def rows(self) -> AsyncIterator[Inputs]:
        """The rows that are left; call it once. Asynchronous only if the source is: a plain iterator costs a tenth.

        Raises:
            BatchError: While iterating: the source cannot be read on, or has a bad line that may not be skipped.
        """
        if self._plan.input is None and isinstance(self._source, AsyncIterable):
            async with aclosing(self._left_of_asynchronous(self._source)) as later:
                yield later
        else:
            with closing(self._left()) as rows:
                yield rows

    def _left(self) -> Generator[Row | object, None, None]:
        due = monotonic() + _PAUSE_AFTER
        for taken in self._of_values() if self._plan.input is None else self._of_input(self._plan.input):
            left = self._is_left(taken)
            if left or monotonic() >= due:
                yield taken if left else PAUSE
                due = monotonic() + _PAUSE_AFTER

    async def _left_of_asynchronous(self, source: AsyncIterable[Any]) -> AsyncGenerator[Row, None]:
        seen: set[str] = set()
        line, due = 0, monotonic() + _PAUSE_AFTER
        async for value in source:
            line += 1
            taken = self._checked(value, line, seen)
            if self._is_left(taken):
                yield taken
            elif monotonic() >= due:
                await asyncio.sleep(0)
                due = monotonic() + _PAUSE_AFTER
            if line == self._settings.limit:  # as in `_of_values`
                return

    def _is_left(self, taken: Row | BadLine) -> TypeGuard[Row]:
        index, tally = self._plan.index, self._tally
        if isinstance(taken, BadLine):
            self.bad_lines += 1
            self._refuse(taken)
            if self._plan.input is None and tally.total is not None:  # the total is the source's length, bad ones too
                tally.total -= 1
            return False
        if self.lines is not None:
            self.lines[taken.custom_id] = taken.line
        if taken.custom_id in index.done:
            self.skipped += 1
        elif taken.custom_id in index.permanent:
            self.failed_earlier += 1
        else:
            return True
        if self._plan.marks is not None:
            refuse_another(taken, self._plan.marks)
        if not self._foreseen:
            tally.skipped, tally.failed_earlier = self.skipped, self.failed_earlier
        return False

    def _of_input(self, input: Input) -> Iterator[Row | BadLine]:
        repeated, check = self._plan.repeated, self._plan.bad_lines > 0
        done = set() if check else self._plan.index.done  # a bad line may have the `custom_id` of a row that is done
        given = input.rows(limit=self._settings.limit, check=check, done=done)
        if not repeated:
            return given
        return (repeats(taken) if isinstance(taken, Row) and taken.line in repeated else taken for taken in given)

    def _of_values(self) -> Iterator[Row | BadLine]:
        seen: set[str] = set()
        for line, value in enumerate(self._source, 1):
            yield self._checked(value, line, seen)
            if line == self._settings.limit:  # do not take one value too many: the caller may want it
                return

    def _checked(self, value: Any, line: int, seen: set[str]) -> Row | BadLine:
        taken = parse_row(value, line, template=self._settings.template)
        if isinstance(taken, Row):
            if taken.custom_id not in seen:
                seen.add(taken.custom_id)
                return taken
            taken = repeats(taken)
        if self._settings.on_bad_line == "fail":
            raise BatchError(
                f"Row {line} of the source is not a request: {taken.reason}. Correct it, or skip such rows with "
                'on_bad_line="skip". What is done is kept: run the batch again, without fresh=True, to continue.'
            )
        return taken

"""An input that can be read again, and the check of all its rows before any is sent.

In: rows, in their order. Out: how many are good, what is wrong with the others. Never touched: where the rows come
from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Set

from attrs import Factory, define

from .rows import NOT_JSON, BadLine, Row, repeats

__all__ = ["KEPT_BAD", "Checked", "Input"]

KEPT_BAD = 20
"""How many bad lines are kept to be shown: as many as fit on a screen."""


@define
class Checked:
    """What the check of the whole input found.

    Attributes:
        rows: How many rows are good.
        bad: The first bad lines, `KEPT_BAD` at most.
        bad_count: How many bad lines there are in all.
        repeated: The numbers of lines whose `custom_id` an earlier row has; they count as bad too.
    """

    rows: int = 0
    bad: list[BadLine] = Factory(list)
    bad_count: int = 0
    repeated: set[int] = Factory(set)

    def add_bad(self, bad: BadLine) -> None:
        """Count a bad line; keep it if it is among the first `KEPT_BAD`."""
        self.bad_count += 1
        if len(self.bad) < KEPT_BAD:
            self.bad.append(bad)

    def complaint(self, *, skips: bool = False) -> str:
        """What is wrong with the input, in words, and what to do about it unless `skips`: bad lines are skipped."""
        are = "line of the input is not a request" if self.bad_count == 1 else "lines of the input are not requests"
        lines = [f"{self.bad_count:,} {are}; nothing was sent."]
        lines += [f"  line {bad.line}: {bad.reason}" for bad in self.bad]
        if left := self.bad_count - len(self.bad):
            lines.append(f"  … and {left:,} more")
        if not skips:
            if self.bad[0].line == 1 and self.bad[0].reason.startswith(NOT_JSON):
                lines.append("To make such lines, use `jq -R .` on plain text, or `jq -c '.[]'` on an array.")
            lines.append('Correct them, or skip them with on_bad_line="skip".')
        return "\n".join(lines)


class Input(ABC):
    """Rows that can be read several times: once to check them all, once to send them.

    Attributes:
        name: What it is called in messages; None if it has no name.
        delimiter: What separates the columns of a table; None if it is not a table.
    """

    name: str | None = None
    delimiter: str | None = None

    @abstractmethod
    def digest(self) -> tuple[str, int]:
        """The SHA-256 of its bytes in hexadecimal, and the number of bytes.

        Raises:
            BatchError: It cannot be read.
        """

    @abstractmethod
    def rows(
        self, *, limit: int | None = None, check: bool = False, done: Set[str] = frozenset()
    ) -> Iterator[Row | BadLine]:
        """The rows in their order, one at a time; blank lines are left out.

        Args:
            limit: How many to read at most, bad lines included. Default: all.
            check: Apply the checks that sending would apply; a row that fails one becomes a `BadLine`.
            done: As in `parse_line`.

        Raises:
            BatchError: It cannot be read on, or has changed since it was digested.
        """

    def check(self, *, limit: int | None = None, good: Callable[[Row], object] = lambda row: None) -> Checked:
        """Check every row before any is sent. A row whose `custom_id` an earlier row has is a bad line.

        Args:
            limit: As in `rows`.
            good: Called with each good row.

        Raises:
            BatchError: As `rows`.
        """
        checked = Checked()
        seen: set[str] = set()
        for row in self.rows(limit=limit, check=True):
            if isinstance(row, BadLine):
                checked.add_bad(row)
            elif row.custom_id in seen:
                checked.repeated.add(row.line)
                checked.add_bad(repeats(row))
            else:
                seen.add(row.custom_id)
                checked.rows += 1
                good(row)
        return checked

"""An input that can be read again → what a look at all its rows finds, before any is sent.

In: rows, in their order. Out: how many are good, what is wrong with the others, what they all add up to. Never
touched: where the rows come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, define

from ..parameters import merged
from .rows import BadLine, Row, repeats

__all__ = ["KEPT_BAD", "Checked", "Input", "prompt_characters"]

KEPT_BAD = 20
"""Bad lines that are kept to be shown: as many as fit on a screen."""


@define
class Checked:
    """What a look at the whole input found.

    Attributes:
        common: Arguments that hold for all rows, and are counted with each.
        rows: Good rows.
        bad: The first bad lines, `KEPT_BAD` at most.
        bad_count: All of them.
        repeated: Lines of rows whose `custom_id` an earlier row has; bad ones, too.
        prompt_characters: Characters of text in all rows.
        rows_with_max_tokens: Rows that say how many tokens the answer may have.
        max_tokens: The sum of what they say.
    """

    common: Mapping[str, Any] = Factory(dict)
    rows: int = 0
    bad: list[BadLine] = Factory(list)
    bad_count: int = 0
    repeated: set[int] = Factory(set)
    prompt_characters: int = 0
    rows_with_max_tokens: int = 0
    max_tokens: int = 0

    def add(self, row: Row) -> None:
        """Count a good row."""
        parameters = merged(self.common, row.parameters) if self.common else row.parameters
        self.rows += 1
        self.prompt_characters += prompt_characters(parameters)
        tokens = _asked_tokens(parameters)
        if tokens is not None:
            self.rows_with_max_tokens += 1
            self.max_tokens += tokens

    def add_bad(self, bad: BadLine) -> None:
        """Count a bad line, and keep it if it is one of the first."""
        self.bad_count += 1
        if len(self.bad) < KEPT_BAD:
            self.bad.append(bad)

    def complaint(self) -> str:
        """What is wrong with the input, in words."""
        shown = "\n".join(f"  line {bad.line}: {bad.reason}" for bad in self.bad)
        left = self.bad_count - len(self.bad)
        more = f"\n  … and {left:,} more" if left else ""
        are = "is no request" if self.bad_count == 1 else "are no requests"
        return (
            f"{self.bad_count:,} of the input's lines {are}; nothing was sent.\n{shown}{more}\n"
            'Mend them, or leave them out with on_bad_line="skip" (--on-bad-line skip).'
        )


class Input(ABC):
    """Rows that can be read as often as they are wanted: once to check them all, once to send them.

    Attributes:
        name: What it is called, for messages; None where it has no name.
        delimiter: What stands between the columns of a table; None of what is none.
    """

    name: str | None = None
    delimiter: str | None = None

    @abstractmethod
    def digest(self) -> tuple[str, int]:
        """The SHA-256 of its bytes in hexadecimal, and how many there are.

        Raises:
            BatchError: It cannot be read.
        """

    @abstractmethod
    def rows(self, *, limit: int | None = None, check: bool = False) -> Iterator[Row | BadLine]:
        """The rows in their order, one at a time; blank lines are left out.

        Args:
            limit: How many to read at most, bad lines included. Default: all.
            check: Make the checks that the requests would meet; a bad one becomes a `BadLine`.

        Raises:
            BatchError: It cannot be read on, or is not what was digested any more.
        """

    def check(self, *, limit: int | None = None, common: Mapping[str, Any] | None = None) -> Checked:
        """Look at every row, or the first `limit`, before any is sent; count tokens with what is `common` to all.

        A `custom_id` that an earlier row has makes a bad line.

        Raises:
            BatchError: As `rows`.
        """
        checked = Checked(common or {})
        seen: set[str] = set()
        for row in self.rows(limit=limit, check=True):
            if isinstance(row, BadLine):
                checked.add_bad(row)
            elif row.custom_id in seen:
                checked.repeated.add(row.line)
                checked.add_bad(repeats(row))
            else:
                seen.add(row.custom_id)
                checked.add(row)
        return checked


def prompt_characters(parameters: Mapping[str, Any]) -> int:
    """How many characters of text a checked row sends, to estimate its tokens; images and the like count nothing."""
    count = len(parameters.get("system_prompt") or "")
    messages = parameters.get("messages")
    if not messages:
        return count + len(parameters["prompt"])
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            count += len(content)
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            count += sum(len(text) for text in texts if isinstance(text, str))
    return count


def _asked_tokens(parameters: Mapping[str, Any]) -> int | None:
    """The most tokens that a row lets its answer, or all of several, have; None where it does not say."""
    extra = parameters.get("extra_body") or {}
    choices = extra.get("n")
    for given in (extra.get("max_completion_tokens"), extra.get("max_tokens"), parameters.get("max_tokens")):
        if isinstance(given, int) and not isinstance(given, bool):
            return given * max(choices, 1) if isinstance(choices, int) else given
    return None

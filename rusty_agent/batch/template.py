"""Columns → a prompt: `{column}` in a text stands for the row's value.

In: the template's text, then mappings. Out: strings. Never touched: attributes or items of the values, so even a
template from an untrusted author can read nothing but the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any

from attrs import define, field

from ..wire.codec import dumps

__all__ = ["Template"]


@define(frozen=True)
class Template:
    """A text in which `{column}` stands for a column's value, and `{{` and `}}` for braces.

    Attributes:
        text: The template as it was given.
        columns: The names that it uses, each once, sorted.

    Raises:
        ValueError: It is not a string; a brace has no partner, or holds more than a column's name; or it has no column.
    """

    text: str
    _parts: tuple[tuple[str, str | None], ...] = field(init=False, repr=False, eq=False)
    columns: tuple[str, ...] = field(init=False, repr=False, eq=False)

    @_parts.default
    def _parse(self) -> tuple[tuple[str, str | None], ...]:
        if not isinstance(self.text, str):
            raise ValueError(f"template must be a string, not {type(self.text).__name__}")
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"template: {error}; for a literal brace write {{{{ or }}}}") from None
        for _, column, form, conversion in parts:
            if column is not None:
                _check(column, form, conversion)
        if all(column is None for _, column, _, _ in parts):
            raise ValueError(f"template: {self.text!r} contains no {{column}}, so every row would have the same prompt")
        return tuple((literal, column) for literal, column, _, _ in parts)

    @columns.default
    def _named(self) -> tuple[str, ...]:
        return tuple(sorted({column for _, column in self._parts if column is not None}))

    def require(self, columns: Iterable[str]) -> None:
        """Check that all columns that the template uses are there.

        Raises:
            ValueError: A column is missing; the message names it and the columns that there are.
        """
        there = list(columns)
        for column in self.columns:
            if column not in there:
                known = ", ".join(map(repr, there)) or "none"
                raise ValueError(f"the template needs the column {column!r}; the available columns are: {known}")

    def render(self, row: Mapping[str, Any]) -> str:
        """The prompt for a row: strings as they are, anything else as JSON.

        Raises:
            ValueError: A column is missing, or has no value (null, NaN).
        """
        pieces: list[str] = []
        for literal, column in self._parts:
            pieces.append(literal)
            if column is not None:
                if column not in row:
                    self.require(row)
                pieces.append(_text(column, row[column]))
        return "".join(pieces)


def _check(column: str, form: str | None, conversion: str | None) -> None:
    if form or conversion:
        raise ValueError(f"template: {{{column}}} must be a bare name, without a format or conversion after it")
    if not column.strip() or column.isdigit():
        raise ValueError(f"template: {{{column}}} is not a column's name; columns are named, not numbered")
    if "." in column or "[" in column:
        raise ValueError(f"template: {{{column}}} looks into a value; only whole columns can be used")


def _text(column: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        missing = value is None or bool(value != value)  # NaN: some writers of JSON use it for a missing value
    except TypeError:  # pandas' NA, which is neither true nor false
        missing = True
    except ValueError:  # a numpy array is neither too; it has values, but cannot be written as JSON
        missing = False
    if missing:
        raise ValueError(f"the column {column!r}, which the template needs, has no value in this row")
    return dumps(value).decode()

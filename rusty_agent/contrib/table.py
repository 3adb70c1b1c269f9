"""An Arrow table → the request of each row; answers → columns of the table.

In: tables whose columns hold prompts, messages or bodies; results and errors. Out: requests in the forms that lines of
a batch may have; tables. Never touched: the sending of requests; columns that do not belong to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from attrs import define

from ..errors import APIStatusError, RustyAgentError
from ..types import GenerateResult, Usage
from ..wire.codec import dumps, join_surrogates, loads_strict

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Columns", "Place", "RowFunction", "RowOutcome"]

RowFunction: TypeAlias = Callable[[dict[str, Any]], Any]
RowOutcome: TypeAlias = GenerateResult | Exception


@define(frozen=True)
class Place:
    """Where the request stands in a row: in one of these columns, or in the row as a whole.

    Attributes:
        prompt: The column of the prompt, or a function that turns a row into a request.
        messages: The column of the messages: structs, or JSON as text.
        body: The column of the request's body: structs, or JSON as text.
        id: The column by which a checkpoint identifies the rows.

    Raises:
        ValueError: More than one of the first three is given, or one is of the wrong type.
    """

    prompt: str | RowFunction | None = None
    messages: str | None = None
    body: str | None = None
    id: str | None = None

    def __attrs_post_init__(self) -> None:
        if sum(given is not None for given in (self.prompt, self.messages, self.body)) > 1:
            raise ValueError("prompt, messages and body are three ways to say where the request is: give only one")
        for name, column in (("messages", self.messages), ("body", self.body)):
            if column is not None and not isinstance(column, str):
                raise ValueError(f"{name} must be the name of a column, not {column!r}")
        if not (self.prompt is None or isinstance(self.prompt, str) or callable(self.prompt)):
            raise ValueError(f"prompt must be the name of a column or a function of a row, not {self.prompt!r}")
        if iscoroutinefunction(self.prompt):
            raise ValueError("prompt must be a function that returns a request, not a coroutine function")

    def check(self, table: pyarrow.Table) -> None:
        """Check that a table has the columns that are needed.

        Raises:
            ValueError: It lacks one, or a row has no id.
        """
        names = table.column_names
        for column in (self.prompt, self.messages, self.body, self.id):
            if isinstance(column, str) and column not in names:
                raise ValueError(f"there is no column {column!r}; the columns are: {', '.join(map(repr, names))}")
        if self.prompt is self.messages is self.body is None and not {"prompt", "messages", "body"} & set(names):
            raise ValueError(
                f"the columns are {', '.join(map(repr, names))}: name the one that holds the request with "
                "prompt=…, messages=… or body=…"
            )
        if self.id is not None and table.column(self.id).null_count:
            raise ValueError(f"a row has no {self.id!r}, which the checkpoint needs to identify it")

    def requests(self, table: pyarrow.Table) -> list[Any]:
        """The request of each row, for `batch.rows.parse_row` to read; for a row that has none, an exception."""
        if callable(self.prompt):
            return [_attempted(self.prompt, row) for row in _values(table)]
        for column, read in ((self.prompt, _text), (self.messages, _decoded), (self.body, _line)):
            if isinstance(column, str):
                return [_attempted(read, given) for given in _values(table.column(column))]
        return [_attempted(_without_nulls, row) for row in _values(table)]


@define(frozen=True)
class Columns:
    """The columns that are added.

    Attributes:
        output: The name of the answer's column.
        include_result: Whether to add the whole result.

    Raises:
        ValueError: The answer's column cannot have that name.
    """

    output: str
    include_result: bool = False

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.output, str) or not self.output:
            raise ValueError(f"output must be the name of a column, not {self.output!r}")
        if self.output in [name for name, _, _ in self._of(())][1:]:
            raise ValueError(f"output must not be {self.output!r}: another of the added columns has that name")

    def check(self, names: Sequence[str]) -> None:
        """Check that they can be added to a table with these columns.

        Raises:
            ValueError: The table already has some of them.
        """
        taken = [name for name, _, _ in self._of(()) if name in names]
        if taken:
            raise ValueError(
                f"the rows already have columns that would be added: {', '.join(map(repr, taken))}. Drop or rename "
                "them first (Dataset.drop_columns, Dataset.rename_columns); output= names the answer's column."
            )

    def add(self, table: pyarrow.Table, outcomes: Sequence[RowOutcome]) -> pyarrow.Table:
        """The table with the outcomes of its rows. Types do not depend on the values, so that all blocks agree."""
        import pyarrow

        for name, kind, values in self._of(outcomes):
            table = table.append_column(name, pyarrow.array(values, type=kind))
        return table

    def _of(self, outcomes: Sequence[RowOutcome]) -> Iterable[tuple[str, str, list[Any]]]:
        """The name, type and values of each column."""
        answers = [outcome if isinstance(outcome, GenerateResult) else None for outcome in outcomes]
        yield self.output, "string", [answer and answer.text for answer in answers]
        yield "error", "string", [_error(outcome) for outcome in outcomes]
        yield "status", "int64", [_status(outcome) for outcome in outcomes]
        yield "finish_reason", "string", [answer and answer.finish_reason for answer in answers]
        spent = [_usage(outcome) for outcome in outcomes]
        yield "prompt_tokens", "int64", [usage and usage.prompt_tokens for usage in spent]
        yield "completion_tokens", "int64", [usage and usage.completion_tokens for usage in spent]
        yield "latency_s", "double", [answer and answer.duration for answer in answers]
        if self.include_result:
            yield "result", "string", [answer and _written(answer) for answer in answers]


def _values(column: pyarrow.Table | pyarrow.ChunkedArray) -> list[Any]:
    """The values, or rows; an exception for each that Python cannot hold, such as invalid UTF-8, or the year 10000."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_attempted(lambda one: one.to_pylist()[0], column.slice(n, 1)) for n in range(len(column))]


def _attempted(function: Callable[[Any], Any], given: Any) -> Any:
    """What the function returns or raises, as a value: an error in one row must not stop the others."""
    if isinstance(given, Exception):
        return given
    try:
        return function(given)
    except Exception as error:
        return error


def _text(given: Any) -> str:
    if not isinstance(given, str):
        said = f"a prompt must be text, not {type(given).__name__}"  # the value may be an image of megabytes
        raise ValueError("the row has no prompt" if given is None else said)
    return given


def _line(given: Any) -> dict[str, Any]:
    return {"method": "POST", "url": "/v1/chat/completions", "body": _decoded(given)}


def _decoded(given: Any) -> Any:
    if not isinstance(given, str):
        return _without_nulls(given)
    try:
        return loads_strict(given)
    except ValueError as error:
        raise ValueError(f"the text in the column is not JSON: {error}") from None


def _without_nulls(value: Any) -> Any:
    """A value without fields that are null: Arrow gives each struct the fields of all others in its column."""
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _written(result: GenerateResult) -> str:
    try:
        return dumps(attrs.asdict(result)).decode()
    except (RecursionError, ValueError):  # too deeply nested to encode: one answer must not cost the whole block
        return dumps(attrs.asdict(attrs.evolve(result, raw={}))).decode()


def _usage(outcome: RowOutcome) -> Usage | None:
    """The tokens that were paid for; a failed request may report them, too."""
    return outcome.usage if isinstance(outcome, GenerateResult | RustyAgentError) else None


def _error(outcome: RowOutcome) -> str | None:
    if isinstance(outcome, GenerateResult):
        return None
    return join_surrogates(f"{type(outcome).__name__}: {outcome}")


def _status(outcome: RowOutcome) -> int | None:
    if isinstance(outcome, APIStatusError):
        return outcome.status_code
    return 200 if isinstance(outcome, GenerateResult) else None

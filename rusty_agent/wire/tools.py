"""Tool-call deltas → which call each belongs to.

In: the `tool_calls` entries of one choice's deltas, in any of the dialects seen: index missing, reused or not from
0; id missing, empty or repeated; name late or repeated; whole calls in one chunk. Out: `ToolCallDelta`s numbered by
call. Never touched: the arguments' JSON, which is whole only at the end of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import ResponseError
from ..types import ToolCallDelta
from .codec import dumps, join_surrogates, loads, mend

__all__ = ["ToolCallTracker"]

_KNOWN = frozenset({"index", "id", "type", "function"})


class _Call:
    __slots__ = ("arguments", "held", "id", "index", "name", "number")

    def __init__(self, number: int, index: Any) -> None:
        self.number = number
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.held = ""  # a high surrogate whose other half is in the next delta

    def add(self, arguments: str) -> str:
        """Take a piece of the arguments; return what of it, and of the piece before, can be told."""
        text, self.held = self.held + arguments, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.held = text[:-1], text[-1]
        text = join_surrogates(text)
        if text:
            self.arguments.append(text)
        return text

    def whole(self) -> bool:
        """Whether its arguments read as whole JSON: only then can an anonymous delta begin a new call."""
        try:
            loads("".join(self.arguments).encode())
        except ValueError:
            return False
        return True


class ToolCallTracker:
    """Numbers the calls of one choice; ids decide before indexes, indexes before order."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def delta(self, raw: Any, choice: int) -> ToolCallDelta | None:
        """One entry of `tool_calls`; None for what carries nothing.

        Raises:
            ResponseError: The arguments are a value that JSON has no form for.
        """
        if not isinstance(raw, dict):
            return None
        function = raw.get("function")
        if not isinstance(function, dict):
            function = {}
        id_, name = _text(raw.get("id")), _text(function.get("name"))
        arguments = _arguments(function.get("arguments"))
        extra = mend({key: value for key, value in raw.items() if key not in _KNOWN}) or None
        if not (id_ or name or arguments or extra):
            return None
        call = self._find(raw.get("index"), id_, name, arguments)
        new_id, new_name = id_ if not call.id else "", name if not call.name else ""
        call.id, call.name = call.id or id_, call.name or name
        return ToolCallDelta(call.number, new_id or None, new_name or None, call.add(arguments), choice, extra)

    def flush(self, choice: int) -> Iterator[ToolCallDelta]:
        """The answer has ended: what waited for its other half."""
        for call in self._calls:
            if call.held:
                yield ToolCallDelta(call.number, arguments=join_surrogates(call.held), index=choice)

    def _find(self, index: Any, id_: str, name: str, arguments: str) -> _Call:
        if not isinstance(index, int | str):
            index = None
        if id_:
            for call in self._calls:
                if call.id == id_:
                    return call
        for call in reversed(self._calls):
            if index is None or call.index == index:
                if (id_ and call.id) or _begins(index, name, arguments, call):
                    break
                return call
        self._calls.append(_Call(len(self._calls), index))
        return self._calls[-1]


def _begins(index: int | str | None, name: str, arguments: str, last: _Call) -> bool:
    """Whether a delta without a new id is a call of its own and not the next piece of the last one."""
    if not name or not last.name:
        return False
    if name != last.name and index is None:
        return True
    return bool(name != last.name or arguments.strip()) and last.whole()


def _text(value: Any) -> str:
    return join_surrogates(value) if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:  # an object where a string belongs (older Ollama)
        return dumps(value).decode()
    except ValueError as error:
        raise ResponseError(f"A tool call's arguments cannot be read as JSON: {error}") from None

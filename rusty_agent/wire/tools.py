"""Tool-call deltas → which call each belongs to.

In: the `tool_calls` entries of one choice's deltas, in any of the dialects seen: index missing, reused or not from
0; id missing, empty or repeated; name late or repeated; whole calls in one chunk. Out: `ToolCallDelta`s numbered by
call. Never touched: the arguments' JSON, which is whole only at the end of the stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from ..errors import ResponseError
from ..types import ToolCallDelta
from .codec import dumps, index_of, join_surrogates, loads_strict, mend

__all__ = ["ToolCallTracker"]

_KNOWN = frozenset({"index", "id", "type", "function"})
_KNOWN_CUSTOM = frozenset({"index", "id", "custom", "function"})  # its type is news: there is no other mark of it
_FLAT = frozenset({"name", "arguments"})  # what some have beside the id, and not under `function`
_NO_ID = "null"  # what GLM and Mistral give the later pieces of a call (zed#53605, langchainjs#11373)
_MOST_ID = 2**63
_MAX_NAME = 2**10  # characters from which on a name gets no further piece: adding one copies it
_AGAIN = 4  # arguments that are told once more may be so many times shorter, without blanks
_MARKS = r'\\(?s:.)|["{}\[\]]'


class _Call:
    __slots__ = (
        *("_depth", "_escape", "_in_string", "_length", "_read", "_seen"),
        *("cumulative", "held", "id", "index", "name", "number", "pieces"),
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.index: int | str | None = None
        self.id = ""
        self.name = ""
        self.held = ""  # a high surrogate whose other half is in the next delta
        self.pieces: list[str] = []  # of its arguments
        self.cumulative = False  # each piece tells all of them so far
        self._length = 0
        self._read = 0  # the pieces that `whole` has looked at: most calls are never asked
        self._escape = ""  # a backslash at their end
        self._depth = 0
        self._in_string = self._seen = False

    def add(self, arguments: str, free: bool = False) -> str:
        """Take a piece of the arguments, or of free text; return what can be told of it and of what was held back."""
        if 0 < self._length <= _AGAIN * len(arguments) and not free:
            arguments = self._new_of(arguments)
        text, self.held = self.held + arguments, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.held = text[:-1], text[-1]
        text = join_surrogates(text)
        if text:
            self.pieces.append(text)
            self._length += len(text)
        return text

    def _new_of(self, arguments: str) -> str:
        """What is new in a piece that may tell all of the arguments so far (Qianfan: hermes-agent#35718).

        Or all of them once more at the end (opencodex#361), perhaps with other blanks (elizaOS#16973), or in a string
        (litellm#20480). A mere next piece never begins with all that came before, as that would be no JSON; but it may
        where a value begins: `{"and":[1,` within `{"and":[1,`.
        """
        told = "".join(self.pieces)
        if self.whole() and _are_equal(told, arguments):
            return ""
        if not arguments.startswith(told):
            return arguments
        before = ":[," if "[" in told else ":"  # a value
        if len(arguments) > len(told) and told[0] == "{" and (self._in_string or told.rstrip()[-1] not in before):
            self.cumulative = True
        return arguments[len(told) :] if self.cumulative else arguments

    def grow(self, name: str) -> str:
        """Take a name, whole or a piece; return what is new of it.

        Some servers repeat the name, and some send it in pieces (Gemini: continuedev/continue#5849).
        """
        if not name or name == self.name or (self.name and (self.pieces or len(self.name) > _MAX_NAME)):
            return ""
        new = name.removeprefix(self.name)
        self.name += new
        return new

    def whole(self) -> bool:
        """Whether its arguments look like whole JSON: only then can an anonymous delta begin a new call.

        Every piece is read once, however often this is asked; all that counts is that what was opened is closed.
        """
        text = self._escape + "".join(self.pieces[self._read :])
        self._read = len(self.pieces)
        escapes = len(text) - len(text.rstrip("\\"))
        rest = escapes % 2  # a last backslash belongs to the character that is to come
        self._escape = "\\" * rest
        for mark in re.findall(_MARKS, text[: len(text) - rest]):
            if mark == '"':
                self._in_string = not self._in_string
                self._seen = True
            elif not self._in_string and mark in "{}[]":
                self._depth += 1 if mark in "{[" else -1
                self._seen = True
        return self._seen and not self._in_string and self._depth <= 0


class ToolCallTracker:
    """Numbers the calls of one choice; ids decide before indexes, indexes before order.

    But an id counts only where the indexes do not contradict it (DeepSeek, GLM: one id for all calls), and without a
    name nothing begins where there is a call to go on with (poolside: a new id with each delta).
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._named = False  # whether the last delta told a name
        # The last call seen with an id, at an index, and with both.
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int | str, _Call] = {}
        self._by_both: dict[tuple[str, int | str], _Call] = {}

    def delta(self, raw: Any, choice: int, *, whole: bool = False) -> ToolCallDelta | None:
        """One entry of `tool_calls`; None for what carries nothing.

        Args:
            raw: The entry.
            choice: The index of the choice in which it stands.
            whole: It is a whole call, whatever its id and index say.

        Raises:
            ResponseError: The arguments are a value that JSON has no form for.
        """
        if not isinstance(raw, dict):
            return None
        function, custom, known = raw.get("function"), raw.get("custom"), _KNOWN
        if custom and isinstance(custom, dict) and not function:  # OpenAI's tools whose input is free text
            function, known = {"name": custom.get("name"), "arguments": custom.get("input")}, _KNOWN_CUSTOM
        if not isinstance(function, dict):
            function, known = ({}, known) if _FLAT.isdisjoint(raw) else (raw, _KNOWN | _FLAT)
        id_, name = _id(raw.get("id")), _text(function.get("name"))
        if id_ == _NO_ID:
            id_ = ""
        arguments = _arguments(function.get("arguments", function.get("parameters")))  # the latter: Llama's word
        extra = None
        if not raw.keys() <= known:
            extra = mend({key: value for key, value in raw.items() if key not in known})
        if not (id_ or name or arguments or extra):
            return None
        index = _index(raw.get("index"))
        call = None if whole else self._find(index, id_, name)
        if call is None or _begins(index, id_, name, arguments, call):
            call = _Call(len(self._calls))
            self._calls.append(call)
        self._named = bool(name)
        new_id = id_ if not call.id else ""
        new_name = call.grow(name) if not (call.name and id_) else ""
        self._note(call, index, id_)
        told = call.add(arguments, free=known is _KNOWN_CUSTOM)
        return ToolCallDelta(call.number, new_id or None, new_name or None, told, choice, extra)

    def more_of(self, piece: ToolCallDelta) -> Callable[[str], ToolCallDelta] | None:
        """What makes deltas of further arguments, where the last delta held nothing else; None where it did.

        A name that is told each time begins a call once the last one is whole, and may come with all of it once more.
        """
        if self._named or piece.id or piece.extra or not piece.arguments:
            return None
        number, choice, add = piece.call, piece.index, self._calls[piece.call].add
        return lambda text: ToolCallDelta(number, None, None, add(text), choice)

    def flush(self, choice: int) -> Iterator[ToolCallDelta]:
        """The answer has ended: what waited for its other half."""
        for call in self._calls:
            if call.held:
                held, call.held = call.held, ""
                yield ToolCallDelta(call.number, arguments=join_surrogates(held), index=choice)

    def _find(self, index: int | str | None, id_: str, name: str) -> _Call | None:
        """The call that a delta with these may go on with."""
        call = None
        if id_:
            call = self._by_id.get(id_)
            if call is not None and index is not None:
                call = self._by_both.get((id_, index)) or (call if call.index is None or not name else None)
        if call is None and index is not None:
            call = self._by_index.get(index)
        if call is None and self._calls:
            last = self._calls[-1]
            nameless = not (id_ or name) and last.name and not last.whole()  # a wrong index (Nebius: pipecat#4688)
            if index is None or last.index is None or nameless:
                call = last
        return call

    def _note(self, call: _Call, index: int | str | None, id_: str) -> None:
        """Remember what a delta said of its call; the first of each counts."""
        call.id = call.id or id_
        if call.index is None:
            call.index = index
        if id_:
            self._by_id[id_] = call
        if index is not None:
            self._by_index[index] = call
            if id_:
                self._by_both[id_, index] = call


def _begins(index: int | str | None, id_: str, name: str, arguments: str, last: _Call) -> bool:
    """Whether a delta is a call of its own and not the next piece of the last one."""
    if id_ and last.id and id_ != last.id:
        return bool(name) or not last.name
    if not name or not last.name:
        return False
    agree = index is not None and index == last.index
    if agree and id_ and id_ == last.id:
        return False
    if name != last.name and not agree:
        return True
    return bool(name != last.name or arguments.strip()) and last.whole()


def _are_equal(one: str, other: str) -> bool:
    """Whether two texts are the same JSON, be the other one in a string."""
    if one == other:
        return True
    with suppress(ValueError, RecursionError):  # the latter of comparing what is nested too deeply
        value, again = loads_strict(one.encode()), loads_strict(other.encode())
        return bool(value == again or (isinstance(again, str) and value == loads_strict(again.encode())))
    return False


def _index(value: Any) -> int | str | None:
    number = index_of(value)
    return value if number is None and isinstance(value, str) else number


def _id(value: Any) -> str:
    return str(value) if type(value) is int and 0 <= value < _MOST_ID else _text(value)


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

"""Finds the call that each tool-call delta belongs to.

In: the `tool_calls` entries of one choice's deltas, in any of the dialects seen: index missing, reused or not starting
at 0; id missing, empty or repeated; name late or repeated; whole calls in one chunk. Out: `ToolCallDelta`s numbered by
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
_KNOWN_CUSTOM = frozenset({"index", "id", "custom", "function"})  # `type` is kept as extra: nothing else marks it
_FLAT = frozenset({"name", "arguments"})  # some servers put these beside the id, not under `function`
_NO_ID = "null"  # the id that GLM and Mistral give the later pieces of a call (zed#53605, langchainjs#11373)
_MOST_ID = 2**63
_MAX_NAME = 2**10  # a name longer than this gets no further piece: each addition copies it
_AGAIN = 4  # repeated arguments may be this many times shorter, as their blanks may be gone
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
        self.cumulative = False  # each piece repeats all arguments so far
        self._length = 0
        self._read = 0  # how many pieces `whole` has read: for most calls it is never called
        self._escape = ""  # a backslash at the end of these
        self._depth = 0
        self._in_string = self._seen = False

    def add(self, arguments: str, free: bool = False) -> str:
        """Take a piece of the arguments, or of free text; return its new text, after what was held back before."""
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
        """The new part of a piece that may repeat all of the arguments so far (Qianfan: hermes-agent#35718).

        Or it repeats them all at the end (opencodex#361), perhaps with other blanks (elizaOS#16973), or in a string
        (litellm#20480). An ordinary piece never begins with all that came before, as that would not be JSON, except
        where a value begins: `{"and":[1,` within `{"and":[1,`.
        """
        told = "".join(self.pieces)
        if self.whole() and _are_equal(told, arguments):
            return ""
        if not arguments.startswith(told):
            return arguments
        before = ":[," if "[" in told else ":"  # characters that a value may follow
        if len(arguments) > len(told) and told[0] == "{" and (self._in_string or told.rstrip()[-1] not in before):
            self.cumulative = True
        return arguments[len(told) :] if self.cumulative else arguments

    def grow(self, name: str) -> str:
        """Take a name, or a piece of one; return its new part.

        Some servers repeat the name, and some send it in pieces (Gemini: continuedev/continue#5849).
        """
        if not name or name == self.name or (self.name and (self.pieces or len(self.name) > _MAX_NAME)):
            return ""
        new = name.removeprefix(self.name)
        self.name += new
        return new

    def whole(self) -> bool:
        """Whether its arguments look like whole JSON: only then can an anonymous delta begin a new call.

        Each piece is read once, however often this is called. It only checks that every bracket and string is closed.
        """
        text = self._escape + "".join(self.pieces[self._read :])
        self._read = len(self.pieces)
        escapes = len(text) - len(text.rstrip("\\"))
        rest = escapes % 2  # a last backslash escapes the next character, still to come
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
    """Numbers the calls of one choice; ids take precedence over indexes, indexes over order.

    But an id counts only if the indexes do not contradict it (DeepSeek, GLM: one id for all calls), and a delta without
    a name begins no call if there is one to continue (poolside: a new id with each delta).
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._named = False  # whether the last delta held a name
        # The last call seen with each id, with each index, and with both.
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int | str, _Call] = {}
        self._by_both: dict[tuple[str, int | str], _Call] = {}

    def delta(self, raw: Any, choice: int, *, whole: bool = False) -> ToolCallDelta | None:
        """Decode one entry of `tool_calls`; None if it holds nothing.

        Args:
            raw: The entry.
            choice: The index of its choice.
            whole: It is a whole call, whatever its id and index say.

        Raises:
            ResponseError: The arguments are a value that JSON cannot represent.
        """
        if not isinstance(raw, dict):
            return None
        function, custom, known = raw.get("function"), raw.get("custom"), _KNOWN
        if custom and isinstance(custom, dict) and not function:  # OpenAI's custom tools, whose input is free text
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
        """A function that makes deltas of further arguments; None if the last delta held anything else.

        For instance a name: a repeated one begins a new call once the last is whole, or comes with all arguments again.
        """
        if self._named or piece.id or piece.extra or not piece.arguments:
            return None
        number, choice, add = piece.call, piece.index, self._calls[piece.call].add
        return lambda text: ToolCallDelta(number, None, None, add(text), choice)

    def flush(self, choice: int) -> Iterator[ToolCallDelta]:
        """The surrogates that waited for their other half when the answer ended."""
        for call in self._calls:
            if call.held:
                held, call.held = call.held, ""
                yield ToolCallDelta(call.number, arguments=join_surrogates(held), index=choice)

    def _find(self, index: int | str | None, id_: str, name: str) -> _Call | None:
        """The call that a delta with this index, id and name may continue."""
        call = None
        if id_:
            call = self._by_id.get(id_)
            if call is not None and index is not None:
                call = self._by_both.get((id_, index)) or (call if call.index is None or not name else None)
        if call is None and index is not None:
            call = self._by_index.get(index)
        if call is None and self._calls:
            last = self._calls[-1]
            nameless = not (id_ or name) and last.name and not last.whole()  # its index is wrong (Nebius: pipecat#4688)
            if index is None or last.index is None or nameless:
                call = last
        return call

    def _note(self, call: _Call, index: int | str | None, id_: str) -> None:
        """Remember what a delta said about its call; a call keeps its first id and index."""
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
    """Whether a delta begins a call of its own, rather than continuing the last one."""
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
    """Whether two texts are the same JSON, even if `other` is encoded once more, as a string."""
    if one == other:
        return True
    with suppress(ValueError, RecursionError):  # the latter from comparing values that are nested too deeply
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

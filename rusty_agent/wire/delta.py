"""One choice's delta → typed deltas: text, reasoning, refusals, tool calls.

In: the value of `delta` or `message`, and the choice's index. Out: deltas. Never touched: the rest of the chunk, how a
choice ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from ..types import RefusalDelta, StreamEvent, TextDelta, ToolCallDelta
from .codec import as_text, join_surrogates
from .parts import REASONING_KEYS, Piece, content_pieces, reasoning_pieces
from .tools import ToolCallTracker

__all__ = ["MEDIA_KEYS", "Delta", "DeltaDecoder", "has_news", "is_tool_result"]

Delta: TypeAlias = str | StreamEvent
"""A bare `str` is text of the first choice."""

MEDIA_KEYS = frozenset({"audio", "images"})
"""Content of OpenAI and OpenRouter that only `RawChunk` events carry."""

_KNOWN = REASONING_KEYS | {"role", "content", "refusal", "name", "tool_calls", "function_call"}
_ROLE = frozenset({"role"})


class DeltaDecoder:
    """Decodes the deltas of one answer.

    Attributes:
        held: High surrogates that wait for their other half in the next delta, by kind of delta and choice index.
        told: The text of each choice according to the last summary; None if it came in pieces.
        whole: The answer is one JSON object, not a stream: each entry of its `tool_calls` is a whole call.
    """

    __slots__ = ("_tools", "held", "told", "whole")

    def __init__(self) -> None:
        self._tools: dict[int, ToolCallTracker] = {}
        self.held: dict[tuple[type, int], str] = {}
        self.told: dict[int, str | None] = {}
        self.whole = False

    def decode(self, delta: Any, index: int, out: list[Delta]) -> bool:
        """Decode a delta or a message; True if it holds something that no event carries."""
        if isinstance(delta, str):
            delta = {"content": delta}
        if not isinstance(delta, dict):
            return True
        unknown = has_news(delta, _KNOWN)
        if not REASONING_KEYS.isdisjoint(delta):
            unknown |= self._emit_all(reasoning_pieces(delta), index, out)
        content = delta.get("content")
        if content and not self.whole and is_tool_result(delta):
            unknown, content = True, None
        if content or not has_news(delta, _ROLE):  # 0 and false are text if nothing else is in the delta
            content = as_text(content)
        if content and not isinstance(content, str):
            unknown |= self._emit_all(content_pieces(content), index, out)
        else:
            self.emit(TextDelta, content, index, out)
        if content:
            self.told[index] = None
        unknown |= self.emit(RefusalDelta, delta.get("refusal"), index, out)
        calls = delta.get("tool_calls")
        if not calls and (calls := delta.get("function_call")) and isinstance(calls, dict):
            calls = {"index": 0, "function": calls}  # OpenAI's older form; llama-cpp-python sends both
        if calls:
            tracker = self._tools.setdefault(index, ToolCallTracker())
            for raw in calls if isinstance(calls, list) else [calls]:
                call = tracker.delta(raw, index, whole=self.whole)
                if call is not None:
                    out.append(call)
                else:
                    unknown |= bool(raw) and not isinstance(raw, dict)
        return unknown

    def more_of(self, piece: ToolCallDelta) -> Callable[[str], Delta] | None:
        """See `ToolCallTracker.more_of`."""
        return self._tools[piece.index].more_of(piece)

    def summary(self, message: Any, index: int, out: list[Delta], *, begun: bool) -> bool:
        """Decode a message that repeats all that has come so far, and perhaps more: only what is new counts.

        `begun` says whether anything has come in deltas.
        """
        if not isinstance(message, dict):
            message = {"content": message}
        begun |= self.told.get(index) is not None
        text, told = message.get("content"), self.told.get(index, "")
        left_out = set()
        if told is None:  # the text has already come in pieces
            left_out.add("content")
        elif isinstance(text, str):
            told, message = text, {**message, "content": text.removeprefix(told) if text.startswith(told) else ""}
        if begun:
            left_out |= message.keys() - {"content", "tool_calls"}
        if index in self._tools:
            left_out |= {"tool_calls", "function_call"}
        unknown = self.decode({name: item for name, item in message.items() if name not in left_out}, index, out)
        if isinstance(text, str):
            self.told[index] = told  # a summary is no piece
        return unknown

    def flush(self, out: list[Delta]) -> None:
        """Take the end of the answer: hand out the surrogates that waited for their other half."""
        for kind, index in list(self.held):
            self.emit(kind, "", index, out, last=True)
        for index, tracker in self._tools.items():
            out.extend(tracker.flush(index))

    def _emit_all(self, pieces: Iterable[Piece], index: int, out: list[Delta]) -> bool:
        unknown = False
        for kind, text in pieces:
            if kind is None:
                unknown = True
            else:
                self.emit(kind, text, index, out)
        return unknown

    def emit(self, kind: type, text: Any, index: int, out: list[Delta], *, last: bool = False) -> bool:
        """Append a delta if `text` is a string; True if it is something else."""
        if not isinstance(text, str):
            return bool(text)
        if not (text or last):
            return False
        key = (kind, index)
        text = self.held.pop(key, "") + text
        if "\ud800" <= text[-1] <= "\udbff" and not last:
            self.held[key], text = text[-1], text[:-1]
            if not text:
                return False
        text = join_surrogates(text)
        out.append(text if kind is TextDelta and index == 0 else kind(text, index))
        return False


def is_tool_result(delta: Any) -> bool:
    """Whether a delta of a stream brings the result of a tool that the server has run."""
    return isinstance(delta, dict) and delta.get("role") == "tool"


def has_news(value: dict[str, Any], known: frozenset[str]) -> bool:
    """Whether any field that is not in `known` holds anything."""
    return not value.keys() <= known and any(map(value.get, value.keys() - known))

"""Deltas → the whole answer.

In: deltas in order of arrival. Out: what they add up to so far: text, reasoning, tool calls, usage. Never touched:
bytes, time.
Cost is linear in the number of deltas: text is joined only when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import StringIO

from ..types import ReasoningDelta, RefusalDelta, ToolCall, ToolCallDelta, Usage, UsageUpdate
from .delta import Delta

__all__ = ["Assembler"]

_PIECES = (ReasoningDelta, RefusalDelta, ToolCallDelta)  # made once: `|` would make a new type at each check


class _Call:
    __slots__ = ("arguments", "extra", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = StringIO()
        self.extra: dict[str, object] = {}


class _More:
    """The parts that only some answers have."""

    __slots__ = ("calls", "reasoning", "refusal")

    def __init__(self) -> None:
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, _Call] = {}

    def add(self, delta: ReasoningDelta | RefusalDelta | ToolCallDelta) -> None:
        if isinstance(delta, ReasoningDelta):
            self.reasoning.append(delta.text)
        elif isinstance(delta, RefusalDelta):
            self.refusal.append(delta.text)
        else:
            call = self.calls.get(delta.call)
            if call is None:
                call = self.calls[delta.call] = _Call()
            call.id = call.id or delta.id or ""
            call.name += delta.name or ""
            call.arguments.write(delta.arguments)
            if delta.extra:
                call.extra.update(delta.extra)


class Assembler:
    """Collects the first choice's deltas.

    Attributes:
        usage: The last token counts, or None.
        pieces: The text of the first choice. Writing a single piece to it does the same as `add`, but faster.
    """

    def __init__(self) -> None:
        self.pieces = StringIO()
        self._more: _More | None = None
        self.usage: Usage | None = None

    def add(self, deltas: Iterable[Delta]) -> None:
        """Take the next deltas."""
        write = self.pieces.write
        for delta in deltas:
            if type(delta) is str:
                write(delta)
            elif isinstance(delta, UsageUpdate):
                self.usage = delta.usage
            elif isinstance(delta, _PIECES) and delta.index == 0:
                if self._more is None:
                    self._more = _More()
                self._more.add(delta)

    @property
    def text(self) -> str:
        """The text so far."""
        return self.pieces.getvalue()

    @property
    def reasoning(self) -> str | None:
        """The reasoning so far, or None if there was none."""
        return None if self._more is None else "".join(self._more.reasoning) or None

    @property
    def refusal(self) -> str | None:
        """The refusal so far, or None if there was none."""
        return None if self._more is None else "".join(self._more.refusal) or None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far, in order of appearance; if the endpoint left out an id, one is made up."""
        if self._more is None:
            return []
        return [
            ToolCall(call.id or f"call_{number}", call.name, _arguments(call.arguments.getvalue()), call.extra)
            for number, call in sorted(self._more.calls.items())
        ]


def _arguments(text: str) -> str:
    """Drop a leading `null`, or the `{}` that Bedrock and gateways to Anthropic put first (litellm#4537)."""
    return re.sub(r"^(\{\}|null)(?=\{)", "", text)

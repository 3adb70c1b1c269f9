"""Deltas → the whole answer.

In: deltas in order of arrival. Out: what they come to so far: text, reasoning, tool calls, usage. Never touched:
bytes, time.
Cost is linear in the number of deltas: text is joined when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import StringIO

from ..types import ReasoningDelta, RefusalDelta, ToolCall, ToolCallDelta, Usage, UsageUpdate
from .delta import Delta

__all__ = ["Assembler"]

_PIECES = (ReasoningDelta, RefusalDelta, ToolCallDelta)  # made once: `|` makes a type each time it is asked for


class _Call:
    __slots__ = ("arguments", "extra", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = StringIO()
        self.extra: dict[str, object] = {}


class _More:
    """What only some answers hold."""

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
        pieces: Takes text of the first choice: to write a single piece there is as good as `add`, and quicker.
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
        """The reasoning so far, or None where there was none."""
        return None if self._more is None else "".join(self._more.reasoning) or None

    @property
    def refusal(self) -> str | None:
        """The refusal so far, or None where there was none."""
        return None if self._more is None else "".join(self._more.refusal) or None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far, in order of appearance; an id that the endpoint left out is made up."""
        if self._more is None:
            return []
        return [
            ToolCall(call.id or f"call_{number}", call.name, _arguments(call.arguments.getvalue()), call.extra)
            for number, call in sorted(self._more.calls.items())
        ]


def _arguments(text: str) -> str:
    """Without the `{}` that Bedrock, or a gateway to Anthropic, puts first of all (litellm#4537), or a `null`."""
    return re.sub(r"^(\{\}|null)(?=\{)", "", text)

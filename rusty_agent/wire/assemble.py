"""Deltas → the whole answer.

In: deltas in order of arrival. Out: a `GenerateResult`, or what there is of it. Never touched: bytes, time.
Cost is linear in the number of deltas: text is joined when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from ..types import ReasoningDelta, RefusalDelta, ToolCall, ToolCallDelta, Usage, UsageUpdate
from .chunks import Delta

__all__ = ["Assembler"]


class _Call:
    __slots__ = ("arguments", "extra", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = StringIO()
        self.extra: dict[str, object] = {}


class Assembler:
    """Collects the first choice's deltas.

    Attributes:
        usage: The last token counts, or None.
    """

    def __init__(self) -> None:
        self._text = StringIO()
        self.write = self._text.write  # takes text of the first choice: `add` for a single piece
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, _Call] = {}
        self.usage: Usage | None = None

    def add(self, deltas: Iterable[Delta]) -> None:
        """Take the next deltas."""
        write = self.write
        for delta in deltas:
            if type(delta) is str:
                write(delta)
            elif isinstance(delta, UsageUpdate):
                self.usage = delta.usage
            elif isinstance(delta, ReasoningDelta) and delta.index == 0:
                self._reasoning.append(delta.text)
            elif isinstance(delta, ToolCallDelta) and delta.index == 0:
                self._add_call(delta)
            elif isinstance(delta, RefusalDelta) and delta.index == 0:
                self._refusal.append(delta.text)

    def _add_call(self, delta: ToolCallDelta) -> None:
        call = self._calls.setdefault(delta.call, _Call())
        call.id = call.id or delta.id or ""
        call.name = call.name or delta.name or ""
        call.arguments.write(delta.arguments)
        if delta.extra:
            call.extra.update(delta.extra)

    @property
    def text(self) -> str:
        """The text so far."""
        return self._text.getvalue()

    @property
    def reasoning(self) -> str | None:
        """The reasoning so far, or None where there was none."""
        return "".join(self._reasoning) or None

    @property
    def refusal(self) -> str | None:
        """The refusal so far, or None where there was none."""
        return "".join(self._refusal) or None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far, in order of appearance; an id that the endpoint left out is made up."""
        if not self._calls:
            return []
        return [
            ToolCall(call.id or f"call_{number}", call.name, call.arguments.getvalue(), call.extra)
            for number, call in sorted(self._calls.items())
        ]

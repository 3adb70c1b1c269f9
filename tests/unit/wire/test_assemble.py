"""Deltas → the whole: the first choice's only."""

from __future__ import annotations

from rusty_agent.types import (
    Finish,
    RawChunk,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from rusty_agent.wire.assemble import Assembler


def test_nothing_arrived_is_no_text_and_no_reasoning() -> None:
    whole = Assembler()
    assert (whole.text, whole.reasoning, whole.refusal, whole.tool_calls, whole.usage) == ("", None, None, [], None)


def test_the_first_choice_only() -> None:
    whole = Assembler()
    whole.add(["a", TextDelta("x", 1), ReasoningDelta("r"), ReasoningDelta("x", 1)])
    whole.add(
        [RefusalDelta("n"), RefusalDelta("x", 1), ToolCallDelta(0, "i", "f", "{}"), ToolCallDelta(0, "x", index=1)]
    )
    whole.add(["b", ReasoningDelta("s"), RefusalDelta("o"), RawChunk({"x": 1}), Finish("stop")])
    assert (whole.text, whole.reasoning, whole.refusal) == ("ab", "rs", "no")
    assert whole.tool_calls == [ToolCall("i", "f", "{}")]


def test_the_last_usage_counts() -> None:
    whole = Assembler()
    whole.add([UsageUpdate(Usage(1, 1, 2)), UsageUpdate(Usage(5, 5, 10))])
    assert whole.usage == Usage(5, 5, 10)


def test_calls_in_order_of_appearance_with_made_up_ids() -> None:
    whole = Assembler()
    whole.add([ToolCallDelta(1, None, "g", "["), ToolCallDelta(0, "i", "f", "{", extra={"a": 1, "b": 1})])
    whole.add([ToolCallDelta(0, "late", "oo", "}", extra={"b": 2}), ToolCallDelta(1, arguments="]")])
    assert whole.tool_calls == [ToolCall("i", "foo", "{}", {"a": 1, "b": 2}), ToolCall("call_1", "g", "[]")]

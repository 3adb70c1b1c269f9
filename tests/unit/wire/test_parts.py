"""Content and reasoning in each of the forms that endpoints give them, told by chunks that hold them."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.types import RawChunk, ReasoningDelta, RefusalDelta, TextDelta
from rusty_agent.wire.chunks import Delta
from tests.replies import chunk

from .decoding import choice_of, decode


@pytest.mark.parametrize("name", ["thinking", "reasoning"])
def test_a_flag_is_no_reasoning(name: str) -> None:
    for flag in (True, False):
        for delta in ({"content": "a"}, {"content": ""}, {"content": "b", "audio": {"id": "c"}}):
            out = decode(choice_of(delta={**delta, name: flag}))[0]
            assert not any(isinstance(told, ReasoningDelta) for told in out)


PARTS = {
    "text": ([{"type": "text", "text": "a"}], ["a"]),
    "strings": (["a", {"text": "b"}], ["a", "b"]),
    "thinking": ([{"type": "thinking", "thinking": "hm"}], [ReasoningDelta("hm")]),
    "thinking-parts": (
        [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}, "m"]}],
        [ReasoningDelta("h"), ReasoningDelta("m")],
    ),
    "reasoning-summary": (
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, {"type": "text", "text": "a"}],
        [ReasoningDelta("hm"), "a"],
    ),
    "refusal": ([{"type": "refusal", "refusal": "no"}], [RefusalDelta("no")]),
    "object": ({"type": "text", "text": "a"}, ["a"]),
    "empty-parts": ([None, [], {}, "", {"text": ""}, {"type": "thinking", "thinking": [None, ""]}], []),
    "empty": ([], []),
}


@pytest.mark.parametrize(("content", "deltas"), PARTS.values(), ids=PARTS)
def test_content_in_parts(content: Any, deltas: list[Delta]) -> None:
    assert decode(chunk(content))[0] == deltas
    assert decode(chunk("x"), chunk(content), chunk("y"))[0] == ["x", *deltas, "y"]


def test_content_nested_without_end_is_no_recursion() -> None:
    content: Any = "deep"
    for _ in range(300):
        content = [{"thinking": content}]
    assert [type(delta) for delta in decode(chunk(content))[0]] == [RawChunk]


REASONINGS = {
    "reasoning_content": ({"reasoning_content": "a"}, ["a"]),
    "reasoning": ({"reasoning": "a"}, ["a"]),
    "thinking": ({"thinking": "a"}, ["a"]),
    "reasoning_text": ({"reasoning_text": "a"}, ["a"]),
    "reasoning_details": ({"reasoning_details": [{"text": "a"}, {"summary": "b"}, {}, None]}, ["a", "b"]),
    "details-with-all-fields": (
        {"reasoning_details": [{"text": None, "summary": "b"}, {"text": "", "signature": None}]},
        ["b"],
    ),
    "object-content": ({"reasoning": {"content": "a"}}, ["a"]),
    "number": ({"reasoning_content": 6}, ["6"]),
    "zero": ({"content": "", "reasoning": 0}, ["0"]),
    "object-text": ({"reasoning": {"text": "a"}}, ["a"]),
    "two-spellings": ({"reasoning_content": "a", "reasoning": "a"}, ["a"]),
    "details-beside-text": ({"reasoning": "a", "reasoning_details": [{"text": "a"}]}, ["a"]),
    "first-is-empty": ({"reasoning_content": "", "reasoning": "a"}, ["a"]),
    "null": ({"reasoning_content": None, "reasoning": None, "reasoning_details": None}, []),
    "empty": ({"reasoning": {}, "thinking": [], "reasoning_details": ""}, []),
}


@pytest.mark.parametrize(("delta", "texts"), REASONINGS.values(), ids=REASONINGS)
def test_reasoning(delta: dict[str, Any], texts: list[str]) -> None:
    assert decode(choice_of(delta=delta))[0] == [ReasoningDelta(text) for text in texts]
    spoken = decode({"choices": [{"index": 3, "delta": {**delta, "content": "x"}}]}, expected=4)[0]
    assert spoken == [*(ReasoningDelta(text, 3) for text in texts), TextDelta("x", 3)]

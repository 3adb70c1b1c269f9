"""One choice's delta → typed deltas: what is text, what was told already, what waits for its other half."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.types import RawChunk, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from rusty_agent.wire.chunks import Delta
from rusty_agent.wire.delta import has_news
from tests.replies import chunk

from .decoding import choice_of, decode


@pytest.mark.parametrize("no_text", [False, 0])
@pytest.mark.parametrize("name", ["delta", "message"])
def test_false_beside_something_else_is_no_text(no_text: Any, name: str) -> None:
    calls = [{"index": 0, "function": {"name": "w", "arguments": "{}"}}]
    (call,) = decode(choice_of(**{name: {"role": "assistant", "content": no_text, "tool_calls": calls}}))[0]
    assert isinstance(call, ToolCallDelta)


@pytest.mark.parametrize("empty", [{"delta": {}}, {"delta": None}, {}], ids=repr)
def test_a_message_after_deltas_is_no_news(empty: dict[str, Any]) -> None:
    whole = choice_of(**empty, message={"role": "assistant", "content": "ab"}, finish_reason="stop")
    out, decoder = decode(chunk("a"), chunk("b"), whole)
    assert (out, decoder.reasons) == (["a", "b"], {0: "stop"})
    call = {"index": 0, "id": "i", "function": {"name": "f", "arguments": "{}"}}
    again = choice_of(**empty, message={"content": None, "tool_calls": [call]}, finish_reason="tool_calls")
    assert decode(chunk(tool_calls=[call]), again)[0] == [ToolCallDelta(0, "i", "f", "{}")]
    assert decode(chunk(role="assistant"), whole)[0] == ["ab"]


def test_messages_may_be_the_pieces() -> None:
    assert decode(*(choice_of(message={"content": text}) for text in "abc"))[0] == ["a", "b", "c"]
    assert decode(*(choice_of(message={"content": text}) for text in ("a\ud83d", "\ude00b")))[0] == ["a", "😀b"]


def test_of_a_message_that_is_told_once_more_only_new_text_counts() -> None:
    told = (choice_of(delta={}, message={"content": text, "reasoning_content": "r"}) for text in ("a", "ab", "c"))
    assert decode(*told)[0] == [ReasoningDelta("r"), "a", "b"]


@pytest.mark.parametrize(("call", "is_news"), [(None, False), ({"index": 0}, False), (5, True)], ids=repr)
def test_entries_that_are_no_calls(call: Any, is_news: bool) -> None:
    item = choice_of(delta={"content": "a", "tool_calls": [call]})
    assert decode(item)[0] == ["a", *[RawChunk(item)] * is_news]


@pytest.mark.parametrize("result", ["18 degrees", [{"type": "text", "text": "18"}], 18], ids=repr)
@pytest.mark.parametrize("more", [{}, {"tool_call_id": "i", "name": "w"}], ids=["bare", "named"])
def test_what_a_tool_has_answered_is_no_text_of_the_model(result: Any, more: dict[str, Any]) -> None:
    """Agents that run their tools themselves stream it in the choice of the answer, as Osaurus documents it."""
    told = choice_of(delta={"role": "tool", "content": result, **more})
    out = decode(chunk(role="assistant"), chunk("a"), told, told, chunk("b"))[0]
    assert out == ["a", RawChunk(told), RawChunk(told), "b"]


def test_a_role_alone_says_nothing_of_the_text_behind_it() -> None:
    """vLLM repeats that of the last message where no generation prompt is wanted."""
    assert decode(choice_of(delta={"role": "tool", "content": ""}), chunk("a"))[0] == ["a"]


@pytest.mark.parametrize(
    ("choice", "deltas"),
    [
        ({"delta": {"content": {"a": 1}}}, []),
        ({"delta": {"content": [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "a"}]}}, ["a"]),
        ({"delta": {"content": [4, "a"]}}, ["a"]),
        ({"delta": {"content": [{"thinking": [{"text": 4}, "h"]}]}}, [ReasoningDelta("h")]),
        ({"delta": {"reasoning_details": [{"type": "reasoning.encrypted", "data": "z"}]}}, []),
        (
            {"delta": {"reasoning": "r", "reasoning_details": [{"text": "r"}, {"signature": "s"}]}},
            [ReasoningDelta("r")],
        ),
        (
            {"delta": {"reasoning": "r", "reasoning_details": [{"text": "r", "signature": "s"}]}},
            [ReasoningDelta("r")],
        ),
        ({"delta": {"reasoning_details": [{"text": "r", "signature": "s"}]}}, [ReasoningDelta("r")]),
        ({"delta": {"content": [{"type": "reasoning", "summary": [{"text": "", "signature": "s"}]}]}}, []),
        (
            {"delta": {"content": [{"type": "thinking", "thinking": [{"text": "h"}], "signature": "s"}]}},
            [ReasoningDelta("h")],
        ),
        ({"delta": {"content": [{"type": "thinking", "thinking": "h", "signature": "s"}]}}, [ReasoningDelta("h")]),
        ({"delta": {"content": [{"type": "text", "text": "391", "thoughtSignature": "s"}]}}, ["391"]),
        ({"delta": {"reasoning": {"id": 4}, "thinking": ["a"], "reasoning_details": "a"}}, []),
        ({"delta": {"refusal": {"why": "x"}}}, []),
        ({"delta": {"tool_calls": "x"}}, []),
        ({"delta": {"tool_calls": [3, None, {}]}}, []),
        ({"delta": {"function_call": "x"}}, []),
        ({"delta": ["x"]}, []),
        ({"text": ["x"]}, []),
        ("x", []),
    ],
    ids=repr,
)
def test_what_is_known_by_name_only_comes_as_a_raw_chunk(choice: Any, deltas: list[Delta]) -> None:
    odd = {"id": "1", "choices": [choice]}
    assert decode(odd)[0] == [*deltas, RawChunk(odd)]
    assert decode(odd, chunk("x"))[0] == [*deltas, RawChunk(odd), "x"]


@pytest.mark.parametrize(
    ("field", "kind"), [("content", TextDelta), ("reasoning_content", ReasoningDelta), ("refusal", RefusalDelta)]
)
@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        (["\ud83d", "\ude00"], ["😀"]),
        (["a\ud83d", "\ude00b"], ["a", "😀b"]),
        (["\ud83d", "", "\ude00"], ["😀"]),
        (["\ud83d", "b"], ["\ufffdb"]),
        (["\ude00", "b"], ["\ufffd", "b"]),
        (["\ud83d", "\ud83d", "\ude00"], ["\ufffd", "😀"]),
        (["a\ud83d"], ["a", "\ufffd"]),
        (["a\ud83dc", "d"], ["a\ufffdc", "d"]),
        (["\ud83d\ude00"], ["😀"]),
    ],
    ids=["pair", "inside", "empty-between", "high-alone", "low-alone", "high-twice", "at-the-end", "middle", "whole"],
)
def test_halves_of_characters(field: str, kind: type, pieces: list[str], texts: list[str]) -> None:
    out, _ = decode(chunk(role="assistant"), *(choice_of(delta={field: piece}) for piece in pieces))
    assert out == [text if kind is TextDelta else kind(text) for text in texts]
    out, _ = decode(*({"choices": [{"index": 1, "delta": {field: piece}}]} for piece in pieces), expected=2)
    assert out == [kind(text, 1) for text in texts]


def test_halves_of_one_choice_do_not_meet_those_of_another() -> None:
    out, _ = decode(chunk("\ud83d"), chunk("\ud83d", index=1), chunk("\ude00", index=1), chunk("\ude00"), expected=2)
    assert out == [TextDelta("😀", 1), "😀"]


def test_a_half_is_not_overtaken_by_plain_text() -> None:
    plain = [chunk("a"), chunk("b"), chunk("c")]
    out, _ = decode(*plain, chunk("\ud83d"), chunk("d"), chunk("e"))
    assert out == ["a", "b", "c", "\ufffdd", "e"]


def test_half_in_tool_arguments_at_the_end() -> None:
    raw = {"index": 0, "id": "a", "function": {"name": "w", "arguments": '"\ud83d'}}
    out, _ = decode({"choices": [{"index": 2, "delta": {"tool_calls": [raw]}}]}, expected=3)
    assert out == [ToolCallDelta(0, "a", "w", '"', 2), ToolCallDelta(0, arguments="\ufffd", index=2)]


@pytest.mark.parametrize(
    ("value", "news"),
    [({"a": 1}, False), ({"a": 1, "b": None, "c": []}, False), ({"b": 1}, True), ({"a": 1, "b": "x"}, True)],
    ids=repr,
)
def test_a_field_that_is_not_known_is_news_where_it_holds_anything(value: dict[str, Any], news: bool) -> None:
    assert has_news(value, frozenset({"a"})) == news

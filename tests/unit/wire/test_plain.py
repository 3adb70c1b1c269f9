"""Which chunks and answers are text and nothing else, and what is told of them."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.types import Usage
from rusty_agent.wire.plain import (
    FAILURES,
    META_KEYS,
    NO_REASONS,
    PADDING_KEYS,
    plain_answer,
    plain_chunk,
)
from tests.replies import chunk

from .decoding import choice_of

NO_CHOICE: list[Any] = [{"choices": []}, {"choices": [{}]}, {"choices": 1}, {}, [], None, "a"]


def test_an_answer_that_names_all_there_is_not_is_plain() -> None:
    """As vLLM's do."""
    message: dict[str, Any] = {"role": "assistant", "content": "Hi", "tool_calls": [], "reasoning": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    assert plain_answer({"choices": [choice], "prompt_logprobs": None}) == ("Hi", "stop")
    for said in ({**message, "tool_calls": [1]}, {**message, "reasoning": "hm"}):
        assert plain_answer({"choices": [{**choice, "message": said}]}) is None
    for other in ({**choice, "index": 1}, {**choice, "stop_reason": 7}):
        assert plain_answer({"choices": [other]}) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (chunk("a"), ("content", "a", None)),
        (choice_of(delta={"role": "assistant", "content": "a", "tool_calls": []}), ("content", "a", None)),
        (choice_of(delta={"role": "assistant", "content": ""}), ("content", "", None)),
        (choice_of(delta={"content": None, "thinking": "a"}), ("thinking", "a", None)),
        (choice_of(delta={"content": "", "reasoning": "a", "reasoning_details": [{"text": "a"}]}), ("", "a", None)),
        (choice_of(delta={}, finish_reason="stop"), ("content", "", "stop")),
        (chunk("a", index=1), None),
        (choice_of(delta={"content": "a"}, finish_reason="stop"), None),
        (choice_of(delta={"content": "a"}, logprobs={"content": []}), None),
        (choice_of(delta={"content": "a", "reasoning": "b"}), None),
        (choice_of(delta={"content": "a", "audio": {"id": "x"}}), None),
        (choice_of(delta={"annotations": "a"}), None),
        (choice_of(delta={"content": 6}), None),
        (choice_of(delta={"content": ["a"]}), None),
        (choice_of(delta={"role": "tool", "content": "a"}), None),
        (choice_of(delta={"role": "tool", "content": ""}), None),
        (choice_of(delta={"reasoning": "a", "reasoning_details": [{"text": "a", "signature": "s"}]}), None),
        *((choice_of(delta={}, finish_reason=reason), None) for reason in [*sorted(FAILURES | NO_REASONS), 5]),
        (choice_of(delta={}, native_finish_reason="stop"), None),
        (choice_of(delta="a"), None),
        ({"choices": [{"delta": {"content": "a"}}] * 2}, None),
        *((none, None) for none in NO_CHOICE),
    ],
    ids=repr,
)
def test_a_plain_chunk_is_one_choice_with_one_piece_or_a_reason(given: Any, told: tuple[str, str, Any] | None) -> None:
    plain = plain_chunk(given)
    assert (plain and plain[:3]) == told


def test_what_a_plain_chunk_says_besides() -> None:
    known: dict[str, Any] = {**dict.fromkeys(META_KEYS, "x"), "usage": {"total_tokens": 3}, "choices": []}
    plain = plain_chunk({**known, **choice_of(delta={"content": "a"}), "empty": []})
    assert plain is not None
    assert plain[3] == Usage(0, 0, 3, raw={"total_tokens": 3})
    assert plain[4] == dict.fromkeys(META_KEYS - set(PADDING_KEYS), "x")
    assert [plain_chunk({**chunk("a"), name: 5}) for name in ("annotations", "p", "error")] == [None] * 3


@pytest.mark.parametrize("reason", [*sorted(FAILURES | NO_REASONS), "", None, 5])
def test_an_answer_with_another_finish_reason_is_not_plain(reason: Any) -> None:
    choice = {"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}
    assert plain_answer({"choices": [choice]}) == ("Hi", "length")
    for odd in ({"choices": [{**choice, "finish_reason": reason}]}, {"choices": [choice] * 2}, *NO_CHOICE):
        assert plain_answer(odd) is None

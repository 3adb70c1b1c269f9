"""What rows will take: characters of their prompts, tokens that they let their answers have."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.batch.estimate import Estimate, prompt_characters
from rusty_agent.batch.rows import Row, parse_row

USER = {"role": "user", "content": "Hi"}
BODY = {"model": "m", "messages": [USER]}
OPENAI = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY}


def _row(value: Any) -> Row:
    row = parse_row(value, 1)
    assert isinstance(row, Row), row
    return row


@pytest.mark.parametrize(
    ("value", "characters"),
    [
        ("Hello", 5),
        ({"prompt": "Hello", "system_prompt": "Sir"}, 8),
        ({"prompt": "not sent", "messages": [USER, {"role": "assistant", "content": None}, {"role": "x"}]}, 2),
        ([{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url"}, "?", {"text": 5}]}], 2),
        (OPENAI, 2),
        ({**OPENAI, "body": {**BODY, "tools": [{"type": "function"}]}}, 2 + len('[{"type":"function"}]')),
        ({"prompt": "Hi", "response_format": {"type": "json_object"}}, 2 + len('{"type":"json_object"}')),
        ([USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}], 2 + len('[{"id":"c"}]')),
    ],
)
def test_prompt_characters(value: Any, characters: int) -> None:
    assert prompt_characters(_row(value).parameters) == characters


@pytest.mark.parametrize(
    ("value", "count", "tokens"),
    [
        ("Hi", 0, 0),
        ({"prompt": "Hi", "max_tokens": 5}, 1, 5),
        ({"prompt": "Hi", "max_tokens": 5, "extra_body": {"max_completion_tokens": 6}}, 1, 6),
        ({**OPENAI, "body": {**BODY, "max_tokens": 7}}, 1, 7),
        ({**OPENAI, "body": {**BODY, "max_completion_tokens": 8}}, 1, 8),
        ({**OPENAI, "body": {**BODY, "max_tokens": "9"}}, 0, 0),
    ],
)
def test_the_estimate_counts_tokens_asked_for(value: Any, count: int, tokens: int) -> None:
    estimate = Estimate({})
    estimate.add(_row(value))
    assert (estimate.rows, estimate.rows_with_max_tokens, estimate.max_tokens) == (1, count, tokens)


def test_what_holds_for_all_rows_is_counted_with_each() -> None:
    estimate = Estimate({"system_prompt": "Sir", "max_tokens": 5, "extra_body": {"n": 3}})
    for value in ("Hello", {"prompt": "Hi", "max_tokens": 7, "extra_body": {"n": 0}}):
        estimate.add(_row(value))
    assert (estimate.rows, estimate.rows_with_max_tokens, estimate.max_tokens) == (2, 2, 3 * 5 + 7)
    assert (estimate.prompt_characters, estimate.prompt_tokens) == (3 + 5 + 3 + 2, 3)

"""The lines of the output and of the errors file, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.batch.lines import error_line, is_permanent, refusal_line, result_line
from rusty_agent.batch.rows import BadLine, Row, parse_row
from rusty_agent.batch.template import Template
from rusty_agent.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    ResponseError,
    RustyAgentError,
    StreamInterruptedError,
)
from rusty_agent.progress.price import Price
from rusty_agent.testing import completion
from rusty_agent.types import GenerateResult, ToolCall, Usage
from rusty_agent.wire.codec import loads_strict

ROW = Row(7, "seven", {"prompt": "x"}, {"kept": [1]}, named=True)


def result(**fields: Any) -> GenerateResult:
    defaults: dict[str, Any] = {
        "text": "yes",
        "finish_reason": "stop",
        "model": "m",
        "usage": Usage(3, 5, 8, raw={"prompt_tokens": 3, "completion_tokens": 5}),
        "request_id": "req",
        "duration": 0.123456,
        "raw": completion("yes"),
    }
    return GenerateResult(**{**defaults, **fields})


def decoded(line: bytes) -> dict[str, Any]:
    assert b"\n" not in line
    value: dict[str, Any] = loads_strict(line)
    return value


def test_a_result_is_a_line_of_openais_batch_api() -> None:
    assert decoded(result_line("0123456789abcdef", ROW, result(), None)) == {
        "id": "batch_req_0123456789abcdef00000007",
        "custom_id": "seven",
        "response": {"status_code": 200, "request_id": "req", "body": completion("yes")},
        "error": None,
        "x_rusty": {"line": 7, "attempts": 1, "latency_s": 0.1235, "fields": {"kept": [1]}},
    }


def test_an_answer_is_kept_though_the_rest_of_its_body_cannot_be_written() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    usage, call = Usage(3, 5, 8, raw={"x": deep}), ToolCall("c", "f", "{}", {"x": deep})
    answered = result(raw=completion("yes", x=deep), usage=usage, tool_calls=[call])
    body = decoded(result_line("r", ROW, answered, None))["response"]["body"]
    (choice,) = body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("yes", "stop")
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def test_what_more_is_known_of_a_result() -> None:
    line = result_line(
        "r", Row(1, "1", {}, {}), result(finish_reason="length", warnings=["w"], attempts=3), Price(1.0, 10.0)
    )
    facts = decoded(line)["x_rusty"]
    assert facts == {
        "line": 1,
        "attempts": 3,
        "latency_s": 0.1235,
        "cost_usd": 53e-6,
        "truncated": True,
        "warnings": ["w"],
        "mark": Row(9, "9", {}, {}).mark,
    }
    assert "cost_usd" not in decoded(result_line("r", ROW, result(usage=None), Price(1.0, 1.0)))["x_rusty"]


def test_a_streamed_result_looks_like_one_that_was_not() -> None:
    call = ToolCall("c1", "add", '{"a":1}', extra={"thought": "t"})
    streamed = result(
        raw={"id": "chatcmpl-1", "object": "chat.completion.chunk"},
        reasoning="hm",
        tool_calls=[call],
        time_to_first_token=0.05,
        duration=None,
    )
    value = decoded(result_line("r", ROW, streamed, None))
    assert value["response"]["body"] == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "yes",
                    "refusal": None,
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "add", "arguments": '{"a":1}'},
                            "thought": "t",
                        }
                    ],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
    }
    assert (value["x_rusty"]["ttft_s"], value["x_rusty"]["latency_s"]) == (0.05, None)
    without = decoded(result_line("r", ROW, result(raw={}, usage=None), None))["response"]["body"]
    assert without["usage"] is None
    assert set(without["choices"][0]["message"]) == {"role", "content", "refusal"}


def status(number: int, **fields: Any) -> APIStatusError:
    error = APIStatusError("said", **{"status_code": number, "headers": {"a": "b"}, **fields})
    error.attempts = 2
    return error


def test_a_refusal_of_the_endpoint_is_a_response() -> None:
    value = decoded(error_line("r", ROW, status(400, body={"error": 1}, request_id="q"), None))
    assert value["response"] == {"status_code": 400, "request_id": "q", "body": {"error": 1}}
    assert value["error"] is None
    assert value["x_rusty"] == {
        "line": 7,
        "attempts": 2,
        "permanent": True,
        "kind": "APIStatusError",
        "message": "said",
        "fields": {"kept": [1]},
    }


def test_an_error_inside_an_answer_is_no_response() -> None:
    value = decoded(error_line("r", ROW, status(500, headers={}, code="overloaded"), None))
    assert value["response"] is None
    assert value["error"] == {"code": "overloaded", "message": "said"}


def test_a_body_that_is_too_deep_to_be_written_costs_only_the_body() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    value = decoded(error_line("r", ROW, status(400, body=deep), None))
    assert value["response"] == {"status_code": 400, "request_id": None, "body": None}
    while deep:  # else its end would be as deep a recursion
        deep = deep.pop()


@pytest.mark.parametrize(
    ("error", "code", "permanent"),
    [
        (APITimeoutError("late"), "request_timeout", False),
        (APIConnectionError("gone"), "connection_error", False),
        (ResponseError("what"), "invalid_response", False),
        (StreamInterruptedError("cut", partial_text="so far"), "stream_interrupted", False),
        (RustyAgentError("odd"), "error", False),
        (ValueError("no prompt"), "invalid_request", True),
        (TypeError("no keyword"), "invalid_request", True),
        (ZeroDivisionError("bug"), "error", False),
    ],
)
def test_an_error_without_an_answer(error: Exception, code: str, permanent: bool) -> None:
    value = decoded(error_line("r", ROW, error, None))
    assert (value["custom_id"], value["response"]) == ("seven", None)
    assert value["error"] == {"code": code, "message": str(error)}
    facts = value["x_rusty"]
    assert (facts["kind"], facts["permanent"]) == (type(error).__name__, permanent)
    assert facts.get("partial_text") == ("so far" if code == "stream_interrupted" else None)


def test_a_failure_that_cost_something_says_how_much() -> None:
    error = StreamInterruptedError("cut", usage=Usage(3, 5))
    for given, expected in ((error, 53e-6), (StreamInterruptedError("cut"), None), (ValueError("no"), None)):
        facts = decoded(error_line("r", ROW, given, Price(1.0, 10.0)))["x_rusty"]
        assert facts.get("cost_usd") == expected
    assert "cost_usd" not in decoded(error_line("r", ROW, error, None))["x_rusty"]


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503])
def test_what_is_permanent(code: int) -> None:
    assert is_permanent(status(code)) == (code in (400, 404, 413, 422))
    assert is_permanent(BadRequestError("no", status_code=400))


@pytest.mark.parametrize("said", ["Your credit balance is too low", "API key not valid. Please pass a valid one."])
def test_what_is_said_of_the_account_is_not_permanent(said: str) -> None:
    """Anthropic, Gemini, Groq and xAI say it with status 400, as if the row were to blame."""
    assert not is_permanent(BadRequestError(said, status_code=400))


def test_a_line_that_is_no_request() -> None:
    bad = BadLine(9, "not JSON")
    value = decoded(refusal_line("r", bad))
    assert value["custom_id"] == "bad line 9"
    assert (value["response"], value["error"]) == (None, {"code": "bad_line", "message": "not JSON"})
    assert value["x_rusty"] == {"line": 9, "attempts": 0, "permanent": True, "kind": "BadLine"}


def test_a_template_may_say_it_in_other_words() -> None:
    def mark(text: str, value: dict[str, str]) -> str:
        row = parse_row(value, 1, template=Template(text) if text else None)
        assert isinstance(row, Row)
        return row.mark

    assert mark("{a} in {b}", {"a": "x", "b": "y"}) == mark("into {b}: {a}", {"b": "y", "a": "x", "c": "z"})
    assert mark("{a}", {"a": "x"}) != mark("{a}", {"a": "y"})
    assert mark("say {prompt}", {"prompt": "x"}) == mark("", {"prompt": "x"})


def test_a_row_without_a_name_is_known_by_what_it_asks() -> None:
    row, same, other = (Row(1, "1", {"prompt": prompt}, {}) for prompt in "aab")
    assert row.mark == same.mark != other.mark
    for line in (result_line("r", row, result(), None), error_line("r", row, status(400), None)):
        assert decoded(line)["x_rusty"]["mark"] == row.mark

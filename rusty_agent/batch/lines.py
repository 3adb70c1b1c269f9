"""A row's result or error → one line of the output or of the errors file.

In: a row, and its result or its error. Out: a line of JSON without its newline. Never touched: files.

The lines are those of OpenAI's Batch API (`id`, `custom_id`, `response`, `error`), so programs that read its files can
read these. What we add stands under one more key, `x_rusty`. As in the API, `response` is null if there was no HTTP
answer, and `error` is null if there was one, even if its `status_code` says that it failed.
"""

from __future__ import annotations

from typing import Any

import attrs

from ..errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ResponseError,
    RustyAgentError,
    StreamInterruptedError,
)
from ..progress.price import Price
from ..types import GenerateResult
from ..wire.codec import dumps
from .rows import BadLine, Row

__all__ = ["BAD_LINE", "ID_PREFIX", "error_line", "is_permanent", "refusal_line", "result_line"]

BAD_LINE = "BadLine"
"""The `kind` in the error line of an input line that is not a request."""

ID_PREFIX = "batch_req_"
"""How the ids of OpenAI's lines begin, and ours too."""

_PERMANENT = frozenset({400, 404, 413, 422})
"""Statuses that the same request would get again, unless the key or the account is at fault: those get mended."""


def result_line(run_id: str, row: Row, result: GenerateResult, price: Price | None) -> bytes:
    """The line of a row that was answered."""
    facts: dict[str, Any] = {"line": row.line, "attempts": result.attempts, "latency_s": _rounded(result.duration)}
    body = result.raw
    if "choices" not in body:  # it was streamed
        body = _completion(result)
        facts["ttft_s"] = _rounded(result.time_to_first_token)
    if price is not None and result.usage is not None:
        facts["cost_usd"] = price.cost(result.usage.prompt_tokens, result.usage.completion_tokens)
    if result.finish_reason == "length":
        facts["truncated"] = True
    if result.warnings:
        facts["warnings"] = result.warnings
    response = {"status_code": 200, "request_id": result.request_id, "body": body}
    try:
        return _line(run_id, row, response, None, facts)
    except ValueError:  # the body can be read, but is nested too deeply to be written
        response["body"] = _completion(_bare(result))
        return _line(run_id, row, response, None, facts)


def error_line(run_id: str, row: Row, error: Exception, price: Price | None) -> bytes:
    """The line of a row that failed. A failed row may still have a cost."""
    facts: dict[str, Any] = {"line": row.line, "attempts": 0, "permanent": is_permanent(error)}
    facts["kind"] = type(error).__name__
    if isinstance(error, RustyAgentError):
        facts["attempts"] = error.attempts
        if error.partial_text:
            facts["partial_text"] = error.partial_text
        if price is not None and error.usage is not None:
            facts["cost_usd"] = price.cost(error.usage.prompt_tokens, error.usage.completion_tokens)
    response = None
    said: dict[str, Any] | None = {"code": _code(error), "message": str(error)}
    if isinstance(error, APIStatusError) and error.headers:  # without headers the error came inside an answer
        response = {"status_code": error.status_code, "request_id": error.request_id, "body": error.body}
        said = None
        facts["message"] = error.message
    try:
        return _line(run_id, row, response, said, facts)
    except ValueError:  # the body can be read, but is nested too deeply to be written
        response = response and {**response, "body": None}
        return _line(run_id, row, response, said, facts)


def refusal_line(run_id: str, bad: BadLine) -> bytes:
    """The line that reports a bad line of the input."""
    facts = {"line": bad.line, "attempts": 0, "permanent": True, "kind": BAD_LINE}
    said = {"code": "bad_line", "message": bad.reason}
    return _line(run_id, Row(bad.line, f"bad line {bad.line}", {}, {}, named=True), None, said, facts)


def is_permanent(error: Exception) -> bool:
    """Whether the same row would fail again, so that the next run need not try it."""
    if isinstance(error, APIStatusError):
        return error.status_code in _PERMANENT and not (error.spent or error.key_refused)
    return isinstance(error, ValueError | TypeError) and not isinstance(error, RustyAgentError)


def _line(
    run_id: str, row: Row, response: dict[str, Any] | None, error: dict[str, Any] | None, facts: dict[str, Any]
) -> bytes:
    if not row.named:
        facts["mark"] = row.mark
    if row.fields:
        facts["fields"] = row.fields
    return dumps(
        {
            "id": f"{ID_PREFIX}{run_id}{row.line:08x}",
            "custom_id": row.custom_id,
            "response": response,
            "error": error,
            "x_rusty": facts,
        }
    )


def _completion(result: GenerateResult) -> dict[str, Any]:
    """A streamed answer in the form of one that was not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": result.text, "refusal": result.refusal}
    if result.reasoning is not None:
        message["reasoning_content"] = result.reasoning
    if result.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
                **call.extra,
            }
            for call in result.tool_calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": result.finish_reason}
    usage = None if result.usage is None else result.usage.raw
    return {**result.raw, "object": "chat.completion", "model": result.model, "choices": [choice], "usage": usage}


def _bare(result: GenerateResult) -> GenerateResult:
    """The result without the parts that the endpoint may nest at will."""
    usage = result.usage
    if usage is not None:
        counts = ("prompt_tokens", "completion_tokens", "total_tokens")
        usage = attrs.evolve(usage, raw={name: getattr(usage, name) for name in counts})
    calls = [attrs.evolve(call, extra={}) for call in result.tool_calls]
    return attrs.evolve(result, raw={}, usage=usage, tool_calls=calls)


def _code(error: Exception) -> str:
    """A word for what went wrong, such as OpenAI's `request_timeout`."""
    if isinstance(error, APIStatusError):
        return str(error.code or error.type or "api_error")
    if isinstance(error, APITimeoutError):
        return "request_timeout"
    if isinstance(error, StreamInterruptedError):
        return "stream_interrupted"
    if isinstance(error, APIConnectionError):
        return "connection_error"
    if isinstance(error, ResponseError):
        return "invalid_response"
    return "invalid_request" if is_permanent(error) else "error"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)

"""Chunks that are errors, cannot be read, or only look so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rusty_agent import errors
from tests.replies import chunk

from .decoding import Data, decode, named_event


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"choices": [', "an event that is not JSON: '{\"choices\": ['"),
        (b"<html>", "an event that is not JSON: '<html>'"),
        (b"\xff\x1b[2J", "an event that is not JSON: '\ufffd\\\\x1b[2J'"),
        (b'"text"', "an event that is not a JSON object: '\"text\"'"),
        (b"[PINGS]", "an event that is not JSON: '[PINGS]'"),
        (b"[{},{}]", "an event that is not a JSON object: '[{},{}]'"),
        (b"[" * 100_000, "an event that is not JSON"),
    ],
    ids=["cut", "html", "control-characters", "string", "word", "long-list", "deep"],
)
def test_events_that_cannot_be_read(data: bytes, said: str) -> None:
    out, decoder = decode(chunk("a"), data, chunk("b"))
    assert out == ["a", *(["b"] if decoder.error is None else out[1:])]
    assert isinstance(decoder.error, errors.ResponseError)
    assert said in decoder.error.message
    assert decoder.error.body == data[:2048]
    assert type(decoder.error.body) is bytes


@pytest.mark.parametrize("content", [b'"' + b"x" * 5000 + b'"', b"x" * 5000], ids=["no-object", "not-json"])
def test_the_offending_bytes_are_capped(content: bytes) -> None:
    _, decoder = decode(content)
    assert isinstance(decoder.error, errors.ResponseError)
    assert decoder.error.body == content[:2048]
    assert len(decoder.error.message) < 300


def test_tool_arguments_that_cannot_be_read() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    out, decoder = decode(chunk("a"))
    call = {"function": {"name": "w", "arguments": {"a": deep}}}
    decoder.decode_value({"choices": [{"delta": {"tool_calls": [call]}}]}, b"", out)
    assert out == ["a"]
    assert isinstance(decoder.error, errors.ResponseError)


API, BAD, RATE, SERVER = errors.APIStatusError, errors.BadRequestError, errors.RateLimitError, errors.ServerError


ERROR_OBJECTS = {
    "openai": ({"error": {"message": "m", "type": "t", "code": "c", "param": "p"}}, API, "m", ("c", "t", "p")),
    "vllm": ({"error": {"message": "m", "code": 400}}, BAD, "m", (400, None, None)),
    "code-as-string": ({"error": {"message": "m", "code": "429"}}, RATE, "m", ("429", None, None)),
    "openrouter": (
        {"error": {"message": "m", "code": 502}, **chunk("", finish="error")},
        SERVER,
        "m",
        (502, None, None),
    ),
    "no-choices": ({"choices": [], "error": {"message": "m", "code": 500}}, SERVER, "m", (500, None, None)),
    "lm-studio": ({"error": {"message": "m"}, "message": "m"}, API, "m", (None, None, None)),
    "empty-object": ({"error": {}, "message": "m", "code": 500}, SERVER, "m", (500, None, None)),
    "tgi": ({"error": "m", "error_type": "t"}, API, "m", (None, "t", None)),
    "string": ({"error": "m"}, API, "m", (None, None, None)),
    "true": ({"error": True}, API, None, (None, None, None)),
    "mistral-nested": (
        {"error": {"message": {"detail": [{"loc": ["body", 0], "msg": "m"}]}}},
        API,
        "body.0: m",
        (None, None, None),
    ),
    "mistral": ({"object": "error", "message": {"detail": [{"msg": "m"}]}, "code": 422}, BAD, "m", (422, None, None)),
    "anthropic": (
        {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
        SERVER,
        "m",
        (None, "overloaded_error", None),
    ),
    "anthropic-flat": ({"type": "error", "message": "m"}, API, "m", (None, "error", None)),
    "fastapi": ({"detail": "m"}, API, "m", (None, None, None)),
    "dashscope": (
        {"code": "InvalidApiKey", "message": "m"},
        errors.AuthenticationError,
        "m",
        ("InvalidApiKey", None, None),
    ),
    "in-the-choice": (
        {"choices": [{"delta": {}, "error": {"message": "m", "code": 429}}]},
        RATE,
        "m",
        (429, None, None),
    ),
    "finish-reason-only": (
        {"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]},
        SERVER,
        None,
        (None, None, None),
    ),
    "gemini": (b'[{"error":{"code":503,"message":"m"}}]', SERVER, "m", (503, None, None)),
    "gemini-two": (b'[{"error":{"code":503,"message":"m"}},{"error":{"code":500}}]', SERVER, "m", (503, None, None)),
    "list": ({"error": [{"message": "m", "code": 400}]}, BAD, "m", (400, None, None)),
    "cloudflare": ({"errors": [{"message": "m", "code": 7000}], "success": False}, API, "m", (7000, None, None)),
    "minimax": (
        {"base_resp": {"status_code": 1004, "status_msg": "m"}, "choices": None},
        errors.AuthenticationError,
        "m",
        (1004, None, None),
    ),
    "message-alone": ({"message": "m"}, API, "m", (None, None, None)),
    "event-empty": (named_event(b"", "error"), API, None, (None, None, None)),
    "event-end-mark": (named_event(b"[DONE]", "error"), API, "[DONE]", (None, None, None)),
    "event-comment": (named_event(b": m", "error"), API, ": m", (None, None, None)),
    "event-flat": (named_event(b'{"message":"m","code":500}', "error"), SERVER, "m", (500, None, None)),
    "event-nested": (named_event(b'{"error":{"message":"m"}}', "error"), API, "m", (None, None, None)),
    "event-text": (named_event(b"m", "error"), API, "m", (None, None, None)),
    "event-string": (named_event(b'"m"', "error"), API, "m", (None, None, None)),
    "event-half-a-character": (
        named_event(b'{"message":"m\\ud83d","code":"\\ud83d"}', "error"),
        API,
        "m\ufffd",
        ("\ufffd", None, None),
    ),
    "event-with-a-plain-chunk": (named_event(json.dumps(chunk("e")).encode(), "error"), API, None, (None, None, None)),
    "half-a-character": (b'{"error":{"message":"m\\ud83d","code":"\\ud83d"}}', API, "m\ufffd", ("\ufffd", None, None)),
    "endless-code": ({"error": {"message": "m", "code": "9" * 5000}}, API, "m", ("9" * 200, None, None)),
    "code-true": ({"error": {"message": "m", "code": True}}, API, "m", (None, None, None)),
    "code-200": ({"error": {"message": "m", "code": 200}}, API, "m", (200, None, None)),
}


@pytest.mark.parametrize(("data", "kind", "message", "fields"), ERROR_OBJECTS.values(), ids=ERROR_OBJECTS)
def test_error_objects(
    data: Data, kind: type[errors.APIStatusError], message: str | None, fields: tuple[Any, ...]
) -> None:
    for before in ([chunk("a")], [chunk("a"), chunk("b"), chunk("c"), chunk("d")]):
        out, decoder = decode(*before, data)
        error = decoder.error
        assert out == list("abcd")[: len(before)]
        assert type(error) is kind
        status = error.status_code
        where = f"HTTP {status}" if status != 200 else "The endpoint reported an error inside its answer"
        assert error.message.startswith(f"{where}: {message}" if message else where)
        assert (error.code, error.type, error.param) == fields
        named = {
            "overloaded_error": 529,
            "InvalidApiKey": 401,
            "1004": 401,
            "None": 500 if kind is SERVER else None,
        }.get(error.type or str(error.code))
        assert status == (named or (int(str(error.code)) if kind is not API else 200))


@pytest.mark.parametrize(
    "data",
    [
        {**chunk("a"), "detail": "x"},
        {**chunk("a"), "code": 0, "message": "ok"},
        {"choices": [], "code": 0, "message": ""},
        {"choices": [], "detail": None},
        {**chunk("a"), "error": None},
        {**chunk("a"), "error": {}},
        {**chunk("a"), "error": ""},
    ],
    ids=repr,
)
def test_what_is_no_error(data: Data) -> None:
    assert decode(data)[1].error is None


def test_text_beside_an_error_counts() -> None:
    out, decoder = decode({**chunk("a"), "error": {"message": "m"}})
    assert out == ["a"]
    assert decoder.error is not None

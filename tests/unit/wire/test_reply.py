"""Bodies of answers: whole ones, and those that fail."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rusty_agent import errors
from rusty_agent.types import Finish, RawChunk, ReasoningDelta, RefusalDelta, TextDelta, ToolCall, UsageUpdate
from rusty_agent.wire.reply import ReplyDecoder
from tests.replies import BOM, COUNTED, DOCUMENT, USAGE, chunk, in_bytes, replay, replay_every_way, sse

JSON = json.dumps(DOCUMENT).encode()


WHOLE = {
    "plain": sse(chunk("Hi"), chunk(finish="stop")),
    "no-end-mark": sse(chunk("Hi"), chunk(finish="stop"), done=False),
    "finish-with-text": sse(chunk("Hi", finish="stop"), done=False),
    "no-last-blank-line": sse(chunk("Hi"), chunk(finish="stop")).removesuffix(b"\n\n"),
    "neither": sse(chunk("Hi"), chunk(finish="stop"), done=False).removesuffix(b"\n\n"),
    "twice": sse(chunk("Hi"), chunk(finish="stop")) * 2,
    "an-error-after-the-end": sse(chunk("Hi"), chunk(finish="stop")) + sse(chunk("late"), {"error": "late"}),
    "rubbish-after-the-end": sse(chunk("Hi"), chunk(finish="stop")) + b"data: {broken\n\n" + b"\xff" * 99,
    "end-mark-with-blanks": sse(chunk("Hi"), chunk(finish="stop"), b"[DONE]  ", b"[DONE]"),
    "comments-as-data": sse(b": OPENROUTER PROCESSING", chunk("Hi"), b": OPENROUTER PROCESSING", chunk(finish="stop")),
    "comments": b": OPENROUTER PROCESSING\n\n" * 3 + sse(chunk("Hi"), chunk(finish="stop")),
    "meta-only-event": b"retry: 3000\nid: 1\n\n" + sse(chunk("Hi"), chunk(finish="stop")),
    "blank-lines-first": b"\n\r\n \n" + sse(chunk("Hi"), chunk(finish="stop")),
    "bom": BOM + sse(chunk("Hi"), chunk(finish="stop")),
    "two-boms": BOM + BOM + sse(chunk("Hi"), chunk(finish="stop")),
    "crlf": sse(chunk("Hi"), chunk(finish="stop")).replace(b"\n", b"\r\n"),
    "cr": sse(chunk("Hi"), chunk(finish="stop")).replace(b"\n", b"\r"),
    "no-space": sse(chunk("Hi"), chunk(finish="stop")).replace(b"data: ", b"data:"),
    "named-events": sse(chunk("Hi"), chunk(finish="stop")).replace(b"data: ", b"event: chunk\ndata: "),
    "empty-finish-reasons": sse(chunk("Hi"), chunk(""), chunk(finish="stop"), chunk("", finish="")),
    "cut-after-the-finish": sse(chunk("Hi"), chunk(finish="stop"), done=False) + b'data: {"id": "cut',
}


@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE)
def test_streams_that_are_whole(body: bytes) -> None:
    outcome = replay_every_way(body)
    assert outcome.deltas == ["Hi", Finish("stop")]
    assert (outcome.error, outcome.finish_reason, outcome.streamed, outcome.has_content) == (None, "stop", True, True)
    assert outcome.meta["model"] == "m"


@pytest.mark.parametrize(
    "body",
    [
        JSON,
        b"\n\n \r\n" + JSON,
        BOM + JSON,
        BOM + b"\n\n" + JSON,
        b"\n" + BOM + b"\r\n" + JSON,
        JSON + b"\n",
        json.dumps(DOCUMENT, indent=4).encode(),
    ],
    ids=["plain", "blank-lines", "bom", "bom-blank-lines", "blank-lines-bom-blank-lines", "newline", "indented"],
)
def test_a_document_where_a_stream_was_asked_for(body: bytes) -> None:
    outcome = replay_every_way(body)
    assert outcome.deltas == ["Hi", UsageUpdate(COUNTED), Finish("stop")]
    assert (outcome.error, outcome.streamed, outcome.meta) == (None, False, DOCUMENT)


@pytest.mark.parametrize(
    "wrapped",
    [
        {"result": DOCUMENT, "success": True, "errors": []},
        {"data": DOCUMENT, "code": 0},
        {"type": "", "event": "", "data": DOCUMENT},
    ],
)
def test_an_answer_within_an_object(wrapped: dict[str, Any]) -> None:
    outcome = replay_every_way(json.dumps(wrapped).encode())
    assert outcome.deltas == ["Hi", UsageUpdate(COUNTED), Finish("stop")]
    assert (outcome.error, outcome.meta) == (None, DOCUMENT)


def test_tokens_that_are_told_beside_an_answer_within_an_object() -> None:
    within = {name: value for name, value in DOCUMENT.items() if name != "usage"}
    for inner in (within, {**within, "usage": None}):
        assert replay_every_way(json.dumps({"data": inner, "usage": USAGE}).encode()).usage == COUNTED
    empty = replay_every_way(sse({"data": {"choices": []}, "usage": USAGE}))
    assert (type(empty.error), empty.error and empty.error.retryable) == (errors.ResponseError, False)


@pytest.mark.parametrize(
    "asked", [{"type": "ask", "data": {"choices": [{"text": "Yes"}]}}, {"event": "x", "result": DOCUMENT}]
)
def test_what_an_event_of_another_kind_lets_the_user_choose_is_no_answer(asked: dict[str, Any]) -> None:
    outcome = replay_every_way(sse(chunk("Hi"), asked, chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("Hi", None)


def test_chunks_within_objects() -> None:
    chunks = [chunk("Hi"), chunk("!", finish="stop"), {"choices": [], "usage": USAGE}]
    wrapped = [{"code": 0, "msg": "success", "data": one} for one in chunks]
    assert replay_every_way(sse(*wrapped)) == replay_every_way(sse(*chunks))
    failed = {"code": 429, "msg": "m", "data": {"choices": []}}
    assert type(replay_every_way(sse(wrapped[0], failed)).error) is errors.RateLimitError


@pytest.mark.parametrize(
    ("field", "value", "deltas"),
    [
        ("usage", None, ["Hi", Finish("stop")]),
        ("usage", {}, ["Hi", Finish("stop")]),
        ("x", 1, ["Hi", RawChunk({**DOCUMENT, "x": 1}), UsageUpdate(COUNTED), Finish("stop")]),
        ("x", None, ["Hi", UsageUpdate(COUNTED), Finish("stop")]),
        ("choices", [], None),
        ("error", {"message": "m"}, None),
    ],
    ids=repr,
)
def test_a_document_with_another_field(field: str, value: Any, deltas: list[Any] | None) -> None:
    outcome = replay([json.dumps({**DOCUMENT, field: value}).encode()])
    assert (outcome.error is None) is (deltas is not None)
    assert deltas in (None, outcome.deltas)


@pytest.mark.parametrize(
    ("choice", "deltas"),
    [
        ({"message": {"content": "a"}, "finish_reason": "stop"}, ["a", Finish("stop")]),
        ({"message": {"content": ""}, "finish_reason": "stop"}, [Finish("stop")]),
        ({"message": {"content": None}, "finish_reason": "stop"}, [Finish("stop")]),
        ({"message": {"content": ["a"]}, "finish_reason": "stop"}, ["a", Finish("stop")]),
        (
            {"message": {"content": "a", "reasoning": "r"}, "finish_reason": "stop"},
            [ReasoningDelta("r"), "a", Finish("stop")],
        ),
        (
            {"message": {"content": "a", "refusal": "no"}, "finish_reason": "stop"},
            ["a", RefusalDelta("no"), Finish("stop")],
        ),
        ({"message": {"content": "a", "refusal": None}, "finish_reason": "stop"}, ["a", Finish("stop")]),
        ({"message": {"content": "a"}, "delta": {"content": "b"}, "finish_reason": "stop"}, ["b", Finish("stop")]),
        ({"message": {"content": "a"}, "index": 1, "finish_reason": "stop"}, ["a", Finish("stop")]),
        ({"message": {"content": "a"}, "finish_reason": "error"}, None),
        ({"message": {"content": "a"}, "error": "m", "finish_reason": "stop"}, None),
    ],
    ids=repr,
)
def test_documents_of_one_choice(choice: dict[str, Any], deltas: list[Any] | None) -> None:
    outcome = replay([json.dumps({"choices": [choice]}).encode()])
    assert (outcome.error is None) is (deltas is not None)
    assert deltas in (None, outcome.deltas)


@pytest.mark.parametrize("finish", [None, ""], ids=repr)
def test_a_document_needs_no_finish_reason(finish: str | None) -> None:
    body = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": finish}]}).encode()
    assert replay_every_way(body).deltas == ["Hi", Finish(None)]


def test_a_document_in_a_list() -> None:
    outcome = replay_every_way(b"[" + JSON + b"]")
    assert (outcome.text, outcome.error, outcome.meta["model"]) == ("Hi", None, "m")


def test_control_characters_may_stand_in_strings_as_they_are() -> None:  # earendil-works/pi#4446
    raw = b'{"content":"a\tb\0\x1b[0m"}'
    for body in (sse(b'{"choices":[{"delta":%b}]}' % raw), b'{"choices":[{"message":%b}]}' % raw):
        assert replay_every_way(body).text == "a\tb\0\x1b[0m"


def test_halves_of_characters_in_a_document() -> None:
    call = {"function": {"name": "w", "arguments": '"\ud83d"'}}
    message = {"content": "Hi\ud83d", "tool_calls": [call]}
    outcome = replay_every_way(json.dumps({"choices": [{"message": message}], "model": "\ude00"}).encode())
    assert outcome.text == "Hi\ufffd"
    assert outcome.tool_calls == [ToolCall("call_0", "w", '"\ufffd"')]
    assert outcome.meta["model"] == "\ufffd"


def test_two_choices() -> None:
    chunks = [chunk("b", index=1), chunk("a"), chunk("B", index=1), chunk("A"), chunk(index=1, finish="stop")]
    outcome = replay_every_way(sse(*chunks, chunk(finish="length")), choices=2)
    assert outcome.deltas == [TextDelta("b", 1), "a", TextDelta("B", 1), "A", Finish("stop", 1), Finish("length")]
    assert (outcome.text, outcome.finish_reason) == ("aA", "length")
    cut = replay_every_way(sse(*chunks, done=False), choices=2)
    assert isinstance(cut.error, errors.StreamInterruptedError)
    assert cut.error.partial_text == "aA"


@pytest.mark.parametrize("choices", [None, 1, 0, -1, True])
def test_an_answer_to_an_odd_number_of_choices_ends_all_the_same(choices: int | None) -> None:
    assert replay([b": hi\n\n"], choices=choices).error is not None
    assert replay([sse(chunk("a", index=1, finish="stop"), done=False)], choices=choices).deltas == [
        "a",
        Finish("stop"),
    ]


CUT = "The stream ended before it was complete"

EMPTY = "The endpoint closed the connection with an empty answer"


BROKEN = {
    "empty": (b"", errors.StreamInterruptedError, EMPTY, ""),
    "blank": (b"\n \r\n", errors.StreamInterruptedError, EMPTY, ""),
    "bom-only": (BOM + b"\n", errors.StreamInterruptedError, EMPTY, ""),
    "half-a-bom": (BOM[:2], errors.StreamInterruptedError, EMPTY, ""),
    "comments-only": (b": keep-alive\n\n", errors.StreamInterruptedError, CUT, ""),
    "cut-between-events": (sse(chunk("Hi"), done=False), errors.StreamInterruptedError, CUT, "Hi"),
    "cut-after-an-empty-reason": (
        sse(chunk("Hi"), chunk(finish=""), done=False),
        errors.StreamInterruptedError,
        CUT,
        "Hi",
    ),
    "cut-in-an-event": (
        sse(chunk("Hi"), done=False) + b'data: {"choices": [',
        errors.StreamInterruptedError,
        CUT,
        "Hi",
    ),
    "cut-in-an-event-that-parses": (
        sse(chunk("Hi"), done=False) + b"data: 1",
        errors.StreamInterruptedError,
        CUT,
        "Hi",
    ),
    "cut-in-the-end-mark": (sse(chunk("Hi"), done=False) + b"data: [DON", errors.StreamInterruptedError, CUT, "Hi"),
    "malformed": (sse(chunk("Hi"), b"{broken", chunk("late")), errors.ResponseError, "not JSON: '{broken'", "Hi"),
    "malformed-before-the-finish": (
        sse(chunk("Hi"), b"{broken", chunk(finish="stop")),
        errors.ResponseError,
        "not JSON: '{broken'",
        "Hi",
    ),
    "error-object": (sse(chunk("Hi"), {"error": {"code": 429}}), errors.RateLimitError, "HTTP 429", "Hi"),
    "error-string": (sse(chunk("Hi"), {"error": "m"}, done=False), errors.APIStatusError, "m", "Hi"),
    "error-without-blank-line": (
        sse(chunk("Hi"), {"error": "m"}, done=False).strip(),
        errors.APIStatusError,
        "m",
        "Hi",
    ),
    "error-after-the-finish": (sse(chunk("Hi", finish="stop"), {"error": "m"}), errors.APIStatusError, "m", "Hi"),
    "error-line": (b'error: {"code":500,"message":"m"}\n\n', errors.ServerError, "HTTP 500: m", ""),
    "error-event-without-data": (
        sse(chunk("Hi"), done=False) + b"event: error\n\n" + sse(),
        errors.APIStatusError,
        "inside its answer.",
        "Hi",
    ),
    "message-alone": (sse({"message": "m"}), errors.APIStatusError, "m", ""),
    "last-event-of-no-known-form": (
        sse(chunk("Hi"), {"reason": "m"}, done=False),
        errors.StreamInterruptedError,
        'whole answer. Its last event was {"reason":"m"}.',
        "Hi",
    ),
    "first-event-of-no-known-form": (
        sse({"x": 1}, chunk("Hi"), done=False),
        errors.StreamInterruptedError,
        "not the whole answer.",
        "Hi",
    ),
    "message-alone-document": (b'{"message":"m"}', errors.APIStatusError, "m", ""),
    "error-document-gemini-two": (
        b'[{"error":{"code":503,"message":"m"}},{"error":{}}]',
        errors.ServerError,
        "HTTP 503: m",
        "",
    ),
    "error-document": (b'{"error":{"message":"m","code":401}}', errors.AuthenticationError, "HTTP 401: m", ""),
    "error-document-string": (b'{"error":"m"}', errors.APIStatusError, "m", ""),
    "error-document-fastapi": (b'{"detail":"m"}', errors.APIStatusError, "m", ""),
    "error-document-gemini": (b'[{"error":{"code":503,"message":"m"}}]', errors.ServerError, "HTTP 503: m", ""),
    "empty-object": (b"{}", errors.ResponseError, "The answer contains no choices: '{}'. Check that base_url", ""),
    "null-choices": (b'{"choices":null,"id":"x"}', errors.ResponseError, "The answer contains no choices", ""),
    "no-choices": (b'{"choices":[]}', errors.ResponseError, "The answer contains no choices", ""),
    "bare-choice": (b'{"choices":[{}]}', errors.ResponseError, "answer contains no message: '{\"choices\":[{}]}'", ""),
    "choice-of-nulls": (
        b'{"choices":[{"message":null,"index":0}]}',
        errors.ResponseError,
        "The answer contains no message",
        "",
    ),
    "empty-list": (b"[]", errors.ResponseError, "not a JSON object", ""),
    "cut-document": (b'{"choices": [', errors.ResponseError, "The answer is not JSON: '{\"choices\": ['", ""),
    "html": (b"<!DOCTYPE html><p>Hi", errors.ResponseError, "The answer is an HTML page: '<!DOCTYPE html><p>Hi'", ""),
    "html-after-blank-lines": (b"\n\n<html>login</html>", errors.ResponseError, "The answer is an HTML page", ""),
}


@pytest.mark.parametrize(("body", "kind", "said", "partial"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_whole_answer_is_a_typed_error(
    body: bytes, kind: type[errors.RustyAgentError], said: str, partial: str
) -> None:
    outcome = replay_every_way(body)
    assert type(outcome.error) is kind
    assert said in outcome.error.message
    assert outcome.error.partial_text == outcome.text == partial
    assert outcome.has_content is bool(partial)
    assert not any(isinstance(delta, Finish) for delta in outcome.deltas)


def test_an_error_carries_the_usage_so_far() -> None:
    for last in ({"error": "m"}, b"{broken", b": cut"):
        error = replay_every_way(sse({**chunk("Hi"), "usage": USAGE}, last, done=False)).error
        assert error is not None
        assert (error.partial_text, error.usage) == ("Hi", COUNTED)


def test_a_document_that_was_cut_is_worth_another_try() -> None:
    whole = json.dumps(
        {"id": "é", "choices": [{"index": 0, "message": {"content": '\\Hi"'}, "x": [True, -2.5e3]}]}
    ).encode()
    for end in range(1, len(whole)):
        error = replay([whole[:end]]).error
        assert error is not None
        assert (type(error), error.retryable) == (errors.ResponseError, True)
        assert "It was cut off" in error.message
    for junk in (b"{malformed json: <<<chaos>>>", whole[:-2] + b"x", whole + b"}", b'{"a": b}', b"<html", b"[1,"):
        error = replay([junk]).error
        assert error is not None
        assert not error.retryable


def test_an_error_holds_at_most_two_kib_of_an_unreadable_answer() -> None:
    for body in (b"<html>" + b"x" * 5000, b"{" + b"x" * 5000, b'{"x":"' + b"x" * 5000 + b'"}'):
        error = replay([body]).error
        assert isinstance(error, errors.ResponseError)
        assert error.body == body[:2048]


@pytest.mark.parametrize(
    ("body", "too_long"),
    [
        (sse(chunk("x" * 64)), False),
        (sse(chunk("ok"), chunk("x" * 300), chunk("late")), True),
        (sse(chunk("ok"), done=False) + b"data: " + b"x" * 300, True),
        (sse(chunk("ok"), chunk(finish="stop")) + b"data: " + b"x" * 300, False),
        (b"{" + b" " * 300 + b"}", True),
        (b" " * 300 + b'{"choices":[{"text":""}]}' + b" " * 200, False),
    ],
    ids=["event-fits", "event", "unfinished-event", "after-the-end", "document", "document-fits"],
)
def test_what_is_longer_than_the_cap_is_an_error(body: bytes, too_long: bool) -> None:
    outcome = replay_every_way(body, max_bytes=256)
    assert isinstance(outcome.error, errors.ResponseError) is too_long
    if outcome.error is not None:
        assert "longer than 256 bytes. Raise max_event_bytes" in outcome.error.message
        assert outcome.error.partial_text == ("ok" if outcome.streamed else "")


def test_an_unfinished_event_at_the_border_of_the_cap_is_cut_not_wrong() -> None:
    body = sse(chunk("ok"), done=False)
    outcome = replay_every_way(body + b"data: " + b"x" * 250, max_bytes=250)
    assert isinstance(outcome.error, errors.StreamInterruptedError)
    assert outcome.text == "ok"


def test_an_error_that_was_raised_is_kept_without_its_frames() -> None:
    """They hold the decoder, which holds the error: only the garbage collector could free the two."""
    for raised in (ReplyDecoder(max_bytes=8), ReplyDecoder()):
        try:
            raise errors.ResponseError("It cannot be decompressed.")
        except errors.ResponseError as error:
            raised.feed(sse(chunk("a" * 99), done=False))
            raised.close(error)
        assert raised.error is not None
        assert raised.error.__traceback__ is None


def test_keep_alive_lines_take_no_memory() -> None:
    decoder = ReplyDecoder(max_bytes=1024)
    for _ in range(1000):
        assert decoder.feed(b"\r\n" * 100) == []
    assert decoder.feed(JSON) == []
    assert decoder.close()[0] == "Hi"


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\ndata: [DONE]\n\n", b"\ndata: [DONE]"])
@pytest.mark.parametrize("broken", [None, errors.APIConnectionError("broken")], ids=["whole", "broken"])
def test_a_document_is_whole_when_its_object_is(end: bytes, broken: errors.RustyAgentError | None) -> None:
    for pieces in ([JSON + end], in_bytes(JSON + end)):
        outcome = replay(pieces, broken=broken if end.strip() == b"" else None)
        assert (outcome.text, outcome.finish_reason, outcome.usage, outcome.error) == ("Hi", "stop", COUNTED, None)


def test_a_document_that_is_not_whole_breaks() -> None:
    broken = errors.APIConnectionError("broken")
    for cut in range(len(JSON)):
        assert replay([JSON[:cut]], broken=broken).error is broken
    assert replay([b"[1]"], broken=broken).error is broken

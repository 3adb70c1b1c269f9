"""How an answer ends: exactly one of a finish and a typed error, whatever the body turns out to be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rusty_agent import errors
from rusty_agent.types import Finish, RawChunk, ReasoningDelta, RefusalDelta, TextDelta, ToolCall, Usage, UsageUpdate
from rusty_agent.wire.chunks import Delta
from rusty_agent.wire.frame import frame_of
from rusty_agent.wire.reply import TAIL_SECONDS, ReplyDecoder
from tests.replies import Outcome, chunk, in_bytes, in_two, replay, sse

BOM = b"\xef\xbb\xbf"
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
COUNTED = Usage(1, 2, 3, raw=USAGE)
DOCUMENT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
JSON = json.dumps(DOCUMENT).encode()


def _every_way(body: bytes, **options: Any) -> Outcome:
    """Replay the body whole, byte by byte and at every split; all are the same."""
    whole = replay([body], **options)
    assert replay(in_bytes(body), **options) == whole
    for pieces in in_two(body):
        assert replay(pieces, **options) == whole
    return whole


@pytest.mark.parametrize(
    "body",
    [
        sse(chunk("Hi"), chunk(finish="stop")),
        sse(chunk("Hi"), chunk(finish="stop"), done=False),
        sse(chunk("Hi", finish="stop"), done=False),
        sse(chunk("Hi"), chunk(finish="stop")).removesuffix(b"\n\n"),
        sse(chunk("Hi"), chunk(finish="stop"), done=False).removesuffix(b"\n\n"),
        sse(chunk("Hi"), chunk(finish="stop")) * 2,
        sse(chunk("Hi"), chunk(finish="stop")) + sse(chunk("late"), {"error": "late"}),
        sse(chunk("Hi"), chunk(finish="stop")) + b"data: {broken\n\n" + b"\xff" * 99,
        sse(chunk("Hi"), chunk(finish="stop"), b"[DONE]  ", b"[DONE]"),
        sse(b": OPENROUTER PROCESSING", chunk("Hi"), b": OPENROUTER PROCESSING", chunk(finish="stop")),
        b": OPENROUTER PROCESSING\n\n" * 3 + sse(chunk("Hi"), chunk(finish="stop")),
        b"retry: 3000\nid: 1\n\n" + sse(chunk("Hi"), chunk(finish="stop")),
        b"\n\r\n \n" + sse(chunk("Hi"), chunk(finish="stop")),
        BOM + sse(chunk("Hi"), chunk(finish="stop")),
        BOM + BOM + sse(chunk("lost: the second one is part of a name"), chunk("Hi"), chunk(finish="stop")),
        sse(chunk("Hi"), chunk(finish="stop")).replace(b"\n", b"\r\n"),
        sse(chunk("Hi"), chunk(finish="stop")).replace(b"\n", b"\r"),
        sse(chunk("Hi"), chunk(finish="stop")).replace(b"data: ", b"data:"),
        sse(chunk("Hi"), chunk(finish="stop")).replace(b"data: ", b"event: chunk\ndata: "),
        sse(chunk("Hi"), chunk(""), chunk(finish="stop"), chunk("", finish="")),
        sse(chunk("Hi"), chunk(finish="stop"), done=False) + b'data: {"id": "cut',
    ],
    ids=[
        "plain",
        "no-end-mark",
        "finish-with-text",
        "no-last-blank-line",
        "neither",
        "twice",
        "an-error-after-the-end",
        "rubbish-after-the-end",
        "end-mark-with-blanks",
        "comments-as-data",
        "comments",
        "meta-only-event",
        "blank-lines-first",
        "bom",
        "two-boms",
        "crlf",
        "cr",
        "no-space",
        "named-events",
        "empty-finish-reasons",
        "cut-after-the-finish",
    ],
)
def test_streams_that_are_whole(body: bytes) -> None:
    outcome = _every_way(body)
    assert outcome.deltas == ["Hi", Finish("stop")]
    assert (outcome.error, outcome.finish_reason, outcome.streamed, outcome.has_content) == (None, "stop", True, True)
    assert outcome.meta["model"] == "m"


def test_an_end_mark_alone_is_a_finish() -> None:  # Ollama sends `finish_reason: null` to the end
    outcome = _every_way(sse(chunk("Hi")))
    assert (outcome.deltas, outcome.error) == (["Hi", Finish(None)], None)
    assert _every_way(sse()).deltas == [Finish(None)]


def test_usage_after_the_finish() -> None:
    outcome = _every_way(sse(chunk("Hi"), chunk(finish="stop"), {"choices": [], "usage": USAGE}))
    assert outcome.deltas == ["Hi", UsageUpdate(COUNTED), Finish("stop")]
    assert outcome.usage == COUNTED


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
    outcome = _every_way(body)
    assert outcome.deltas == ["Hi", UsageUpdate(COUNTED), Finish("stop")]
    assert (outcome.error, outcome.streamed, outcome.meta) == (None, False, DOCUMENT)


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
    assert _every_way(body).deltas == ["Hi", Finish(None)]


def test_a_document_in_a_list() -> None:
    outcome = _every_way(b"[" + JSON + b"]")
    assert (outcome.text, outcome.error, outcome.meta["model"]) == ("Hi", None, "m")


def test_control_characters_may_stand_in_strings_as_they_are() -> None:  # earendil-works/pi#4446
    raw = b'{"content":"a\tb\0\x1b[0m"}'
    for body in (sse(b'{"choices":[{"delta":%b}]}' % raw), b'{"choices":[{"message":%b}]}' % raw):
        assert _every_way(body).text == "a\tb\0\x1b[0m"


def test_halves_of_characters_in_a_document() -> None:
    call = {"function": {"name": "w", "arguments": '"\ud83d"'}}
    message = {"content": "Hi\ud83d", "tool_calls": [call]}
    outcome = _every_way(json.dumps({"choices": [{"message": message}], "model": "\ude00"}).encode())
    assert outcome.text == "Hi\ufffd"
    assert outcome.tool_calls == [ToolCall("call_0", "w", '"\ufffd"')]
    assert outcome.meta["model"] == "\ufffd"


def test_two_choices() -> None:
    chunks = [chunk("b", index=1), chunk("a"), chunk("B", index=1), chunk("A"), chunk(index=1, finish="stop")]
    outcome = _every_way(sse(*chunks, chunk(finish="length")), choices=2)
    assert outcome.deltas == [TextDelta("b", 1), "a", TextDelta("B", 1), "A", Finish("stop", 1), Finish("length")]
    assert (outcome.text, outcome.finish_reason) == ("aA", "length")
    cut = _every_way(sse(*chunks, done=False), choices=2)
    assert isinstance(cut.error, errors.StreamInterruptedError)
    assert cut.error.partial_text == "aA"


@pytest.mark.parametrize("broken", [None, errors.APIConnectionError("Broken.")], ids=["cut", "broken"])
def test_a_choice_that_has_not_begun_is_missing(broken: errors.RustyAgentError | None) -> None:
    body = sse(chunk("a"), chunk(finish="stop"), done=False)
    assert replay([body], choices=2, broken=broken).error is not None
    assert replay([body], choices=1, broken=broken).error is None
    assert replay([body + b"data: [DONE]\n\n"], choices=2, broken=broken).error is None  # it may not know of `n`


@pytest.mark.parametrize("choices", [None, 1, 0, -1, True])
def test_an_answer_to_an_odd_number_of_choices_ends_all_the_same(choices: int | None) -> None:
    assert replay([b": hi\n\n"], choices=choices).error is not None
    assert replay([sse(chunk("a", index=1, finish="stop"), done=False)], choices=choices).deltas == [
        "a",
        Finish("stop"),
    ]


CUT = "The stream ended before its finish"
EMPTY = "The endpoint closed the connection with an empty answer"


@pytest.mark.parametrize(
    ("body", "kind", "said", "partial"),
    [
        (b"", errors.StreamInterruptedError, EMPTY, ""),
        (b"\n \r\n", errors.StreamInterruptedError, EMPTY, ""),
        (BOM + b"\n", errors.StreamInterruptedError, EMPTY, ""),
        (BOM[:2], errors.StreamInterruptedError, EMPTY, ""),
        (b": keep-alive\n\n", errors.StreamInterruptedError, CUT, ""),
        (sse(chunk("Hi"), done=False), errors.StreamInterruptedError, CUT, "Hi"),
        (sse(chunk("Hi"), chunk(finish=""), done=False), errors.StreamInterruptedError, CUT, "Hi"),
        (sse(chunk("Hi"), done=False) + b'data: {"choices": [', errors.StreamInterruptedError, CUT, "Hi"),
        (sse(chunk("Hi"), done=False) + b"data: 1", errors.StreamInterruptedError, CUT, "Hi"),
        (sse(chunk("Hi"), done=False) + b"data: [DON", errors.StreamInterruptedError, CUT, "Hi"),
        (sse(chunk("Hi"), b"{broken", chunk("late")), errors.ResponseError, "not JSON: '{broken'", "Hi"),
        (sse(chunk("Hi"), b"{broken", chunk(finish="stop")), errors.ResponseError, "not JSON: '{broken'", "Hi"),
        (sse(chunk("Hi"), {"error": {"code": 429}}), errors.RateLimitError, "HTTP 429", "Hi"),
        (sse(chunk("Hi"), {"error": "m"}, done=False), errors.APIStatusError, "m", "Hi"),
        (sse(chunk("Hi"), {"error": "m"}, done=False).strip(), errors.APIStatusError, "m", "Hi"),
        (sse(chunk("Hi", finish="stop"), {"error": "m"}), errors.APIStatusError, "m", "Hi"),
        (b'error: {"code":500,"message":"m"}\n\n', errors.ServerError, "HTTP 500: m", ""),
        (sse(chunk("Hi"), done=False) + b"event: error\n\n" + sse(), errors.APIStatusError, "inside its answer.", "Hi"),
        (sse({"message": "m"}), errors.APIStatusError, "m", ""),
        (
            sse(chunk("Hi"), {"errorMessage": "m"}, done=False),
            errors.StreamInterruptedError,
            'whole answer. Its last event was {"errorMessage":"m"}.',
            "Hi",
        ),
        (sse({"x": 1}, chunk("Hi"), done=False), errors.StreamInterruptedError, "not the whole answer.", "Hi"),
        (b'{"message":"m"}', errors.APIStatusError, "m", ""),
        (b'[{"error":{"code":503,"message":"m"}},{"error":{}}]', errors.ServerError, "HTTP 503: m", ""),
        (b'{"error":{"message":"m","code":401}}', errors.AuthenticationError, "HTTP 401: m", ""),
        (b'{"error":"m"}', errors.APIStatusError, "m", ""),
        (b'{"detail":"m"}', errors.APIStatusError, "m", ""),
        (b'[{"error":{"code":503,"message":"m"}}]', errors.ServerError, "HTTP 503: m", ""),
        (b"{}", errors.ResponseError, "The answer holds no choices: '{}'", ""),
        (b'{"choices":null,"id":"x"}', errors.ResponseError, "The answer holds no choices", ""),
        (b'{"choices":[]}', errors.ResponseError, "The answer holds no choices", ""),
        (b'{"choices":[{}]}', errors.ResponseError, "The answer holds no message: '{\"choices\":[{}]}'", ""),
        (b'{"choices":[{"message":null,"index":0}]}', errors.ResponseError, "The answer holds no message", ""),
        (b"[]", errors.ResponseError, "no JSON object", ""),
        (b'{"choices": [', errors.ResponseError, "The answer is not JSON: '{\"choices\": ['", ""),
        (b"<!DOCTYPE html><p>Hi", errors.ResponseError, "The answer is an HTML page: '<!DOCTYPE html><p>Hi'", ""),
        (b"\n\n<html>login</html>", errors.ResponseError, "The answer is an HTML page", ""),
    ],
    ids=[
        "empty",
        "blank",
        "bom-only",
        "half-a-bom",
        "comments-only",
        "cut-between-events",
        "cut-after-an-empty-reason",
        "cut-in-an-event",
        "cut-in-an-event-that-parses",
        "cut-in-the-end-mark",
        "malformed",
        "malformed-before-the-finish",
        "error-object",
        "error-string",
        "error-without-blank-line",
        "error-after-the-finish",
        "error-line",
        "error-event-without-data",
        "message-alone",
        "last-event-of-no-known-form",
        "first-event-of-no-known-form",
        "message-alone-document",
        "error-document-gemini-two",
        "error-document",
        "error-document-string",
        "error-document-fastapi",
        "error-document-gemini",
        "empty-object",
        "null-choices",
        "no-choices",
        "bare-choice",
        "choice-of-nulls",
        "empty-list",
        "cut-document",
        "html",
        "html-after-blank-lines",
    ],
)
def test_answers_that_fail(body: bytes, kind: type[errors.RustyAgentError], said: str, partial: str) -> None:
    outcome = _every_way(body)
    assert type(outcome.error) is kind
    assert said in outcome.error.message
    assert outcome.error.partial_text == outcome.text == partial
    assert outcome.has_content is bool(partial)
    assert not any(isinstance(delta, Finish) for delta in outcome.deltas)


def test_an_error_carries_the_usage_so_far() -> None:
    for last in ({"error": "m"}, b"{broken", b": cut"):
        error = _every_way(sse({**chunk("Hi"), "usage": USAGE}, last, done=False)).error
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


@pytest.mark.parametrize("finished", [False, True])
def test_a_broken_connection(finished: bool) -> None:
    """It matters only before the finish; what waited for its other half comes out."""
    broken = errors.APITimeoutError("Too slow.", limit="idle", seconds=1.0)
    chunks = [chunk("Hi"), *([chunk(finish="stop")] if finished else []), chunk("\ud83d")]
    body = sse(*(json.dumps(item).encode() for item in chunks), done=False)
    outcome = replay([body], broken=broken)
    assert outcome.text == "Hi\ufffd"
    assert outcome.error is (None if finished else broken)
    assert broken.partial_text == ("" if finished else "Hi\ufffd")
    for start in (b"", b"{"):
        assert replay([start], broken=broken).error is broken


@pytest.mark.parametrize("missing", [1, 2], ids=["blank-line", "line-end"])
@pytest.mark.parametrize("last", [b"[DONE]", chunk(finish="stop"), chunk("!", finish="stop")], ids=str)
def test_a_broken_connection_after_an_event_that_lacks_its_end(last: Any, missing: int) -> None:
    broken = errors.APIConnectionError("Broken.")
    body = sse(chunk("Hi"), last, done=False)[:-missing]
    assert replay([body], broken=broken).error is None
    for outcome in (replay([body[:-4]], broken=broken), replay([body + b"data"], broken=broken)):
        assert (outcome.text, outcome.error) in (("Hi", broken), (outcome.text, None))
    assert replay([body[:-4]], broken=broken).error is broken


def test_a_broken_connection_leaves_a_cut_event_unread() -> None:
    broken = errors.APIConnectionError("Broken.")
    outcome = replay([sse(chunk("Hi"), chunk("there"), done=False)[:-5]], broken=broken)
    assert (outcome.text, outcome.error) == ("Hi", broken)


@pytest.mark.parametrize("half", [{"content": "a\ud83d"}, {"reasoning": "a\ud83d"}], ids=repr)
@pytest.mark.parametrize("last", [b'{"error":"m"}', b"{broken", b"x" * 300], ids=["error", "malformed", "too-long"])
def test_what_waited_for_its_other_half_comes_before_an_error(half: dict[str, str], last: bytes) -> None:
    item = json.dumps({"choices": [{"delta": half}]}).encode()
    outcome = _every_way(sse(item, last, done=False), max_bytes=256)
    assert outcome.error is not None
    assert outcome.text + (outcome.reasoning or "") == "a\ufffd"


def test_half_a_character_in_arguments_is_told_once() -> None:
    call = {"index": 0, "id": "i", "function": {"name": "f", "arguments": "\ud83d"}}
    item = json.dumps({"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "stop"}]}).encode()
    assert _every_way(sse(item)).tool_calls == [ToolCall("i", "f", "\ufffd")]


def test_settled_once_every_choice_has_its_reason() -> None:
    decoder = ReplyDecoder(choices=2)
    settled = []
    for item in (chunk("a"), chunk("b", index=1), chunk(finish="stop"), chunk(finish="stop", index=1)):
        decoder.feed(sse(item, done=False))
        settled.append(decoder.tail)
    assert settled == [0, 0, 0, TAIL_SECONDS]
    assert not decoder.ended


@pytest.mark.parametrize(
    ("chunks", "tails"),
    [
        ([chunk("", finish="stop")], [0]),  # Ollama, before a model thinks (open-webui#23921)
        ([chunk("", finish="stop"), chunk(reasoning="hm"), chunk(finish="stop")], [0, 0, 0]),
        ([chunk("a"), chunk(finish="stop"), chunk("b"), chunk(finish="stop")], [0, 5, 0, 0]),
        ([chunk("a", finish="stop"), chunk("b", finish="stop")], [120, 0]),
        ([chunk("a"), chunk("b", finish="stop"), {"choices": [], "usage": USAGE}], [0, 120, 120]),
        ([chunk("a"), chunk(finish="tool_calls"), chunk("b")], [0, 120, 0]),  # LiteLLM calls some tools itself
        ([chunk("a"), chunk(finish="null"), chunk("b"), chunk(finish="stop")], [0, 0, 0, 5]),
    ],
)
def test_how_long_more_is_waited_for_after_a_finish_reason(chunks: list[dict[str, Any]], tails: list[float]) -> None:
    """One that may have come early does not end an answer soon, but pings do not hold it open for ever either."""
    decoder = ReplyDecoder()
    seen = []
    for item in chunks:
        decoder.feed(sse(item, done=False))
        seen.append(decoder.tail)
    assert seen == tails


@pytest.mark.parametrize(
    ("chunks", "whole", "reason"),
    [
        ([chunk("a", finish="stop"), chunk("b", finish="stop")], [True, False], "stop"),
        ([chunk("a"), chunk(finish="length"), chunk("b")], [False, False], "length"),
        ([chunk("a"), chunk(finish="stop"), chunk("b"), chunk(finish="length")], [True, False], "length"),
        ([chunk("a"), chunk(finish="stop"), chunk("")], [True, True], "stop"),
        ([chunk("a"), chunk(finish="stop"), {"choices": [{"text": "b"}]}], [False, False], "stop"),
    ],
)
def test_what_a_finish_reason_that_came_early_is_worth(
    chunks: list[dict[str, Any]], whole: list[bool], reason: str
) -> None:
    """By itself it makes an answer whole that ends after it, and none that breaks off; with an end mark it is told."""
    broken = errors.StreamInterruptedError("broken")
    ends = [replay([sse(*chunks, done=False)], broken=error) for error in (None, broken)]
    assert [end.error is None for end in ends] == whole
    assert replay([sse(*chunks)]).finish_reason == reason


@pytest.mark.parametrize("junk", [b"DONE", b"[done]", b'"[DONE]"', b"<html>", b"[1]"])
def test_junk_after_the_finish_is_an_end_mark(junk: bytes) -> None:
    assert replay([sse(chunk("a"), chunk(finish="stop"), junk, done=False)]).error is None
    assert type(replay([sse(chunk("a"), junk, done=False)]).error) is errors.ResponseError
    early = [chunk("a", finish="stop"), chunk("b", finish="stop")]
    assert type(replay([sse(*early, junk, done=False)]).error) is errors.ResponseError
    wrong = {"error": {"message": "m"}}
    assert type(replay([sse(chunk("a"), chunk(finish="stop"), wrong, done=False)]).error) is errors.APIStatusError


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
def test_cap(body: bytes, too_long: bool) -> None:
    outcome = _every_way(body, max_bytes=256)
    assert isinstance(outcome.error, errors.ResponseError) is too_long
    if outcome.error is not None:
        assert "longer than 256 bytes. Raise max_event_bytes" in outcome.error.message
        assert outcome.error.partial_text == ("ok" if outcome.streamed else "")


def test_an_unfinished_event_at_the_border_of_the_cap_is_cut_not_wrong() -> None:
    body = sse(chunk("ok"), done=False)
    outcome = _every_way(body + b"data: " + b"x" * 250, max_bytes=250)
    assert isinstance(outcome.error, errors.StreamInterruptedError)
    assert outcome.text == "ok"


def test_keep_alive_lines_take_no_memory() -> None:
    decoder = ReplyDecoder(max_bytes=1024)
    for _ in range(1000):
        assert decoder.feed(b"\r\n" * 100) == []
    assert decoder.feed(JSON) == []
    assert decoder.close()[0] == "Hi"


@pytest.mark.parametrize(
    ("arrivals", "frames"),
    [(["a"], 0), (["a", ""], 1), (["a", "b"], 1), (["a", "b", "c"], 1), (["ab"], 1), (["abc", "d"], 1)],
)
def test_a_frame_is_made_once_more_texts_come(
    arrivals: list[str], frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first text does not wait for it, and an answer that comes at once with one piece of text has none."""
    made = []

    def counted(*sample: Any) -> Any:
        made.append(sample)
        return frame_of(*sample)

    monkeypatch.setattr("rusty_agent.wire.chunks.frame_of", counted)
    bodies = [sse(*map(chunk, texts), done=False) for texts in arrivals]
    bodies[0] = sse(chunk("", role="assistant"), done=False) + bodies[0]
    bodies[-1] += sse(chunk(finish="stop"))
    decoder = ReplyDecoder()
    deltas = [delta for body in bodies for delta in decoder.feed(body)]
    assert deltas == [*"".join(arrivals), Finish("stop")]
    assert len(made) == frames


@pytest.mark.parametrize("at_once", [1, 2, 7])
def test_of_tokens_that_come_a_few_at_once_nearly_none_goes_the_long_way(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first, from which is learned what they have in common."""
    long_way = 0
    feed = ReplyDecoder._feed

    def counted(self: ReplyDecoder, data: bytes) -> list[Delta]:
        nonlocal long_way
        long_way += 1
        return feed(self, data)

    def event(word: str) -> bytes:
        return sse(
            {"id": "x", "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}, done=False
        )

    monkeypatch.setattr(ReplyDecoder, "_feed", counted)
    decoder = ReplyDecoder()
    words = [f"word {number} \N{SNOWMAN}\n" for number in range(49)]
    for start in range(0, 49, at_once):
        arrival = words[start : start + at_once]
        assert decoder.feed(b"".join(map(event, arrival))) == arrival
    assert (decoder.assembler.text, long_way) == ("".join(words), 1)
    held_back = decoder.feed(b'data: {"id":')  # in the middle of an event nothing is told by its first bytes
    assert decoder.feed(event("a") * at_once) == held_back == []


@pytest.mark.parametrize("odd", ["1", '""', "x", '"a","b"', "null"])
def test_arrivals_that_only_look_like_texts(odd: str) -> None:
    """Between the bytes that plain events have in common stands something else than a text."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":%b}}]}\n\n'
    plain, other = event % b'"a"', event % odd.encode()
    for arrivals in ([plain, other], [plain, plain + other], [plain, other + plain], [plain, plain + other + plain]):
        assert replay(arrivals) == replay([b"".join(arrivals)])


STRANGE = {"text": "boom", "odd": 7}


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        (sse(chunk("Hi"), STRANGE), errors.APIStatusError, "boom"),
        (sse(chunk("Hi"), STRANGE, {"type": "ping"}), errors.APIStatusError, "boom"),
        (sse(chunk("Hi"), STRANGE, chunk("!")), None, ""),
        (sse(chunk("Hi"), STRANGE, {"usage": USAGE, "odd": 1}), None, ""),
        (sse(chunk("Hi"), STRANGE, {"choices": [], "odd": 1}), None, ""),
        (sse(chunk("Hi"), chunk(finish="stop"), STRANGE), None, ""),
        (sse(STRANGE), errors.APIStatusError, "boom"),
        (sse({"usage": USAGE}), errors.ResponseError, "no choices"),
        (sse({"choices": [], "id": "a"}), errors.ResponseError, "no choices"),
        (sse(), None, ""),
        (sse(chunk("Hi"), done=False) + b"Bad Gateway\n\ndata: [DONE]\n\n", errors.StreamInterruptedError, "Bad Gat"),
        (sse(chunk("Hi"), chunk(finish="stop"), done=False) + b"Bad Gateway\n\ndata: [DONE]\n\n", None, ""),
        (sse(chunk("Hi"), done=False) + b"data: [DONE] \n\n</html>\n", None, ""),
        (sse(chunk("Hi")) + b"data: {}\n\nbye\nbye\n", None, ""),
        (b"warming up\n\n" + sse(chunk(reasoning="hm")), errors.StreamInterruptedError, "warming up"),
        *(
            (sse(chunk("Hi"), done=False) + b"data: " + mark + b"\n\nbye\n", None, "")
            for mark in (b"[DONE]\0", b"data: [DONE]", BOM + b"[DONE]")
        ),
    ],
)
def test_an_end_mark_is_not_believed_after_what_is_no_answer(
    body: bytes, error: type[errors.RustyAgentError] | None, says: str
) -> None:
    outcome = _every_way(body)
    assert (type(outcome.error) if outcome.error else None) is error
    assert says in str(outcome.error or "")


SAID = {"role": "assistant", "content": "Hi"}
SAID_IN_PARTS = {"type": "text", "text": "Hi"}


def _beside(*pieces: tuple[str, str]) -> list[dict[str, Any]]:
    """Deltas, each beside a message that tells all that has come so far."""
    return [{"delta": {"content": piece}, "message": {"content": so_far}} for piece, so_far in pieces]


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        # a message beside empty deltas is all that has come so far
        ([{"delta": {"content": ""}, "message": SAID}] * 2, "Hi"),
        (_beside(("", "H"), ("", "Hi"), ("", "Hi")), "Hi"),
        ([{"delta": {"content": ""}, "message": {"content": [SAID_IN_PARTS]}}] * 2, "Hi"),
        # … though text comes in pieces later (Perplexity)
        (_beside(("", ""), ("Hi", "Hi"), ("", "Hi")), "Hi"),
        (_beside(("", "H"), ("i", "Hi"), ("", "Hi")), "Hi"),
        # and so is a text
        ([{"delta": {"content": "H"}}, {"delta": {"content": "i"}}, {"delta": {}, "text": "Hi"}], "Hi"),
        ([{"delta": {"content": "Hi"}}, {"delta": {"content": ""}, "text": "</s>"}], "Hi"),
        ([{"delta": {"content": text}, "text": text} for text in ("\ud83d", "\ude00")], "😀"),
        # what did not come in pieces is taken from it
        ([{"delta": {"reasoning": "hm"}}, {"delta": {}, "message": {**SAID, "reasoning": "hm"}}], "Hi"),
        ([{"delta": {"reasoning": "hm"}}, {"message": {**SAID, "reasoning": "hm"}}], "Hi"),
    ],
)
def test_what_is_told_once_more_is_told_once(choices: list[dict[str, Any]], text: str) -> None:
    items = [{"choices": [choice]} for choice in choices]
    outcome = _every_way(sse(*(json.dumps(item).encode() for item in items), chunk(finish="stop")))
    assert (outcome.text, outcome.error, outcome.reasoning) in ((text, None, None), (text, None, "hm"))


def test_a_text_that_only_the_last_message_tells_while_another_choice_speaks() -> None:
    thought = {"choices": [{"index": 1, "delta": {"reasoning": "hm"}}]}
    last = {"choices": [{"index": 1, "delta": {}, "message": SAID, "finish_reason": "stop"}]}
    reply = ReplyDecoder(choices=2)
    deltas = reply.feed(sse(chunk("H"), thought, chunk("i"), last, chunk(finish="stop")))
    assert TextDelta("Hi", 1) in deltas


def test_calls_that_only_the_last_message_tells() -> None:
    call = {"index": 0, "id": "i", "function": {"name": "f", "arguments": "{}"}}
    last = {"choices": [{"delta": {}, "message": {**SAID, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    outcome = _every_way(sse(chunk("Hi"), last))
    assert (outcome.text, outcome.tool_calls) == ("Hi", [ToolCall("i", "f", "{}")])


@pytest.mark.parametrize(
    "error",
    [
        {"choices": [{"delta": {"content": ""}}], "error": {"code": 0, "message": "None", "metadata": {"raw": "boom"}}},
        {"choices": [], "error": {"code": 0, "message": "", "type": "server_error"}},
        {"code": 10014, "message": "output is sensitive", "choices": [{"delta": {"content": ""}}]},
        {"code": 10014, "message": "output is sensitive", "choices": []},
    ],
    ids=repr,
)
def test_an_error_beside_choices(error: dict[str, Any]) -> None:
    outcome = _every_way(sse(chunk("Hi"), error))
    assert isinstance(outcome.error, errors.APIStatusError)
    assert outcome.error.partial_text == "Hi"


@pytest.mark.parametrize(
    "nothing",
    [
        {"error": {"code": 0, "message": ""}},
        {"error": {"code": "success", "message": ""}},
        {"code": 0, "message": "Success", "sid": "s"},
        {"code": "Success", "message": "Success"},
        {"detail": {"queue": 1}},
        {"detail": "ok"},
    ],
    ids=repr,
)
def test_what_is_no_error_beside_choices(nothing: dict[str, Any]) -> None:
    first, last = {"choices": [], **nothing}, {"choices": [], "usage": USAGE, **nothing}
    outcome = _every_way(sse(first, chunk("Hi"), chunk(finish="stop"), last))
    assert (outcome.text, outcome.error, outcome.usage) == ("Hi", None, COUNTED)


@pytest.mark.parametrize("reason", ["None", "none", "not_finished", "FINISH_REASON_UNSPECIFIED", "null"])
def test_a_finish_reason_that_is_none(reason: str) -> None:
    outcome = _every_way(sse(chunk("Hi", finish=reason), chunk("!", finish=reason), done=False))
    assert isinstance(outcome.error, errors.StreamInterruptedError)
    assert _every_way(sse(chunk("Hi", finish=reason))).finish_reason is None


@pytest.mark.parametrize("broken", [errors.APIConnectionError("broken"), None], ids=["broken", "ended"])
def test_a_finish_reason_alone_is_no_answer_that_may_break(broken: errors.RustyAgentError | None) -> None:
    body = sse(chunk("", finish="stop"), done=False)  # Ollama's, before a model thinks
    assert replay([body], broken=broken).error is broken


NOTHING = {"message": None, "code": None, "type": None, "param": None}
FINE = [NOTHING, {"code": "", "message": ""}, {"code": 0, "message": "success"}, {}]


@pytest.mark.parametrize("error", FINE, ids=repr)
def test_an_error_that_says_nothing_is_none_beside_the_counts(error: dict[str, Any]) -> None:
    """Of servers that send one with each chunk, the one with the counts has it too, and no choices."""
    chunks = [chunk("Hi"), chunk(finish="stop"), {"choices": [], "usage": USAGE}]
    outcome = _every_way(sse(*(item | {"error": error} for item in chunks)))
    assert (outcome.text, outcome.finish_reason, outcome.usage, outcome.error) == ("Hi", "stop", COUNTED, None)


def test_details_of_an_answer_that_has_begun_are_no_error() -> None:
    detail = {"choices": [], "detail": {"latency": 3}}
    assert _every_way(sse(chunk("Hi"), chunk(finish="stop"), detail)).error is None
    for odd in ({"detail": {"latency": 3}}, detail | {"detail": "boom"}, {"error": NOTHING}):
        assert _every_way(sse(chunk("Hi"), odd)).error is not None


@pytest.mark.parametrize("broken", [None, errors.StreamInterruptedError("broken")], ids=["ended", "broken"])
def test_one_chunk_without_its_stream_is_a_cut_stream(broken: errors.RustyAgentError | None) -> None:
    for text in ("Hi", ""):
        line = json.dumps(chunk(text, role="assistant")).encode()
        for end in (b"", b"\n"):
            outcome = replay([line + end], broken=broken)
            assert outcome.text == text
            assert isinstance(outcome.error, errors.StreamInterruptedError)
    whole = replay([json.dumps(chunk("Hi", finish="stop")).encode()], broken=broken)
    assert (whole.text, whole.error) == ("Hi", None)


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"role": "assistant", "content": ""}, "message": {"role": "assistant", "content": "Hi"}},
        {"delta": {"role": "assistant"}, "text": "Hi"},
        {"delta": "Hi"},
        {"message": "Hi"},
    ],
    ids=repr,
)
def test_text_is_found_wherever_a_choice_has_it(choice: dict[str, Any]) -> None:
    item = {"choices": [{"index": 0, "finish_reason": "stop"} | choice]}
    for body in (sse(item), json.dumps(item).encode()):
        outcome = _every_way(body)
        assert (outcome.text, outcome.error) == ("Hi", None)


@pytest.mark.parametrize("start", [b"<!DOCTYPE html>", b"<html>", b"\n<HTML lang=en>"])
def test_a_page_that_shows_a_stream_is_no_answer(start: bytes) -> None:
    outcome = _every_way(start + b"\n<pre>\n" + sse(chunk("Example"), chunk(finish="stop")) + b"</pre></html>")
    assert isinstance(outcome.error, errors.ResponseError)
    assert (outcome.text, "HTML" in str(outcome.error)) == ("", True)


def test_what_php_says_in_front_of_a_stream_does_not_matter() -> None:
    outcome = _every_way(b"<br />\n<b>Warning</b>: x\n\n" + sse(chunk("Hi"), chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("Hi", None)


@pytest.mark.parametrize("lead", ["data: ", "data:", "\ufeff", "\0 ", "data: \ufeff"])
def test_what_was_made_an_event_twice_is_one(lead: str) -> None:
    lines = [json.dumps(chunk("Hi")), json.dumps(chunk(finish="stop")), "[DONE]"]
    body = "".join(f"data: {lead}{line}\n\n" for line in lines).encode()
    outcome = _every_way(body)
    assert (outcome.text, outcome.finish_reason, outcome.error) == ("Hi", "stop", None)


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


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b"\r\n\r\n", b""])
@pytest.mark.parametrize("lead", [b"", b": ping\n\n", sse(chunk("Hi"), done=False)], ids=["first", "ping", "text"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["object", "list"])
def test_an_error_in_several_lines(lead: bytes, end: bytes, wrapped: bool) -> None:
    told: Any = {"error": {"code": 503, "message": "data: boom"}}
    body = lead + json.dumps([told] if wrapped else told, indent=2).encode() + end
    outcome = _every_way(body)
    assert isinstance(outcome.error, errors.ServerError)
    assert "data: boom" in outcome.error.message
    if end:
        assert str(replay([body + b"data: [DONE]\n\n"]).error) == str(outcome.error)


def test_only_the_first_line_of_an_events_data_has_its_field() -> None:
    told = json.dumps(chunk("Hi"), indent=1).encode()
    outcome = _every_way(b"data: " + told + b"\n: a comment\n\n" + sse(chunk("!"), chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("Hi!", None)


@pytest.mark.parametrize(
    "event",
    [b"event: status\ndata: ok\n\n", b"event: keep_alive\ndata: ok\n\n", b"data: ping\n\n", b"data: Keep-Alive\n\n"],
)
def test_words_that_are_signs_of_life(event: bytes) -> None:
    outcome = _every_way(sse(chunk("Hi"), done=False) + event + sse(chunk("!"), chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("Hi!", None)


def test_plain_text_is_no_answer() -> None:
    outcome = _every_way(b"Internal Server Error")
    assert isinstance(outcome.error, errors.ResponseError)
    assert "neither JSON nor an event stream: 'Internal Server Error'" in outcome.error.message


def test_malformed_data_of_an_event_of_another_kind_is_not_passed_over() -> None:
    outcome = _every_way(sse(chunk("Hi"), done=False) + b'event: chunk\ndata: {"choices": [{"del\n\n' + sse(chunk("!")))
    assert (outcome.text, type(outcome.error)) == ("Hi", errors.ResponseError)


@pytest.mark.parametrize("litter", [b" ", b"\0", b"\t  ", BOM], ids=repr)
def test_what_a_heartbeat_leaves_in_front_of_an_event_costs_no_text(litter: bytes) -> None:
    event = sse(chunk("b"), done=False)
    outcome = _every_way(sse(chunk("a"), done=False) + litter + event + sse(chunk("c"), chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("abc", None)


def test_lines_behind_the_end_mark_say_nothing() -> None:
    outcome = _every_way(sse(chunk("a")) + b"stats 12ms\n\n</pre>\n")
    assert (outcome.text, outcome.finish_reason, outcome.error) == ("a", None, None)


def test_choices_are_told_apart_by_their_places_where_several_were_asked_for() -> None:
    both = {"choices": [{"message": {"content": text}, "finish_reason": "stop"} for text in ("one", "two")]}
    apart = replay([json.dumps(both).encode()], choices=2)
    assert (apart.text, TextDelta("two", 1) in apart.deltas) == ("one", True)
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}  # Copilot splits an answer of Claude's like this
    split = {"choices": [both["choices"][0], {"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    joined = replay([json.dumps(split).encode()])
    assert (joined.text, joined.tool_calls) == ("one", [ToolCall("a", "f", "{}")])


@pytest.mark.parametrize("kind", [float, str])
def test_indexes_of_other_kinds(kind: Any) -> None:
    indexes = [kind(n) for n in (0, 1)]
    items = [
        {"choices": [{"index": index, "delta": {"content": text}}]} for index, text in zip(indexes, "ab", strict=True)
    ]
    outcome = _every_way(sse(*items, chunk(finish="stop"), chunk(finish="stop", index=1)), choices=2)
    assert (outcome.text, TextDelta("b", 1) in outcome.deltas, outcome.error) == ("a", True, None)


@pytest.mark.parametrize("error", [{}, {"message": "", "code": None, "type": ""}, {"code": 0, "message": ""}], ids=repr)
def test_an_error_that_says_nothing_is_none_beside_choices(error: dict[str, Any]) -> None:
    assert replay([json.dumps({**DOCUMENT, "error": error}).encode()]).text == "Hi"
    chunks = [{**chunk("Hi"), "error": error}, chunk(finish="stop")]
    assert _every_way(sse(*chunks)).text == "Hi"
    within = chunk("Hi")
    within["choices"][0]["error"] = error
    assert _every_way(sse(within, chunk(error=error), chunk(finish="stop"))).text == "Hi"


def test_a_status_of_minimax_counts_beside_choices() -> None:
    told = {**chunk("half"), "base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}}
    error = _every_way(sse(told)).error
    assert isinstance(error, errors.APIStatusError)
    assert error.partial_text == "half"
    fine = {**chunk("whole", finish="stop"), "base_resp": {"status_code": 0, "status_msg": ""}}
    assert _every_way(sse(fine)).error is None


@pytest.mark.parametrize(
    "reason", [{"type": "abort", "message": "oom"}, {"type": "stop", "matched": 2}, {"no": "type"}]
)
def test_finish_reasons_that_are_objects(reason: dict[str, Any]) -> None:
    last = chunk()
    last["choices"][0]["finish_reason"] = reason
    outcome = _every_way(sse(chunk("Hi"), last))
    assert outcome.finish_reason == reason.get("type")
    assert isinstance(outcome.error, errors.APIStatusError) is (reason.get("type") == "abort")


@pytest.mark.parametrize("key", ["audio", "images"])
def test_media_are_content(key: str) -> None:
    media = {"choices": [{"index": 0, "delta": {key: [{"data": "AAAA"}]}}]}
    assert replay([sse(media, done=False)]).has_content
    for other in (chunk(annotations=[1]), {"choices": [], "x": 1}, {"choices": [1]}):
        assert not replay([sse(other, done=False)]).has_content

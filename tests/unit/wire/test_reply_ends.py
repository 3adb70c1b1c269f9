"""How an answer ends: finish reasons, end marks, broken connections, and how long more is waited for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rusty_agent import errors
from rusty_agent.types import Finish, ToolCall, UsageUpdate
from rusty_agent.wire.reply import TAIL_SECONDS, ReplyDecoder
from tests.replies import BOM, COUNTED, USAGE, chunk, replay, replay_every_way, sse


def test_an_end_mark_alone_is_a_finish() -> None:  # Ollama sends `finish_reason: null` to the end
    outcome = replay_every_way(sse(chunk("Hi")))
    assert (outcome.deltas, outcome.error) == (["Hi", Finish(None)], None)
    assert replay_every_way(sse()).deltas == [Finish(None)]


@pytest.mark.parametrize(
    ("body", "passing", "foreign"),
    [
        (sse({"choices": [], "id": "a"}), True, False),
        (sse({"choices": [], "id": "a"}).rstrip(), True, False),
        (sse({"choices": []}), True, False),
        (sse({"data": {"choices": []}}), True, False),
        (b'{"data":{"choices":[]}}', True, False),
        (b'{"result":{"choices":[{"index":0}]}}', True, False),
        (sse({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}), True, False),
        (sse({"choices": None, "usage": USAGE}), False, False),  # litellm#40252
        (sse({"response": "Hi"}, {"response": "", "usage": USAGE}), False, True),
        (sse({"response": "Hi"}, {"choices": []}), False, True),
        (b'{"choices":[],"object":"chat.completion"}', True, False),
        (b'{"choices":null,"id":"a"}', True, False),  # pydantic-ai#6900
        (b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":0,"total_tokens":7}}', False, False),
        (b'{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}', True, False),
        (b'{"choices":[{"index":0}]}', True, False),
        (b'{"id":"a"}', False, True),
        (b"{}", False, True),
        (b"null", False, True),
    ],
)
def test_an_answer_that_holds_none_is_worth_another_try_where_it_cost_nothing(
    body: bytes, passing: bool, foreign: bool
) -> None:
    error = replay_every_way(body).error
    assert type(error) is errors.ResponseError
    assert error.retryable is passing
    assert ("Check that base_url" in error.message) is foreign


def test_usage_after_the_finish() -> None:
    outcome = replay_every_way(sse(chunk("Hi"), chunk(finish="stop"), {"choices": [], "usage": USAGE}))
    assert outcome.deltas == ["Hi", UsageUpdate(COUNTED), Finish("stop")]
    assert outcome.usage == COUNTED


@pytest.mark.parametrize("broken", [None, errors.APIConnectionError("Broken.")], ids=["cut", "broken"])
def test_a_choice_that_has_not_begun_is_missing(broken: errors.RustyAgentError | None) -> None:
    body = sse(chunk("a"), chunk(finish="stop"), done=False)
    assert replay([body], choices=2, broken=broken).error is not None
    assert replay([body], choices=1, broken=broken).error is None
    assert replay([body + b"data: [DONE]\n\n"], choices=2, broken=broken).error is None  # it may not know of `n`


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


def test_a_stream_that_is_cut_is_cut_wherever_that_is() -> None:
    body = b"id: 1\nevent: x\n" + sse(chunk("Hi"), chunk("!"), done=False) + b"retry: 5\n"
    for end in range(len(body)):
        error = replay([body[:end]]).error
        assert isinstance(error, errors.StreamInterruptedError)
        assert "One of its lines" not in error.message


@pytest.mark.parametrize("half", [{"content": "a\ud83d"}, {"reasoning": "a\ud83d"}], ids=repr)
@pytest.mark.parametrize("last", [b'{"error":"m"}', b"{broken", b"x" * 300], ids=["error", "malformed", "too-long"])
def test_what_waited_for_its_other_half_comes_before_an_error(half: dict[str, str], last: bytes) -> None:
    item = json.dumps({"choices": [{"delta": half}]}).encode()
    outcome = replay_every_way(sse(item, last, done=False), max_bytes=256)
    assert outcome.error is not None
    assert outcome.text + (outcome.reasoning or "") == "a\ufffd"


def test_half_a_character_in_arguments_is_told_once() -> None:
    call = {"index": 0, "id": "i", "function": {"name": "f", "arguments": "\ud83d"}}
    item = json.dumps({"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "stop"}]}).encode()
    assert replay_every_way(sse(item)).tool_calls == [ToolCall("i", "f", "\ufffd")]


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
        ([chunk("a"), chunk(finish="tool_calls"), chunk("18", role="tool")], [0, 120, 0]),  # so do agents
        ([chunk("a"), chunk("18", role="tool", finish="stop")], [0, 120]),
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
        ([chunk("a"), chunk(finish="tool_calls"), chunk("18", role="tool")], [False, False], "tool_calls"),
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


@pytest.mark.parametrize("junk", [b"DONE", b"[done]", b'"[DONE]"', b"<html>", b"[1,2]"])
def test_junk_after_the_finish_is_an_end_mark(junk: bytes) -> None:
    assert replay([sse(chunk("a"), chunk(finish="stop"), junk, done=False)]).error is None
    decoder = ReplyDecoder()
    decoder.feed(sse(chunk("a"), chunk(finish="stop"), junk, done=False))
    assert decoder.ended  # with the connection still open
    assert type(replay([sse(chunk("a"), junk, done=False)]).error) is errors.ResponseError
    early = [chunk("a", finish="stop"), chunk("b", finish="stop")]
    assert type(replay([sse(*early, junk, done=False)]).error) is errors.ResponseError
    wrong = {"error": {"message": "m"}}
    assert type(replay([sse(chunk("a"), chunk(finish="stop"), wrong, done=False)]).error) is errors.APIStatusError


def test_a_piece_of_a_stream_within_an_object_is_no_whole_answer() -> None:
    piece = {"data": {"object": "chat.completion.chunk", **chunk("Hel")}}
    outcome = replay_every_way(json.dumps(piece).encode())
    assert (type(outcome.error), outcome.text) == (errors.StreamInterruptedError, "Hel")


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
        (sse(chunk("Hi"), done=False) + b"data: [DONE]\nbye\n\n", None, ""),
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
    outcome = replay_every_way(body)
    assert (type(outcome.error) if outcome.error else None) is error
    assert says in str(outcome.error or "")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"429 Too Many Requests", errors.RateLimitError),
        (b"Service unavailable, try again later", errors.APIStatusError),
        (b"Number of choices must be greater than 0.", errors.ResponseError),
        (b'{"429 Too Many Requests', errors.ResponseError),
    ],
)
def test_an_error_in_words_alone(said: bytes, error: type[errors.RustyAgentError]) -> None:
    outcome = replay_every_way(sse(chunk("Hi"), said))
    assert type(outcome.error) is error
    assert said.decode() in outcome.error.message
    assert replay_every_way(sse(chunk("Hi", finish="stop"), said)).error is None


TENCENT = {"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "m"}, "RequestId": "r"}}


@pytest.mark.parametrize(
    ("failed", "error"),
    [
        ({"status": 500, "message": "m"}, errors.ServerError),
        ({"choices": None, "error_type": "BadRequestError", "error_message": "m"}, errors.BadRequestError),
        (TENCENT, errors.RateLimitError),
    ],
)
def test_an_error_in_an_odd_form_is_typed_however_the_answer_ends(
    failed: dict[str, Any], error: type[errors.RustyAgentError]
) -> None:
    for body in (
        sse(chunk("Hi"), failed),
        sse(chunk("Hi"), failed, done=False),
        sse(failed),
        sse(failed, done=False),
        json.dumps(failed).encode(),
    ):
        outcome = replay_every_way(body)
        assert type(outcome.error) is error
        assert outcome.error.message.endswith(": m.")
        assert outcome.error.partial_text == outcome.text
    broken = errors.APIConnectionError("Broken.")
    assert replay([sse(TENCENT, done=False)], broken=broken).error is broken
    assert replay_every_way(sse(TENCENT, chunk("Hi"))).error is None


def test_a_failed_response_ends_the_answer_though_the_connection_stays_open() -> None:  # codex#43140
    decoder = ReplyDecoder()
    failed = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "m"}}}
    decoder.feed(sse(chunk("Hi"), failed, done=False))
    assert decoder.ended
    assert (type(decoder.error), decoder.assembler.text) == (errors.ServerError, "Hi")


@pytest.mark.parametrize("reason", ["None", "none", "not_finished", "FINISH_REASON_UNSPECIFIED", "null"])
def test_a_finish_reason_that_is_none(reason: str) -> None:
    outcome = replay_every_way(sse(chunk("Hi", finish=reason), chunk("!", finish=reason), done=False))
    assert isinstance(outcome.error, errors.StreamInterruptedError)
    assert replay_every_way(sse(chunk("Hi", finish=reason))).finish_reason is None


@pytest.mark.parametrize("broken", [errors.APIConnectionError("broken"), None], ids=["broken", "ended"])
def test_a_finish_reason_alone_is_no_answer_that_may_break(broken: errors.RustyAgentError | None) -> None:
    body = sse(chunk("", finish="stop"), done=False)  # Ollama's, before a model thinks
    assert replay([body], broken=broken).error is broken


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


def test_lines_behind_the_end_mark_say_nothing() -> None:
    outcome = replay_every_way(sse(chunk("a")) + b"stats 12ms\n\n</pre>\n")
    assert (outcome.text, outcome.finish_reason, outcome.error) == ("a", None, None)


@pytest.mark.parametrize(
    "reason", [{"type": "abort", "message": "oom"}, {"type": "stop", "matched": 2}, {"no": "type"}]
)
def test_finish_reasons_that_are_objects(reason: dict[str, Any]) -> None:
    last = chunk()
    last["choices"][0]["finish_reason"] = reason
    outcome = replay_every_way(sse(chunk("Hi"), last))
    assert outcome.finish_reason == reason.get("type")
    assert isinstance(outcome.error, errors.APIStatusError) is (reason.get("type") == "abort")

"""What only some endpoints send: things told twice, errors that are none, litter, odd kinds of values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rusty_agent import errors
from rusty_agent.types import TextDelta, ToolCall
from rusty_agent.wire.reply import ReplyDecoder
from tests.replies import BOM, COUNTED, DOCUMENT, USAGE, chunk, replay, replay_every_way, sse

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
    outcome = replay_every_way(sse(*(json.dumps(item).encode() for item in items), chunk(finish="stop")))
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
    outcome = replay_every_way(sse(chunk("Hi"), last))
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
    outcome = replay_every_way(sse(chunk("Hi"), error))
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
    outcome = replay_every_way(sse(first, chunk("Hi"), chunk(finish="stop"), last))
    assert (outcome.text, outcome.error, outcome.usage) == ("Hi", None, COUNTED)


NOTHING = {"message": None, "code": None, "type": None, "param": None}

FINE = [NOTHING, {"code": "", "message": ""}, {"code": 0, "message": "success"}, {}]


@pytest.mark.parametrize("error", FINE, ids=repr)
def test_an_error_that_says_nothing_is_none_beside_the_counts(error: dict[str, Any]) -> None:
    """Of servers that send one with each chunk, the one with the counts has it too, and no choices."""
    chunks = [chunk("Hi"), chunk(finish="stop"), {"choices": [], "usage": USAGE}]
    outcome = replay_every_way(sse(*(item | {"error": error} for item in chunks)))
    assert (outcome.text, outcome.finish_reason, outcome.usage, outcome.error) == ("Hi", "stop", COUNTED, None)


def test_details_of_an_answer_that_has_begun_are_no_error() -> None:
    detail = {"choices": [], "detail": {"latency": 3}}
    assert replay_every_way(sse(chunk("Hi"), chunk(finish="stop"), detail)).error is None
    for odd in ({"detail": {"latency": 3}}, detail | {"detail": "boom"}, {"error": NOTHING}):
        assert replay_every_way(sse(chunk("Hi"), odd)).error is not None


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
        outcome = replay_every_way(body)
        assert (outcome.text, outcome.error) == ("Hi", None)


@pytest.mark.parametrize("start", [b"<!DOCTYPE html>", b"<html>", b"\n<HTML lang=en>"])
def test_a_page_that_shows_a_stream_is_no_answer(start: bytes) -> None:
    outcome = replay_every_way(start + b"\n<pre>\n" + sse(chunk("Example"), chunk(finish="stop")) + b"</pre></html>")
    assert isinstance(outcome.error, errors.ResponseError)
    assert (outcome.text, "HTML" in str(outcome.error)) == ("", True)


def test_what_php_says_in_front_of_a_stream_does_not_matter() -> None:
    outcome = replay_every_way(b"<br />\n<b>Warning</b>: x\n\n" + sse(chunk("Hi"), chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("Hi", None)


@pytest.mark.parametrize("lead", ["data: ", "data:", "\ufeff", "\0 ", "data: \ufeff"])
def test_what_was_made_an_event_twice_is_one(lead: str) -> None:
    lines = [json.dumps(chunk("Hi")), json.dumps(chunk(finish="stop")), "[DONE]"]
    body = "".join(f"data: {lead}{line}\n\n" for line in lines).encode()
    outcome = replay_every_way(body)
    assert (outcome.text, outcome.finish_reason, outcome.error) == ("Hi", "stop", None)


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b"\r\n\r\n", b""])
@pytest.mark.parametrize("lead", [b"", b": ping\n\n", sse(chunk("Hi"), done=False)], ids=["first", "ping", "text"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["object", "list"])
def test_an_error_in_several_lines(lead: bytes, end: bytes, wrapped: bool) -> None:
    told: Any = {"error": {"code": 503, "message": "data: boom"}}
    body = lead + json.dumps([told] if wrapped else told, indent=2).encode() + end
    outcome = replay_every_way(body)
    assert isinstance(outcome.error, errors.ServerError)
    assert "data: boom" in outcome.error.message
    if end:
        assert str(replay([body + b"data: [DONE]\n\n"]).error) == str(outcome.error)


@pytest.mark.parametrize("end", [b"\n", b"\n\n", b"\r\n", b" \n"])  # hackclub/ai#17, InfiniLM#15
@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ([chunk(finish="stop")], type(None)),
        ([{"error": {"message": "m", "code": 503}}], errors.ServerError),
        ([], errors.StreamInterruptedError),
    ],
)
def test_chunks_in_lines_without_fields(end: bytes, last: list[dict[str, Any]], kind: type) -> None:
    lines = [json.dumps(item).encode() for item in (chunk("Hi"), chunk("!"), *last)]
    for body in (end.join(lines), end.join([*lines, b""])):
        outcome = replay_every_way(body)
        assert (outcome.text, type(outcome.error)) == ("Hi!", kind)
    decoder = ReplyDecoder()
    assert decoder.feed(lines[0] + end) + decoder.feed(lines[1] + end) in (["Hi"], ["Hi", "!"])  # as they arrive


@pytest.mark.parametrize("indent", [0, 2])
def test_one_object_in_several_lines_is_a_document(indent: int) -> None:
    outcome = replay_every_way(json.dumps(DOCUMENT, indent=indent).encode())
    assert (outcome.text, outcome.usage, outcome.streamed) == ("Hi", COUNTED, False)


def test_objects_in_several_lines_each_are_no_stream() -> None:
    outcome = replay_every_way(b"\n".join([json.dumps(DOCUMENT, indent=2).encode()] * 2))
    assert isinstance(outcome.error, errors.ResponseError)
    assert (outcome.streamed, outcome.error.retryable) == (False, False)


@pytest.mark.parametrize(
    ("told", "error"), [([], None), ([chunk("", role="assistant")], None), ([chunk("Oh")], errors.ResponseError)]
)
def test_an_answer_that_a_gateway_begins_anew_within_a_chunk(
    told: list[dict[str, Any]], error: type[errors.RustyAgentError] | None
) -> None:  # Z.ai: opencode#8282, GLM-5#66
    cut = sse(*told, chunk("Oh no"), done=False)
    anew = sse(chunk("Hi"), chunk("!"), chunk(finish="stop"))
    for length in range(len(cut) - len(sse(chunk("Oh no"), done=False)) + len(b"data: {"), len(cut) - 2):
        outcome = replay([cut[:length] + anew])
        assert (type(outcome.error) if outcome.error else None) is error
        assert (outcome.error is None or outcome.error.retryable, outcome.text) == (True, "Oh" if error else "Hi!")
    for several in (cut[:-2] + anew, cut[:-2] + cut[:-5] + anew):  # of a whole chunk nothing is passed over
        assert isinstance(replay([several]).error, errors.ResponseError)


@pytest.mark.parametrize("between", [b"data: ", b"data:", b"", b" data: ", b"\r"], ids=repr)
@pytest.mark.parametrize("last", [chunk(finish="stop"), chunk("!"), b"[DONE]"], ids=["finish", "text", "end-mark"])
def test_the_end_mark_in_the_line_of_the_last_event(last: Any, between: bytes) -> None:
    """Relays add one to whatever lacks its end (ODS#5652)."""
    body = sse(chunk("Hi"), last, done=False)[:-2] + between + b"[DONE]\n\n"
    outcome = replay_every_way(body)
    assert (outcome.text.rstrip("!"), outcome.error) == ("Hi", None)
    assert replay_every_way(body + b"bye\n").error is None
    cut = replay([sse(chunk("Hi"), done=False)[:-6] + between + b"[DONE]\n\n"])
    assert (cut.text, type(cut.error)) == ("", errors.ResponseError)
    broke = replay_every_way(sse(chunk("Hi"), BROKE, done=False)[:-2] + between + b"[DONE]\n\n")
    assert (broke.text, type(broke.error)) == ("Hi", errors.ServerError)


@pytest.mark.parametrize("between", [b"\n\n", b"\n", b"", b"data: ", b"\n\ndata: "], ids=repr)
def test_the_end_mark_behind_a_whole_document(between: bytes) -> None:
    outcome = replay_every_way(json.dumps(DOCUMENT).encode() + between + b"[DONE]\n\n")
    assert (outcome.text, outcome.error) == (replay([json.dumps(DOCUMENT).encode()]).text, None)
    failed = replay_every_way(b'{"error":{"code":429,"message":"slow down"}}' + between + b"[DONE]")
    assert type(failed.error) is errors.RateLimitError


def test_what_comes_behind_the_end_mark_counts_nothing() -> None:
    for mark in (b"[DONE]", b"[DONE] bye", b"[DONE]: bye"):
        for field in (b"data: ", b""):
            outcome = replay_every_way(sse(chunk("Hi"), done=False) + field + mark + b"\n\nbye\n")
            assert (outcome.text, outcome.error) == ("Hi", None)


BROKE = b'{"error":{"message":"stream_read_error","type":"upstream_error"}}'


@pytest.mark.parametrize("between", [b"data: ", b"\ndata: ", b"\nevent: error\ndata: ", b"\n"])
@pytest.mark.parametrize("told", [[], [chunk("Oh")]], ids=["before-content", "after-content"])
def test_an_error_that_a_gateway_tells_within_a_chunk(told: list[dict[str, Any]], between: bytes) -> None:
    """The chunk was cut: sub2api#1471, talon#393."""
    before = sse(*told, done=False)
    cut = sse(chunk("Oh no"), done=False)
    for length in range(len(b"data: {"), len(cut) - 2):
        if cut[:length].endswith((b"}", b"]")):  # it looks whole: the error is an event of its own, and nobody looks on
            continue
        outcome = replay([before + cut[:length] + between + BROKE + b"\n\n"])
        assert isinstance(outcome.error, errors.ServerError)
        assert (outcome.error.status_code, outcome.text) == (502, "Oh" if told else "")
        assert "stream_read_error" in outcome.error.message
    replay_every_way(before + cut[:20] + between + BROKE + b"\n\n")


def test_an_error_behind_a_whole_chunk_without_its_blank_line_costs_no_text() -> None:
    outcome = replay_every_way(sse(chunk("Hi"), done=False)[:-1] + b"event: error\ndata: " + BROKE + b"\n\n")
    assert (outcome.text, type(outcome.error)) == ("Hi", errors.ServerError)


def test_a_chunk_that_was_cut_is_worth_another_try() -> None:
    """As a document is: gateways end the event all the same, and tell the error in the next one (talon#396)."""
    cut = json.dumps(chunk("Oh no")).encode()
    for length in range(1, len(cut)):
        error = replay([sse(cut[:length], BROKE)]).error
        assert error is not None
        assert (type(error), error.retryable) == (errors.ResponseError, True)
        assert "cut off before its end" in error.message
    replay_every_way(sse(cut[:20], BROKE))
    for junk in (b"{malformed}", cut[:-2] + b"x", cut + b"}", b"text"):
        error = replay([sse(junk)]).error
        assert error is not None
        assert not error.retryable


def test_only_the_first_line_of_an_events_data_has_its_field() -> None:
    told = json.dumps(chunk("Hi"), indent=1).encode()
    outcome = replay_every_way(b"data: " + told + b"\n: a comment\n\n" + sse(chunk("!"), chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("Hi!", None)


@pytest.mark.parametrize(
    "event",
    [
        *(b"event: status\ndata: %b\n\n" % words for words in (b"ok", b'"ok"', b"null", b"5")),
        b"event: keep_alive\ndata: ok\n\n",
        b"data: ping\n\n",
        b"data: Keep-Alive\n\n",
    ],
)
def test_words_that_are_signs_of_life(event: bytes) -> None:
    outcome = replay_every_way(sse(chunk("Hi"), done=False) + event + sse(chunk("!"), chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("Hi!", None)


def test_words_of_other_events_alone_are_no_answer() -> None:
    error = replay_every_way(b"event: token\ndata: Hi\n\n" + sse()).error
    assert isinstance(error, errors.ResponseError)
    assert (error.retryable, "no choices" in error.message) == (False, True)


def test_plain_text_is_no_answer() -> None:
    outcome = replay_every_way(b"Internal Server Error")
    assert isinstance(outcome.error, errors.ResponseError)
    assert "neither JSON nor an event stream: 'Internal Server Error'. Check that base_url" in outcome.error.message


def test_malformed_data_of_an_event_of_another_kind_is_not_passed_over() -> None:
    outcome = replay_every_way(
        sse(chunk("Hi"), done=False) + b'event: chunk\ndata: {"choices": [{"del\n\n' + sse(chunk("!"))
    )
    assert (outcome.text, type(outcome.error)) == ("Hi", errors.ResponseError)


@pytest.mark.parametrize("litter", [b" ", b"\0", b"\t  ", BOM], ids=repr)
def test_what_a_heartbeat_leaves_in_front_of_an_event_costs_no_text(litter: bytes) -> None:
    event = sse(chunk("b"), done=False)
    outcome = replay_every_way(sse(chunk("a"), done=False) + litter + event + sse(chunk("c"), chunk(finish="stop")))
    assert (outcome.text, outcome.error) == ("abc", None)


def test_choices_are_told_apart_by_their_places_where_several_were_asked_for() -> None:
    both = {"choices": [{"message": {"content": text}, "finish_reason": "stop"} for text in ("one", "two")]}
    apart = replay([json.dumps(both).encode()], choices=2)
    assert (apart.text, TextDelta("two", 1) in apart.deltas) == ("one", True)
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}  # Copilot splits an answer of Claude's like this
    split = {"choices": [both["choices"][0], {"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    joined = replay([json.dumps(split).encode()])
    assert (joined.text, joined.tool_calls) == ("one", [ToolCall("a", "f", "{}")])


@pytest.mark.parametrize("numbered", [True, False])
def test_calls_in_a_choice_of_their_own_belong_to_the_only_one_asked_for(numbered: bool) -> None:
    """An answer of Claude's as LiteLLM passes it on (litellm#35444); Copilot does not number the choices."""
    calls = [{"id": id_, "function": {"name": "f", "arguments": "{}"}} for id_ in "ab"]
    messages = [{"content": "Let me see."}, *({"content": None, "tool_calls": [call]} for call in calls)]
    choices: list[dict[str, Any]] = [{"message": message, "finish_reason": "tool_calls"} for message in messages]
    choices[0]["finish_reason"] = "stop"
    if numbered:
        choices = [{"index": index, **choice} for index, choice in enumerate(choices)]
    body = json.dumps({"choices": choices}).encode()
    outcome = replay_every_way(body)
    assert (outcome.text, outcome.finish_reason) == ("Let me see.", "tool_calls")
    assert outcome.tool_calls == [ToolCall(id_, "f", "{}") for id_ in "ab"]
    assert replay([body], choices=3).tool_calls == []


def test_a_second_text_that_nobody_asked_for_is_kept_apart() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"content": "one"}, {"content": "two", "tool_calls": [call]}, "three"]
    choices = [{"index": at, "message": message, "finish_reason": "stop"} for at, message in enumerate(messages)]
    outcome = replay_every_way(json.dumps({"choices": choices}).encode())
    assert (outcome.text, outcome.tool_calls) == ("one", [])
    assert [delta for delta in outcome.deltas if isinstance(delta, TextDelta)] == [
        TextDelta("two", 1),
        TextDelta("three", 2),
    ]


@pytest.mark.parametrize("kind", [float, str])
def test_indexes_of_other_kinds(kind: Any) -> None:
    indexes = [kind(n) for n in (0, 1)]
    items = [
        {"choices": [{"index": index, "delta": {"content": text}}]} for index, text in zip(indexes, "ab", strict=True)
    ]
    outcome = replay_every_way(sse(*items, chunk(finish="stop"), chunk(finish="stop", index=1)), choices=2)
    assert (outcome.text, TextDelta("b", 1) in outcome.deltas, outcome.error) == ("a", True, None)


@pytest.mark.parametrize("error", [{}, {"message": "", "code": None, "type": ""}, {"code": 0, "message": ""}], ids=repr)
def test_an_error_that_says_nothing_is_none_beside_choices(error: dict[str, Any]) -> None:
    assert replay([json.dumps({**DOCUMENT, "error": error}).encode()]).text == "Hi"
    chunks = [{**chunk("Hi"), "error": error}, chunk(finish="stop")]
    assert replay_every_way(sse(*chunks)).text == "Hi"
    within = chunk("Hi")
    within["choices"][0]["error"] = error
    assert replay_every_way(sse(within, chunk(error=error), chunk(finish="stop"))).text == "Hi"


def test_a_status_of_minimax_counts_beside_choices() -> None:
    told = {**chunk("half"), "base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}}
    error = replay_every_way(sse(told)).error
    assert isinstance(error, errors.APIStatusError)
    assert error.partial_text == "half"
    fine = {**chunk("whole", finish="stop"), "base_resp": {"status_code": 0, "status_msg": ""}}
    assert replay_every_way(sse(fine)).error is None


@pytest.mark.parametrize("key", ["audio", "images"])
def test_media_are_content(key: str) -> None:
    media = {key: [{"data": "AAAA"}]}
    assert replay([sse({"choices": [{"index": 0, "delta": media}]}, done=False)]).has_content
    assert replay([json.dumps({"choices": [{"message": {"content": None, **media}}]}).encode()]).has_content
    nothing = {**chunk("", audio=None, images=[]), "citations": ["x"]}  # LiteLLM's first
    for other in (chunk(annotations=[1]), nothing, {"choices": [], "x": 1}, {"choices": [1]}, {"choices": [{"x": 1}]}):
        assert not replay([sse(other, done=False)]).has_content


def test_what_a_tool_has_answered_is_content() -> None:
    """The endpoint has run it: a second request would run it again."""
    told = {"choices": [{"index": 0, "delta": {"role": "tool", "content": "18", "tool_call_id": "i"}}]}
    assert replay([sse(told, done=False)]).has_content
    assert replay_every_way(sse(told, chunk("warm", finish="stop"))).text == "warm"
    message = {"role": "tool", "content": "18"}  # of a whole answer it is all there is
    assert replay([json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()]).text == "18"
    assert replay([json.dumps({"choices": [{"message": message}]}).encode()]).text == "18"

"""What a call sends and what it gives back, through both faces."""

from __future__ import annotations

import asyncio
import math
import sys
import traceback
from typing import Any

import pytest

from rusty_agent import (
    APIStatusError,
    AsyncProvider,
    AttemptReport,
    AuthenticationError,
    BadRequestError,
    Finish,
    GenerateResult,
    Limits,
    Provider,
    ReasoningDelta,
    ResponseError,
    RetryPolicy,
    StreamInterruptedError,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
)
from rusty_agent.net.attempt import Attempt
from rusty_agent.testing import Answer, Hang, answer, completion, error, stream
from rusty_agent.testing.answers import chunk, event, events

from .faces import KEY, Face, Serve


def whole(text: str = "Hello world", **fields: Any) -> Answer:
    return answer(completion(text, **fields), headers={"x-request-id": "req-1"})


def test_generate_returns_the_text(face: Face, serve: Serve) -> None:
    server = serve(whole("Hi there"))
    assert face.generate(face.provider(server)) == "Hi there"
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.json == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_generate_with_usage_returns_the_result(face: Face, serve: Serve) -> None:
    result = face.generate(face.provider(serve(whole())), include_usage=True)
    assert isinstance(result, GenerateResult)
    assert str(result) == result.text == "Hello world"
    assert (result.prompt_tokens, result.completion_tokens, result.total_tokens) == (3, 5, 8)
    assert (result.finish_reason, result.model, result.request_id) == ("stop", "scripted", "req-1")
    assert result.raw == completion()
    assert result.time_to_first_token is not None
    assert result.duration is not None
    assert 0 < result.time_to_first_token <= result.duration < 5


@pytest.mark.parametrize(
    ("headers", "id_", "known"),
    [
        ({"x-request-id": "a", "request-id": "b"}, "d", "a"),
        ({"request-id": "b", "x-generation-id": "c"}, "d", "b"),
        ({"x-generation-id": "c"}, "d", "c"),
        ({}, "d", "d"),
        ({}, 7, None),
    ],
)
def test_a_request_has_the_name_that_the_endpoint_gives_it(
    face: Face, serve: Serve, headers: dict[str, str], id_: Any, known: str | None
) -> None:
    server = serve(answer(completion(id=id_), headers=headers))
    assert face.generate(face.provider(server), include_usage=True).request_id == known


def test_stream_yields_pieces_and_then_knows_everything(face: Face, serve: Serve) -> None:
    server = serve(stream("Hello", " ", "wörld", headers={"x-request-id": "req-2"}))
    outcome = face.stream(face.provider(server))
    assert outcome.error is None
    assert outcome.pieces == ["Hello", " ", "wörld"]
    done = outcome.stream
    assert (done.finish_reason, done.model, done.request_id) == ("stop", "scripted", "req-2")
    assert (done.prompt_tokens, done.completion_tokens, done.total_tokens) == (3, 3, 6)  # though nobody asked
    assert 0 < done.time_to_first_token <= done.duration < 5
    assert server.requests[0].json["stream"] is True
    assert "stream_options" not in server.requests[0].json


async def test_the_place_of_a_stream_is_free_with_its_last_event(serve: Serve) -> None:
    """Although nobody asks whether there is another one."""
    server = serve(stream("Hello", " world", gap=0.05), whole())
    llm = AsyncProvider("m", api_key=KEY, base_url=server.url, limits=Limits(in_flight=1))
    events = llm.stream_text("hi").events()
    while not isinstance(await anext(events), Finish):
        pass
    async with asyncio.timeout(5):
        assert await llm.generate_text("hi") == "Hello world"


async def test_a_call_that_is_closed_while_it_stands_in_line_has_made_no_attempt(serve: Serve) -> None:
    reports: list[AttemptReport] = []
    server = serve(stream("Hello", " world", gap=0.5))
    async with AsyncProvider(
        "m",
        api_key=KEY,
        base_url=server.url,
        limits=Limits(in_flight=1),
        retry=RetryPolicy(on_attempt=reports.append),
    ) as llm:
        first = llm.stream_text("first")
        assert await anext(first) == "Hello"
        waiting = asyncio.ensure_future(llm.generate_text("second"))
        await asyncio.sleep(0)
        await llm.aclose()
        with pytest.raises(StreamInterruptedError) as caught:
            await waiting
    assert caught.value.attempts == 0
    assert [report.number for report in reports] == [1]
    assert len(server.requests) == 1


async def test_a_stream_that_is_closed_before_it_was_read_has_made_no_attempt(serve: Serve) -> None:
    async with AsyncProvider("m", api_key=KEY, base_url=serve().url) as llm:
        unread = llm.stream_text("hi")
        await unread.aclose()
        with pytest.raises(StreamInterruptedError) as caught:
            await unread.result()
    assert caught.value.attempts == 0


def test_metadata_is_none_before_the_stream_is_read(serve: Serve) -> None:
    unread = AsyncProvider("m", api_key=KEY, base_url=serve().url).stream_text("hi")
    assert (unread.finish_reason, unread.model, unread.usage, unread.prompt_tokens) == (None, None, None, None)
    assert (unread.completion_tokens, unread.total_tokens, unread.request_id) == (None, None, None)
    assert (unread.reasoning, unread.refusal, unread.tool_calls) == (None, None, [])
    assert (unread.time_to_first_token, unread.duration, unread.partial_text) == (None, None, "")
    assert (unread.raw, unread.warnings) == ({}, [])


def test_include_usage_asks_for_it(face: Face, serve: Serve) -> None:
    server = serve()
    face.stream(face.provider(server), include_usage=True)
    assert server.requests[0].json["stream_options"] == {"include_usage": True}


def test_events_end_with_finish(face: Face, serve: Serve) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = [
        event(chunk({"role": "assistant", "content": None})),
        event(chunk({"reasoning_content": "Hm."})),
        event(chunk({"content": "Hi"})),
        event(chunk({"tool_calls": [call]})),
        event(chunk({}, "tool_calls")),
        event(chunk() | {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}),
        event("[DONE]"),
    ]
    server = serve(answer(body, content_type="text/event-stream", framing="chunked"))
    outcome = face.events(face.provider(server))
    kinds = [type(item) for item in outcome.events]
    assert kinds == [ReasoningDelta, TextDelta, ToolCallDelta, UsageUpdate, Finish]
    assert outcome.events[-1] == Finish("tool_calls")
    assert outcome.stream.reasoning == "Hm."
    assert [(made.id, made.name, made.arguments) for made in outcome.stream.tool_calls] == [("c1", "f", "{}")]


def test_result_drains_the_stream(face: Face, serve: Serve) -> None:
    result = face.result(face.provider(serve(stream("a", "b"))))
    assert (result.text, result.finish_reason, result.total_tokens) == ("ab", "stop", 5)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_the_server_sends_counts_not_what_was_asked(face: Face, serve: Serve, streamed: bool) -> None:
    """A JSON body where a stream was asked for, and a stream where a body was."""
    if streamed:
        outcome = face.stream(face.provider(serve(whole("All at once"))))
        assert (outcome.pieces, outcome.error) == (["All at once"], None)
    else:
        server = serve(stream("bit ", "by bit"))
        assert face.generate(face.provider(server)) == "bit by bit"


def test_generate_can_stream_underneath(face: Face, serve: Serve) -> None:
    server = serve(stream("bit ", "by bit"))
    assert face.generate(face.provider(server), stream=True) == "bit by bit"
    assert server.requests[0].json["stream"] is True


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ({"prompt": "p"}, [("user", "p")]),
        ({"prompt": ""}, [("user", "")]),
        ({"prompt": "p", "system_prompt": "s"}, [("system", "s"), ("user", "p")]),
        ({"prompt": "p", "messages": [{"role": "user", "content": "m"}]}, [("user", "m")]),
        ({"prompt": "p", "messages": []}, [("user", "p")]),
        (
            {"prompt": None, "system_prompt": "s", "messages": ({"role": "user", "content": "m"},)},
            [("system", "s"), ("user", "m")],
        ),
    ],
)
def test_messages(face: Face, serve: Serve, arguments: dict[str, Any], messages: list[tuple[str, str]]) -> None:
    server = serve()
    face.generate(face.provider(server), **arguments)
    assert [(sent["role"], sent["content"]) for sent in server.requests[0].json["messages"]] == messages


def test_parameters_are_sent_as_given(face: Face, serve: Serve) -> None:
    server = serve()
    given: dict[str, Any] = {
        "temperature": 0,
        "max_tokens": 7,
        "top_p": 0.5,
        "stop": ["a", "b"],
        "frequency_penalty": -1,
        "presence_penalty": 1.5,
        "seed": 42,
        "response_format": {"type": "json_object"},
    }
    face.generate(face.provider(server), **given, extra_body={"top_k": 3, "seed": None, "logit_bias": {50256: -100}})
    sent = server.requests[0].json
    del given["seed"]
    assert {name: sent[name] for name in given} == given
    assert (sent["top_k"], sent["logit_bias"], "seed" in sent) == (3, {"50256": -100}, False)


def test_headers_of_provider_and_call(face: Face, serve: Serve) -> None:
    server = serve()
    provider = face.provider(server, headers={"X-Title": "mine", "User-Agent": "me/1"})
    face.generate(provider, extra_headers={"x-title": "this call", "Authorization": "Basic xyz"})
    sent = server.requests[0].headers
    assert (sent["x-title"], sent["user-agent"], sent["authorization"]) == ("this call", "me/1", "Basic xyz")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({"system_prompt": 1}, "system_prompt"),
        ({"prompt": [{"role": "user", "content": "hi"}]}, "prompt must be a string: .* messages="),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "no role"}]}, r"messages\[0\]"),
        ({"messages": ["hi"]}, r"messages\[0\]"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": 3}, "stop"),
        ({"stop": ["a", 3]}, "stop"),
        ({"frequency_penalty": math.inf}, "frequency_penalty"),
        ({"seed": 1.5}, "seed"),
        ({"response_format": "json"}, "response_format"),
        ({"extra_body": [1]}, "extra_body"),
        ({"extra_body": {"x": object()}}, "extra_body"),
        ({"extra_headers": {"x": "a\r\nb: c"}}, "extra_headers"),
        ({"extra_headers": {"x y": "a"}}, "extra_headers"),
        ({"extra_headers": {"Content-Length": "1"}}, "extra_headers"),
        ({"include_usage": "yes"}, "include_usage"),
        ({"timeout": -1}, "timeout"),
        ({"retry": 3}, "retry"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_sent(
    face: Face, serve: Serve, arguments: dict[str, Any], named: str
) -> None:
    server = serve()
    provider = face.provider(server)
    with pytest.raises(ValueError, match=named):
        face.generate(provider, **arguments)
    assert isinstance(face.stream(provider, **arguments).error, ValueError)
    assert server.requests == []


@pytest.mark.parametrize("given", [1, None, "yes", []], ids=repr)
def test_whether_to_stream_is_true_or_false(face: Face, serve: Serve, given: Any) -> None:
    with pytest.raises(ValueError, match=f"stream must be True or False, not {type(given).__name__}"):
        face.generate(face.provider(serve()), stream=given)


def test_an_error_does_not_keep_the_body_that_it_is_about(face: Face, serve: Serve) -> None:
    """Whoever keeps a thousand errors keeps their frames, and a body may be as long as `max_event_bytes`."""
    page = b"<html>" + b"x" * 60_000
    with pytest.raises(ResponseError) as caught:
        face.generate(face.provider(serve(answer(page))))
    names = [value for frame, _ in traceback.walk_tb(caught.tb) for value in frame.f_locals.values()]
    attempts = [value for value in names if isinstance(value, Attempt)]
    assert attempts
    assert page not in [value for attempt in attempts for value in vars(attempt).values()]


def test_unknown_parameters_are_type_errors(face: Face, serve: Serve) -> None:
    provider = face.provider(serve())
    with pytest.raises(TypeError, match=r"^generate_text takes no argument 'temprature': did you mean 'temperature'"):
        face.generate(provider, temprature=1)
    with pytest.raises(TypeError, match=r"^stream_text takes no argument 'top_k'; .* goes into extra_body$"):
        provider.stream_text("hi", top_k=1)


def test_a_stream_shares_one_position_among_its_views(face: Face, serve: Serve) -> None:
    if face.name == "sync":
        opened = face.provider(serve(stream("a", "b", "c"))).stream_text("hi")
        assert next(opened) == "a"
        assert next(iter(opened.events())) == TextDelta("b")
        with pytest.raises(StreamInterruptedError):  # the view was dropped, and that closed the stream
            opened.result()
    else:

        async def main() -> None:
            opened = face.provider(serve(stream("a", "b", "c"))).stream_text("hi")
            await opened.open()
            assert await anext(opened) == "a"
            assert await anext(opened) == "b"
            assert (await opened.result()).text == "abc"
            assert [piece async for piece in opened] == []

        face.run(main)  # type: ignore[union-attr]


def test_html_where_an_answer_was_expected(face: Face, serve: Serve) -> None:
    server = serve(answer(b"<html><title>Log in</title></html>", content_type="text/html"))
    with pytest.raises(ResponseError, match="HTML"):
        face.generate(face.provider(server))
    assert isinstance(face.stream(face.provider(server)).failure, ResponseError)
    assert len(server.requests) == 2


def test_connections_are_kept(face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rusty_agent.net.guard._LINGER_SECONDS", 60)  # however late a body's end comes
    server = serve()
    provider = face.provider(server)
    for _ in range(5):
        face.generate(provider)
    assert server.connections == 1
    for _ in range(5):
        face.generate(provider, stream=True)
    assert server.connections <= 2  # the next request may leave before the last body's end has come


def test_an_end_mark_ends_the_stream_though_the_body_lingers(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rusty_agent.wire.reply.TAIL_SECONDS", 60)  # so that a finish reason alone does not end it
    server = serve(answer([*events("a"), Hang()], content_type="text/event-stream", framing="cut"))
    outcome = face.stream(face.provider(server), timeout=20)
    assert (outcome.pieces, outcome.error) == (["a"], None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Check the API key."),
        ({"api_key": None}, "Check the API key. It came from OPENROUTER_API_KEY."),
        ({"api_key": None, "headers": {"Api-Key": "a-key"}}, "Check the API key."),
        (
            {"api_key": None, "preset": "vllm"},
            "Check the API key. None was sent: set the environment variable VLLM_API_KEY or pass api_key.",
        ),
    ],
)
def test_a_refused_key_is_told_by_where_it_came_from(
    face: Face, serve: Serve, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-the-environment")
    with pytest.raises(AuthenticationError) as caught:
        face.generate(face.provider(serve(error(401, "no")), **options))
    assert str(caught.value) == f"HTTP 401: no. {said}"


def test_presets_warn_of_what_they_ignore(face: Face, serve: Serve) -> None:
    provider = face.provider(serve(), preset="anthropic")
    result = face.generate(provider, include_usage=True, seed=1, temperature=0.5)
    assert result.warnings == ["anthropic accepts seed and ignores it"]
    assert face.stream(provider, seed=1).stream.warnings == result.warnings
    assert face.stream(provider, extra_body={"seed": 1}).stream.warnings == result.warnings
    assert face.stream(provider, seed=1, extra_body={"seed": None}).stream.warnings == []


async def test_what_has_failed_goes_on_failing(serve: Serve) -> None:
    opened = AsyncProvider("m", api_key=KEY, base_url=serve(error(400)).url).stream_text("hi")
    for _ in range(3):
        with pytest.raises(BadRequestError) as raised:
            await opened.open()
    again = len(traceback.extract_tb(raised.tb))
    with pytest.raises(BadRequestError) as raised:
        await opened.open()
    assert len(traceback.extract_tb(raised.tb)) == again


def test_what_has_failed_goes_on_failing_in_the_blocking_face(serve: Serve) -> None:
    opened = Provider("m", api_key=KEY, base_url=serve(error(400)).url).stream_text("hi")
    for _ in range(3):
        with pytest.raises(BadRequestError) as raised:
            opened.open()
    again = len(traceback.extract_tb(raised.tb))
    with pytest.raises(BadRequestError) as raised:
        opened.open()
    assert len(traceback.extract_tb(raised.tb)) == again


async def test_a_stream_that_has_begun_keeps_nothing_of_its_request(serve: Serve) -> None:
    """Prompts may be large and thousands of streams open, and nothing is sent again."""
    refusal = error(400, "Unsupported parameter: 'seed' is not supported with this model.", param="seed")
    server = serve(refusal, answer([event(chunk({"content": "x"})), Hang()]))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url) as llm:
        prompt = repr(server)
        opened = llm.stream_text(messages=[{"role": "user", "content": prompt}], seed=1)
        held = sys.getrefcount(prompt)
        await anext(opened)
        assert sys.getrefcount(prompt) < held
        assert opened._call is not None
        assert opened._call._request.body == b""
        await opened.aclose()


@pytest.mark.parametrize("status", [400, 503])
async def test_a_stream_that_has_failed_keeps_nothing_of_its_request(serve: Serve, status: int) -> None:
    """Its error, whose frames hold it, stands in it: only the garbage collector frees the two."""
    server = serve(error(status))
    async with AsyncProvider("m", api_key=KEY, base_url=server.url, retry=RetryPolicy(max_retries=0)) as llm:
        prompt = repr(server)
        opened = llm.stream_text(messages=[{"role": "user", "content": prompt}])
        held = sys.getrefcount(prompt)
        with pytest.raises(APIStatusError):
            await anext(opened)
        assert sys.getrefcount(prompt) < held
        assert opened._call is not None
        assert opened._call._request.body == b""

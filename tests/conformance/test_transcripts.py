"""Answers of real servers, recorded byte by byte: the same outcome however the network cuts them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rusty_agent import errors
from rusty_agent.types import Finish, RawChunk, TextDelta, ToolCall, ToolCallDelta, Usage
from rusty_agent.wire.failure import status_error
from tests.conformance.transcripts import NAMES, load
from tests.replies import in_bytes, in_two, replay

ANSWERS = [name for name in NAMES if load(name).status in (0, 200)]
FAILURES = [name for name in NAMES if name not in ANSWERS]


def _points(body: bytes) -> Iterable[int]:
    """Every split point; of a long body those near its ends and a share of the others."""
    size = len(body) + 1
    return range(size) if size <= 6 * 1024 else sorted({*range(400), *range(400, size, 11), *range(size - 400, size)})


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("name", ANSWERS)
def test_the_cut_never_matters(name: str) -> None:
    body = load(name).body
    whole = replay([body])
    assert replay(in_bytes(body)) == whole
    for pieces in in_two(body, _points(body)):
        assert replay(pieces) == whole


TOYS = " named Max. Max loved to play with his toys. é世😀 The end."
AROUND = " named Max. Max loved to play with his toys and run around"
FRIENDS = " named Max. Max loved to play with his friends in the park. One day"
LILY = " was a little girl named Lily. She loved"
SAM = (
    '{ " Sam. He liked to play with his friends in the park. One day, he saw a big tree and wanted to show it to his '
    'friend, a little girl named Lily. She was very happy and said, "\n'
)


@pytest.mark.parametrize(
    ("name", "text", "reason", "usage"),
    [
        ("aimock/fx_filtered-false", "partial", "content_filter", (2, 2, 4, 0)),
        ("aimock/fx_filtered-true", "partial", "content_filter", (2, 2, 4, 0)),
        ("aimock/fx_reason-true", "Four.", "stop", (2, 2, 4, 0)),
        (
            "aimock/fx_slow-true",
            "Once upon a time, there was a slow stream with a late first token.",
            "stop",
            (1, 17, 18, 0),
        ),
        ("aimock/nonstream", TOYS, "stop", (10, 15, 25, 0)),
        ("aimock/stream_usage", TOYS, "stop", (10, 15, 25, 0)),
        ("aimock/stream_nousage", TOYS, "stop", None),
        ("llama-cpp-python/json_object_stream", SAM, "length", None),
        ("llama-cpp-python/logprobs", " named Max", "length", (11, 4, 15, 0)),
        ("llama-cpp-python/logprobs_stream", " named Max", "length", None),
        ("llama-cpp-python/n2_stream", " named Max. One day,", "length", None),
        ("llama-cpp-python/nonstream", FRIENDS, "length", (11, 24, 35, 0)),
        ("llama-cpp-python/stop_stream", " named Max", "stop", None),
        ("llama-cpp-python/stream_usage", FRIENDS, "length", None),
        ("llama-cpp-python/tools_finish_stream", "", "stop", None),
        ("nginx/buffered", LILY, "length", None),
        ("nginx/gzip_sse", LILY, "length", None),
        ("nginx/one_kb_per_s_split_512", LILY, "length", None),
        ("nginx/pass_through", LILY, "length", None),
        ("xllamacpp/json_object", "{ \n                    }", "stop", (12, 49, 61, 11)),
        ("xllamacpp/json_schema", '{ "name" : "It\'s a s", "age" : 3 }', "stop", (12, 56, 68, 11)),
        ("xllamacpp/json_schema_stream", '{ "name" : "It\'s a s", "age" : 3 }', "stop", (12, 56, 68, 11)),
        ("xllamacpp/logprobs_stream", " named Max", "length", (12, 4, 16, 11)),
        ("xllamacpp/n2", " named Max. Max", "length", (12, 8, 20, 11)),
        ("xllamacpp/n2_stream", " named Max. Max", "length", (12, 8, 20, 11)),
        ("xllamacpp/nonstream", AROUND, "length", (12, 24, 36, 0)),
        ("xllamacpp/stop_stream", " named Max", "stop", (12, 5, 17, 11)),
        ("xllamacpp/stream_nousage", AROUND, "length", None),
        ("xllamacpp/stream_usage", AROUND, "length", (12, 24, 36, 11)),
    ],
)
def test_text_and_usage(name: str, text: str, reason: str, usage: tuple[int, int, int, int] | None) -> None:
    answer = load(name)
    outcome = replay([answer.body], choices=2 if "/n2" in name else 1)
    assert (outcome.text, outcome.finish_reason, outcome.error) == (text, reason, None)
    assert outcome.streamed is answer.headers["content-type"].startswith("text/event-stream")
    if usage is None:
        assert outcome.usage is None
    else:
        assert isinstance(outcome.usage, Usage)
        counts = outcome.usage
        assert (counts.prompt_tokens, counts.completion_tokens, counts.total_tokens, counts.cached_tokens) == usage
        assert counts.raw["total_tokens"] == usage[2]


@pytest.mark.parametrize(("name", "cached"), [("nonstream", 0), ("stream_usage", 59)])
def test_reasoning(name: str, cached: int) -> None:
    outcome = replay([load(f"xllamacpp-think/{name}").body])
    assert outcome.reasoning == '"Here," Annack. \nThey were twins'
    assert (outcome.text, outcome.finish_reason, outcome.has_content) == ("", "length", True)
    assert outcome.usage is not None
    assert outcome.usage.cached_tokens == cached


IM = '{ "city" : "I\'m!"\n\n                    }'
YES = '{ "city" : "Yes," }'


@pytest.mark.parametrize(
    ("name", "reason", "calls"),
    [
        (
            "aimock/tools_auto",
            "tool_calls",
            [("call_PqqSzFCDuECJbUQ4", '{"city":"Rome"}'), ("call_8vUeV-g_SKmc_5z-", '{"city":"Oslo"}')],
        ),
        (
            "aimock/tools_parallel_stream",
            "tool_calls",
            [("call_1j-oV_AlMagO4IPs", '{"city":"Rome"}'), ("call_LbrLld84t03F_9zx", '{"city":"Oslo"}')],
        ),
        (  # the message also holds the call in its older form, which is no second call
            "llama-cpp-python/tools_named",
            "tool_calls",
            [("call__0_get_weather_cmpl-454bb7d6-7c42-4853-adab-15179dda82da", '{ "city" : "I can he" } ')],
        ),
        ("xllamacpp-tools/tools_finish", "tool_calls", [("Lj2R7OumRA2MpXqFht2KeDtQ32CZg3SC", IM)]),
        ("xllamacpp-tools/tools_finish_stream", "tool_calls", [("7lJS9nb6XmOZeDSOrWgE01umoerNUv9g", IM)]),
        (
            "xllamacpp-tools/tools_required",
            "length",
            [("oBnlKwYLYZ5p1DvEyG3OLEVrn04f0nCG", IM), ("3R8KGpeRDNgEa4qlJDKm0eACHFEt54D6", YES)],
        ),
        (
            "xllamacpp-tools/tools_parallel_stream",
            "length",
            [
                ("LxBagIbawPgG7dxucw5AY0hgKpMiKvDc", IM),
                ("VCb41UO8knydjPF0OllzkhyPTG2Iajnu", YES),
                ("fSaiEYowzd8fyv3FmBmkQi4dQ8SGzH41", YES),
                ("7jeXhp2q6zs2zOyROyeGvdynEYPhWrFp", "{"),  # the token limit cut it: arguments are not validated
            ],
        ),
    ],
)
def test_tool_calls(name: str, reason: str, calls: list[tuple[str, str]]) -> None:
    outcome = replay([load(name).body])
    assert outcome.tool_calls == [ToolCall(id_, "get_weather", arguments) for id_, arguments in calls]
    assert (outcome.text, outcome.finish_reason, outcome.has_content) == ("", reason, True)
    pieces = [delta for delta in outcome.deltas if isinstance(delta, ToolCallDelta)]
    assert [piece.id for piece in pieces if piece.id] == [id_ for id_, _ in calls]


def test_choices_that_interleave() -> None:
    outcome = replay([load("xllamacpp/n2_stream").body], choices=2)
    assert outcome.deltas[-2:] == [Finish("length", 1), Finish("length", 0)]
    other = "".join(delta.text for delta in outcome.deltas if isinstance(delta, TextDelta) and delta.index == 1)
    assert other == " named Max. Max"


def test_logprobs_come_as_raw_chunks() -> None:
    outcome = replay([load("xllamacpp/logprobs_stream").body])
    raw = [delta.data["choices"][0]["logprobs"] for delta in outcome.deltas if isinstance(delta, RawChunk)]
    assert [entry["content"][0]["token"] for entry in raw] == [" named", " M", "a", "x"]


@pytest.mark.parametrize(
    ("name", "kind", "said", "partial"),
    [
        ("aimock/chaos-18102-nonstream", errors.ResponseError, "The answer is not JSON: '{malformed json", ""),
        ("aimock/chaos-18103-stream_usage", errors.StreamInterruptedError, "an empty answer", ""),
        ("aimock/fx_disconnect-ms-true", errors.StreamInterruptedError, "before it was complete", "Once upon a tim"),
        ("aimock/fx_truncate-true", errors.StreamInterruptedError, "an empty answer", ""),
        ("llama-cpp-python/err_prompt_too_long_stream", errors.StreamInterruptedError, "an empty answer", ""),
        ("nginx/closed_without_answer", errors.StreamInterruptedError, "an empty answer", ""),
        ("nginx/html_200", errors.ResponseError, "The answer is an HTML page: '<html>login</html>'", ""),
        ("xllamacpp-tools/tools_auto_stream", errors.ServerError, "HTTP 500: The model produced output that", ""),
    ],
)
def test_answers_that_fail(name: str, kind: type[errors.RustyAgentError], said: str, partial: str) -> None:
    error = replay([load(name).body]).error
    assert type(error) is kind
    assert said in error.message
    assert error.partial_text == partial


def test_every_answer_has_an_expected_end() -> None:
    failed = {name for name in ANSWERS if replay([load(name).body]).error is not None}
    listed = next(mark for mark in test_answers_that_fail.pytestmark if mark.name == "parametrize").args[1]  # type: ignore[attr-defined]
    assert failed == {entry[0] for entry in listed}


TRY = "The endpoint failed; trying again later may help."
PATH = "Check the model's name and base_url, which often ends in /v1."


@pytest.mark.parametrize(
    ("name", "kind", "message", "code", "type_", "param"),
    [
        ("aimock/err_404_path", errors.NotFoundError, f"HTTP 404: Not found. {PATH}", None, "not_found", None),
        (
            "aimock/err_auth_missing",
            errors.AuthenticationError,
            "HTTP 401: Invalid API key. Check the API key.",
            "invalid_api_key",
            "authentication_error",
            None,
        ),
        (
            "aimock/err_bad_json",
            errors.BadRequestError,
            "HTTP 400: Malformed JSON: Unexpected end of JSON input.",
            "invalid_json",
            "invalid_request_error",
            None,
        ),
        (
            "aimock/err_messages_type",
            errors.BadRequestError,
            "HTTP 400: Missing required parameter: 'messages'.",
            None,
            "invalid_request_error",
            None,
        ),
        (
            "aimock/fx_overloaded-true",
            errors.ServerError,
            f"HTTP 503: The server is overloaded. {TRY}",
            "server_error",
            "server_error",
            None,
        ),
        (
            "aimock/fx_ratelimit-true",
            errors.RateLimitError,
            "HTTP 429: Rate limit exceeded. Please retry after 30 seconds. Send fewer requests, or wait.",
            "rate_limit_exceeded",
            "rate_limit_error",
            None,
        ),
        ("llama-cpp-python/err_404_path", errors.NotFoundError, f"HTTP 404: Not Found. {PATH}", None, None, None),
        (
            "llama-cpp-python/err_auth_missing",
            errors.AuthenticationError,
            "HTTP 401: Invalid API key. Check the API key.",
            None,
            None,
            None,
        ),
        (
            "llama-cpp-python/err_bad_json",
            errors.ServerError,
            f"HTTP 500: Internal Server Error. {TRY}",
            None,
            None,
            None,
        ),
        (
            "llama-cpp-python/err_get_on_chat",
            errors.APIStatusError,
            "HTTP 405: Method Not Allowed. Check base_url, which often ends in /v1.",
            None,
            None,
            None,
        ),
        (
            "llama-cpp-python/err_empty_messages",
            errors.ServerError,
            f"HTTP 500. {TRY}",
            None,
            "internal_server_error",
            None,
        ),
        (
            "llama-cpp-python/err_prompt_too_long",
            errors.BadRequestError,
            "HTTP 400: This model's maximum context length is 512 tokens. However, you requested 10025 tokens "
            "(10001 in the messages, 24 in the completion). Please reduce the length of the messages or completion.",
            "context_length_exceeded",
            "invalid_request_error",
            "messages",
        ),
        ("nginx/empty_204", errors.APIStatusError, "HTTP 204.", None, None, None),
        (
            "nginx/html_413",
            errors.APIStatusError,
            "HTTP 413: an HTML page titled «413 Request Entity Too Large». "
            "The request is too large for the endpoint: shorten the prompt.",
            None,
            None,
            None,
        ),
        (
            "nginx/html_429_retry_after",
            errors.RateLimitError,
            "HTTP 429: an HTML page titled «429 Too Many Requests». Send fewer requests, or wait.",
            None,
            None,
            None,
        ),
        (
            "nginx/html_502",
            errors.ServerError,
            f"HTTP 502: an HTML page titled «502 Bad Gateway». {TRY}",
            None,
            None,
            None,
        ),
        (
            "nginx/redirect_307",
            errors.APIStatusError,
            "HTTP 307: an HTML page titled «307 Temporary Redirect». The endpoint points to "
            "'http://127.0.0.1:18080//redir/v1/chat/completions': set base_url to that.",
            None,
            None,
            None,
        ),
        (
            "xllamacpp/err_404_path",
            errors.NotFoundError,
            f"HTTP 404: File Not Found. {PATH}",
            404,
            "not_found_error",
            None,
        ),
        (
            "xllamacpp/err_auth_missing",
            errors.AuthenticationError,
            "HTTP 401: Invalid API Key. Check the API key.",
            401,
            "authentication_error",
            None,
        ),
        (
            "xllamacpp/err_prompt_too_long",
            errors.BadRequestError,
            "HTTP 400: request (10002 tokens) exceeds the available context size (512 tokens), try increasing it.",
            400,
            "exceed_context_size_error",
            None,
        ),
        (
            "xllamacpp/image_part",
            errors.ServerError,
            "HTTP 500: image input is not supported - hint: if this is unexpected, you may need to provide the mmproj. "
            + TRY,
            500,
            "server_error",
            None,
        ),
    ],
)
def test_recorded_errors_become_typed_ones(
    name: str,
    kind: type[errors.APIStatusError],
    message: str,
    code: str | int | None,
    type_: str | None,
    param: str | None,
) -> None:
    answer = load(name)
    error = status_error(answer.status, answer.headers, answer.body, now=0.0)
    assert type(error) is kind
    assert (error.message, error.code, error.type, error.param) == (message, code, type_, param)
    assert (error.status_code, error.headers) == (answer.status, answer.headers)


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_says_something_in_one_line(name: str) -> None:
    answer = load(name)
    error = status_error(answer.status, answer.headers, answer.body, now=0.0)
    assert error.message.startswith(f"HTTP {answer.status}")
    assert error.message.isprintable()
    assert len(error.message) < 1200
    assert error.retryable is (answer.status in (429, 500, 502, 503, 504))
    assert error.retry_after == (1.0 if answer.status == 429 else None)

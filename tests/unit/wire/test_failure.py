"""Failed answers → typed errors: the shapes that bodies come in, waits, and texts that are safe to print."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rusty_agent import errors
from rusty_agent.wire.codec import dumps, loads
from rusty_agent.wire.failure import error_in, heed, in_band, is_error, status_error

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
TRY = "The endpoint failed; trying again later may help."


def _error(status: int, body: Any, **headers: str) -> errors.APIStatusError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status_error(status, {name.replace("_", "-"): value for name, value in headers.items()}, data, now=NOW)


@pytest.mark.parametrize(
    ("status", "kind", "hint", "retryable"),
    [
        (300, errors.APIStatusError, "The endpoint redirects without saying where: check base_url.", False),
        (304, errors.APIStatusError, "", False),
        (400, errors.BadRequestError, "", False),
        (401, errors.AuthenticationError, "Check the API key.", False),
        (402, errors.APIStatusError, "The account has no credit or quota left.", False),
        (403, errors.PermissionDeniedError, "The key is not allowed to use this model or endpoint.", False),
        (404, errors.NotFoundError, "Check the model's name and base_url, which often ends in /v1.", False),
        (405, errors.APIStatusError, "Check base_url, which often ends in /v1.", False),
        (407, errors.APIStatusError, "Put the right user:password@ before the proxy's host.", False),
        (408, errors.APIStatusError, "", True),
        (409, errors.APIStatusError, "", True),
        (413, errors.APIStatusError, "The request is too large for the endpoint: shorten the prompt.", False),
        (418, errors.APIStatusError, "", False),
        (422, errors.BadRequestError, "", False),
        (429, errors.RateLimitError, "Send fewer requests, or wait.", True),
        (500, errors.ServerError, TRY, True),
        (501, errors.ServerError, TRY, False),
        (502, errors.ServerError, TRY, True),
        (503, errors.ServerError, TRY, True),
        (504, errors.ServerError, TRY, True),
        (529, errors.ServerError, TRY, True),
        (999, errors.ServerError, TRY, False),
    ],
)
def test_statuses(status: int, kind: type[errors.APIStatusError], hint: str, retryable: bool) -> None:
    error = _error(status, {"error": {"message": "Said."}})
    assert type(error) is kind
    assert error.message == f"HTTP {status}: Said. {hint}".rstrip()
    assert str(error) == error.message
    assert (error.status_code, error.retryable) == (status, retryable)


def test_a_page_that_forbids_is_not_blamed_on_the_key_alone() -> None:
    error = _error(403, b"<!DOCTYPE html><title>ERROR: The requested URL could not be retrieved</title>")  # Squid's
    assert error.message == (
        "HTTP 403: an HTML page titled «ERROR: The requested URL could not be retrieved». "
        "The key is not allowed to make this request, or a proxy or firewall in between blocks it."
    )


SHAPES = {
    "openai": ({"error": {"message": "m", "type": "t", "param": "p", "code": "c"}}, "m", "c", "t", "p"),
    "code-int": ({"error": {"message": "m", "type": None, "param": None, "code": 400}}, "m", 400, None, None),
    "fields-of-other-types": (
        {"error": {"message": "m", "type": 1, "param": ["p"], "code": 1.5}},
        "m",
        None,
        None,
        None,
    ),
    "litellm": ({"error": {"message": "m", "type": "None", "param": "None", "code": "400"}}, "m", "400", None, None),
    "one-api": ({"error": {"message": "m", "type": "<nil>", "param": "", "code": "c"}}, "m", "c", None, None),
    "string": ({"error": "m"}, "m", None, None, None),
    "json-in-a-string": (
        {"error": {"message": '{"error": {"message": "m", "code": 429}}', "code": "c"}},
        "m",
        "c",
        None,
        None,
    ),
    "json-that-says-nothing": ({"error": {"message": '{"a": 1}', "code": "c"}}, '{"a": 1}', "c", None, None),
    "json-that-is-cut": ({"error": '{"cut'}, '{"cut', None, None, None),
    "tgi": ({"error": "m", "error_type": "t"}, "m", None, "t", None),
    "openrouter": ({"error": {"message": "m", "metadata": {"raw": "x"}, "code": 402}}, "m: x", 402, None, None),
    "openrouter-json": (
        {"error": {"message": "m", "metadata": {"raw": '{"error":{"message":"x"}}'}}},
        "m: x",
        None,
        None,
        None,
    ),
    "openrouter-twice": (
        {"error": {"message": "m: x", "metadata": {"raw": {"detail": "x"}}}},
        "m: x",
        None,
        None,
        None,
    ),
    "openrouter-without": (
        {"error": {"message": "m", "metadata": {"raw": None, "reasons": ["r"]}}},
        "m",
        None,
        None,
        None,
    ),
    "two-messages": ({"error": {"message": "m"}, "message": "n"}, "m", None, None, None),
    "message-outside": ({"error": {"code": "c"}, "message": "m"}, "m", "c", None, None),
    "msg": ({"error": {"msg": "m"}}, "m", None, None, None),
    "detail-inside": ({"error": {"detail": "m"}}, "m", None, None, None),
    "fastapi-string": ({"detail": "m"}, "m", None, None, None),
    "fastapi-list": (
        {"detail": [{"loc": ["body", "messages", 0], "msg": "m", "type": "t"}]},
        "body.messages.0: m",
        None,
        None,
        None,
    ),
    "fastapi-nonsense": (
        {"detail": [{"loc": ["a", [["deep"]], None], "msg": "m"}, {"msg": "n"}, None]},
        "a: m; n",
        None,
        None,
        None,
    ),
    "mistral": ({"object": "error", "message": {"detail": [{"msg": "m"}]}, "type": "t"}, "m", None, "t", None),
    "anthropic": ({"type": "error", "error": {"type": "t", "message": "m"}}, "m", None, "t", None),
    "dashscope": ({"code": "c", "message": "m", "request_id": "r"}, "m", "c", None, None),
    "gemini": ([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], "m", 400, None, None),
    "gemini-two": ([{"error": {"code": 429, "message": "m"}}, {"error": {"message": "n"}}], "m", 429, None, None),
    "list": ({"error": [{"message": "m", "code": "c"}]}, "m", "c", None, None),
    "empty-error-list": ({"error": []}, "", None, None, None),
    "error-list-of-strings": ({"error": ["m", "n"], "error_type": "t"}, "m; n", None, "t", None),
    "aws": ({"Message": "m"}, "m", None, None, None),
    "strings": ({"errors": ["m"]}, "m", None, None, None),
    "baidu": ({"error_code": 17, "error_msg": "m"}, "m", 17, None, None),
    "rfc9457": ({"type": "about:blank", "title": "m", "status": 418}, "m", None, "about:blank", None),
    "fastchat": ({"text": "m", "error_code": 50001}, "m", 50001, None, None),
    "odd": ({"odd": {"words": 1}}, '{"odd":{"words":1}}', None, None, None),
    "fastapi-nested": ({"detail": {"error": {"message": "m", "code": "c", "type": "t"}}}, "m", "c", "t", None),
    "fastapi-nested-string": ({"detail": {"error": "m"}}, "m", None, None, None),
    "fastapi-object": ({"detail": {"msg": "m"}}, "m", None, None, None),
    "fastapi-list-of-errors": ({"detail": [{"error": "m"}]}, "m", None, None, None),
    "cloudflare": (
        {"success": False, "errors": [{"code": 7000, "message": "m"}], "result": None},
        "m",
        7000,
        None,
        None,
    ),
    "minimax": ({"base_resp": {"status_code": 1004, "status_msg": "m"}, "choices": None}, "m", 1004, None, None),
    "json-string": ("m", "m", None, None, None),
    "json-list": (["m", "n"], "m; n", None, None, None),
    "text": (b"Internal Server Error", "Internal Server Error", None, None, None),
    "empty": (b"", "", None, None, None),
    "blank": (b" \n", "", None, None, None),
    "empty-object": (b"{}", "", None, None, None),
    "empty-list": (b"[]", "", None, None, None),
    "null": (b"null", "", None, None, None),
    "number": (b"12", "", None, None, None),
    "cut-json": (b'{"error": {"message": "cut', '{"error": {"message": "cut', None, None, None),
    "html": (
        b"<html><title> 502 Bad\nGateway </title><body>x",
        "an HTML page titled «502 Bad Gateway»",
        None,
        None,
        None,
    ),
    "html-without-title": (b"\n <!DOCTYPE html><p>x", "an HTML page", None, None, None),
    "html-with-a-script": (
        b"<html><title>t</title><script>show({\ndata: {}\n})</script>",
        "an HTML page titled «t»",
        None,
        None,
        None,
    ),
    "html-upper-case": (b"<BODY>x", "an HTML page", None, None, None),
    "haproxy": (
        b"<html><body><h1>503 Service Unavailable</h1>",
        "an HTML page titled «503 Service Unavailable»",
        None,
        None,
        None,
    ),
    "lighttpd": (
        b'<?xml version="1.0" encoding="iso-8859-1"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"\n'
        b'  "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n<html><head>\n<title>500 Sorry</title></head>',
        "an HTML page titled «500 Sorry»",
        None,
        None,
        None,
    ),
    "html-after-comments": (
        b"<!-- a -->\n<!-- b -->\n<html><title>t</title>",
        "an HTML page titled «t»",
        None,
        None,
        None,
    ),
    "xml": (b'<?xml version="1.0"?>\n<Error>m</Error>', '<?xml version="1.0"?> <Error>m</Error>', None, None, None),
    "html-in-json": ({"error": {"message": "<html><title>t</title>"}}, "an HTML page titled «t»", None, None, None),
    "not-utf-8": (b'{"error":{"message":"a\xff","code":"\\ud83d"}}', "a\ufffd", "\ufffd", None, None),
}


@pytest.mark.parametrize(("body", "said", "code", "type_", "param"), SHAPES.values(), ids=SHAPES)
def test_shapes(body: Any, said: str, code: Any, type_: str | None, param: str | None) -> None:
    error = _error(418, body)
    assert error.message == (f"HTTP 418: {said}." if said else "HTTP 418.")
    assert (error.code, error.type, error.param) == (code, type_, param)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b'{"error":"m"}', {"error": "m"}),
        (b"plain text", "plain text"),
        (b"\xff", "\ufffd"),
        (b" ", None),
        (b'{"\\ud83d":"\\ude00"}', {"\ufffd": "\ufffd"}),
    ],
    ids=["json", "text", "not-utf-8", "blank", "halves"],
)
def test_body(data: bytes, body: Any) -> None:
    assert _error(400, data).body == body


def test_headers_and_the_hint_of_a_redirect() -> None:
    error = _error(307, b"", location="https://other/v1\x1b[2J", x_request_id="r")
    assert error.headers == {"location": "https://other/v1\x1b[2J", "x-request-id": "r"}
    assert error.message == "HTTP 307. The endpoint points to 'https://other/v1\\\\x1b[2J': set base_url to that."


def test_a_redirect_is_told_without_its_query() -> None:
    """Which repeats that of base_url, as from http to https: in `code`, Azure's functions take their key there."""
    error = _error(301, b"", location="https://other/v1/chat/completions?code=abc&x=1")
    assert "'https://other/v1/chat/completions?…'" in error.message
    assert "abc" not in error.message


@pytest.mark.parametrize(
    ("asked", "status", "retryable"),
    [("true", 400, True), ("FALSE", 503, False), ("perhaps", 503, True), ("", 400, False)],
)
def test_the_server_may_say_whether_to_retry(asked: str, status: int, retryable: bool) -> None:
    assert _error(status, b"", x_should_retry=asked).retryable is retryable


def test_a_used_up_quota_does_not_pass_by_itself() -> None:
    assert not _error(429, {"error": {"message": "m", "code": "insufficient_quota"}}).retryable


@pytest.mark.parametrize("depth", [5, 500, 1000])
def test_messages_nested_without_end(depth: int) -> None:
    for wrap in (b'{"detail":%b}', b"[%b]", b'{"msg":%b}', b'{"loc":[%b],"msg":"m"}'):
        body = b'"m"'
        for _ in range(depth):
            body = wrap % body
        assert _error(418, b'{"detail":%b}' % body).message.startswith("HTTP 418")


def test_a_page_made_to_be_slow() -> None:
    page = "<html>" + "<title" * 500_000
    started = time.process_time()
    error = in_band({"error": {"message": page}})
    assert time.process_time() - started < 1
    assert error.message == "The endpoint reported an error inside its answer: an HTML page."


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        (400, 400, errors.BadRequestError),
        ("401", 401, errors.AuthenticationError),
        (429, 429, errors.RateLimitError),
        (599, 599, errors.ServerError),
        (600, 200, errors.APIStatusError),
        (399, 200, errors.APIStatusError),
        (-400, 200, errors.APIStatusError),
        ("429 ", 200, errors.APIStatusError),
        ("٤٢٩", 200, errors.APIStatusError),
        ("rate", 200, errors.APIStatusError),
        (None, 200, errors.APIStatusError),
    ],
    ids=repr,
)
def test_in_band_codes_that_are_statuses(code: Any, status: int, kind: type[errors.APIStatusError]) -> None:
    error = in_band({"error": {"message": "m", "code": code}})  # a number, or a name that is none of ours
    assert type(error) is kind
    assert (error.status_code, error.code, error.headers, error.retry_after) == (status, code, {}, None)
    assert error.retryable is (status == 429)


@pytest.mark.parametrize(
    ("told", "status", "kind"),
    [
        ({"type": "server_error", "code": None}, 500, errors.ServerError),
        ({"type": "tokens", "code": "rate_limit_exceeded"}, 429, errors.RateLimitError),
        ({"type": "invalid_request_error", "code": "model_not_found"}, 404, errors.NotFoundError),
        ({"type": "overloaded_error"}, 529, errors.ServerError),
        ({"code": "content_filter", "status": 400}, 400, errors.BadRequestError),
        ({"code": "odd", "status": 503}, 503, errors.ServerError),
        ({"code": 429, "status": 400, "type": "server_error"}, 429, errors.RateLimitError),
        ({"code": "odd", "status": "ODD", "type": "odd"}, 200, errors.APIStatusError),
        ({"code": "odd", "status": "UNAVAILABLE", "type": "odd"}, 503, errors.ServerError),
        ({"code": None, "type": "InternalServerError"}, 500, errors.ServerError),
        ({"code": None, "type": "RateLimitError"}, 429, errors.RateLimitError),
        ({"status": "RESOURCE_EXHAUSTED"}, 429, errors.RateLimitError),
        ({"type": "too_many_requests_error", "code": "request_quota_exceeded"}, 429, errors.RateLimitError),
        ({"code": "ThrottlingException"}, 429, errors.RateLimitError),
        ({"code": "Throttling.RateQuota"}, 429, errors.RateLimitError),
        ({"code": "InternalError.Algo"}, 500, errors.ServerError),
        ({"code": "InternalError.Algo.DataInspectionFailed"}, 400, errors.BadRequestError),  # qwen-code#3145
        ({"code": "InternalError.Timeout"}, 504, errors.ServerError),
        ({"type": "org.springframework.web.server.ResponseStatusException"}, 200, errors.APIStatusError),
        ({"code": "InvalidParameter"}, 400, errors.BadRequestError),
        ({"code": "com.amazon.coral.service#ThrottlingException"}, 429, errors.RateLimitError),
        ({"code": "ServerOverloaded"}, 529, errors.ServerError),
        ({"code": "server_is_overloaded"}, 529, errors.ServerError),
        ({"code": "REQUEST_LIMIT_EXCEEDED"}, 429, errors.RateLimitError),
        ({"type": "rate_limit_reached_error"}, 429, errors.RateLimitError),
        ({"code": 1002}, 429, errors.RateLimitError),
        ({"code": "1302"}, 429, errors.RateLimitError),  # Z.ai: claudish#138
        ({"code": "upstream_http2_stream_error", "type": "upstream_error"}, 502, errors.ServerError),  # sub2api#4520
        ({"code": "error", "type": "error"}, 200, errors.APIStatusError),
        ({"code": "The service is currently unavailable"}, 503, errors.ServerError),  # xAI: vercel/ai#10533
        ({"code": "Some resource has been exhausted"}, 429, errors.RateLimitError),
        ({"code": "Internal error"}, 500, errors.ServerError),
        ({"code": "3505", "type": "service_tier_capacity_exceeded", "raw_status_code": 503}, 503, errors.ServerError),
        ({"type": "Bad Gateway"}, 502, errors.ServerError),
    ],
    ids=repr,
)
def test_in_band_names_that_stand_for_statuses(
    told: dict[str, Any], status: int, kind: type[errors.APIStatusError]
) -> None:
    error = in_band({"error": {"message": "m", **told}})
    assert (type(error), error.status_code, error.code) == (kind, status, told.get("code"))


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("Error code: 429 - {'error': {'message': 'm'}}", 429),  # XpressAI/xaibo#36
        ("HTTP 503: m", 503),
        ("<400> InternalError.Algo.InvalidParameter: m", 400),  # DashScope's models
        ("400 <400> InternalError.Algo.InvalidParameter: m", 400),  # qwen-code#2360
        ("<4000>", 200),
        ("429 You exceeded your current quota", 429),  # Bytez-com/docs#38
        ('InternalServerError: 529 {"type":"error"}', 529),
        ("Error: 500 status code (no body)", 500),
        ("500 tokens are too many", 200),
        ("4290 Tokens", 200),
        ("The prompt says: Error code: 429", 200),
        ("HTTP 4290", 200),
        ("litellm.RateLimitError: AnthropicException - m", 429),
        ("litellm.ServiceUnavailableError: m", 503),
        ("litellm.Timeout: m", 504),
        ("litellm.ContextWindowExceededError: m", 200),
        ("The prompt says: litellm.Timeout", 200),
    ],
)
def test_a_status_that_gateways_quote(said: str, status: int) -> None:
    assert in_band({"error": said}).status_code == status
    assert in_band({"code": "rate_limit_daily", "message": said}).status_code == status
    assert in_band({"error": {"message": said, "code": 404}}).status_code == 404


@pytest.mark.parametrize("name", ["status_code", "statusCode", "http_status_code", "error_code"])
def test_a_code_under_another_name(name: str) -> None:
    error = in_band({"error": {"message": "m", "code": None, name: 503}})
    assert (type(error), error.status_code, error.code) == (errors.ServerError, 503, 503)


@pytest.mark.parametrize("name", ["status_code", "status", "code"])
def test_a_status_beside_the_object_that_describes_the_error(name: str) -> None:  # watsonx: langchainjs#10721
    error = in_band({"errors": [{"code": "invalid_input_argument", "message": "m"}], "trace": "9", name: 400})
    assert (type(error), error.status_code, error.code) == (errors.BadRequestError, 400, "invalid_input_argument")
    assert in_band({"error": {"message": "m", "code": 429}, name: 500}).status_code == 429
    assert in_band({"error": {"message": "m", "status": 429}, name: 500}).status_code == 429


@pytest.mark.parametrize("error", [{}, {"error": "Internal Server Error"}])
def test_a_status_where_no_object_describes_the_error(error: dict[str, Any]) -> None:  # RFC 9457; Spring
    assert in_band({"status": 503, "detail": "m", **error}).status_code == 503


@pytest.mark.parametrize("name", ["code", "type", "status", "retry_after_seconds", "X-RateLimit-Reset"])
def test_what_is_nested_too_deeply_for_words(name: str) -> None:
    error: Any = {"message": "m", "metadata": {"raw": {"message": "n", name: "@"}, "headers": {name: "@"}}}
    error["metadata"] |= {name: "@"} if name == "retry_after_seconds" else {}
    body = dumps({"error": {name: "@", **error}, name: "@"})
    body = body.replace(b'"@"', b"[" * 1010 + b"]" * 1010)  # nearly as deep as orjson goes
    assert in_band(loads(body)).status_code == 200
    assert status_error(429, {}, body, now=0).retry_after is None


def test_a_status_beside_the_error_of_an_event_in_text_generation_inference() -> None:
    assert in_band({"error": "m", "error_type": "overloaded"}).status_code == 529


@pytest.mark.parametrize("name", ["insufficient_quota", "exceeded_current_quota_error"])
@pytest.mark.parametrize("place", ["code", "type"])
def test_a_quota_that_is_used_up_does_not_pass(name: str, place: str) -> None:
    error = _error(429, {"error": {"message": "m", place: name}})
    assert (type(error), error.retryable) == (errors.RateLimitError, False)


@pytest.mark.parametrize(
    ("headers", "retryable", "wait"),
    [
        ({}, True, None),
        ({"retry-after": "7"}, True, 7.0),
        ({"x-should-retry": "false", "retry-after-ms": "500"}, False, 0.5),
    ],
)
def test_headers_count_for_an_error_inside_an_answer(
    headers: dict[str, str], retryable: bool, wait: float | None
) -> None:
    error = in_band({"error": {"message": "m", "code": 503}})
    heed(error, headers, NOW)
    assert (error.retryable, error.retry_after, error.headers) == (retryable, wait, {})


@pytest.mark.parametrize(
    "body",
    [
        b'event: error\ndata: {"error":{"code":"insufficient_quota","message":"m"}}\n\n',
        b'data: {"error":{"code":"insufficient_quota","message":"m"}}\n\ndata: [DONE]\n\n',
        b'\xef\xbb\xbf{"error":{"code":"insufficient_quota","message":"m"}}',
        b'id:1\nevent:error\n:HTTP_STATUS/429\ndata:{"code":"insufficient_quota","message":"m"}\n',
    ],
)
def test_what_may_stand_around_the_json_of_an_error(body: bytes) -> None:
    error = _error(429, body)
    assert (error.code, error.retryable) == ("insufficient_quota", False)


def test_an_error_with_control_characters_as_they_are() -> None:
    error = _error(429, b'{"error": {"message": "a\n\tb", "code": "insufficient_quota"}}')
    assert (error.message, error.code, error.retryable) == (
        "HTTP 429: a b. The account has no credit or quota left.",
        "insufficient_quota",
        False,
    )


_QUOTES: list[Callable[[Any], dict[str, Any]]] = [
    lambda error: {"message": json.dumps(error), "code": 429, "type": "upstream_error"},
    lambda error: {"message": "Provider returned error", "code": 429, "metadata": {"raw": json.dumps(error)}},
    lambda error: {"message": "Provider returned error", "code": 429, "metadata": {"raw": error}},
]


@pytest.mark.parametrize("quote", _QUOTES)
def test_what_an_error_says_that_a_gateway_quotes(quote: Callable[[Any], dict[str, Any]]) -> None:
    error = _error(429, {"error": quote({"error": {"message": "m", "code": "insufficient_quota"}})})
    assert (error.code, error.type, error.spent) == (429, "insufficient_quota", True)
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"}]  # Roo-Code#3883
    error = _error(429, {"error": quote({"error": {"message": "m", "code": 429, "details": details}})})
    assert (error.spent, error.retry_after) == (False, 26.0)
    error = _error(429, {"error": quote({"message": "m", "code": "1113", "type": "t"})})
    assert (error.code, error.type) == (429, "t")


@pytest.mark.parametrize("name", ["error", "detail"])
def test_a_body_that_stands_in_place_of_the_object(name: str) -> None:
    details = [{"retryDelay": "26s"}]
    error = _error(429, {name: json.dumps({"error": {"message": "m", "code": "insufficient_quota", "type": "t"}})})
    assert (error.code, error.type, error.spent) == ("insufficient_quota", "t", True)
    error = _error(429, {name: json.dumps({"error": {"message": "m", "details": details}})})
    assert (error.retry_after, error.message) == (26.0, "HTTP 429: m. Send fewer requests, or wait.")


def test_an_object_inside_another() -> None:
    error = _error(429, {"error": {"error": {"message": "m", "code": "insufficient_quota"}}})
    assert error.spent
    error = _error(429, {"error": {"message": "m", "code": "c", "error": {"code": "d"}}})
    assert error.code == "c"


def test_a_list_that_a_gateway_quotes() -> None:  # Gemini's
    quoted = json.dumps([{"error": {"message": "m", "details": [{"retryDelay": "26s"}]}}], indent=2)
    error = _error(429, {"error": {"message": quoted, "code": 429}})
    assert (error.retry_after, error.message) == (26.0, "HTTP 429: m. Send fewer requests, or wait.")


@pytest.mark.parametrize("said", [{"code": 503}, {"code": "503"}, {"status": "UNAVAILABLE"}, {"status": 503}])
def test_a_status_inside_an_answer_that_a_gateway_quotes(said: dict[str, Any]) -> None:
    quoted = json.dumps({"error": {"message": "m", **said}})
    assert in_band({"error": {"message": quoted, "type": "upstream_error"}}).status_code == 503
    assert in_band({"error": {"message": quoted, "code": 500}}).status_code == 500


def test_names_are_capped() -> None:  # every pattern of the verdict looks through them: 5 MB took 12 s
    error = in_band({"error": dict.fromkeys(("code", "type", "param"), "x" * 300), "message": "m"})
    assert error.code == error.type == error.param == "x" * 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"object": "error"}, True),
        ({"type": "error"}, True),
        ({"type": "response.failed", "response": {"error": {"message": "m"}}}, True),
        ({"type": "response.completed", "response": {"error": None}}, False),
        ({"detail": "m"}, True),
        ({"detail": []}, False),
        ({"code": "c", "message": "m"}, True),
        ({"code": 0, "message": "ok"}, False),
        ({"code": 200, "msg": "ok"}, False),
        ({"code": 1301, "msg": "m"}, True),
        ({"statusCode": 500, "message": "m"}, True),
        ({"text": "m", "error_code": 50001}, True),
        ({"status": "error", "message": "m"}, True),
        ({"status": "failure", "message": "m"}, True),
        ({"status": 500, "message": "m"}, True),
        ({"status": "503", "message": "m", "choices": []}, True),
        ({"status": 500}, False),
        ({"status": 200, "message": "m"}, False),
        ({"status": "processing", "message": "m"}, False),
        ({"error_type": "BadRequestError", "error_message": "m", "choices": None}, True),
        ({"error_message": "", "choices": []}, False),
        ({"errorMessage": "m"}, True),
        ({"success": False, "message": "m"}, True),
        ({"code": "c"}, False),
        ({"message": "m"}, True),
        ({"message": "m", "request_id": "r"}, True),
        ({"message": "m", "type": "status"}, False),
        ({"message": {"content": "m"}}, False),
        ({"error": "m"}, True),
        ({"error": {}}, False),
        ({"success": False, "errors": [{"code": 7000, "message": "m"}]}, True),
        ({"success": True, "errors": []}, False),
        ({"base_resp": {"status_code": 1004, "status_msg": "m"}}, True),
        ({"base_resp": {"status_code": 0, "status_msg": "success"}}, False),
        ({"base_resp": "m"}, False),
        (None, False),
        ({}, False),
        ({"object": "error", "choices": [{}]}, False),
        ({"detail": "m", "choices": []}, True),
        ({"detail": "", "choices": []}, False),
        ({"choices": [], "detail": {"tokens": 1}}, False),
    ],
    ids=repr,
)
def test_is_error(body: Any, expected: bool) -> None:
    assert is_error(body) is expected


@pytest.mark.parametrize(
    "wrapped",
    [
        {"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "m"}, "RequestId": "r"}},  # Tencent
        {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "m"}}},
        {"code": 0, "data": {"usage": {}, "error": {"code": 429, "message": "m"}}},
        {"code": 429, "result": {"error": "m"}},
        {"result": {"id": "a", "response": {"error": {"code": "RESOURCE_EXHAUSTED", "message": "m"}}}},
        {"Code": "Throttling", "Message": "m"},
        {"errorCode": "Throttling", "errorMessage": "m"},
        {"__type": "ThrottlingException", "message": "m"},
    ],
    ids=lambda wrapped: next(iter(wrapped)),
)
def test_an_error_within_what_says_nothing_itself(wrapped: dict[str, Any]) -> None:
    error = error_in(wrapped)
    assert type(error) is errors.RateLimitError
    assert (error.message, error.body) == ("HTTP 429: m.", wrapped)


def test_words_that_a_server_quotes_from_the_request_are_not_its_own() -> None:
    error = _error(400, {"request": {"text": "Insufficient quota"}, "reason": "no"})
    assert (error.spent, error.body["reason"] in error.message) == (False, True)


def test_a_code_around_an_error_that_has_none() -> None:
    error = _error(429, {"code": "insufficient_quota", "data": {"error": {"message": "m"}}})
    assert (error.code, error.spent) == ("insufficient_quota", True)


def test_many_objects_that_say_nothing_take_no_time() -> None:
    body: dict[str, Any] = {str(number): {"a": {"b": {}}} for number in range(50_000)}
    started = time.process_time()
    in_band(body)
    assert time.process_time() - started < 1


def test_a_code_that_is_a_status_tells_enough() -> None:  # oh-my-pi#11344
    error = error_in({"code": 429})
    assert type(error) is errors.RateLimitError


@pytest.mark.parametrize(
    "body",
    ["Try again", {"code": "odd", "message": "Try again"}, {"data": {"error": {"message": "Try again"}}}],
    ids=repr,
)
def test_words_that_ask_to_try_again_and_are_an_error_s(body: Any) -> None:
    error = error_in(body)
    assert error is not None
    assert error.retryable


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"id": "a"},
        {"message": "Welcome", "docs": {"message": "m"}},
        {"code": "server_error"},
        {"type": "server"},
        "Hello",
        {"a": {"b": {"c": {"d": {"error": {"code": 429, "message": "m"}}}}}},
        {"text": "Please try again", "generation_id": "a"},  # an answer of another API
        {"output": {"text": "Please try again"}},  # and DashScope's
        {"tool": "_thinking", "text": "Let me try again"},  # hermes-agent
        {"type": "status", "message": "Rate limit reached, trying another provider"},
        {"type": "tool_result", "result": {"message": "404 Not Found"}},
    ],
    ids=repr,
)
def test_what_does_not_tell_clearly_that_it_is_an_error(body: Any) -> None:
    assert error_in(body) is None


@pytest.fixture
def somewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place whose local time is not UTC."""
    if sys.platform == "win32":
        pytest.skip("no tzset")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1"}, 1.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 20 "}, 20.0),
        ({"retry-after": "-10"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "0\x1f"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "1e1"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:20 -0000"}, 20.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:20"}, 20.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 35}, float("9" * 35)),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:20 GMT"}, 20.0),
        ({"retry-after": "Fri, 15 Jan 2027 09:00:20 +0100"}, 20.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        # by the endpoint's clock, whatever ours says
        ({"retry-after": "Fri, 15 Jan 2027 07:00:03 GMT", "date": "Fri, 15 Jan 2027 07:00:00 GMT"}, 3.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:20 GMT", "date": "today"}, 20.0),
        ({"retry-after": "3", "date": "Fri, 15 Jan 2027 07:00:00 GMT"}, 3.0),
        ({"retry-after": "Fri, 15 Jan 100000 08:00:20 GMT"}, None),
        ({"retry-after": "Zun, 29 Sep 2016 12:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 99 Jan 2027 08:00:20 GMT"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "9"}, 0.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "x"}, None),
        ({"retry-after": "2m59.56s"}, pytest.approx(179.56)),
        ({"retry-after": "370ms"}, 0.37),
        ({"retry-after": "30s"}, 30.0),
        ({"retry-after": "30s or so"}, None),
        # what LiteLLM's provider has said, unless it says something itself
        ({"llm_provider-retry-after": "7"}, 7.0),
        ({"llm_provider-retry-after-ms": "700", "llm_provider-retry-after": "1"}, 0.7),
        ({"llm_provider-retry-after": "7", "retry-after": "9"}, 9.0),
        ({"llm_provider-retry-after": "7", "retry-after": "soon"}, 7.0),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("somewhere")
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert status_error(429, headers, b"", now=NOW).retry_after == seconds


@pytest.mark.parametrize(("status", "seconds"), [(429, 20), (400, None), (503, None)])
def test_words_ask_to_wait_only_where_there_was_too_much(status: int, seconds: float | None) -> None:
    assert _error(status, {"error": {"message": "Please try again in 20s."}}).retry_after == seconds


def _of_google(delay: Any) -> list[dict[str, Any]]:
    details = [None, {"@type": "google.rpc.Help"}, {"@type": "google.rpc.RetryInfo", "retryDelay": delay}]
    return [{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": details}}]


@pytest.mark.parametrize(
    ("delay", "headers", "seconds"),
    [("33s", {}, 33.0), ("3.957525076s", {}, 3.957525076), ("33s", {"retry-after": "2"}, 2.0)]
    + [(delay, {}, None) for delay in ("33", "-1s", "s", 33, None)],
)
def test_google_asks_in_the_body_to_wait(delay: Any, headers: dict[str, str], seconds: float | None) -> None:
    body = _of_google(delay)
    assert status_error(429, headers, dumps(body), now=0).retry_after == seconds
    inside = in_band(body[0])
    heed(inside, headers, 0)
    assert inside.retry_after == seconds


@pytest.mark.parametrize("details", [None, "s", {"retryDelay": "1s"}, [[]]])
def test_details_that_ask_for_nothing(details: Any) -> None:
    assert in_band({"error": {"message": "m", "details": details}}).retry_after is None


@pytest.mark.parametrize("status", [429, 413])
def test_a_request_that_is_too_large_for_a_minute_stays_so(status: int) -> None:
    said = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 52000."
    body = dumps({"error": {"message": said, "type": "tokens", "code": "rate_limit_exceeded"}})
    assert not status_error(status, {}, body, now=NOW).retryable
    inside = in_band({"error": {"message": said, "type": "tokens", "code": status}})
    heed(inside, {}, NOW)
    assert not inside.retryable
    assert status_error(429, {}, dumps({"error": {"message": "Limit 30000, used 29999."}}), now=NOW).retryable


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": "no"}),
        (
            400,
            [{"error": {"code": 400, "message": "API key not valid. Pass a valid one.", "status": "INVALID_ARGUMENT"}}],
        ),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: gs***tF."}),
    ],
)
def test_who_refuses_the_key_is_answered_with_what_is_known_of_it(status: int, body: Any) -> None:
    error = status_error(status, {}, json.dumps(body).encode(), now=NOW, key_origin="It came from KEY.")
    assert error.message.endswith(". It came from KEY.")
    assert error.status_code == status


def test_the_words_are_judged_without_what_is_put_around_them() -> None:
    body = {"error": {"message": "API key not valid. Please pass a valid API key.", "code": 200}}
    for error in (_error(403, body), in_band(body)):
        assert error.key_refused
        assert not error.spent
        assert not in_band({"error": {"message": f"The prompt says: {error}"}}).key_refused
        assert error.args == (error.message,)
    assert _error(429, {"error": {"message": "You have run out of credits"}}).spent

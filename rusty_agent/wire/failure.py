"""Failed answers → typed errors.

In: a status, headers and a body, or an error object found inside an answer. Out: the error to raise, whose text is
safe to print: capped, without control characters. Never touched: the decision to retry.

tests/unit/wire/test_failure.py lists the shapes that bodies come in.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from itertools import islice
from typing import Any

from .. import errors
from ..verdict import told_to_retry
from . import wait
from .codec import loads_answer, mend, string_of
from .words import PAGE, as_it_is, printable, quoted, words

__all__ = ["MAX_ERROR_BYTES", "PROXY_ADVICE", "error_in", "heed", "in_band", "is_error", "status_error", "unless_fine"]

MAX_ERROR_BYTES = 64 * 2**10
"""How much of an error's body is read and kept."""

_BY_STATUS = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    422: errors.BadRequestError,
    429: errors.RateLimitError,
}

_INNER = ("error", "errors", "base_resp")  # where the object that describes an error may be
_CODES = ("code", "status_code", "statusCode", "http_status_code", "error_code", "errorCode", "Code", "__type")
_FAILED = "[45][0-9][0-9]"  # a status
_FINE = frozenset({"0", "200", "ok", "success", "none"})  # what gateways send when all is well
_MESSAGE_ALONE = frozenset({"message", "request_id", "requestId"})
_MAX_NAME = 200
_MAX_WRAPS = 3
_MOST_WRAPPED = 8  # how many objects side by side are searched

_NAMES = {
    name: status
    for status, names in {
        400: "bad_request invalid_request invalid_argument invalid_parameter context_length_exceeded content_filter"
        " data_inspection_failed client_specified_an_invalid_argument",
        401: "authentication unauthenticated invalid_api_key 1004 2049",
        402: "billing",
        403: "permission permission_denied",
        404: "not_found model_not_found",
        429: "rate_limit rate_limit_exceeded rate_limited request_limit_exceeded throttling too_many_requests"
        " resource_exhausted some_resource_has_been_exhausted insufficient_quota rate_limit_reached"
        " 1002 1039 1041 2045 1302 1303 1305",
        500: "api internal internal_server server 1000 1024 1033",
        502: "bad_gateway upstream",
        503: "service_unavailable temporarily_unavailable unavailable the_service_is_currently_unavailable",
        504: "deadline_exceeded timeout deadline_expired_before_operation_could_complete gateway_timeout 1001",
        529: "engine_overloaded overloaded server_is_overloaded server_overloaded",
    }.items()
    for name in names.split()
}
"""The status that an error's code or type stands for, as errors inside an answer have no status: OpenAI's codes
(https://platform.openai.com/docs/guides/error-codes), Anthropic's types (https://docs.anthropic.com/en/api/errors),
Google's (https://cloud.google.com/apis/design/errors), Databricks' (`TEMPORARILY_UNAVAILABLE`), TGI's `overloaded`,
Moonshot's `engine_overloaded_error` and `rate_limit_reached_error`, Volcengine's `ServerOverloaded`, sub2api's
`upstream_error`, and the numbers of MiniMax and Z.ai (13…), which come with status 200. The class names that vLLM,
LiteLLM and AWS send (`InternalServerError`, `ThrottlingException`) are the same words in another case. Some names have
several parts: the last one tells most, else the first (`com.amazon#ThrottlingException`, DashScope's
`InternalError.Algo.DataInspectionFailed`, but `Throttling.RateQuota`). xAI's codes are sentences: those of gRPC in Rust
(https://docs.rs/tonic/latest/tonic/enum.Code.html; vercel/ai#10533).
"""

_WORD_END = r"(?<=[a-z])(?=[A-Z])|(?<=\w) (?=\w)"
_NO_NAME = r"_?(error|exception)$"  # a suffix that only says that it is an error

# Gateways pass on messages of OpenAI's clients for Python and for JavaScript (`429 You …`); DashScope those of its
# models (`<400> …`).
_QUOTED_STATUS = rf"^(?:\w{{,40}}Error: )?(?:Error code: |HTTP |<|(?={_FAILED} (?:[A-Z{{<]|status code)))({_FAILED})\b"

_QUOTED_NAME = r"^litellm\.(\w{1,99})"  # applications pass on the messages of LiteLLM's exceptions

_ENDS = (".", "!", "?", "…", "。", "！")

PROXY_ADVICE = "Put the right user:password@ before the proxy's host."
"""The advice for a 407, whether for a tunnel or for a request."""

_HINTS = {
    401: "Check the API key.",
    402: "The account has no credit or quota left.",
    403: "The key is not allowed to use this model or endpoint.",
    404: "Check the model's name and base_url, which often ends in /v1.",
    405: "Check base_url, which often ends in /v1.",
    407: PROXY_ADVICE,
    413: "The request is too large for the endpoint: shorten the prompt.",
    429: "Send fewer requests, or wait.",
}


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, key_origin: str = ""
) -> errors.APIStatusError:
    """The error for an answer whose status is not a success.

    Args:
        status: The HTTP status.
        headers: The response's headers, with lower-case names.
        body: The body, or its first `MAX_ERROR_BYTES`.
        now: The wall clock in seconds since 1970, the reference for points in time if the answer has no `Date`.
        key_origin: A sentence that says where the key came from.
    """
    bare = _bare(body)
    try:
        decoded: Any = loads_answer(bare) if bare else None
    except ValueError:
        decoded = body.decode("utf-8", "replace")
    error = _build(status, decoded, *_said(decoded), headers, key_origin)
    heed(error, headers, wait.clock(headers, now))
    return error


def in_band(chunk: Any, reason: str = "") -> errors.APIStatusError:
    """The error for an error object that came where an answer was expected, with status 200.

    Its type follows from the status that the object names, as a number or by a known name.

    Args:
        chunk: The object.
        reason: A finish reason beside it that says that the endpoint has failed. It counts if the object says nothing:
            as an error that may pass, since the request is not to blame.
    """
    chunk = mend(chunk)
    message, names = _said(chunk)
    status = _status_named(chunk, message, names) or (500 if reason else 200)
    return _build(status, chunk, message or (f"finish_reason {reason!r}" if reason else ""), names)


def _status_named(body: Any, message: str, names: dict[str, Any]) -> int | None:
    """The status that a body names, as a number or by a known name; `message` and `names` come from `_said`."""
    outer, error = _objects(body)
    first = _first(error)
    said = [_code(error), error.get("status"), error.get("raw_status_code")]  # the third is Mistral's
    said += _code(first), first.get("status"), _code(outer), outer.get("status")  # watsonx: next to `errors`
    numbers = [int(value) for value in map(string_of, said) if re.fullmatch(_FAILED, value)]
    start = message[:_MAX_NAME]
    said += names["type"], *re.findall(_QUOTED_NAME, start)
    spelt = [re.sub(_WORD_END, "_", string_of(value)[:_MAX_NAME]).lower() for value in said]
    ends = [parts[end] for parts in (re.split("[.#]", one) for one in spelt) for end in (-1, 0)]
    known = [_NAMES[name] for end in ends if (name := re.sub(_NO_NAME, "", end)) in _NAMES]
    spoken = re.findall(_QUOTED_STATUS, start)
    return next(iter(numbers + known + [int(number) for number in spoken]), None)


def error_in(body: Any) -> errors.APIStatusError | None:
    """The error that a body of unknown kind describes; None if it does not clearly describe one.

    It must hold a message or a code that is a status. It must also name a status, as a number or by a known name. If it
    names none, its message must ask to try again, and must not be part of an answer: it has a code beside it, or is in
    an object of its own, or is the whole body.
    """
    body = mend(body)
    message, names = _said(body)
    error = _build(_status_named(body, message, names) or 200, body, message, names)
    clear = message or re.fullmatch(_FAILED, string_of(error.code))
    asks = error.retryable and (error.code or _objects(body)[1] is not body)
    return error if clear and (error.status_code != 200 or asks) else None


def heed(error: errors.APIStatusError, headers: Mapping[str, str], now: float) -> None:
    """Set `retryable` and `retry_after` of an error from its answer's headers, its body and its message.

    Args:
        error: The error, which may have come inside an answer.
        headers: The answer's, with lower-case names.
        now: The clock to which points in time refer, in seconds since 1970.
    """
    error.retryable = told_to_retry(headers, error.retryable)
    error.retry_after = wait.in_headers(headers, now)
    if error.retry_after is None:
        own = _objects(error.body)[1]
        waits = (wait.in_object(one, now) for one in (own, _first(own)))
        error.retry_after = next((seconds for seconds in waits if seconds is not None), None)
    if error.retry_after is None and error.status_code == 429:
        error.retry_after = wait.in_words(error.message)


def is_error(body: Any) -> bool:
    """Whether a body that came in place of an answer or a chunk is an error.

    Apart from `error`: FastAPI sends `detail`, Cloudflare `errors`, Mistral `object: "error"`, Anthropic
    `type: "error"`, OpenAI's other API `response.failed` (after which some leave the connection open: codex#43140),
    DashScope `code` and `message`, FastChat, Databricks and Baidu `error_code`, gateways a `message` alone or with a
    `statusCode` or `status` (Portkey: `failure`), or an `error_message` (hermes-agent#65738), MiniMax `base_resp` with
    a status other than 0. Next to choices, even empty ones, more is required: some servers send a code for «all is
    well» with each chunk (iFlytek's Spark), or details of other things.
    """
    if not isinstance(body, dict):
        return False
    status = body.get("base_resp")
    if isinstance(status, dict) and status.get("status_code"):
        return True
    error, detail, choices = body.get("error"), body.get("detail"), body.get("choices")
    if isinstance(choices, list):
        error, detail = unless_fine(error), detail if isinstance(detail, str) else None
    message = body.get("message") or body.get("msg")
    has_words = bool(message) and isinstance(message, str)
    if error or (has_words and not all(_is_fine(body.get(name)) for name in _CODES)):
        return True
    if choices:
        return False
    failed = body.get("status") in ("error", "failure") or body.get("success") is False
    if failed or body.get("object") == "error" or body.get("type") in ("error", "response.failed"):
        return True
    if has_words and (body.keys() <= _MESSAGE_ALONE or re.fullmatch(_FAILED, string_of(body.get("status")))):
        return True
    return not all(map(_is_fine, (detail, *map(body.get, ("error_code", "errors", "error_message", "errorMessage")))))


def unless_fine(error: Any) -> Any:
    """The value of an error field; None if it says nothing, as some servers send an empty one with each chunk."""
    return None if all(map(_is_fine, error.values() if isinstance(error, dict) else [error])) else error


def _is_fine(value: Any) -> bool:
    """Whether a value is empty or says that all is well."""
    return not value or (isinstance(value, str | int) and str(value).lower() in _FINE)


def _build(
    status: int,
    decoded: Any,
    message: str,
    names: dict[str, Any],
    headers: Mapping[str, str] | None = None,
    key_origin: str = "",
) -> errors.APIStatusError:
    said = printable(message) if message or any(names.values()) else as_it_is(decoded)
    where = f"HTTP {status}" if status != 200 else "The endpoint reported an error inside its answer"
    kind = _BY_STATUS.get(status, errors.ServerError if status >= 500 else errors.APIStatusError)
    error = kind(said, status_code=status, body=decoded, headers=headers, **names)  # judged by the bare message
    parts = (f"{where}: {said}" if said else where, "" if headers is None else _hint(error, key_origin))
    error._reword(" ".join(part if part.endswith(_ENDS) else f"{part}." for part in parts if part))
    return error


def _bare(body: bytes) -> bytes:
    """The JSON of a body without what may surround it: some servers send an error as an event, not as plain JSON."""
    body = body.strip().removeprefix(BOM_UTF8).strip()
    if body.startswith((b"{", b"[", b"<")):
        return body
    return next((line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")), body)


def _hint(error: errors.APIStatusError, key_origin: str) -> str:
    status = 402 if error.spent else 401 if error.key_refused else error.status_code
    if 300 <= status < 400 and status != 304:
        there = error.headers.get("location")
        if there is None:
            return "The endpoint redirects without saying where: check base_url"
        there, query, _ = there.partition("?")  # it may repeat that of base_url, which may hold a secret
        return f"The endpoint points to {printable(there + '?…' * bool(query))!r}: set base_url to that"
    if status == 403 and error.message.startswith(PAGE):
        return "The key is not allowed to make this request, or a proxy or firewall in between blocks it."
    hint = _HINTS.get(status, "The endpoint failed; trying again later may help." if status >= 500 else "")
    return f"{hint} {key_origin}".strip() if status == 401 else hint


def _said(body: Any) -> tuple[str, dict[str, Any]]:
    """The message of an error, and its code, type and param, wherever they are in this body."""
    outer, error = _objects(body)
    message, cause = words(error) or words(outer or body), _cause(error)
    if (said := words(cause)) not in message:
        message = f"{message}: {said}" if message else said
    first, code = _first(error), _code(error)
    code = _code(outer) if code is None else code
    names = [name for name in (_code(first), first.get("type")) if not string_of(name).isdigit()]
    names += error.get("type"), outer.get("error_type")  # last: a gateway's own names say less
    return message, {
        "code": code if isinstance(code, int) and not isinstance(code, bool) else _name(code),
        "type": next(filter(None, map(_name, names)), None),
        "param": _name(error.get("param")),
    }


def _name(value: Any) -> str | None:
    """A name, capped; None for the empty values of LiteLLM (`None`) and of gateways written in Go (`<nil>`)."""
    return value[:_MAX_NAME] if isinstance(value, str) and value not in ("", "None", "<nil>") else None


def _objects(body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The body, and the object in it that describes the error, perhaps the body itself; both empty for plain text.

    That object may be in a string, as the quoted body of an upstream's error, or nested deeper.
    """
    outer = _object(body) or {}
    detail = quoted(outer.get("detail"))
    if isinstance(detail, dict) and detail.get("error"):
        outer = detail
    around = _describing(outer)
    inner = (_object(quoted(around.get(name))) for name in _INNER)
    own = next(filter(None, inner), around)
    return outer, own if "message" in own else _object(own.get("error")) or own


def _describing(body: dict[str, Any], depth: int = _MAX_WRAPS) -> dict[str, Any]:
    """The first object inside a body that describes an error; the body, if it has a message itself or none does.

    Tencent wraps errors in `Response`, OpenAI's other API in `response`, gateways in `data`. A message without a code
    does not count: it may be the request's, or an answer's.
    """
    if not depth or _has_inner(body) or words(body):
        return body
    inner = islice((value for value in body.values() if isinstance(value, dict)), _MOST_WRAPPED)
    return next(filter(_describes, (_describing(value, depth - 1) for value in inner)), body)


def _describes(body: dict[str, Any]) -> bool:
    return _has_inner(body) or (_code(body) is not None and bool(words(body)))


def _has_inner(body: dict[str, Any]) -> bool:
    return any(map(body.get, _INNER))


def _code(error: dict[str, Any]) -> Any:
    return next((error[name] for name in _CODES if error.get(name) is not None), None)


def _first(error: dict[str, Any]) -> dict[str, Any]:
    """The upstream's error object that this error, a gateway's, quotes; empty if it quotes none."""
    return _objects(quoted(_cause(error)))[1]


def _cause(error: dict[str, Any]) -> Any:
    """What the provider told the gateway that sent this error: the message, or OpenRouter's `metadata.raw`.

    OpenRouter's message is just «Provider returned error».
    """
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return raw or error.get("message")


def _object(value: Any) -> dict[str, Any] | None:
    """The object that describes an error: the value itself, or the first item of a list."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else None

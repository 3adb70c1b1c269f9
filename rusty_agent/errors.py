"""Every exception that this library raises on purpose.

In: what happened, in words and fields. Out: exceptions that pickle, deep-copy and never hold a key.
Never touched: the network, the environment.

    RustyAgentError(Exception)
    ├── APIConnectionError(ConnectionError)          no whole answer arrived
    │   ├── APITimeoutError(TimeoutError)            … because a time limit passed
    │   └── StreamInterruptedError                   … because the stream ended before its finish
    ├── APIStatusError(RuntimeError)                 the endpoint answered with an error
    │   ├── BadRequestError          400, 422
    │   ├── AuthenticationError      401
    │   ├── PermissionDeniedError    403
    │   ├── NotFoundError            404
    │   ├── RateLimitError           429
    │   └── ServerError              500 and above
    ├── ResponseError(ValueError)                    the answer cannot be decoded
    ├── MissingAPIKeyError(ValueError)               no key was given or found
    ├── LocalModelError(RuntimeError)                the local model could not be found, started or kept alive
    ├── RunStoppedError(RuntimeError)                a run of many prompts was stopped before its end
    └── BatchError(RuntimeError)                     a batch cannot begin or go on

A bad argument is a plain `ValueError` that names the argument; it is raised before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .types import Usage

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BatchError",
    "LocalModelError",
    "MissingAPIKeyError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "ResponseError",
    "RunStoppedError",
    "RustyAgentError",
    "ServerError",
    "StreamInterruptedError",
]


RETRIED_STATUSES = frozenset({408, 409, 425, 429, 498, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529, 530})
"""The statuses that may pass by themselves.

408 and 425 by RFC 9110 §15.5.9 and RFC 8470 §5.2; 409 because OpenAI answers lock timeouts with it; 498 is Groq's for a
full flex tier; 520 to 524 and 530 are Cloudflare's for an origin in trouble; 529 is Anthropic's «overloaded». Never
400, 401, 402, 403, 404 or 422.
"""

INSIDE = "The endpoint reported an error inside its answer"
"""How the message of such an error begins."""


_SPENT = (
    r"insufficient[ _]?(user[ _])?(quota|balance|credit|fund)s?(?![a-z])|balance is insufficient"
    r"|exceeded_current_quota_error|exceeded your current quota.{,199}openai\.com|billing_(not_active|hard_limit)"
    r"|(run out of|used all|have any)( available)? credits|credit balance is too low|key limit exceeded"
    r"|(monthly spend(ing)? |spend(ing)?_)(limit|cap)|reached your specified API usage limits|budget_exceeded|arrear"
    r"|overdue.?(balance|payment|error)|余额不足|欠费"
    r"|(quota|balance|credits?) (is|are) not enough|not enough (balance|credits?|quota)(?![a-z])"
    r"|credits (are|have been) (depleted|exhausted)|free (tier|quota)( of the model)? (is|has been) exhausted"
    r"|used up your .{,40}(free|credits)|reached its spend limit|spend(ing)? limit (reached|exceeded)"
    r"|blocked_api_access"
)
_ABOUT_ACCOUNTS = frozenset({401, 403, 412, 429})
# Gateways quote others, and JSON.
_FIRST_WORDS = r"(^|[:.] |- |message\W{1,9})((you|your|have|has|the|account|organization) )*"
_FULL_MINUTE = "#token-limit"  # DashScope's, with the code, type and words of OpenAI's quota, but for their link
_TOO_LARGE = "request too large"  # OpenAI's 429, of a single request that takes more tokens than a minute has


def is_spent(status: int, code: object, type: object, message: str) -> bool:
    """Whether an error says that there is nothing left to spend, which no waiting brings back.

    Few say 402. Others say 429 (OpenAI, Gemini, Moonshot, xAI, Z.ai, LiteLLM), 400 (Anthropic, Groq), 403 (DashScope,
    gateways), 412 (Fireworks) or 500 (MiniMax), and some of them in words alone. Gemini's words for a full minute, «You
    exceeded your current quota, please check your plan and billing details», are none of these. Where the status is not
    about accounts, words count only at the beginning of what somebody says: others may be quoted from the prompt.
    """
    if status == 402 or _FULL_MINUTE in message:
        return status == 402
    first = "" if status in _ABOUT_ACCOUNTS else _FIRST_WORDS
    said = re.search(_SPENT, f"{code} {type}", re.IGNORECASE)
    return (said or re.search(f"{first}({_SPENT})", message, re.IGNORECASE)) is not None


_KEY = r"(api|access|bearer|auth|security)[ _-]?(key|token)"
_WRONG_KEY = (
    rf"((invalid|incorrect|wrong|missing|expired)[ _-]?{_KEY}"
    rf"|((your|this|the|authentication failed:|permission denied: consumer) )?'?({_KEY}|account|organization)\b"
    r"[^.,;]{,60} (invalid|not valid|not found|expired|leaked|blocked|revoked|suspended|disabled|restricted))(?![a-z])"
)


def refuses_key(status: int, code: object, type: object, message: str) -> bool:
    """Whether an error says that the key is wrong, or its account closed, so that no request with it will be answered.

    Most say 401. Gemini, xAI and Groq say 400, in words alone, as if the request were to blame; gateways say 403, and
    so do Databricks and Bedrock of a token that has expired. The words count only at the very beginning: others may be
    quoted from the prompt.
    """
    if status not in (200, 400, 403):
        return status == 401
    said = re.search(_WRONG_KEY, f"{code} {type}", re.IGNORECASE)
    return (said or re.match(f"(({INSIDE}|HTTP {status}): )?{_WRONG_KEY}", message, re.IGNORECASE)) is not None


def may_pass(error: APIStatusError, headers: Mapping[str, str]) -> bool:
    """Whether an error may pass by itself; the endpoint may say so.

    A request too large for the limit by the minute will be so the next time.
    """
    asked = headers.get("x-should-retry", "").lower()
    if asked in ("true", "false"):
        return asked == "true"
    if error.status_code not in RETRIED_STATUSES or _TOO_LARGE in error.message.lower():
        return False
    return not is_spent(error.status_code, error.code, error.type, error.message)


class RustyAgentError(Exception):
    """The root of all errors of this library.

    Attributes:
        message: What happened, why, and what to do next.
        partial_text: The text that had arrived before the error (`""` when none had).
        usage: The last token counts that had arrived, or None.
        request_id: The endpoint's name for the request, or None.
        attempts: How many attempts were made before giving up, at least 1.
        retryable: Whether sending the same request again may help.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        partial_text: str = "",
        usage: Usage | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.partial_text = partial_text
        self.usage = usage
        self.request_id = request_id
        self.attempts = 1


class APIConnectionError(RustyAgentError, ConnectionError):
    """The endpoint could not be reached, or the connection broke before the answer was whole.

    Attributes:
        sent: Whether any of the request may have reached the endpoint. False where there was no connection.
    """

    retryable = True
    sent = True


class APITimeoutError(APIConnectionError, TimeoutError):
    """A time limit passed.

    Attributes:
        limit: Which limit of `Timeout` it was: `"connect"`, `"first_token"`, `"idle"`, `"stall"` or `"total"`.
        seconds: The limit's length in seconds.
    """

    def __init__(self, message: str, *, limit: str = "total", seconds: float | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.limit = limit
        self.seconds = seconds


class StreamInterruptedError(APIConnectionError):
    """The stream ended before its finish: what arrived is in `partial_text`, and it is not the whole answer."""


class APIStatusError(RustyAgentError, RuntimeError):
    """The endpoint answered with an error, as an HTTP status or as an error object inside a stream.

    Attributes:
        status_code: The HTTP status, or the error object's own numeric code inside a stream of status 200.
        code: The endpoint's code for the error, a string or an integer, or None.
        type: The endpoint's class of the error, or None.
        param: The parameter that the endpoint complains of, or None.
        body: The decoded JSON body, or its text (at most 64 KiB), or None.
        retry_after: Seconds the endpoint asked to wait, or None.
        headers: The response's headers with lower-case names; empty for an error inside a stream.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int = 0,
        code: str | int | None = None,
        type: str | None = None,
        param: str | None = None,
        body: Any = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.status_code = status_code
        self.code = code
        self.type = type
        self.param = param
        self.body = body
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        self.retryable = may_pass(self, self.headers)


class BadRequestError(APIStatusError):
    """400 or 422: the endpoint refuses the request as it is; sending it again will not help."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing, wrong or expired."""


class PermissionDeniedError(APIStatusError):
    """403: the key is valid but may not do this."""


class NotFoundError(APIStatusError):
    """404: no such model, or `base_url` points at the wrong path."""


class RateLimitError(APIStatusError):
    """429: too many requests or tokens, or the quota is used up; see `retry_after`."""


class ServerError(APIStatusError):
    """500 and above: the endpoint failed."""


class ResponseError(RustyAgentError, ValueError):
    """The answer cannot be decoded: not JSON, not an event stream, or longer than the cap.

    Attributes:
        body: The offending bytes, at most 2 KiB of them.
    """

    def __init__(self, message: str, *, body: bytes = b"", **fields: Any) -> None:
        super().__init__(message, **fields)
        self.body = body


class MissingAPIKeyError(RustyAgentError, ValueError):
    """No API key was given, and the environment variable that would hold it is not set."""


class LocalModelError(RustyAgentError, RuntimeError):
    """The local model could not be found, started or kept alive."""


class RunStoppedError(RustyAgentError, RuntimeError):
    """A run of many prompts was stopped before its end: what is not done was not sent.

    Attributes:
        reason: `"failures"`, `"error_rate"`, `"authentication"`, `"quota"`, `"budget"` or `"interrupt"`.
        done: How many prompts were answered in the end.
        failed: How many failed.
    """

    def __init__(
        self, message: str, *, reason: str = "failures", done: int = 0, failed: int = 0, **fields: Any
    ) -> None:
        super().__init__(message, **fields)
        self.reason = reason
        self.done = done
        self.failed = failed


class BatchError(RustyAgentError, RuntimeError):
    """A batch cannot begin or go on; the errors of single rows are none of these."""

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

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .verdict import judge, told_to_retry

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


class RustyAgentError(Exception):
    """The root of all errors of this library.

    Attributes:
        message: What happened, why, and what to do next.
        partial_text: The text that had arrived before the error (`""` when none had).
        usage: The last token counts that had arrived, or None.
        request_id: The endpoint's id of the request, or None.
        attempts: How many attempts were made; 0 if the call was closed before its turn came.
        retryable: Whether sending the same request again may help.
        retry_after: Seconds the endpoint asked to wait, or None.
        duration: Seconds from the call (or, if it waited in line, from its first turn) to the error; None if a stream
            had begun.
    """

    retryable: bool = False
    retry_after: float | None = None
    duration: float | None = None

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
        self.attempts: int = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without the constructor, as a user's subclass may have one with other arguments."""
        return type(self).__new__, (type(self),), {**vars(self), "args": self.args}

    def _reword(self, message: str) -> None:
        """Replace the message, in `message` and in `args`."""
        self.message = message
        self.args = (message,)


class APIConnectionError(RustyAgentError, ConnectionError):
    """The endpoint could not be reached, or the connection broke before the answer was whole.

    Attributes:
        sent: Whether any part of the request may have reached the endpoint. False if no connection could be made, but
            a later attempt may succeed.
    """

    retryable: bool = True

    def __init__(self, message: str, *, retryable: bool | None = None, sent: bool = True, **fields: Any) -> None:
        super().__init__(message, **fields)
        if retryable is not None:  # else the class attribute holds, which a user's subclass may set
            self.retryable = retryable
        self.sent = sent


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
    """The endpoint answered with an error, as an HTTP status or as an error object inside its answer.

    Attributes:
        status_code: The HTTP status; for an error inside an answer, the status that its code, type or text names, else
            200.
        code: The endpoint's code for the error, a string or an integer, or None.
        type: The endpoint's type of the error, or None.
        param: The parameter that the endpoint complains about, or None.
        body: The decoded JSON body, or its text (at most 64 KiB), or None.
        headers: The response's headers with lower-case names; empty for an error inside an answer.
        spent: Whether the account has nothing left to spend.
        key_refused: Whether the key is wrong, or its account is closed.
        may_pass: Whether such an error may pass by itself, even if `x-should-retry` forbids sending this request again.
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
        self.headers: dict[str, str] = dict(headers or {})
        self.spent, self.key_refused, self.may_pass = judge(status_code, code, type, message)
        self.retryable = told_to_retry(self.headers, self.may_pass)


class BadRequestError(APIStatusError):
    """400 or 422: the endpoint refuses the request as it is; sending it again will not help."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing, wrong or expired."""


class PermissionDeniedError(APIStatusError):
    """403: the key is valid but not allowed to do this."""


class NotFoundError(APIStatusError):
    """404: no such model, or `base_url` points at the wrong path."""


class RateLimitError(APIStatusError):
    """429: too many requests or tokens, or the quota is used up; see `retry_after`."""


class ServerError(APIStatusError):
    """500 and above: the endpoint failed."""


class ResponseError(RustyAgentError, ValueError):
    """The answer cannot be decoded: not JSON, not an event stream, longer than the cap, or without any choices.

    Attributes:
        body: The bytes that cannot be decoded, at most 2 KiB of them.
    """

    def __init__(self, message: str, *, body: bytes = b"", retryable: bool | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.body = body[:2048]
        if retryable is not None:
            self.retryable = retryable


class MissingAPIKeyError(RustyAgentError, ValueError):
    """No API key was given, and the environment variable that would hold it is not set."""


class LocalModelError(RustyAgentError, RuntimeError):
    """The local model could not be found, started or kept alive."""


class RunStoppedError(RustyAgentError, RuntimeError):
    """A run of many prompts was stopped before its end. Prompts counted in neither `done` nor `failed` were not sent.

    Attributes:
        reason: `"failures"`, `"error_rate"`, `"authentication"`, `"quota"`, `"budget"` or `"interrupt"`.
        done: How many prompts were answered.
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
    """A batch cannot begin or continue. A single row that fails does not raise it."""

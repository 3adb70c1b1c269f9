"""Arguments → the JSON body and the headers of a request.

In: the caller's arguments. Out: a dict and header pairs, checked: anything that every endpoint would refuse raises a
`ValueError` that names the argument. Never touched: the network, and anything that only some endpoints support.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

from ..checks import checked_flag
from ..keys import Hidden
from .codec import dumps_exact, plain_scalar

__all__ = ["PARAMETERS", "build_body", "checked_headers", "encode_body"]

_HEADER_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_UNFIT = r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]"  # control characters except the tab, and halves of characters
_LARGE = 2**12  # bytes; orjson's smallest buffer
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "host", "content-encoding"})


def build_body(
    model: str,
    prompt: str | None,
    system_prompt: str | None,
    messages: Sequence[Mapping[str, Any]] | None,
    parameters: Mapping[str, Any],
    *,
    stream: bool,
    include_usage: bool,
    extra_body: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The body of a chat completion request.

    `messages` wins over `prompt`; `system_prompt` is prepended to either; parameters that are None are not sent;
    `extra_body` is laid over the rest, and a None in it takes a field out.

    Raises:
        ValueError: An argument is missing, of the wrong type or out of range.
    """
    body: dict[str, Any] = {"model": model, "messages": _messages(prompt, system_prompt, messages)}
    for name, value in parameters.items():
        if value is not None:
            value = _as_python(value)
            _CHECKS[name](name, value)
            body[name] = dict(value) if isinstance(value, Mapping) else value
    checked_flag(include_usage, "include_usage")
    if stream:
        body["stream"] = True
        if include_usage:
            body["stream_options"] = {"include_usage": True}
    if extra_body is not None:
        if not isinstance(extra_body, Mapping) or not all(isinstance(key, str) for key in extra_body):
            raise ValueError("extra_body must be a mapping of field names to values")
        for name, value in extra_body.items():
            if value is None:
                body.pop(name, None)
            else:
                body[name] = value
    return body


def encode_body(body: dict[str, Any]) -> bytes:
    """The body as JSON.

    Raises:
        ValueError: It holds something that JSON cannot represent.
    """
    try:
        data = dumps_exact(body)
    except ValueError as error:
        raise ValueError(f"messages, response_format or extra_body cannot be sent as JSON: {error}") from None
    # orjson's result keeps a buffer of many times its size (home-assistant/core#181245), and lives as long as the call.
    return bytes(memoryview(data)) if len(data) > _LARGE else data


def _messages(
    prompt: str | None, system_prompt: str | None, messages: Sequence[Mapping[str, Any]] | None
) -> list[Mapping[str, Any]]:
    if messages is not None and type(messages) is not list and not _is_sequence(messages):
        raise ValueError("messages must be a list of messages such as {'role': 'user', 'content': '…'}")
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError(f"prompt must be a string, not {type(prompt).__name__}")
    if system_prompt is not None and not isinstance(system_prompt, str):
        raise ValueError(f"system_prompt must be a string, not {type(system_prompt).__name__}")
    sent: list[Mapping[str, Any]] = []
    if system_prompt is not None:
        sent.append({"role": "system", "content": system_prompt})
    if messages:
        for position, message in enumerate(messages):
            if type(message) is not dict and not isinstance(message, Mapping):
                raise ValueError(f"messages[{position}] must be a mapping, not {type(message).__name__}")
            role = message.get("role")
            if not isinstance(role, str) or not role:
                raise ValueError(f"messages[{position}] has no role")
            sent.append(message if type(message) is dict else dict(message))
    elif prompt is not None:
        sent.append({"role": "user", "content": prompt})
    else:
        raise ValueError("prompt or messages is required")
    return sent


def _is_sequence(messages: Any) -> bool:
    return isinstance(messages, Sequence) and not isinstance(messages, str | bytes)


def _as_python(value: Any) -> Any:
    """A number of any type as one of Python's, which the checks require; anything else as it is."""
    if isinstance(value, str | int | float) or not isinstance(value, Real):
        return value
    return plain_scalar(value)


def _number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    if not low <= value <= high:
        bounds = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{name} must be {bounds}, not {value!r}")


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, not {value!r}")


def _positive(name: str, value: Any) -> None:
    _whole(name, value)
    if value < 1:
        raise ValueError(
            f"{name} must be at least 1, not {value}; anything else an endpoint takes goes into extra_body"
        )


def _stop(name: str, value: Any) -> None:
    if not isinstance(value, str) and not (
        isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
    ):
        raise ValueError(f"{name} must be a string or a list of strings, not {value!r}")


def _mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping such as {{'type': 'json_object'}}, not {value!r}")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "temperature": partial(_number, low=0),
    "max_tokens": _positive,
    "top_p": partial(_number, low=0, high=1),
    "stop": _stop,
    "frequency_penalty": _number,
    "presence_penalty": _number,
    "seed": _whole,
    "response_format": _mapping,
}
PARAMETERS = frozenset(_CHECKS)
"""The parameters of `generate_text` that go into the body under their own names, when they are not None."""


def checked_headers(headers: Mapping[str, str] | Hidden | None, argument: str) -> dict[str, str]:
    """Header pairs with lower-case names.

    Raises:
        ValueError: A name or value cannot stand in a header (CR, LF and NUL would let it smuggle others in), or the
            header frames the request. The message never shows the value.
    """
    checked: dict[str, str] = {}
    complaint = _take_headers(headers.headers if isinstance(headers, Hidden) else headers, checked)
    if complaint:
        del headers, checked  # or a traceback that prints local variables would show the values
        raise ValueError(argument + complaint)
    return checked


def _take_headers(headers: Any, checked: dict[str, str]) -> str:
    """Copy pairs into `checked` up to the first invalid one; return what is wrong with it, or `""`."""
    if headers is None:
        return ""
    if not isinstance(headers, Mapping):
        return " must be a mapping of header names to values"
    for name, value in headers.items():
        if not isinstance(name, str) or not re.fullmatch(_HEADER_NAME, name):
            return f": {name!r} is not a header name"
        if not isinstance(value, str):
            return f": the value of {name!r} must be a string, not {type(value).__name__}"
        if re.search(_UNFIT, value):
            return f": the value of {name!r} contains a line break or another character that is not allowed there"
        if name.lower() in _FRAMING:
            return f": {name!r} frames the request and cannot be set"
        checked[name.lower()] = value.strip()
    return ""

"""Judges a body that is, or should have been, one JSON object: whether it is an answer.

In: its bytes, or its decoded value. Out: what it is, or the error to raise if it is no answer. Never touched: deltas.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from ..errors import ResponseError
from .codec import loads_answer
from .failure import is_error
from .words import excerpt

__all__ = [
    "CHECK_URL",
    "begun_anew",
    "empty",
    "is_bare",
    "is_calls_alone",
    "is_lines",
    "is_page",
    "is_piece",
    "is_whole",
    "object_in",
    "unreadable",
    "unwrapped",
]

CHECK_URL = "Check that base_url names the API itself."
"""The advice when the answer to a successful request is not a chat completion."""

# The keys under which OpenRouter (pydantic-ai#3994), Cloudflare (litellm#29833) and gateways wrap answers. Under other
# keys there may be choices of other kinds.
_AROUND = ("provider", "result", "data")
_ANEW = re.compile(rb"(?:data: |\n)(?=\{)")
_PAGES = (b"<!doctype", b"<html")
_PAGE_START = 2048  # comments may come first


def is_bare(document: Any) -> bool:
    """Whether the choices of an answer hold nothing: not even an empty message or a finish reason."""
    choices = _choices(document)
    named = ("message", "delta", "text", "finish_reason")
    return choices is not None and all(choice.get(name) is None for choice in choices for name in named)


def is_piece(document: Any) -> bool:
    """Whether it is a single chunk of a stream whose rest never came; asked only if there is no finish reason."""
    choices, kind = _choices(document) or [], document.get("object") if isinstance(document, dict) else None
    chunk = isinstance(kind, str) and kind.endswith(".chunk")
    return bool(choices) and (chunk or any("delta" in choice and not choice.get("message") for choice in choices))


def is_calls_alone(choice: dict[str, Any]) -> bool:
    """Whether a choice of a whole answer holds only tool calls: then it continues the first one (litellm#35444)."""
    message = choice.get("message")
    return isinstance(message, dict) and bool(message.get("tool_calls")) and not message.get("content")


def _choices(document: Any) -> list[dict[str, Any]] | None:
    choices = document.get("choices") if isinstance(document, dict) else None
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else None


def is_whole(document: bytes | bytearray) -> bool:
    """Whether it is one whole JSON object: then it does not matter if the connection broke after it."""
    return bool(object_in(bytes(document)))


def is_lines(body: bytes | bytearray) -> bool:
    """Whether the first line is one object and another begins below: a stream without `data:` (hackclub/ai#17)."""
    first = body[: max(body.find(b"\n{"), 0)].strip()
    return b"\n" not in first and is_whole(first)


def begun_anew(event: bytes) -> Any:
    """The chunk that follows a truncated one, on the same line or the next; None if there is none.

    Gateways send this when their own upstream connection broke: Z.ai begins the answer anew (opencode#8282), others
    send the error (sub2api#1471, talon#393).
    """
    cut, *anew = _ANEW.split(event, 2)
    if len(anew) == 1 and cut.startswith(b"{") and not is_whole(cut):
        with suppress(ValueError):
            return loads_answer(*anew)
    return None


def unreadable(body: bytes, *, cut: bool) -> ResponseError:
    """The error for a body that is not JSON; it is retryable if the body was `cut`, as it may be whole next time."""
    what = "an HTML page" if body.startswith(b"<") else "not JSON"
    more = "It was cut off before its end." if cut else CHECK_URL
    return ResponseError(f"The answer is {what}: {excerpt(body)}. {more}", body=body, retryable=cut)


def object_in(data: bytes) -> list[dict[str, Any]]:
    """The object in the data of an event of unknown type, as a list of one; empty if the data is anything else."""
    with suppress(ValueError):
        value = loads_answer(data)
        return [value] if isinstance(value, dict) else []
    return []


def unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """The answer or chunk wrapped in an object that has no choices itself; the object itself if it wraps none.

    An object that names its event type stays as it is: its choices may be ones for the user to make.
    """
    inner = (within for within in map(value.get, _AROUND) if isinstance(within, dict))
    found = next((within for within in inner if isinstance(within.get("choices"), list)), None)
    kind = value.get("type") or value.get("event")
    if found is None or (kind and isinstance(kind, str)) or is_error(value):
        return value
    return {**found, "usage": found.get("usage") or value.get("usage")}


def empty(said: str, body: bytes = b"", *, foreign: bool, counted: bool) -> ResponseError:
    """The error for an answer without content.

    OpenRouter sends completions without choices when a provider gave nothing (pydantic-ai#6900, gram#3129), and the
    next attempt usually gets an answer. If tokens are counted, the model did run, and each retry would run it again:
    LiteLLM sends this for what Gemini has blocked (litellm#40252).

    Args:
        said: What is missing.
        body: What came.
        foreign: It is not a chat completion at all.
        counted: It holds token counts.
    """
    said = f"{said} {CHECK_URL}" if foreign else said
    return ResponseError(said, body=body, retryable=not (foreign or counted))


def is_page(body: bytes) -> bool:
    """Whether it is an HTML page; a PHP warning before the answer begins with a tag too, but is not a page."""
    start = body[:_PAGE_START].lower()
    return start.startswith(b"<") and any(tag in start for tag in _PAGES)

"""A body that is one JSON object, or was to be one: what it is worth as an answer.

In: its bytes, or its decoded value. Out: what it is, or the error that it is none. Never touched: deltas.
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
"""The advice where the answer to a successful request is no chat completion."""

# What answers stand in: OpenRouter's (pydantic-ai#3994), Cloudflare's (litellm#29833), gateways'. Other objects may
# hold choices of other kinds.
_AROUND = ("provider", "result", "data")
_ANEW = re.compile(rb"(?:data: |\n)(?=\{)")
_PAGES = (b"<!doctype", b"<html")
_PAGE_START = 2048  # comments may stand in front


def is_bare(document: Any) -> bool:
    """Whether the choices of an answer hold nothing: no message, be it empty, and no reason for its end."""
    choices = _choices(document)
    named = ("message", "delta", "text", "finish_reason")
    return choices is not None and all(choice.get(name) is None for choice in choices for name in named)


def is_piece(document: Any) -> bool:
    """Whether it is a stream's chunk, of which the others never came; asked where there is no finish reason."""
    choices, kind = _choices(document) or [], document.get("object") if isinstance(document, dict) else None
    chunk = isinstance(kind, str) and kind.endswith(".chunk")
    return bool(choices) and (chunk or any("delta" in choice and not choice.get("message") for choice in choices))


def is_calls_alone(choice: dict[str, Any]) -> bool:
    """Whether a choice of a whole answer is nothing but calls: the rest of the first one (litellm#35444)."""
    message = choice.get("message")
    return isinstance(message, dict) and bool(message.get("tool_calls")) and not message.get("content")


def _choices(document: Any) -> list[dict[str, Any]] | None:
    choices = document.get("choices") if isinstance(document, dict) else None
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else None


def is_whole(document: bytes | bytearray) -> bool:
    """Whether it is an object from brace to brace: then it does not matter that the connection broke behind it."""
    try:
        return isinstance(loads_answer(bytes(document)), dict)
    except ValueError:
        return False


def is_lines(body: bytes | bytearray) -> bool:
    """Whether each line is one object: a stream whose events lack their field (hackclub/ai#17)."""
    first = body[: max(body.find(b"\n{"), 0)].strip()
    return b"\n" not in first and is_whole(first)


def begun_anew(event: bytes) -> Any:
    """The chunk behind one that was cut, in the same line or the next; None where there is none.

    Gateways go on so where their own connection broke: Z.ai's with an answer that it begins anew (opencode#8282),
    others with the error (sub2api#1471, talon#393).
    """
    cut, *anew = _ANEW.split(event, 2)
    if len(anew) == 1 and cut.startswith(b"{") and not is_whole(cut):
        with suppress(ValueError):
            return loads_answer(*anew)
    return None


def unreadable(body: bytes, *, cut: bool) -> ResponseError:
    """The error of a body that is no JSON; one that was `cut` may be whole the next time."""
    what = "an HTML page" if body.startswith(b"<") else "not JSON"
    more = "It was cut off before its end." if cut else CHECK_URL
    return ResponseError(f"The answer is {what}: {excerpt(body)}. {more}", body=body[:2048], retryable=cut)


def object_in(data: bytes) -> list[dict[str, Any]]:
    """The object that an event holds whose kind is unknown; none if it holds words or something else."""
    with suppress(ValueError):
        value = loads_answer(data)
        return [value] if isinstance(value, dict) else []
    return []


def unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """The answer, or chunk, inside an object that has no choices itself; where there is none, that object.

    An object that says which kind of event it is stays as it is: what it holds may be choices for the user to make.
    """
    inner = (within for within in map(value.get, _AROUND) if isinstance(within, dict))
    found = next((within for within in inner if isinstance(within.get("choices"), list)), None)
    kind = value.get("type") or value.get("event")
    if found is None or (kind and isinstance(kind, str)) or is_error(value):
        return value
    return {**found, "usage": found.get("usage") or value.get("usage")}


def empty(said: str, body: bytes = b"", *, foreign: bool, counted: bool) -> ResponseError:
    """The error of an answer that holds none.

    OpenRouter sends completions without choices where a provider gave nothing (pydantic-ai#6900, gram#3129), and the
    next try most often draws an answer. Where tokens are counted, the model was asked, and would be each time: LiteLLM
    sends them so for what Gemini has blocked (litellm#40252).

    Args:
        said: What is missing.
        body: What came.
        foreign: It is no chat completion at all.
        counted: It tells of tokens.
    """
    said = f"{said} {CHECK_URL}" if foreign else said
    return ResponseError(said, body=body[:2048], retryable=not (foreign or counted))


def is_page(body: bytes) -> bool:
    """Whether it is a page of HTML; a warning of PHP's in front of the answer begins with a tag, too, but is none."""
    start = body[:_PAGE_START].lower()
    return start.startswith(b"<") and any(tag in start for tag in _PAGES)

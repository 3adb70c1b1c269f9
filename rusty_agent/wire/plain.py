"""Nearly all chunks, and nearly all answers, are text and nothing else: what to know such ones by.

In: a chunk's bytes and its text, or a decoded chunk or answer. Out: what stands around the text; the text. Never
touched: anything that is out of the ordinary, which takes the long way.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from .codec import dumps

__all__ = ["META_KEYS", "NO_FRAME", "Frame", "frame_of", "plain_answer", "plain_chunk"]

Frame: TypeAlias = tuple[bytes, bytes]
"""The bytes before and after the text of a chunk."""

NO_FRAME: Frame = (b"\xff", b"\xff")  # no JSON holds it

META_KEYS = frozenset(
    {"id", "object", "created", "model", "system_fingerprint", "service_tier", "provider", "timings", "obfuscation"}
)
"""The fields of a chunk, or an answer, that are no content and no news."""

_DOCUMENT_KEYS = META_KEYS | {"choices", "usage"}
_CHOICE_KEYS = frozenset({"index", "message", "finish_reason", "native_finish_reason", "logprobs"})
_MESSAGE_KEYS = frozenset({"role", "content", "refusal", "annotations"})


def frame_of(data: bytes, text: str) -> Frame:
    """What stands around the text of a plain chunk; `NO_FRAME` where it is not clear which bytes are the text."""
    if data.count(b'"content"') != 1 or b"\n" in data:  # of several lines: joined, they are not what arrives
        return NO_FRAME
    start = len(data) - len(data.partition(b'"content"')[2].lstrip(b": "))
    string = dumps(text)
    before, after = data[:start], data[start + len(string) :]
    if not data.startswith(string, start) or b"\\u" in before or b"\\u" in after:  # which may spell «content» again
        return NO_FRAME
    return before, after


def plain_chunk(chunk: Any) -> tuple[str, str | None, dict[str, Any]] | None:
    """What a chunk holds of which one choice has a piece of text, or a role, or a finish reason, and nothing else.

    Returns:
        The text or `""`, the finish reason or None, and the fields that are no content; None of any other chunk.
    """
    try:
        (choice,) = chunk["choices"]
        (news,) = filter(None, choice.values())  # so its index is 0, or says nothing
        delta = choice["delta"]
        text, reason = "", None
        if news is not delta:
            reason = news
            plain = type(reason) is str and reason != "error" and reason is choice["finish_reason"]
        elif text := delta.get("content"):
            plain = type(text) is str and len(delta) == 1
        else:
            plain = not any(value for key, value in delta.items() if key != "role")
        if not plain:
            return None
        meta = {key: value for key, value in chunk.items() if value and key != "choices"}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    return (text, reason, meta) if meta.keys() <= META_KEYS else None


def plain_answer(document: Any) -> tuple[str, str] | None:
    """Text and finish reason of a whole answer that is one choice of text and nothing else; None of any other."""
    try:
        (choice,) = document["choices"]
        message = choice["message"]
        text = message["content"]
        reason = choice["finish_reason"]
        plain = (
            type(text) is str
            and text
            and type(reason) is str
            and reason
            and reason != "error"
            and message.keys() <= _MESSAGE_KEYS
            and not (message.get("refusal") or message.get("annotations"))
            and choice.keys() <= _CHOICE_KEYS
            and not (choice.get("index") or choice.get("logprobs"))
            and document.keys() <= _DOCUMENT_KEYS
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return (text, reason) if plain else None

"""Content and reasoning of a delta → pieces, in every form that endpoints send.

In: a delta, or the value of its `content`. Out: pieces: a kind of delta and its text. Never touched: choices,
halves of characters, the order in which deltas arrive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from ..types import ReasoningDelta, RefusalDelta, TextDelta
from .codec import as_text

__all__ = ["REASONING_KEYS", "REASONING_TEXTS", "Piece", "content_pieces", "reasoning_pieces"]

Piece: TypeAlias = tuple[type | None, str]
"""The type of the delta, and its text."""

_UNKNOWN: Piece = (None, "")
"""Stands for something that no delta carries."""

REASONING_TEXTS = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
"""The keys under which endpoints put the text of the reasoning; the last is Copilot's."""

REASONING_KEYS = frozenset({*REASONING_TEXTS, "reasoning_details"})

_SIGNATURES = frozenset({"signature", "thoughtSignature"})
"""Signatures beside a text, which must be sent back with it: Claude's and Gemini's, as Databricks passes them on."""


def reasoning_pieces(delta: dict[str, Any]) -> Iterator[Piece]:
    """The reasoning of a delta: the first text among the possible keys, since some endpoints send it under two."""
    found = False
    for key in REASONING_TEXTS:
        value = delta.get(key)
        if not isinstance(value, bool):  # a bool is a flag, not text
            value = as_text(value)
        if isinstance(value, dict):
            value = value.get("content") or value.get("text") or value
        if not isinstance(value, str):
            if value:
                yield _UNKNOWN
        elif value and not found:
            found = True
            yield ReasoningDelta, value
    details = delta.get("reasoning_details")
    for detail in details if isinstance(details, list) else [details]:
        text = detail.get("text") or detail.get("summary", detail.get("text")) if isinstance(detail, dict) else None
        if not found and isinstance(text, str):
            yield ReasoningDelta, text
        if detail and (not isinstance(text, str) or _is_signed(detail)):  # encrypted, or a signature
            yield _UNKNOWN


def content_pieces(content: Any) -> Iterator[Piece]:
    """Pieces of content that is no string: a list of parts (Mistral, Z.ai) or one part: text, thinking, refusal."""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield TextDelta, part
        elif isinstance(part, dict):
            yield from _part(part)
        elif part:
            yield _UNKNOWN


def _part(part: dict[str, Any]) -> Iterator[Piece]:
    if _is_signed(part):
        yield _UNKNOWN
    thinking = part.get("summary" if part.get("type") == "reasoning" else "thinking")  # Databricks (litellm#9700)
    if isinstance(thinking, list):
        for inner in thinking:
            text = inner.get("text") if isinstance(inner, dict) else inner
            if isinstance(text, str):
                yield ReasoningDelta, text
            if inner and (not isinstance(text, str) or _is_signed(inner)):
                yield _UNKNOWN
        return
    for kind, name in ((ReasoningDelta, "thinking"), (RefusalDelta, "refusal"), (TextDelta, "text")):
        if isinstance(text := part.get(name), str):
            yield kind, text
            return
    if part:
        yield _UNKNOWN


def _is_signed(part: dict[str, Any] | str) -> bool:
    return not _SIGNATURES.isdisjoint(part) and isinstance(part, dict) and any(map(part.get, _SIGNATURES))

"""The fast way for chunks and answers that are text and nothing else, as nearly all are.

In: a decoded chunk or answer. Out: its text, and the metadata fields of any chunk. Never touched: unusual content,
which takes the long way.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ..types import ReasoningDelta, Usage
from .delta import has_news
from .parts import REASONING_KEYS, REASONING_TEXTS, reasoning_pieces
from .usage import parse_usage

__all__ = ["FAILURES", "META_KEYS", "NO_REASONS", "PADDING_KEYS", "keep_meta", "plain_answer", "plain_chunk"]

PADDING_KEYS = ("obfuscation", "p")
"""Random letters, so that the length of an encrypted chunk does not reveal its text: OpenAI's `obfuscation`, and `p`
of Mistral (https://docs.mistral.ai/resources/changelogs, May 2026), Cloudflare and Bedrock."""

META_KEYS = frozenset(
    {"id", "object", "created", "model", "system_fingerprint", "service_tier", "provider", "timings", *PADDING_KEYS}
)
"""The metadata fields of a chunk or an answer, which are not content."""

_FAILURES = (
    "error failed server_error abort aborted cancelled canceled timeout network_error insufficient_system_resource"
)
FAILURES = frozenset(_FAILURES.split() + _FAILURES.upper().split())
"""Finish reasons that mean that the answer is not whole: OpenRouter's; those of an engine that gave up (vLLM #57082,
SGLang), was told to, or ran out of time (TensorRT-LLM's `CompletionOutput.finish_reason`); Z.ai's
(https://docs.z.ai/api-reference/llm/chat-completion); DeepSeek's
(https://api-docs.deepseek.com/api/create-chat-completion). Some are in upper case (Cohere's)."""

NO_REASONS = frozenset({"null", "None", "none", "not_finished", "FINISH_REASON_UNSPECIFIED"})
"""What some gateways and engines send for a `finish_reason` that is null."""

PlainChunk: TypeAlias = tuple[str, str, str | None, Usage | None, dict[str, Any]]

_MAX_META_KEYS = 128
_MAX_SHORT = 2**10
_TEXT_KEYS = frozenset({"content", *REASONING_TEXTS})
_ODD_REASONS = FAILURES | NO_REASONS
_DOCUMENT_KEYS = META_KEYS | {"choices", "usage"}
_CHOICE_KEYS = frozenset({"index", "message", "finish_reason", "native_finish_reason", "logprobs"})
_MESSAGE_KEYS = frozenset({"role", "content", "refusal", "annotations"})


def plain_chunk(chunk: Any) -> PlainChunk | None:
    """Take apart a chunk whose one choice holds a piece of text, a role or a finish reason, and nothing else.

    Returns:
        The key in the delta under which the text stands (`""`: under several), the text or `""`, the finish
        reason or None, the token counts or None, and the metadata fields; None for any other chunk.
    """
    key, text, reason, usage = "content", "", None, None
    try:
        (choice,) = chunk["choices"]
        (news,) = filter(None, choice.values())  # so its index is 0, null or missing
        delta = choice["delta"]
        if news is not delta:
            reason = news
            plain = type(reason) is str and reason not in _ODD_REASONS and reason is choice["finish_reason"]
        elif (text := delta.get(key)) and len(delta) == 1:
            plain = type(text) is str
        else:  # there may also be a role, and keys with empty values
            told = [item for item in delta.items() if item[1] and (item[0] != "role" or item[1] == "tool")]
            # Nothing else: either no text, or one that came as a number.
            (key, text), *more = told or [item for item in delta.items() if item[1] == 0] or [(key, "")]
            plain = type(text) is str and key in _TEXT_KEYS
            if more:  # reasoning under two keys, as OpenRouter sends it, and vLLM did for a while
                ((kind, text),) = reasoning_pieces(delta)
                plain = kind is ReasoningDelta and all(name in REASONING_KEYS for name, _ in told)
                key = ""
        meta = {key: value for key, value in chunk.items() if value and key != "choices"}
        for name in PADDING_KEYS:
            plain = plain and type(meta.pop(name, "")) is str
        if "usage" in meta:
            usage = parse_usage(meta.pop("usage"))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    return (key, text, reason, usage, meta) if plain and meta.keys() <= META_KEYS else None


def plain_answer(document: Any) -> tuple[str, str] | None:
    """Text and finish reason of a whole answer that is one choice of text and nothing else; None for any other."""
    try:
        (choice,) = document["choices"]
        message, reason = choice["message"], choice["finish_reason"]
        text = message["content"]
        plain = (
            type(text) is str
            and text
            and type(reason) is str
            and reason
            and reason not in _ODD_REASONS
            # Checked by name and known to `has_news`, so that for most answers it only has to compare the keys.
            and not (choice.get("index") or choice.get("logprobs"))
            and not (message.get("refusal") or message.get("annotations"))
            and not has_news(message, _MESSAGE_KEYS)
            and not has_news(choice, _CHOICE_KEYS)
            and not has_news(document, _DOCUMENT_KEYS)
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return (text, reason) if plain else None


def keep_meta(meta: dict[str, Any], chunk: dict[str, Any], small: bool) -> None:
    """Put a chunk's metadata fields into `meta`; only short values, unless the chunk is `small`."""
    for key, value in chunk.items():
        if (
            value
            and key != "choices"
            and key != "usage"
            and not (key in PADDING_KEYS and type(value) is str)
            and (key in meta or len(meta) < _MAX_META_KEYS)
            and (small or type(value) is int or (type(value) is str and len(value) <= _MAX_SHORT))
        ):
            meta[key] = value

"""Nearly all chunks, and nearly all answers, are text and nothing else: what to know such ones by.

In: a decoded chunk or answer. Out: its text; what it says of itself, and so of any chunk. Never touched: content that
is out of the ordinary, which takes the long way.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from ..types import ReasoningDelta, Usage
from .delta import has_news
from .parts import REASONING_KEYS, REASONING_TEXTS, reasoning_pieces
from .usage import parse_usage

__all__ = ["FAILURES", "META_KEYS", "NO_REASONS", "PADDING_KEYS", "keep_meta", "plain_answer", "plain_chunk"]

PADDING_KEYS = ("obfuscation", "p")
"""Letters at random, so that the length of what is encrypted does not tell the text: OpenAI's `obfuscation`, and `p`
of Mistral (https://docs.mistral.ai/resources/changelogs, May 2026), Cloudflare and Bedrock."""

META_KEYS = frozenset(
    {"id", "object", "created", "model", "system_fingerprint", "service_tier", "provider", "timings", *PADDING_KEYS}
)
"""The fields of a chunk, or an answer, that are no content and no news."""

_FAILURES = (
    "error failed server_error abort aborted cancelled canceled timeout network_error insufficient_system_resource"
)
FAILURES = frozenset(_FAILURES.split() + _FAILURES.upper().split())
"""Finish reasons that say that the answer is not whole: OpenRouter's; of an engine that gave up (vLLM #57082, SGLang),
or was told to, or had no more time (TensorRT-LLM's `CompletionOutput.finish_reason`); Z.ai's
(https://docs.z.ai/api-reference/llm/chat-completion); DeepSeek's
(https://api-docs.deepseek.com/api/create-chat-completion). Some are written in capitals (Cohere's)."""

NO_REASONS = frozenset({"null", "None", "none", "not_finished", "FINISH_REASON_UNSPECIFIED"})
"""What some gateways, and engines, make of a `finish_reason` that is null."""

PlainChunk: TypeAlias = tuple[str, str, str | None, Usage | None, dict[str, Any]]

_MAX_META_KEYS = 128
_MAX_SHORT = 2**10
_TEXT_KEYS = frozenset({"content", *REASONING_TEXTS})
_ODD_REASONS = FAILURES | NO_REASONS
_DOCUMENT_KEYS = META_KEYS | {"choices", "usage"}
_CHOICE_KEYS = frozenset({"index", "message", "finish_reason", "native_finish_reason", "logprobs"})
_MESSAGE_KEYS = frozenset({"role", "content", "refusal", "annotations"})


def plain_chunk(chunk: Any) -> PlainChunk | None:
    """What a chunk holds that is one choice with a piece of text, a role or a finish reason, and nothing else.

    Returns:
        The key in the delta under which the text stands (`""`: under several), the text or `""`, the finish
        reason or None, the token counts or None, and the fields that are no content; None of any other chunk.
    """
    key, text, reason, usage = "content", "", None, None
    try:
        (choice,) = chunk["choices"]
        (news,) = filter(None, choice.values())  # so its index is 0, or says nothing
        delta = choice["delta"]
        if news is not delta:
            reason = news
            plain = type(reason) is str and reason not in _ODD_REASONS and reason is choice["finish_reason"]
        elif (text := delta.get(key)) and len(delta) == 1:
            plain = type(text) is str
        else:  # a role may stand beside it, and keys that hold nothing
            told = [item for item in delta.items() if item[1] and (item[0] != "role" or item[1] == "tool")]
            # No text, or one that came as a number.
            (key, text), *more = told or [item for item in delta.items() if item[1] == 0] or [(key, "")]
            plain = type(text) is str and key in _TEXT_KEYS
            if more:  # reasoning under two keys, as OpenRouter has it, and vLLM did for a while
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
    """Text and finish reason of a whole answer that is one choice of text and nothing else; None of any other."""
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
            # Asked by name, and known to `has_news`: so most answers pass it by a look at their keys.
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
    """Put a chunk's fields that are no content into `meta`; only short ones, unless the chunk is `small`."""
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

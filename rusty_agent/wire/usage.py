"""An endpoint's usage object → `Usage`.

In: the value found where usage may stand. Out: a `Usage`, or None if there is nothing to count. Never touched:
earlier counts; the last non-empty usage wins and nothing is ever summed over chunks.
"""

from __future__ import annotations

from typing import Any

from ..types import Usage

__all__ = ["find_usage", "parse_usage"]


_MOST = 2**63
_BARE = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_CACHED = ("prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens")
"""The names of DeepSeek, Anthropic and Mistral."""
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")


def find_usage(chunk: dict[str, Any]) -> Usage | None:
    """Look in every place where endpoints put usage: the chunk, Groq's `x_groq`, Moonshot's first choice."""
    usage = parse_usage(chunk.get("usage"))
    if usage is None and isinstance(groq := chunk.get("x_groq"), dict):
        usage = parse_usage(groq.get("usage"))
    if usage is None and isinstance(choices := chunk.get("choices"), list) and choices and isinstance(choices[0], dict):
        usage = parse_usage(choices[0].get("usage"))
    return usage


def parse_usage(raw: Any) -> Usage | None:
    """Read the counts; None for `null`, `{}` and all-zero counts, which some endpoints send early in a stream."""
    if not isinstance(raw, dict):
        return None
    if raw.keys() == _BARE:
        prompt, completion, total = raw["prompt_tokens"], raw["completion_tokens"], raw["total_tokens"]
        whole = type(prompt) is type(completion) is type(total) is int
        whole = whole and 0 < prompt < _MOST and 0 < completion < _MOST and 0 < total < _MOST
        if whole and total <= prompt + completion:
            return Usage(prompt, completion, total, 0, 0, raw)
    prompt = _count(raw, "prompt_tokens", "input_tokens")
    completion = _count(raw, "completion_tokens", "output_tokens")
    total = _count(raw, "total_tokens") or prompt + completion
    if not total:
        return None
    cached = reasoning = 0
    if not raw.keys() <= _BARE:
        cached = _detail(raw, _PROMPT_DETAILS, "cached_tokens")
        cached = cached or next(filter(None, (_count(raw, name) for name in _CACHED)), 0)
        reasoning = _detail(raw, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
    apart = total - prompt - completion
    if prompt and apart > 0:
        heard = _detail(raw, _PROMPT_DETAILS, "audio_tokens")
        # Bedrock counts cached tokens apart from the prompt (Portkey-AI/gateway#1211), Mistral audio tokens.
        if apart in (cached + _count(raw, "cache_creation_input_tokens"), heard):
            prompt += apart
        elif reasoning in (0, apart):  # xAI counts it apart from completion (vercel/ai#12425), Gemini only in the total
            completion += apart
            reasoning = apart
    # Baseten reports more reasoning than completion (vercel/ai 83e6510).
    return Usage(prompt, completion, total, min(prompt, cached), min(completion, reasoning), raw)


def _count(raw: dict[str, Any], name: str, other: str = "") -> int:
    value = raw.get(name)
    if type(value) is not int:
        value = raw.get(other) if value is None and other else value
        value = int(value) if isinstance(value, int | float) and 0 < value < _MOST else 0
    return value if 0 < value < _MOST else 0


def _detail(raw: dict[str, Any], groups: tuple[str, ...], name: str) -> int:
    found = (_count(details, name) for group in groups if isinstance(details := raw.get(group), dict))
    return next(filter(None, found), 0) or _count(raw, name)

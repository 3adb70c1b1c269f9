"""What an error response means: whether waiting mends it, another key, or nothing but money.

In: its status, code, type and words. Out: a verdict; what the statuses say that may pass. Never touched: the waiting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "OVERLOADED",
    "RETRIED_STATUSES",
    "SPENT",
    "UNREACHED",
    "UNTOLD",
    "Verdict",
    "judge",
    "refuses_content",
    "says",
    "told_to_retry",
]

RETRIED_STATUSES = frozenset({408, 409, 425, 429, 498, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529, 530})
"""The statuses that may pass by themselves.

408 and 425 by RFC 9110 §15.5.9 and RFC 8470 §5.2; 409 because OpenAI answers lock timeouts with it; 498 is Groq's for a
full flex tier; 520 to 524 and 530 are Cloudflare's for an origin in trouble; 529 is Anthropic's «overloaded». Never
400, 401, 402, 403, 404 or 422.
"""

OVERLOADED = frozenset({429, 498, 503, 529})
"""Those that say that there is too much to do: a `Retry-After` with them is meant for everybody."""

UNREACHED = frozenset({502, 521, 522, 523, 530})
"""Those by which gateways say that a server could not be reached; 503 says so too, or is an overload."""

UNTOLD = frozenset({503, 504, 524})
"""Those that gateways send both for a server that is away and for one that is slow: they tell neither."""

# Each alternative is somebody's, and each is needed for a recorded message of tests/unit/test_verdict.py.
SPENT = (
    r"insufficient[ _]?(user[ _])?(quota|balance|credit|fund)s?(?![a-z])|balance is insufficient",  # OpenAI, DeepSeek
    r"exceeded_current_quota_error|exceeded your current quota.{,199}openai\.com",  # Moonshot; OpenAI in words alone
    r"billing_(not_active|hard_limit)|(monthly spend(ing)? |spend(ing)?_)(limit|cap)",  # OpenAI; Fireworks, Gemini
    r"(run out of|used all|have any)( available)? credits",  # xAI
    r"credit balance is too low|reached its spend limit",  # Anthropic
    r"key limit exceeded",  # OpenRouter
    r"budget_exceeded|spend(ing)? limit (reached|exceeded)",  # LiteLLM, gateways
    r"arrear|free (tier|quota)( of the model)? (is|has been) exhausted",  # DashScope
    r"overdue.?(balance|payment|error)|reached the set inference limit",  # Volcengine
    r"余额不足|欠费",  # Z.ai
    r"(quota|balance|credits?) (is|are) not enough|not enough (balance|credits?|quota)(?![a-z])",  # new-api, Novita
    r"credits (are|have been) (depleted|exhausted)",  # Gemini
    r"quota exceeded for metric: \S+, limit: 0(?![\d.])",  # Gemini's models without a free tier, «retry in 17 s» or not
    r"used up your .{,40}(free|credits)",  # Cloudflare
    r"blocked_api_access",  # Groq
    # What is used up for hours or days, and comes with no wait: Anthropic, Kimi and Ollama; Z.ai; Cohere's trial keys;
    # Volcengine; DashScope.
    r"reached your [\w() -]{,30}usage limit",
    r"usage[ _]limit[ _](has been )?(reached|exceeded)(?!\W{1,3}(please )?try again (later|in a moment|shortly))",
    r"(weekly|monthly) limit exhausted|使用上限|API calls / month",
    r"exceeded the [\w-]{,20} usage quota\b|(hour|week|month) allocated quota exceeded",
)
_ANY_SPENT = "|".join(SPENT)
_ABOUT_ACCOUNTS = frozenset({401, 403, 412, 429})
# Gateways quote others, and JSON.
_FIRST_WORDS = r"(^|[:.] |- |message\W{1,9})((you|your|have|has|the|account|organization) )*"
# What an error inside an answer says that may pass, where neither a number nor a name tells its status.
_BUSY = (
    r"try(ing)? again|retry|overload|throttl|\b(too|is) busy|too many requests|rate.?limit|resource.?exhausted"
    r"|(at|no|over) capacity|capacity.{,12} exceeded|high demand"
    r"|\b(service ?)?unavailable|timed?.?out|(connect(ion)?|network|internal ?(server)?) ?error|稍后"
    r"|connection (lost|closed|reset)|peer closed|unexpected eof"
)
_FULL_MINUTE = "#token-limit"  # DashScope's, with the code, type and words of OpenAI's quota, but for their link
_TOO_LARGE = "request too large"  # OpenAI's 429, of a single request that takes more tokens than a minute has

_KEY = r"(api|access|bearer|auth|security)[ _-]?(key|token)"
_WRONG_KEY = (
    rf"((invalid|incorrect|wrong|missing|expired)[ _-]?{_KEY}"
    rf"|((your|this|the|authentication failed:|permission denied: consumer) )?'?({_KEY}|account|organization)\b"
    r"[^.,;]{,60} (invalid|not valid|not found|expired|leaked|blocked|revoked|suspended|disabled|restricted))(?![a-z])"
)

# Azure OpenAI, Anthropic, DeepSeek, DashScope, Moonshot, Volcengine, MiniMax, Z.ai, OpenAI, OpenRouter, xAI, LiteLLM.
_CONTENT = (
    r"content[ _]?(filter|policy|management|exists risk)|inappropriate content|data_?inspection_?failed"
    r"|considered high risk|sensitive ?content|contain sensitive|new_sensitive|敏感内容"
    r"|(input|prompt|content) was flagged|content violates|violated (\w+ )?(content|moderation|guardrail)"
)


class Verdict(NamedTuple):
    """What an error means for the next requests."""

    spent: bool  # nothing is left to spend, which no wait of ours brings back
    key_refused: bool  # no request with it will be answered
    may_pass: bool  # the same request may be answered later


def judge(status: int, code: object, type: object, message: str) -> Verdict:
    """What an error means, by what the endpoint said of it."""
    names = f"{code} {type}"
    spent = _is_spent(status, names, message)
    passes = status in RETRIED_STATUSES or (status == 200 and says(_BUSY, message))
    may_pass = passes and not spent and _TOO_LARGE not in message.lower()
    return Verdict(spent, not spent and _refuses_key(status, names, message), may_pass)


def refuses_content(code: object, type: object, message: str) -> bool:
    """Whether an error is about what this prompt says, or its answer: others may be answered."""
    return says(_CONTENT, f"{code} {type} {message}")


def told_to_retry(headers: Mapping[str, str], otherwise: bool) -> bool:
    """Whether to try again by an answer's headers, with lower-case names; if they say nothing, `otherwise`."""
    asked = headers.get("x-should-retry", "").lower()
    return asked == "true" if asked in ("true", "false") else otherwise


def _is_spent(status: int, names: str, message: str) -> bool:
    """Whether its code and type, or its words, say so.

    Few say 402. Others say 429 (OpenAI, Gemini, Moonshot, xAI, Z.ai, LiteLLM), 400 (Anthropic, Groq), 403 (DashScope,
    gateways), 412 (Fireworks) or 500 (MiniMax), and some of them in words alone. Gemini's words for a full minute, «You
    exceeded your current quota, please check your plan and billing details», are none of these. Where the status is not
    about accounts, words count only at the beginning of what somebody says: others may be quoted from the prompt.
    """
    if status == 402 or _FULL_MINUTE in message:
        return status == 402
    first = "" if status in _ABOUT_ACCOUNTS else _FIRST_WORDS
    return says(_ANY_SPENT, names) or says(f"{first}({_ANY_SPENT})", message)


def _refuses_key(status: int, names: str, message: str) -> bool:
    """Whether its code and type, or its words, say so.

    Most say 401. Gemini, xAI and Groq say 400, in words alone, as if the request were to blame; gateways say 403, and
    so do Databricks and Bedrock of a token that has expired. The words count only at the very beginning: others may be
    quoted from the prompt.
    """
    if status not in (200, 400, 403):
        return status == 401
    return says(_WRONG_KEY, names) or says(rf"^(HTTP \d+: )?{_WRONG_KEY}", message)


def says(pattern: str, text: str) -> bool:
    """Whether the words match somewhere, in capitals or not."""
    return re.search(pattern, text, re.IGNORECASE) is not None

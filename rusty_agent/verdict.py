"""What an error response means: whether it takes time, another key, or money to get an answer.

In: its status, code, type and message. Out: a verdict; the statuses that may pass, by kind. Never touched: the waiting.
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

408 and 425 follow RFC 9110 §15.5.9 and RFC 8470 §5.2; OpenAI sends 409 for lock timeouts, Groq 498 for a full flex
tier, Cloudflare 520 to 524 and 530 for an origin in trouble, Anthropic 529 for «overloaded». Never 400, 401, 402, 403,
404 or 422.
"""

OVERLOADED = frozenset({429, 498, 503, 529})
"""Those that mean overload: a `Retry-After` that comes with one is meant for all calls."""

UNREACHED = frozenset({502, 521, 522, 523, 530})
"""Those that gateways send when a server could not be reached; 503 may mean this, or overload."""

UNTOLD = frozenset({503, 504, 524})
"""Those that gateways send both for a server that is away and for one that is slow: they leave it open."""

# Each alternative is an endpoint's wording, and each is needed for a recorded message in tests/unit/test_verdict.py.
SPENT = (
    r"insufficient[ _]?(user[ _])?(quota|balance|credit|fund)s?(?![a-z])|balance is insufficient",  # OpenAI, DeepSeek
    r"exceeded_current_quota_error|exceeded your current quota.{,199}openai\.com",  # Moonshot; OpenAI's message alone
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
    # Quotas used up for hours or days, without a `Retry-After`: Anthropic, Kimi and Ollama; Z.ai; Cohere's trial keys;
    # Volcengine; DashScope.
    r"reached your [\w() -]{,30}usage limit",
    r"usage[ _]limit[ _](has been )?(reached|exceeded)(?!\W{1,3}(please )?try again (later|in a moment|shortly))",
    r"(weekly|monthly) limit exhausted|使用上限|API calls / month",
    r"exceeded the [\w-]{,20} usage quota\b|(hour|week|month) allocated quota exceeded",
)
_ANY_SPENT = "|".join(SPENT)
_ABOUT_ACCOUNTS = frozenset({401, 403, 412, 429})
# What may stand before an endpoint's own words: gateways quote the messages of others, also as JSON.
_FIRST_WORDS = r"(^|[:.] |- |message\W{1,9})((you|your|have|has|the|account|organization) )*"
# The words of an error inside an answer that may pass, for use if neither a number nor a name tells its status.
_BUSY = (
    r"try(ing)? again|retry|overload|throttl|\b(too|is) busy|too many requests|rate.?limit|resource.?exhausted"
    r"|(at|no|over) capacity|capacity.{,12} exceeded|high demand"
    r"|\b(service ?)?unavailable|timed?.?out|(connect(ion)?|network|internal ?(server)?) ?error|稍后"
    r"|connection (lost|closed|reset)|peer closed|unexpected eof"
)
_FULL_MINUTE = "#token-limit"  # DashScope's link; code, type and words are those of OpenAI's used-up quota
_TOO_LARGE = "request too large"  # OpenAI's 429 for a single request of more tokens than a minute allows

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

    spent: bool  # nothing is left to spend: waiting for a retry does not help
    key_refused: bool  # no request with this key will be answered
    may_pass: bool  # the same request may be answered later


def judge(status: int, code: object, type: object, message: str) -> Verdict:
    """What an error means, judged by what the endpoint said."""
    names = f"{code} {type}"
    spent = _is_spent(status, names, message)
    passes = status in RETRIED_STATUSES or (status == 200 and says(_BUSY, message))
    may_pass = passes and not spent and _TOO_LARGE not in message.lower()
    return Verdict(spent, not spent and _refuses_key(status, names, message), may_pass)


def refuses_content(code: object, type: object, message: str) -> bool:
    """Whether an error is about the content of this prompt or its answer: other prompts may be answered."""
    return says(_CONTENT, f"{code} {type} {message}")


def told_to_retry(headers: Mapping[str, str], otherwise: bool) -> bool:
    """Whether response headers, with lower-case names, tell the client to retry; `otherwise` if they say nothing."""
    asked = headers.get("x-should-retry", "").lower()
    return asked == "true" if asked in ("true", "false") else otherwise


def _is_spent(status: int, names: str, message: str) -> bool:
    """Whether the error's status, code, type or message says that the account has nothing left to spend.

    Few endpoints send 402. Others send 429 (OpenAI, Gemini, Moonshot, xAI, Z.ai, LiteLLM), 400 (Anthropic, Groq), 403
    (DashScope, gateways), 412 (Fireworks) or 500 (MiniMax), and some say it in the message alone. Gemini's message for
    a full minute, «You exceeded your current quota, please check your plan and billing details», is none of these. If
    the status is not about accounts, words count only at the beginning of a message: later ones may quote the prompt.
    """
    if status == 402 or _FULL_MINUTE in message:
        return status == 402
    first = "" if status in _ABOUT_ACCOUNTS else _FIRST_WORDS
    return says(_ANY_SPENT, names) or says(f"{first}({_ANY_SPENT})", message)


def _refuses_key(status: int, names: str, message: str) -> bool:
    """Whether the error's status, code, type or message says that the key is refused.

    Most endpoints send 401. Gemini, xAI and Groq send 400, as if the request were to blame, and say it in the message
    alone; gateways send 403, and so do Databricks and Bedrock for an expired token. Words count only at the very
    beginning of a message: later ones may quote the prompt.
    """
    if status not in (200, 400, 403):
        return status == 401
    return says(_WRONG_KEY, names) or says(rf"^(HTTP \d+: )?{_WRONG_KEY}", message)


def says(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text, in any case."""
    return re.search(pattern, text, re.IGNORECASE) is not None

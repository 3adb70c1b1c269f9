"""Parameters that an endpoint refuses → what to send instead.

In: the error of a 400 or 422, and the body that drew it. Out: the parameter, and its other name or None to leave it
out; or nothing. Never touched: parameters whose loss would change what the answer means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import APIStatusError
from ..verdict import says

__all__ = ["Adaptation", "Refusals", "refused_parameter"]

# Endpoints differ in which of the two they take (o-series: only the second; Mistral, OpenRouter: only the first).
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}

# What steers how an answer is made, not what it is: may be left out, with a warning. Never here: `response_format`,
# `tools`, `tool_choice`, `messages`, `stop`, `n`, and whatever is not known.
_OPTIONAL = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty", "repetition_penalty"}
    | {"logit_bias", "logprobs", "top_logprobs", "stream_options", "parallel_tool_calls", "reasoning_effort"}
    | {"service_tier", "store", "metadata", "user", "safety_identifier", "prompt_cache_key", "verbosity"}
)

# How a request lets the model think, under the names of OpenAI, OpenRouter, Anthropic and Qwen, which vLLM's templates
# have too. Many take `temperature` and `logprobs` without thinking only, and do not say so (GPT-5.2: «is not supported
# with this model»).
_THINKING = ("reasoning_effort", "reasoning", "thinking", "enable_thinking")

# Where nothing but the default is taken, as of the o-series' `temperature`, Kimi's, and Claude's while it thinks,
# leaving the parameter out is what the endpoint asks for.
_DEFAULT_ONLY = r"only (the default|(temperature=)?[\d.]+ is (allowed|supported)|be set to [\d.]+)|must be unset"

# Compiled when an endpoint refuses something, which most never do: all together take a millisecond.
_REFUSAL = (
    r"unsupported|not (currently )?(supported|allowed|permitted|available|accepted|enabled)|(does|do) ?n[o']t support"
    r"|unknown|unrecogni[sz]ed|unexpected|extra[ _](inputs|fields|forbidden)|forbidden|deprecated"
    rf"|no such (parameter|field)|invalid (parameter|argument|field) name\b|{_DEFAULT_ONLY}"
)

# What is refused is the value: the next call may well send another. Fireworks tells it though it refuses the field.
_VALUE = (
    r"(?<!', )\bvalues?\b|must be|at (most|least)|\btoo \w+|out of (range|bounds)|(less|greater|more|fewer) than"
    r"|\bbetween\b|exceed|m(ax|in)imum|(?<!-)[<>≤≥]"
)
_VALUE_CODES = frozenset({"unsupported_value", "invalid_value"})

# A sentence about these may use a parameter's name for something else, such as a property in a tool's schema; or it
# refuses a parameter beside them, which other calls of the model may well send (OpenAI's `reasoning_effort`).
_ELSEWHERE = r"\b(messages|tools?|functions?|schema|response_format)\b"


def refused_parameter(error: APIStatusError, body: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The parameter of `body` that this error refuses, and the name to send it under instead, or None to leave it out.

    None where the error is about anything else, or about a parameter that must not be changed.
    """
    if error.status_code not in (400, 422):
        return None
    name = _subject(error, body)
    if name is None or _is_about_a_value(error, name, body[name]):
        return None
    other = _OTHER_NAMES.get(name)
    if other is not None:
        advised = re.search(rf"(?<!\w){other}(?!\w)", error.message) is not None
        return (name, other) if other not in body and (advised or _refuses(error)) else None
    return (name, None) if _refuses(error) else None


def _subject(error: APIStatusError, body: Mapping[str, Any]) -> str | None:
    """Which of the parameters that may be changed the error is about."""
    candidates = body.keys() & (_OPTIONAL | _OTHER_NAMES.keys())
    message = error.message.partition(", expected one of ")[0]  # behind it servers in Rust list all that they know
    if says(_ELSEWHERE, message):
        return None
    if error.param is not None and re.split(r"\W", error.param)[0] in body:  # Cerebras: always "validation_error"
        return error.param if error.param in candidates else None
    named = {name: found.start() for name in candidates if (found := _named(message, name)) is not None}
    return min(sorted(named), key=named.__getitem__, default=None)  # what it names later explains it


def _refuses(error: APIStatusError) -> bool:
    return says(_REFUSAL, f"{error.message} {error.code or ''} {error.type or ''}")


def _is_about_a_value(error: APIStatusError, name: str, value: Any) -> bool:
    if says(_DEFAULT_ONLY, error.message):
        return False
    sent = re.escape(str(value).removesuffix(".0"))
    named = rf"{name}(?!['\"]:)\W{{1,3}}(of |does not support )?\W?{sent}(\.0+)?(?!\w|\.\d)"  # `service_tier: flex`
    return error.code in _VALUE_CODES or says(f"{_VALUE}|{named}", error.message)


def _named(message: str, name: str) -> re.Match[str] | None:
    """Where a message speaks of a parameter; one that is a word of the language (`user`) must be marked as a name.

    xAI spells names in its own way: `presencePenalty`. To Gemini both penalties are one.
    """
    if "_" in name:
        pattern = rf"(?<!\w){name.replace('_', '_?')}(?!\w)"
        if name.endswith("_penalty"):
            pattern += r"|\bpenalty is not enabled"
        elif name == "stream_options":
            pattern += r"|\binclude_usage\b"  # what it holds (Bedrock: litellm#9916)
    else:
        mark = r"""['"`[]|body(\.| -> )|(parameter|argument|field|property|supplied):? |: """
        pattern = rf"({mark}){name}(?!\w)|(?<!\w){name}(: |=)"
    return re.search(pattern, message, re.IGNORECASE)


class Refusals:
    """What one endpoint is known to refuse, by model, and by how that is to think."""

    def __init__(self) -> None:
        self._changes: dict[str, dict[str, str | None]] = {}

    def known(self, body: Mapping[str, Any]) -> dict[str, str | None]:
        """The changes that requests like this one need."""
        kwargs = body.get("chat_template_kwargs")  # which may hold whole documents beside
        places = [body, kwargs] if isinstance(kwargs, dict) else [body]
        said = repr([place.get(name) for place in places for name in _THINKING])
        thinking = re.sub(r"\d+", "", said)  # budgets are many
        return self._changes.setdefault(f"{body.get('model')} {thinking}", {})

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return any(tuple(self._changes.values()))  # a copy: calls on other threads may learn meanwhile


class Adaptation:
    """What is left out or renamed in one call. It becomes known to others only once it has worked.

    Attributes:
        body: The body to send.
        lines: What was changed, a line each.
    """

    def __init__(self, refusals: Refusals, body: dict[str, Any]) -> None:
        self._known = refusals.known(body)
        self._made: dict[str, str | None] = {}
        self._first: APIStatusError | None = None
        self.body = body
        self.lines: list[str] = []
        for name, other in list(self._known.items()):  # calls on other threads may learn meanwhile
            self._change(name, other)

    def refused(self, error: APIStatusError) -> bool:
        """Take an error in; True if the body has changed and is worth another try."""
        found = refused_parameter(error, self.body)
        if found is None or found[0] in self._made or (self._first and found[0] in self._made.values()):
            return False
        self._first = self._first or error
        self._change(*found)
        return True

    def worked(self) -> None:
        """The body as it is was accepted."""
        if self._first is not None:
            self._known.update(self._made)

    def error(self, last: APIStatusError) -> APIStatusError:
        """The error to raise when nothing helped: the one that the caller's own request drew."""
        return self._first or last

    def _change(self, name: str, other: str | None) -> None:
        if name in self.body and other not in self.body:
            self.body = dict(self.body)
            value = self.body.pop(name)
            if other is not None:
                self.body[other] = value
            if other in self._made:  # what was known of the two names holds no longer: others than before may answer
                del self._made[other]
                self._known.pop(other, None)
            else:
                self._made[name] = other
            how = "it was left out" if other is None else f"it was sent as {other}"
            self.lines.append(f"the endpoint refuses {name}: {how}")

"""Parameters that an endpoint refuses → what to send instead.

In: the error of a 400 or 422, and the request body that caused it. Out: the parameter, and its other name or None to
leave it out; or nothing. Never touched: parameters whose loss would change what the answer means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import APIStatusError
from ..verdict import says

__all__ = ["Adaptation", "Refusals", "refused_parameter"]

# Endpoints differ in which of the two they accept (o-series: only the second; Mistral, OpenRouter: only the first).
_OTHER_NAMES = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}

# Parameters that steer how an answer is made, not what it is: they may be left out, with a warning. Never here:
# `response_format`, `tools`, `tool_choice`, `messages`, `stop`, `n`, and unknown parameters.
_OPTIONAL = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty", "repetition_penalty"}
    | {"logit_bias", "logprobs", "top_logprobs", "stream_options", "parallel_tool_calls", "reasoning_effort"}
    | {"service_tier", "store", "metadata", "user", "safety_identifier", "prompt_cache_key", "verbosity"}
)

# How a request turns thinking on: the names of OpenAI, OpenRouter, Anthropic and Qwen, which vLLM's templates use too.
# Many models accept `temperature` and `logprobs` only without thinking, and do not say so (GPT-5.2: «is not supported
# with this model»).
_THINKING = ("reasoning_effort", "reasoning", "thinking", "enable_thinking")

# An endpoint that accepts only the default, as for the `temperature` of the o-series, of Kimi, and of Claude while it
# thinks, asks for the parameter to be left out.
_DEFAULT_ONLY = r"only (the default|(temperature=)?[\d.]+ is (allowed|supported)|be set to [\d.]+)|must be unset"

# Compiled when an endpoint refuses something, which most never do: compiling them all takes a millisecond.
_REFUSAL = (
    r"unsupported|not (currently )?(supported|allowed|permitted|available|accepted|enabled)|(does|do) ?n[o']t support"
    r"|unknown|unrecogni[sz]ed|unexpected|extra[ _](inputs|fields|forbidden)|forbidden|deprecated"
    rf"|no such (parameter|field)|invalid (parameter|argument|field) name\b|{_DEFAULT_ONLY}"
)

# Only the value is refused: the next call may well send another. Fireworks quotes it even when it refuses the field.
_VALUE = (
    r"(?<!', )\bvalues?\b|must be|at (most|least)|\btoo \w+|out of (range|bounds)|(less|greater|more|fewer) than"
    r"|\bbetween\b|exceed|m(ax|in)imum|(?<!-)[<>≤≥]"
)
_VALUE_CODES = frozenset({"unsupported_value", "invalid_value"})

# A message about these may use a parameter's name for something else, such as a property in a tool's schema; or it
# refuses a parameter only in combination with them, so other calls may well send it (OpenAI's `reasoning_effort`).
_ELSEWHERE = r"\b(messages|tools?|functions?|schema|response_format)\b"


def refused_parameter(error: APIStatusError, body: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The parameter of `body` that this error refuses, and the name to send it under instead, or None to leave it out.

    None if the error is about anything else, or about a parameter that must not be changed.
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
    """The parameter that the error is about, among those that may be changed."""
    candidates = body.keys() & (_OPTIONAL | _OTHER_NAMES.keys())
    message = error.message.partition(", expected one of ")[0]  # after it, servers in Rust list every known name
    if says(_ELSEWHERE, message):
        return None
    if error.param is not None and re.split(r"\W", error.param)[0] in body:  # Cerebras: always "validation_error"
        return error.param if error.param in candidates else None
    named = {name: found.start() for name in candidates if (found := _named(message, name)) is not None}
    return min(sorted(named), key=named.__getitem__, default=None)  # names after the first only explain it


def _refuses(error: APIStatusError) -> bool:
    return says(_REFUSAL, f"{error.message} {error.code or ''} {error.type or ''}")


def _is_about_a_value(error: APIStatusError, name: str, value: Any) -> bool:
    if says(_DEFAULT_ONLY, error.message):
        return False
    sent = re.escape(str(value).removesuffix(".0"))
    named = rf"{name}(?!['\"]:)\W{{1,3}}(of |does not support )?\W?{sent}(\.0+)?(?!\w|\.\d)"  # `service_tier: flex`
    return error.code in _VALUE_CODES or says(f"{_VALUE}|{named}", error.message)


def _named(message: str, name: str) -> re.Match[str] | None:
    """Where a message names a parameter; a name that is an ordinary word (`user`) must be marked as one.

    xAI spells names in its own way: `presencePenalty`. Gemini has one name for both penalties.
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
    """What one endpoint is known to refuse, by model and by the request's thinking parameters."""

    def __init__(self) -> None:
        self._changes: dict[str, dict[str, str | None]] = {}

    def known(self, body: Mapping[str, Any]) -> dict[str, str | None]:
        """The changes that requests like this one need."""
        kwargs = body.get("chat_template_kwargs")  # which may also hold whole documents
        places = [body, kwargs] if isinstance(kwargs, dict) else [body]
        said = repr([place.get(name) for place in places for name in _THINKING])
        thinking = re.sub(r"\d+", "", said)  # without the numbers: there are many possible budgets
        return self._changes.setdefault(f"{body.get('model')} {thinking}", {})

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return any(tuple(self._changes.values()))  # a copy: calls on other threads may learn meanwhile


class Adaptation:
    """What is left out or renamed in one call. Other calls learn of it only once it has worked.

    Attributes:
        body: The body to send.
        lines: A line for each change.
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
        """Take an error; True if the body has changed and is worth another attempt."""
        found = refused_parameter(error, self.body)
        if found is None or (self._first and found[0] in self._made.values()):
            return False
        self._first = self._first or error
        self._change(*found)
        return True

    def worked(self) -> None:
        """Let other calls know the changes: the endpoint has accepted the body."""
        if self._first is not None:
            self._known.update(self._made)

    def error(self, last: APIStatusError) -> APIStatusError:
        """The error to raise if no change helped: the one that the caller's own request caused."""
        return self._first or last

    def _change(self, name: str, other: str | None) -> None:
        if name in self.body and other not in self.body:
            self.body = dict(self.body)
            value = self.body.pop(name)
            if other is not None:
                self.body[other] = value
            if other in self._made:  # the known renaming holds no longer: another server may be answering now
                del self._made[other]
                self._known.pop(other, None)
            else:
                self._made[name] = other
            how = "it was left out" if other is None else f"it was sent as {other}"
            self.lines.append(f"the endpoint refuses {name}: {how}")

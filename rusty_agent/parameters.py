"""What the signatures of both faces share, written once: parameters of calls, and options.

In: names that a caller passed. Out: types for checkers, a way to show parameters in `help()`, a refusal of unknown
names. Never touched: the values.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar

from .policy import Limits, RetryPolicy, Timeout

if TYPE_CHECKING:
    import aiohttp

    from .progress.show import ProgressOption
else:  # for `get_type_hints`: importing the real one would load the progress display
    ProgressOption = Any

__all__ = [
    "AsyncOptions",
    "BatchParameters",
    "Concurrency",
    "Inputs",
    "LocalOptions",
    "Message",
    "Messages",
    "Parameters",
    "PresetOptions",
    "ProviderOptions",
    "RunParameters",
    "check_names",
    "shows",
]

F = TypeVar("F", bound=Callable[..., Any])

Message: TypeAlias = Mapping[str, object]
Messages: TypeAlias = Sequence[Message]
Inputs: TypeAlias = Iterable[Any] | AsyncIterable[Any]
Concurrency: TypeAlias = int | Literal["auto"]

_LIMITS = {"rpm": "requests_per_minute", "tpm": "tokens_per_minute", "max_in_flight": "in_flight"}  # by other names
_RUNS = {"ordered": "map does", "return_exceptions": "gather does", "stream": "generate_text, map and gather do"}


class BatchParameters(TypedDict, total=False):
    """Keyword parameters that single calls and, for all rows, `run_batch` take. A parameter that is None is not sent.

    Attributes:
        system_prompt: Sent as a system message before the prompt or the messages.
        temperature: Randomness of sampling, at least 0.
        max_tokens: The most tokens to generate, at least 1.
        top_p: Nucleus sampling, from 0 to 1.
        stop: A string, or a list of strings, that ends the answer.
        frequency_penalty: Penalty for tokens by how often they have occurred.
        presence_penalty: Penalty for tokens that have occurred at all.
        seed: For repeatable sampling, if the endpoint supports it.
        response_format: Such as `{"type": "json_object"}`, or a JSON Schema in the endpoint's form.
        extra_body: Further fields of the request body; they replace the library's, and None removes a field.
        extra_headers: Further headers of the request; they win over the provider's.
        timeout: A `Timeout`, or seconds: for the whole call of `generate_text`, of inactivity for streams.
        retry: A `RetryPolicy`; its `budget` is ignored, only the provider's counts.
    """

    system_prompt: str | None
    temperature: float | None
    max_tokens: int | None
    top_p: float | None
    stop: str | Sequence[str] | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    response_format: Mapping[str, object] | None
    extra_body: Mapping[str, object] | None
    extra_headers: Mapping[str, str] | None
    timeout: Timeout | float | None
    retry: RetryPolicy | None


class _Conversation(TypedDict, total=False):
    """The parameter that each row of a batch has for itself.

    Attributes:
        messages: The conversation, a list of `{"role": …, "content": …}`; wins over the prompt unless it is empty.
    """

    messages: Messages | None


class Parameters(_Conversation, BatchParameters, total=False):
    """Keyword parameters of `generate_text` and `stream_text`: those of `BatchParameters`, and `messages`."""


class RunParameters(Parameters, total=False):
    """Keyword parameters of `map` and `gather`: those of `Parameters`, for every prompt, and those of the run.

    Attributes:
        stream: Let the endpoint stream each answer, as in `generate_text`.
        max_failures: Stop the run when more prompts than this have failed.
        max_error_rate: Stop the run when more than this share (0 to below 1) of the latest 100 prompts (at least 20)
            have failed.
        progress: Show the progress of the run on standard error: True or `"auto"`, `"plain"`, `"json"`; False or
            `"off"` for nothing; or a plain function that is called with a `Progress` once a second and at the end, on
            the event loop.
        price: USD per million tokens, for prompts and for answers, so that progress shows the cost.
    """

    stream: bool
    max_failures: int | None
    max_error_rate: float | None
    progress: ProgressOption
    price: tuple[float, float] | None


class ProviderOptions(TypedDict, total=False):
    """Keyword options of both faces' providers; see `AsyncProvider`."""

    headers: Mapping[str, str] | None
    proxy: str | None
    trust_env: bool
    max_connections: int | None
    timeout: Timeout | float | None
    retry: RetryPolicy | None
    ssl: ssl.SSLContext | None
    max_event_bytes: int
    adapt: bool
    split_thinking: bool
    pickle_key: bool
    limits: Limits | None


class PresetOptions(ProviderOptions, total=False):
    """Keyword options of the constructors of presets, of both faces."""

    base_url: str | None


class AsyncOptions(PresetOptions, total=False):
    """The same with `session`, which only `AsyncProvider` takes."""

    session: aiohttp.ClientSession | None


class LocalOptions(TypedDict, total=False):
    """Keyword options of `local` of both faces; see `AsyncProvider.local`."""

    threads: int | None
    context: int
    parallel: int
    start_timeout: float
    timeout: Timeout | float | None
    retry: RetryPolicy | None
    max_event_bytes: int


_DEFAULTS: dict[str, Any] = {  # for all other options None; a test compares them with the constructors
    "stream": False,
    "progress": False,
    "trust_env": False,
    "max_event_bytes": 2**24,
    "adapt": True,
    "split_thinking": False,
    "pickle_key": False,
    "context": 4096,
    "parallel": 4,
    "start_timeout": 120.0,
}


_SENT = {"prompt", "stream", *Parameters.__annotations__} - {"extra_body", "extra_headers", "timeout", "retry"}
"""Parameters sent as fields of the body. Endpoints have fields of their own whose names end like these."""


def _meanings(kind: type) -> str:
    """The lines after `Attributes:` in the docstring of a `TypedDict`, for use in another docstring."""
    return inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]


_MEANINGS: dict[type, str] = {BatchParameters: _meanings(BatchParameters)}
_MEANINGS[Parameters] = f"{_meanings(_Conversation)}\n{_MEANINGS[BatchParameters]}"
_MEANINGS[RunParameters] = f"{_MEANINGS[Parameters]}\n{_meanings(RunParameters)}"


def _told(own: str, of_the_core: str | None, meanings: str) -> str:
    """A docstring in which the meanings of all parameters replace the line of `**parameters`."""
    text = inspect.cleandoc(own)
    if of_the_core is not None:
        text += "\n\n" + of_the_core[of_the_core.index("Args:\n") :]
    before, found, after = text.partition("    **parameters: ")
    return before + meanings + after[after.index("\n\n") :] if found else text


def shows(parameters: type, core: Callable[..., Any] | None = None) -> Callable[[F], F]:
    """Let `help()` and `inspect.signature` show every parameter where the code says `**parameters`.

    Args:
        parameters: The `TypedDict` that lists them.
        core: The async method that a method of the blocking face calls: its docstring, from `Args` on, is appended.
    """

    def decorate(method: F) -> F:
        signature = inspect.signature(method)
        named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        further = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_DEFAULTS.get(name),
                annotation=annotation.__forward_arg__,
            )
            for name, annotation in parameters.__annotations__.items()
        ]
        method.__signature__ = signature.replace(parameters=named + further)  # type: ignore[attr-defined]
        if method.__doc__:  # `python -OO` has none
            method.__doc__ = _told(method.__doc__, core and core.__doc__, _MEANINGS.get(parameters, ""))
        return method

    return decorate


def check_names(options: Iterable[str], known: Collection[str], taker: str) -> None:
    """Refuse unknown arguments, with a message that names the function that the caller called (`taker`).

    Raises:
        TypeError: An argument is unknown.
    """
    for name in options:
        if name not in known:
            from difflib import get_close_matches  # here, so that calls with correct names do not pay for the import

            # 0.85, as `top_k` is not a misspelt `top_p`. Nor is a provider's `limits` a misspelt `limit` of a batch.
            near = [] if name in AsyncOptions.__annotations__ else get_close_matches(name, known, 1, 0.85)
            near = near or [whole for whole in known if whole.startswith(f"{name}_")]  # but `system` is `system_prompt`
            # And `default_headers` are headers; but `safe_prompt` and `random_seed` are Mistral's own fields.
            near = near or [part for part in known if name.endswith(f"_{part}") and part not in _SENT]
            hint = f": did you mean {near[0]!r}?" if near else _taker_of(name, of_a_call="extra_body" in known)
            raise TypeError(f"{taker} takes no argument {name!r}{hint}")


def _taker_of(name: str, *, of_a_call: bool) -> str:
    """Which function or class takes an argument that is unknown here, as the end of the message about it."""
    for kind in (RetryPolicy, Timeout, Limits):
        if name in kind.__match_args__:
            return f": it is a field of {kind.__name__}"
    if name in _LIMITS:
        return f": it is {_LIMITS[name]} of Limits, which a provider takes"
    if of_a_call and name in ("api_key", *AsyncOptions.__annotations__):
        return ": a provider does, when it is created"
    if name in Parameters.__annotations__:
        return ": generate_text and stream_text do"
    if name in ("concurrency", *_RUNS, *RunParameters.__annotations__):
        return f": {_RUNS.get(name, 'map and gather do')}"
    return "; anything else an endpoint takes goes into extra_body" if of_a_call else ""

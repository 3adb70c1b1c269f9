"""What both faces share in their signatures, written down once: parameters of calls, options and constructors.

In: nothing. Out: types for checkers, a way to show parameters in `help()`, the constructors of presets. Never
touched: the values.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack

from .policy import Limits, RetryPolicy, Timeout

if TYPE_CHECKING:
    import aiohttp

    from .progress.show import ProgressOption

__all__ = [
    "AsyncOptions",
    "Concurrency",
    "FromPreset",
    "FromPresetWithSession",
    "Inputs",
    "Message",
    "Messages",
    "Parameters",
    "ProviderOptions",
    "RunParameters",
    "check_names",
    "keeps_secrets",
    "merged",
    "shows",
]

F = TypeVar("F", bound=Callable[..., Any])

Message: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = Sequence[Message]
Inputs: TypeAlias = Iterable[Any] | AsyncIterable[Any]
Concurrency: TypeAlias = int | Literal["auto"]


class Parameters(TypedDict, total=False):
    """Keyword parameters of `generate_text` and `stream_text`; what is None, or not given, is not sent.

    Attributes:
        system_prompt: Put before the prompt or the messages as a system message.
        messages: The conversation, a list of `{"role": …, "content": …}`; wins over the prompt unless it is empty.
        temperature: Randomness, at least 0.
        max_tokens: The most tokens to generate, at least 1.
        top_p: Nucleus sampling, from 0 to 1.
        stop: A string, or a list of strings, that ends the answer.
        frequency_penalty: Penalty for frequent tokens.
        presence_penalty: Penalty for tokens that occurred.
        seed: For repeatable sampling, where the endpoint has it.
        response_format: Such as `{"type": "json_object"}`, or a JSON Schema in the endpoint's form.
        extra_body: Further fields of the request, laid over the rest; None takes a field out.
        extra_headers: Further headers of the request.
        timeout: A `Timeout`, or seconds: the whole call for `generate_text`, inactivity for streams.
        retry: A `RetryPolicy` for this call.
    """

    system_prompt: str | None
    messages: Messages | None
    temperature: float | None
    max_tokens: int | None
    top_p: float | None
    stop: str | Sequence[str] | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    response_format: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str] | None
    timeout: Timeout | float | None
    retry: RetryPolicy | None


class RunParameters(Parameters, total=False):
    """Keyword parameters of `map` and `gather` besides; those of `Parameters` hold for every prompt.

    Attributes:
        stream: Let the endpoint stream each answer underneath.
        max_failures: Stop the run when more prompts than this have failed.
        max_error_rate: Stop the run when more than this share of the latest 100 prompts (20 at least) have failed.
        progress: Show on standard error how far the run is: True; in a form, `"plain"` or `"json"`; or a function
            that is called with a `Progress` once a second and at the end.
        price: USD per million tokens of prompts and of answers, so that progress shows the cost.
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
    """The same with `session`, which is `AsyncProvider`'s only."""

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


def keeps_secrets(constructor: F) -> F:
    """Keep what a constructor refuses out of the traceback: error trackers show the local variables of each frame.

    An option that does not exist is refused in the words of `check_names`.
    """

    @wraps(constructor)
    def construct(*given: Any, **options: Any) -> Any:
        try:
            return constructor(*given, **options)
        except (TypeError, ValueError) as error:
            begun = error.__traceback__ is not None and error.__traceback__.tb_next is not None
            refusal: Exception = error.with_traceback(_past_ours(error.__traceback__))
        if constructor.__name__ == "__init__" and not begun:  # Python has refused the arguments, in its own words
            try:
                check_names(tuple(options), inspect.signature(constructor).parameters, type(given[0]).__name__)
            except TypeError as unknown:
                refusal = unknown.with_traceback(None)
        del given, options
        try:
            raise refusal
        finally:
            del refusal  # a cycle of the error and this frame

    return construct  # type: ignore[return-value]


def _past_ours(frames: TracebackType | None) -> TracebackType | None:
    """The traceback without the library's own frames at its beginning: where a subclass fails must be seen."""
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frames = frames.tb_next
    return frames


_DEFAULTS: dict[str, Any] = {  # of the others it is None; a test holds them against the constructors
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


def _meanings(kind: type) -> str:
    """What a `TypedDict`'s docstring says of its names, as lines of another docstring."""
    return inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]


_MEANINGS: dict[type, str] = {Parameters: _meanings(Parameters)}
_MEANINGS[RunParameters] = f"{_MEANINGS[Parameters]}\n{_meanings(RunParameters)}"


def _told(own: str, of_the_core: str | None, meanings: str) -> str:
    """A docstring that says what each parameter means where it says `**parameters`."""
    text = inspect.cleandoc(own)
    if of_the_core is not None:
        text += "\n\n" + of_the_core[of_the_core.index("Args:\n") :]
    before, found, after = text.partition("    **parameters: ")
    return before + meanings + after[after.index("\n\n") :] if found else text


def shows(parameters: type, core: Callable[..., Any] | None = None) -> Callable[[F], F]:
    """Let `help()` and `inspect.signature` show every parameter where the code says `**parameters`.

    Args:
        parameters: Which there are.
        core: What the method of the blocking face calls, whose docstring goes on, from `Args` on, where its own ends.
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


class FromPreset:
    """The constructors of presets, which both faces share."""

    def __init__(
        self, model: str, *, api_key: str | None = None, preset: str, **options: Unpack[PresetOptions]
    ) -> None:
        # What a class that takes part must accept. No docstring: `help()` would show it for theirs.
        raise TypeError(f"{type(self).__name__} has no constructor")

    @classmethod
    @keeps_secrets
    @shows(PresetOptions)
    def from_preset(
        cls, name: str, model: str, *, api_key: str | None = None, **options: Unpack[PresetOptions]
    ) -> Self:
        """A provider for one of `PRESETS`: its URL, its key variable, what is known of its oddities.

        Args:
            name: The preset's name, such as `"groq"`.
            model: The model's name.
            api_key: The key. Default: the preset's environment variable; some presets need none.
            **options: As the constructor's.

        Raises:
            MissingAPIKeyError: No key was given or found.
            ValueError: There is no such preset, or an option is invalid.
        """
        return cls(model, api_key=api_key, preset=name, **options)

    @classmethod
    @keeps_secrets
    @shows(PresetOptions)
    def openai(cls, model: str, *, api_key: str | None = None, **options: Unpack[PresetOptions]) -> Self:
        """A provider for OpenAI; the key's variable is `OPENAI_API_KEY`. Options as the constructor's."""
        return cls.from_preset("openai", model, api_key=api_key, **options)

    @classmethod
    @keeps_secrets
    @shows(PresetOptions)
    def anthropic(cls, model: str, *, api_key: str | None = None, **options: Unpack[PresetOptions]) -> Self:
        """A provider for Anthropic; the key's variable is `ANTHROPIC_API_KEY`. Options as the constructor's."""
        return cls.from_preset("anthropic", model, api_key=api_key, **options)

    @classmethod
    @keeps_secrets
    @shows(PresetOptions)
    def openrouter(cls, model: str, *, api_key: str | None = None, **options: Unpack[PresetOptions]) -> Self:
        """A provider for OpenRouter; the key's variable is `OPENROUTER_API_KEY`. Options as the constructor's."""
        return cls.from_preset("openrouter", model, api_key=api_key, **options)


class FromPresetWithSession(FromPreset):
    """The same for the face that takes a `session` besides."""

    if TYPE_CHECKING:

        @classmethod
        def from_preset(
            cls, name: str, model: str, *, api_key: str | None = None, **options: Unpack[AsyncOptions]
        ) -> Self: ...
        @classmethod
        def openai(cls, model: str, *, api_key: str | None = None, **options: Unpack[AsyncOptions]) -> Self: ...
        @classmethod
        def anthropic(cls, model: str, *, api_key: str | None = None, **options: Unpack[AsyncOptions]) -> Self: ...
        @classmethod
        def openrouter(cls, model: str, *, api_key: str | None = None, **options: Unpack[AsyncOptions]) -> Self: ...


def check_names(options: Iterable[str], known: Collection[str], taker: str) -> None:
    """Refuse an argument that does not exist, in words that name the function that the caller called.

    Raises:
        TypeError: There is such an argument.
    """
    for name in options:
        if name not in known:
            from difflib import get_close_matches  # nobody whose names are right pays for it

            near = get_close_matches(name, known, 1, 0.85)  # `top_k` is no slip of the pen
            hint = "; what else an endpoint takes goes into extra_body" if "extra_body" in known else ""
            raise TypeError(f"{taker} takes no argument {name!r}" + (f": did you mean {near[0]!r}?" if near else hint))


def merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call of many: its own win over those that all have in common, in `extra_body` too."""
    arguments = {**common, **own}
    if common.get("extra_body") and own.get("extra_body"):
        arguments["extra_body"] = {**common["extra_body"], **own["extra_body"]}
    return arguments

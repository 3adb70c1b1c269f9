"""How providers of both faces are made: the constructors of presets, and how all constructors refuse arguments.

In: the arguments of a constructor. Out: a provider, or an error whose traceback shows no argument. Never touched: what
the arguments mean.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from .parameters import AsyncOptions, PresetOptions, check_names, shows

__all__ = ["FromPreset", "FromPresetWithSession", "keeps_secrets"]

F = TypeVar("F", bound=Callable[..., Any])


def keeps_secrets(constructor: F) -> F:
    """Keep a constructor's arguments out of its tracebacks: error trackers show the local variables of each frame.

    An unknown option is refused with the message of `check_names`, and a keyword argument passed by position with one
    that asks for its name. Other errors keep Python's message, with the name of the class that was called instead of
    the one that defines the constructor.
    """

    @wraps(constructor)
    def construct(*given: Any, **options: Any) -> Any:
        try:
            return constructor(*given, **options)
        except (TypeError, ValueError) as error:
            begun = error.__traceback__ is not None and error.__traceback__.tb_next is not None
            refusal: Exception = error.with_traceback(_past_ours(error.__traceback__))
            if refusal.__suppress_context__:  # some tools show it all the same
                refusal.__context__ = None
        if not begun:
            refusal = _refusal(constructor, given, options, refusal)
        del given, options
        try:
            raise refusal
        finally:
            del refusal  # or there would be a reference cycle of the error and this frame

    return construct  # type: ignore[return-value]


def _refusal(constructor: F, given: tuple[Any, ...], options: dict[str, Any], by_python: Exception) -> Exception:
    """Why a constructor cannot be called with these arguments, in words that do not presume its code."""
    known = inspect.signature(constructor).parameters
    by_place = [name for name, p in known.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    init = constructor.__name__ == "__init__"
    taker = type(given[0]).__name__ if init else f"{given[0].__name__}.{constructor.__name__}"
    if len(given) > len(by_place):
        return TypeError(f"{taker} takes the arguments after {by_place[-1]} by name only: api_key=…")
    try:
        if init:
            check_names(options, known, taker)
    except TypeError as unknown:
        return unknown.with_traceback(None)
    return TypeError(str(by_python).replace(constructor.__qualname__, taker, 1))


def _past_ours(frames: TracebackType | None) -> TracebackType | None:
    """The traceback without the library's frames at its beginning; it still shows where a subclass fails."""
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frames = frames.tb_next
    return frames


class FromPreset:
    """The constructors of presets, which both faces share."""

    if TYPE_CHECKING:  # what the constructor of a subclass must accept

        def __init__(
            self, model: str, *, api_key: str | None = None, preset: str, **options: Unpack[PresetOptions]
        ) -> None: ...

    @classmethod
    @keeps_secrets
    @shows(PresetOptions)
    def from_preset(
        cls, name: str, model: str, *, api_key: str | None = None, **options: Unpack[PresetOptions]
    ) -> Self:
        """A provider for one of `PRESETS`, with the preset's URL and key variable, and its known oddities.

        Args:
            name: The preset's name, such as `"groq"`.
            model: The model's name.
            api_key: The key. Default: the preset's environment variable; some presets need none.
            **options: As the constructor's.

        Raises:
            MissingAPIKeyError: No key was given or found.
            TypeError: There is no such argument.
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
    """The same constructors with the `session` option of `AsyncProvider`."""

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

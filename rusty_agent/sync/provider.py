"""Provider: the blocking face of `AsyncProvider`.

In: what `AsyncProvider` takes. Out: its results, once they are there. Never touched: anything but the crossing to the
loop's thread and back.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from copy import copy
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from ..constructors import FromPreset, keeps_secrets
from ..copies import Copied
from ..errors import APIConnectionError
from ..keys import hide_secrets
from ..parameters import LocalOptions, Parameters, ProviderOptions, check_names, shows
from ..presets import Preset
from ..provider import AsyncProvider
from ..types import GenerateResult
from .bridge import run
from .many import ManyPrompts
from .stream import TextStream
from .thread import loop_thread

__all__ = ["Provider"]


class Provider(FromPreset, ManyPrompts, Copied):
    """Generates and streams text from one model of one OpenAI-compatible endpoint; its calls block.

    It works in scripts, in notebooks (also while an event loop runs), in many threads at once, and in forked processes.
    Connections are kept between calls. Closing it is optional.
    Calling it from an `on_attempt` or `progress` function raises `RuntimeError`: these run on the library's own thread.

    Args:
        model: The model's name, as the endpoint knows it.
        api_key: The key. Default: the preset's environment variable (`OPENROUTER_API_KEY`).
        base_url: The URL that `/chat/completions` is appended to. Default: the preset's.
        preset: The name of one of `PRESETS`, or a `Preset` of your own. Default: `"openrouter"`.
        **options: As `AsyncProvider`'s, except `session`.

    Raises:
        MissingAPIKeyError: No key was given or found.
        TypeError: There is no such argument; `session` is refused too.
        ValueError: An argument, or a setting in the environment, is invalid.
    """

    _own = ("_core",)

    @keeps_secrets
    @shows(ProviderOptions)
    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        preset: str | Preset = "openrouter",
        **options: Unpack[ProviderOptions],
    ) -> None:
        if "session" in options:
            raise TypeError(
                f"{type(self).__name__} takes no session: it would belong to another event loop, not the one that "
                "runs all blocking calls. Leave it out, or use AsyncProvider."
            )
        check_names(options, {*ProviderOptions.__annotations__, "api_key", "base_url", "preset"}, type(self).__name__)
        self._core = AsyncProvider(model, api_key=api_key, base_url=base_url, preset=preset, **options)

    @classmethod
    @shows(LocalOptions)
    def local(cls, model_path: str | PathLike[str] | None = None, **options: Unpack[LocalOptions]) -> Self:
        """Like `AsyncProvider.local`, but loads the model now.

        Raises:
            LocalModelError: The extra is not installed, there is no model, or it cannot be loaded.
            TypeError: There is no such option.
            ValueError: An option is invalid.
        """
        hide_secrets(options)
        check_names(options, LocalOptions.__annotations__, f"{cls.__name__}.local")
        provider = cls._made(AsyncProvider.local(model_path, **options))
        try:
            run(provider._core.__aenter__)
        except BaseException:  # Ctrl-C: an interactive shell keeps the traceback, and with it provider and model
            with suppress(RuntimeError, APIConnectionError):
                provider.close()
            raise
        return provider

    @property
    def model(self) -> str:
        """The model's name."""
        return self._core.model

    @overload
    def generate_text(
        self,
        prompt: str | None = None,
        *,
        include_usage: Literal[False] = False,
        stream: bool = False,
        **parameters: Unpack[Parameters],
    ) -> str: ...
    @overload
    def generate_text(
        self,
        prompt: str | None = None,
        *,
        include_usage: Literal[True],
        stream: bool = False,
        **parameters: Unpack[Parameters],
    ) -> GenerateResult: ...
    @overload
    def generate_text(
        self,
        prompt: str | None = None,
        *,
        include_usage: bool,
        stream: bool = False,
        **parameters: Unpack[Parameters],
    ) -> str | GenerateResult: ...
    @shows(Parameters, AsyncProvider.generate_text)
    def generate_text(
        self,
        prompt: str | None = None,
        *,
        include_usage: bool = False,
        stream: bool = False,
        **parameters: Unpack[Parameters],
    ) -> str | GenerateResult:
        """Generate a whole answer, and wait for it; otherwise like `AsyncProvider.generate_text`."""
        hide_secrets(parameters)
        return run(partial(self._core.generate_text, prompt, include_usage=include_usage, stream=stream, **parameters))

    @shows(Parameters, AsyncProvider.stream_text)
    def stream_text(
        self, prompt: str | None = None, *, include_usage: bool = False, **parameters: Unpack[Parameters]
    ) -> TextStream:
        """Stream an answer. The request is sent at once; errors are raised when the stream is read.

        Otherwise like `AsyncProvider.stream_text`.
        """
        hide_secrets(parameters)
        return TextStream(loop_thread(), self._core.stream_text(prompt, include_usage=include_usage, **parameters))

    def close(self) -> None:
        """Close all connections now, for good. Calls under way in other threads fail with `APIConnectionError`."""
        if not sys.is_finalizing():  # at exit they were closed before
            run(self._core.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle like `AsyncProvider`. `_made` sets the core even if a subclass's state, as of attrs, leaves it out."""
        return self._made, (self._core,), self._added()

    @classmethod
    def _made(cls, core: AsyncProvider) -> Self:
        provider = cls.__new__(cls)
        provider._core = core
        return provider

    def _twin(self) -> Self:
        return self._made(copy(self._core))

    def __repr__(self) -> str:
        if not hasattr(self, "_core"):
            return f"<{type(self).__name__}, unfinished>"
        return repr(self._core).replace("AsyncProvider", type(self).__name__, 1)

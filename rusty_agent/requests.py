"""A call's arguments → the request that all its attempts send.

In: a provider's configuration, the arguments that all prompts of a run share, one call's own. Out: a `Request` with
everything checked. Never touched: the loop, the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from . import __version__
from .checks import checked_flag, checked_kind
from .config import ProviderConfig, time_limits
from .keys import Hidden, named_secrets
from .net.attempt import Request
from .net.http.direct import Headers
from .parameters import Messages, Parameters, check_names
from .policy import RetryPolicy, Timeout
from .wire.mask import Mask
from .wire.request import PARAMETERS, build_body, checked_headers, encode_body

__all__ = ["Common", "Requests", "merged"]

_NAMES = ("prompt", "include_usage", *Parameters.__annotations__)


class Requests:
    """Makes the requests of one provider.

    Attributes:
        config: The configuration of every request.
        headers: The headers of every request.
        refusal: The error that every request raises, as when an unpickled provider finds no key; or None.

    Raises:
        ValueError: A time limit is invalid.
    """

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self.refusal: ValueError | None = None
        self._time_limits = {
            (whole, streamed): time_limits(config.timeout, config.settings, whole=whole, streamed=streamed)
            for whole, streamed in ((True, False), (True, True), (False, True))
        }
        self.headers = Headers(
            {
                "content-type": "application/json",
                "user-agent": f"rusty-agent/{__version__}",
                "accept-encoding": "identity",  # compression would hold tokens back, and save little
            }
        )
        if config.key is not None:
            self.headers["authorization"] = f"Bearer {config.key.reveal()}"
        self.headers.update(config.headers)
        self._own_mask = self._mask()

    def prepare(
        self,
        prompt: str | None = None,
        *,
        whole: bool,
        streamed: bool,
        include_usage: bool = False,
        system_prompt: str | None = None,
        messages: Messages | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | Hidden | None = None,
        timeout: Timeout | float | None = None,
        retry: RetryPolicy | None = None,
        **sampling: Any,
    ) -> Request:
        """Check the arguments of `generate_text` or `stream_text`, and make the request; see `Parameters`.

        Raises:
            MissingAPIKeyError: There is no key.
            TypeError: There is no such argument.
            ValueError: An argument is invalid.
        """
        if self.refusal is not None:
            raise copy(self.refusal)  # a copy, without the traceback of the last time
        if not PARAMETERS.issuperset(sampling):
            check_names(sampling, _NAMES, "generate_text" if whole else "stream_text")
        if isinstance(prompt, list):
            raise ValueError("prompt must be a string: pass a list of messages as messages=[…]")
        checked_flag(streamed, "stream")
        config = self.config
        fields = build_body(
            config.model,
            prompt,
            system_prompt,
            messages,
            sampling,
            stream=streamed,
            include_usage=include_usage,
            extra_body=extra_body,
        )
        body = encode_body(fields)
        limits = self._time_limits[whole, streamed]
        if timeout is not None:
            limits = time_limits(timeout, config.settings, whole=whole, streamed=streamed)
        policy = config.retry if retry is None else checked_kind(retry, RetryPolicy, "retry")
        # Last: once the headers are in a local variable, which a traceback would show, nothing may be refused.
        more = None if extra_headers is None else checked_headers(extra_headers, "extra_headers")
        headers, mask = self.headers, self._own_mask
        if more:
            headers = Headers(headers)
            headers.update(more)
        if more or extra_body:
            secrets = [*named_secrets(more or {}), *named_secrets(extra_body or {})]  # LiteLLM takes an `api_key` there
            mask = self._mask(secrets) if secrets else mask
        return Request(config, headers, fields, body, limits, mask, streamed, policy, self._warnings(fields))

    def _mask(self, more: Iterable[str] = ()) -> Mask:
        """A mask for the key, the secrets in headers and URLs, and those of one call (`more`)."""
        key = [] if self.config.key is None else [self.config.key.reveal()]
        return Mask([*key, *named_secrets(self.headers), *self.config.url_secrets, *more])

    def _warnings(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        preset = self.config.preset
        if not preset.ignores:
            return ()
        return tuple(f"{preset.name} accepts {name} and ignores it" for name in fields if name in preset.ignores)


class Common:
    """The arguments that all requests of a run share: checked and encoded once, before anything is sent.

    Args:
        requests: Makes the requests.
        given: Arguments of `generate_text` for every prompt that does not override them.

    Attributes:
        policy: The retry policy of prompts that do not override it.

    Raises:
        ValueError: No prompt could be sent with these arguments. Raises what `Requests.prepare` raises.
    """

    def __init__(self, requests: Requests, given: Mapping[str, Any]) -> None:
        self._requests = requests
        self._given = given
        pattern = self._pattern = self._make({"prompt": ""})
        self.policy = pattern.policy
        fixed = given.get("messages") or "messages" in (given.get("extra_body") or ())
        self._before = None if fixed else pattern.fields["messages"][:-1]  # the messages before a plain prompt

    def prepare(self, own: Mapping[str, Any]) -> Request:
        """The request of one prompt, given as its own arguments; raises what `Requests.prepare` raises."""
        before, prompt = self._before, own.get("prompt")
        if before is None or type(prompt) is not str or len(own) > 1:
            if prompt is not None and self._given.get("messages") and "messages" not in own:
                raise ValueError(
                    "messages set for all prompts would be sent instead of this one: make each prompt a list of "
                    "messages that ends with it"
                )
            return self._make(own)
        was = self._pattern
        fields = {**was.fields, "messages": [*before, {"role": "user", "content": prompt}]}
        body = encode_body(fields)
        limits, mask, policy = was.time_limits, was.mask, was.policy
        return Request(was.config, was.headers, fields, body, limits, mask, was.streamed, policy, was.warnings)

    def _make(self, own: Mapping[str, Any]) -> Request:
        arguments = merged(self._given, own)
        streamed = arguments.pop("stream", False)
        arguments.setdefault("include_usage", streamed)
        return self._requests.prepare(whole=True, streamed=streamed, **arguments)


def merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call of a run: its own win over the common ones, also field by field in `extra_body`.

    A field that a None in the common `extra_body` removes can be put back only by the call's own `extra_body`.
    """
    arguments = {**common, **own}
    extra, own_extra = common.get("extra_body"), own.get("extra_body", {})
    if extra and isinstance(extra, Mapping) and isinstance(own_extra, Mapping):
        left = {
            name: item
            for name, item in extra.items()
            if item is None or name not in PARAMETERS or own.get(name) is None
        }
        arguments["extra_body"] = {**left, **own_extra}
    return arguments

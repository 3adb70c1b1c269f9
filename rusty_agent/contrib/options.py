"""A provider's arguments, as Ray pickles them → the provider, in the process of an actor.

In: a dict without a key, but with the name of the variable that holds it. Out: a provider, with the key from this
machine's environment. Never touched: Ray, which pickles the dict and may write it into its logs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import MissingAPIKeyError
from ..keys import named_secrets, secret_names, url_secrets
from ..policy import Limits
from ..provider import AsyncProvider
from ..wire.request import checked_headers

__all__ = ["check_picklable", "make_provider", "provider_of"]

_LONG_NAME = 24  # characters
_RESERVED = ("session", "limits", "pickle_key")


def check_picklable(provider: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Check that the arguments of a provider, and those for all calls, may be pickled and logged.

    Raises:
        ValueError: An argument holds a secret, or is bound to a process.
    """
    if not isinstance(provider, dict):  # a dict can be pickled
        raise ValueError(
            f"provider must be a dict of arguments for AsyncProvider, from which each actor makes its own, not "
            f"{type(provider).__name__}"
        )
    if "api_key" in provider:
        raise ValueError(
            "provider must not hold api_key: Ray pickles it, and may write it to its logs. Put the key in an "
            'environment variable where Ray\'s workers run, and name that: api_key_env="NAME"'
        )
    name = provider.get("api_key_env")
    if name is not None and not (isinstance(name, str) and name.isidentifier() and not _looks_like_a_key(name)):
        raise ValueError("api_key_env must be the name of an environment variable, not the key that it holds")
    headers = checked_headers(provider.get("headers"), "headers")
    headers |= checked_headers(parameters.get("extra_headers"), "extra_headers")
    for name in secret_names(headers):
        raise ValueError(f"the header {name!r} looks like a key, which Ray would pickle and may write to its logs")
    body = parameters.get("extra_body")
    if isinstance(body, Mapping) and named_secrets(body):  # LiteLLM takes an `api_key` there
        raise ValueError("extra_body holds a field that looks like a key, which Ray would pickle and may log")
    urls = {name: provider.get(name) for name in ("base_url", "proxy")}
    urls["the preset's base_url"] = getattr(provider.get("preset"), "base_url", None)
    for name, url in urls.items():
        if isinstance(url, str) and url_secrets(url):
            raise ValueError(f"{name} holds a secret, which Ray would pickle and may write to its logs")
    if provider.get("ssl") is not None:
        raise ValueError("provider must not hold ssl, which cannot be pickled; set SSL_CERT_FILE where Ray runs")
    for name in _RESERVED:
        if name in provider:
            raise ValueError(f"provider must not hold {name}: each actor has its own")


def _looks_like_a_key(name: str) -> bool:
    """Whether an identifier is probably the key itself: keys of Groq and Hugging Face are identifiers, too."""
    return len(name) >= _LONG_NAME and not name.isupper() and any(map(str.isdigit, name))


def make_provider(options: Mapping[str, Any], limits: Limits) -> AsyncProvider:
    """The provider, with the key from this process's environment.

    Raises:
        MissingAPIKeyError: The environment holds no key.
    """
    name, key = options.get("api_key_env"), None
    if name is not None and not (key := os.environ.get(name)):
        raise MissingAPIKeyError(
            f"No API key: the environment variable {name} (api_key_env) is not set where this Ray worker runs. "
            "Set it there before Ray is started."
        )
    try:
        return provider_of(options, limits, key)  # without a key: that of the preset's variable
    except MissingAPIKeyError:
        raise MissingAPIKeyError(
            "No API key: the preset's environment variable is not set where this Ray worker runs. Set it there before "
            "Ray is started, or name another (api_key_env). For a server that takes no key, pass "
            'preset="vllm" along with its base_url.'
        ) from None


def provider_of(options: Mapping[str, Any], limits: Limits, key: str | None) -> AsyncProvider:
    """A provider with these arguments.

    Raises:
        ValueError: An argument is invalid.
    """
    given = {name: value for name, value in options.items() if name != "api_key_env"}
    try:
        return AsyncProvider(**given, api_key=key, limits=limits)
    except TypeError as error:
        raise ValueError(f"provider must hold arguments for AsyncProvider: {error}") from None

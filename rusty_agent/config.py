"""The environment and the constructors' arguments → checked settings.

In: strings and numbers from users and their environment. Out: `Settings`, `TimeLimits`, a checked URL, and the
configuration that all requests of a provider share. Never touched: the network, the loop.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from attrs import define, field
from yarl import URL

from .keys import Secret, named_secrets
from .policy import UNSET, RetryPolicy, Timeout
from .presets import Preset

__all__ = ["ProviderConfig", "Settings", "TimeLimits", "chat_url", "checked_proxy", "time_limits"]


@define
class Settings:
    """The values of the four environment variables, times in seconds."""

    request_timeout: float = 60.0
    connect_timeout: float = 10.0
    max_retries: int = 2
    retry_backoff: float = 0.25

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables.

        Raises:
            ValueError: A value is not a number, negative, or zero where it must be positive.
        """
        retries = _number(environ, "RUSTY_AGENT_MAX_RETRIES", 2, positive=False)
        if retries != int(retries):
            raise ValueError(f"RUSTY_AGENT_MAX_RETRIES must be a whole number, not {retries}")
        return cls(
            request_timeout=_number(environ, "RUSTY_AGENT_REQUEST_TIMEOUT_SECS", 60),
            connect_timeout=_number(environ, "RUSTY_AGENT_CONNECT_TIMEOUT_SECS", 10),
            max_retries=int(retries),
            retry_backoff=_number(environ, "RUSTY_AGENT_RETRY_BACKOFF_MS", 250, positive=False) / 1000,
        )

    def retry_policy(self) -> RetryPolicy:
        """The retry policy of a provider that was given none: delays are capped at 2^8 times the first."""
        return RetryPolicy(self.max_retries, self.retry_backoff, self.retry_backoff * 2**8)


def _number(environ: Mapping[str, str], name: str, default: float, *, positive: bool = True) -> float:
    text = environ.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        kind = "a positive number" if positive else "a number of at least 0"
        raise ValueError(f"{name} must be {kind}, not {text!r}")
    return value


@define
class TimeLimits:
    """The time limits of one call, all resolved; seconds or None."""

    total: float | None
    connect: float | None
    first_token: float | None
    idle: float | None
    stall: float | None


def time_limits(timeout: Timeout | float | None, settings: Settings, *, whole: bool, streamed: bool) -> TimeLimits:
    """Resolve a `timeout` argument, taking what it leaves open from the environment.

    A bare number replaces `RUSTY_AGENT_REQUEST_TIMEOUT_SECS`: it bounds the whole call if the caller waits for a whole
    answer, and inactivity if the answer is streamed; both if both.
    """
    if timeout is None or isinstance(timeout, Timeout):
        request, chosen = settings.request_timeout, timeout or Timeout()
    else:
        try:
            request, chosen = timeout, Timeout(idle=timeout)  # which checks the number
        except ValueError as error:
            raise ValueError(str(error).replace("idle", "timeout", 1)) from None
    total = (request if whole else None) if chosen.total is UNSET else chosen.total
    idle = request if chosen.idle is UNSET else chosen.idle
    return TimeLimits(
        total=total,
        connect=settings.connect_timeout if chosen.connect is UNSET else chosen.connect,
        first_token=chosen.first_token,
        idle=idle if streamed else None,
        stall=chosen.stall if streamed else None,
    )


@define(frozen=True, kw_only=True, eq=False, repr=False)
class ProviderConfig:
    """The configuration of every request of a provider; see `AsyncProvider`.

    Attributes:
        headers: The headers that the provider was given.
        url_secrets: The secrets in the URLs of its endpoint and proxies.
    """

    model: str
    url: URL = field(repr=False)  # some tools show the fields of any value, except those marked like this
    key: Secret | None
    headers: Mapping[str, str] = field(repr=False)
    url_secrets: list[str] = field(repr=False)
    preset: Preset
    settings: Settings
    timeout: Timeout | float | None
    retry: RetryPolicy
    max_event_bytes: int
    split_thinking: bool

    @property
    def shown_url(self) -> str:
        """The URL that requests go to, without its query, which may hold a secret; it may be written to files."""
        return str(self.url.with_query(None))

    @property
    def key_origin(self) -> str:
        """A sentence that says where the key came from, or that there is none; `""` if the caller passed it."""
        if named_secrets(self.headers):
            return ""
        if self.key is None:
            return f"None was sent: set the environment variable {self.preset.key_variable} or pass api_key."
        return f"It came from {self.key.variable}." if self.key.variable else ""


def chat_url(base_url: str) -> str:
    """The URL that requests go to: `base_url` with `/chat/completions` appended to its path.

    A query (`?api-version=…`) stays behind the path. Characters that are not allowed in a URL are percent-encoded.

    Raises:
        ValueError: `base_url` is not an http or https URL with a host, or it carries credentials or a fragment.
    """
    parts = _checked_parts(base_url, "base_url")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "base_url must not contain credentials (user:password@host): send them as the key or in a header"
        )
    if parts.fragment:
        raise ValueError(f"base_url must not contain a fragment: {_shown(base_url)!r}")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    netloc = parts.netloc
    try:
        if not netloc.isascii():
            port = "" if parts.port is None else f":{parts.port}"
            netloc = (parts.hostname or "").encode("idna").decode() + port
        url = urlunsplit((parts.scheme, netloc, quote(path, _SAFE_IN_URLS), quote(parts.query, _SAFE_IN_URLS), ""))
        _ = URL(url, encoded=True).host  # error messages show it decoded, and decoding `xn--…` may fail
    except UnicodeError:
        raise ValueError(f"the host in base_url is not a valid host name: {_shown(base_url)!r}") from None
    return url


_SAFE_IN_URLS = "%!#$&'()*+,/:;=?@[]"  # allowed in a path or a query, or encoded already (%)


def checked_proxy(proxy: str, argument: str = "proxy") -> str:
    """The proxy's URL, if it is valid; it may carry credentials.

    Raises:
        ValueError: It is not an http or https URL with a host. The message names the argument.
    """
    _checked_parts(proxy, argument)
    return proxy


def _checked_parts(url: str, argument: str) -> SplitResult:
    if not isinstance(url, str):
        raise ValueError(f"{argument} must be a string, not {type(url).__name__}")
    if any(character <= " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in url):
        raise ValueError(f"{argument} contains white space or another character that cannot be sent")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(f"{argument} is not a URL: {_shown(url)!r}") from None
    if not valid or "\\" in url:
        raise ValueError(f"{argument} must be http://host… or https://host…, not {_shown(url)!r}")
    return parts


def _shown(url: str) -> str:
    """A URL as a message may show it, without secrets; `***` if it is no URL at all but perhaps the key."""
    if url and not any(mark in url for mark in "./:@?"):
        return "***"
    userinfo, _, rest = url.rpartition("@")
    rest, query, _ = rest.partition("?")
    return ("***@" if userinfo else "") + rest + ("?…" if query else "")

"""Keys and other secrets: where they come from, and where they may hide.

In: arguments, the environment, headers, bodies, URLs. Out: the key, wrapped so that it is never shown; the secrets
found in the others. Never touched: texts that may show them; `wire/mask.py` strikes them out there.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

from .errors import MissingAPIKeyError
from .presets import Preset

__all__ = [
    "Hidden",
    "Secret",
    "hide_secrets",
    "is_secret",
    "named_secrets",
    "resolve_key",
    "secret_names",
    "url_secrets",
    "without_secrets",
]


class Secret:
    """A key that shows in no repr, log or traceback; `reveal()` is the only way to it.

    Attributes:
        variable: The environment variable that the key came from, or None.
    """

    __slots__ = ("_value", "variable")

    def __init__(self, value: str, variable: str | None = None) -> None:
        self._value = value
        self.variable = variable

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "'***'"


class Hidden:
    """The value of `extra_headers`, wrapped so that its repr shows nothing."""

    __slots__ = ("headers",)

    def __init__(self, headers: Any) -> None:
        self.headers = headers


def hide_secrets(parameters: Any) -> None:
    """Hide the headers of a call, so that no frame of ours shows them: error trackers show the locals of each frame.

    An `api_key` is hidden too: calls take none, and refuse it like any other unknown argument.
    """
    headers = parameters.get("extra_headers")
    if headers is not None and not isinstance(headers, Hidden):
        parameters["extra_headers"] = Hidden(headers)
    if "api_key" in parameters:
        parameters["api_key"] = Hidden(None)


# Not secret: Fireworks' `x-session-affinity` and OpenRouter's `session_id`, which name a user or a conversation, and
# OpenAI's `prompt_cache_key`. Like most patterns of the library, this one is a string, compiled on first use: compiling
# them all would take a tenth of the time that our modules take to import.
_SECRET_NAMES = (
    r"(?i)auth(?!or(?!i))|(?<!cache_)key(?!word)|token(?!i[sz]|_type)|secret|cookie|credential|passw|passphrase"
    r"|session(?!-affinity|_id)|signature|jwt|(?<![a-z])(pass|sig)(?![a-z])"
)


@lru_cache(1024)
def is_secret(name: str) -> bool:
    """Whether a header or field of this name holds a key or the like."""
    return re.search(_SECRET_NAMES, name) is not None


def secret_names(fields: Mapping[str, Any]) -> list[str]:
    """The names of the headers, or fields of a body, that hold a secret or a list of secrets; numbers never are."""
    return [name for name, value in fields.items() if _holds_secrets(str(name), value)]


def named_secrets(fields: Mapping[str, Any]) -> list[str]:
    """The secrets in headers, or in fields of a body and their URLs at any depth, without a scheme such as `Bearer`."""
    found: list[str] = []
    nodes: list[Any] = [fields]
    for node in nodes:  # the list grows meanwhile
        if isinstance(node, list | tuple):
            nodes += [item for item in node if isinstance(item, _NODES)]
            continue
        for name, value in node.items():
            if _holds_secrets(str(name), value):
                found += [value] if isinstance(value, str) else value
            elif isinstance(value, _NODES) and name not in _SCHEMAS:
                nodes.append(value)
            elif isinstance(value, str) and value.startswith(("http://", "https://")):  # such as an MCP server's
                found += url_secrets(value)
    return [re.sub(_SCHEME, "", text) for text in found]


def _holds_secrets(name: str, value: Any) -> bool:
    if isinstance(value, list | tuple):
        several = bool(value) and all(isinstance(item, str) for item in value)
        return several and is_secret(name.lower().replace("tokens", ""))  # `stop_tokens` and the like are no secrets
    return isinstance(value, str) and is_secret(name)


_NODES = (dict, list, tuple)
_SCHEMAS = ("function", "json_schema")  # fields that hold a JSON Schema: long, and without keys
_SCHEME = r"(?i)\A(bearer|basic|digest|token|key|api-?key)\s+"


def resolve_key(api_key: str | None, preset: Preset, environ: Mapping[str, str] = os.environ) -> Secret | None:
    """The explicit key, else that in the preset's environment variable. An empty one counts as none.

    Raises:
        MissingAPIKeyError: There is neither, and the preset needs one.
        ValueError: The key is not a string, begins with `Bearer`, or has a character that a header cannot carry.
    """
    if api_key is not None and not isinstance(api_key, str):
        raise ValueError(f"api_key must be a string, not {type(api_key).__name__}")
    value = (environ.get(preset.key_variable, "") if api_key is None else api_key).strip()
    if value:
        given = preset.key_variable if api_key is None else "api_key"
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"{given} contains a line break or another character that is not allowed in a header")
        if value.lower().startswith("bearer "):
            raise ValueError(f"{given} must be the key alone: Bearer is put in front of it when it is sent")
        return Secret(value, preset.key_variable if api_key is None else None)
    if not preset.key_required:
        return None
    raise MissingAPIKeyError(
        f"No API key: set the environment variable {preset.key_variable} or pass api_key. "
        'For a server that needs no key, pass any text, such as api_key="none".'
    )


def url_secrets(url: str) -> list[str]:
    """The secrets in a URL, such as a password or `?key=…`: each as written, decoded, and as it is sent."""
    authority = re.split("[/?#]", url.partition("//")[2] or url, maxsplit=1)[0]
    userinfo = authority.rpartition("@")[0]
    user, colon, password = userinfo.partition(":")
    found = [password if colon else user, b64encode(unquote(userinfo).encode("utf-8", "surrogatepass")).decode()]
    found += [value for name, value in _query(url) if _is_secret_in_url(name)]
    return [form for text in found if text for form in {text, unquote(text), unquote_plus(text)}]


def without_secrets(url: str) -> str:
    """The same URL without credentials, and without the parts of its query that hold secrets."""
    parts = urlsplit(url)
    kept = [f"{name}={value}" if value else name for name, value in _query(url) if not _is_secret_in_url(name)]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="&".join(kept)))


def _is_secret_in_url(name: str) -> bool:
    return name.lower() == "code" or is_secret(name)  # that of Azure's functions; in a body it may be any text


def _query(url: str) -> list[tuple[str, str]]:
    """Names and values in a URL's query, not decoded."""
    pairs = (pair.partition("=") for pair in url.partition("?")[2].partition("#")[0].split("&"))
    return [(name, value) for name, _, value in pairs if name]

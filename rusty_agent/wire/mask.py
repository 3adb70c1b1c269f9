"""Secrets → asterisks, in anything that an endpoint sent back and that may be printed.

In: any decoded value. Out: the same value without the secrets. Never touched: an answer's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from .codec import dumps, loads, map_strings

__all__ = ["Mask"]

_SHORTEST = 8  # anything shorter is a placeholder such as "none", and masking it would mangle ordinary words
_MARKS = "…'\". >)}]"  # what our messages put behind an excerpt


class Mask:
    """Masks secrets: some endpoints quote the key that they refuse."""

    def __init__(self, secrets: Iterable[str]) -> None:
        plain = {secret for secret in secrets if len(secret) >= _SHORTEST}
        escaped = {dumps(secret).decode()[1:-1] for secret in plain}
        escaped |= {form.replace("/", "\\/") for form in escaped}  # as PHP writes it
        quoted = {quote(secret, safe, errors="surrogatepass") for secret in plain for safe in ("", "/")}  # in a query
        quoted |= {form.replace("%20", "+") for form in quoted}
        quoted |= {re.sub("%..", lambda found: found[0].lower(), form) for form in quoted}
        self._forms = sorted(plain | escaped | quoted, key=len, reverse=True)
        self._bytes = [form.encode("utf-8", "surrogatepass") for form in self._forms]

    def __call__(self, value: Any) -> Any:
        """The value without the secrets, and without the beginning of one at its very end, where an excerpt was cut."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes):
            masked = self._text(value.decode("utf-8", "surrogateescape"))
            return masked.encode("utf-8", "surrogateescape")
        if isinstance(value, dict | list) and value:
            try:
                text = dumps(value)
                for form in self._bytes:  # no `any`: it takes twice as long, and this runs for each answer
                    if text.find(form) >= 0:
                        return loads(self(text))
                return value
            except ValueError:  # nested too deeply to encode: take the slower way
                return map_strings(value, self._text)
        return value

    def _text(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "***")
            bare = text.rstrip(_MARKS)
            for length in range(min(len(form), len(bare)), _SHORTEST // 2 - 1, -1):
                if bare.endswith(form[:length]):
                    text = bare[:-length] + "***" + text[len(bare) :]
                    break
        return text

"""Endpoints' messages → text that is safe to print: capped, on one line, without control characters.

In: a decoded value, text or bytes. Out: text. Never touched: its meaning.
"""

from __future__ import annotations

import re
from typing import Any

from .codec import dumps, loads_answer

__all__ = ["PAGE", "as_it_is", "excerpt", "printable", "quoted", "words"]

PAGE = "an HTML page"
"""How the words about a page begin."""

_MAX_MESSAGE = 1000
_MAX_EXCERPT = 200
_MAX_DEPTH = 5  # how deep Mistral nests its complaints

# Lighttpd's and tinyproxy's pages are XHTML. Atomic: with many comments backtracking would never end.
_BEFORE_PAGES = r"(?>(?><\?xml[^>]*>|<!--.*?-->)\s*)*+"

_SAYING: tuple[str, ...] = ("message", "detail", "msg", "error", "errors", "error_message", "text")
_SAYING += ("Message", "error_msg", "status_msg", "title", "errorMessage")  # AWS, Baidu, MiniMax, RFC 9457, Java


def words(value: Any, depth: int = _MAX_DEPTH) -> str:
    """The message in a string, an HTML page, a list of complaints (FastAPI, Mistral) or an object that holds these."""
    if isinstance(value, str):
        page = value[:4096]
        if re.match(rf"\s*{_BEFORE_PAGES}<(!doctype|html|head|body)", page, re.IGNORECASE):
            title = re.search(r"<(?:title|h1)[^>]*>([^<]*)", page, re.IGNORECASE)  # HAProxy's pages have no title
            return f"{PAGE}{f' titled «{title[1].strip()}»' if title else ''}"
        said = quoted(value) if depth else value
        return value if said is value else words(said, depth - 1) or value
    if isinstance(value, list) and depth:
        return "; ".join(filter(None, (words(item, depth - 1) for item in value[:8])))
    if isinstance(value, dict) and depth:
        said = (words(value.get(name), depth - 1) for name in _SAYING)
        text = next(filter(None, said), "")
        where = value.get("loc")
        if isinstance(where, list):
            return f"{'.'.join(str(step) for step in where if isinstance(step, str | int))}: {text}"
        return text
    return ""


def quoted(value: Any) -> Any:
    """Decode the JSON in a string, as gateways quote an upstream's error body; return any other value as it is."""
    if not isinstance(value, str) or not re.match(r'\s*(\{|\[\s*\{\s*"error")', value):  # Gemini's error is in a list
        return value
    try:
        return loads_answer(value.encode("utf-8", "replace"))
    except ValueError:
        return value


def as_it_is(body: Any) -> str:
    """The JSON of a body that has neither a readable message nor a known code; `""` if it holds nothing."""
    if not (body if isinstance(body, list) else isinstance(body, dict) and any(body.values())):
        return ""
    try:
        return printable(dumps(body).decode(), _MAX_EXCERPT)
    except ValueError:  # nested too deeply
        return ""


def printable(text: str, limit: int = _MAX_MESSAGE) -> str:
    """One capped line with control characters escaped, so that it cannot control a terminal."""
    text = " ".join(text[: limit * 2].split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return text if len(text) <= limit else text[:limit] + "…"


def excerpt(data: bytes) -> str:
    """The beginning of offending bytes, fit for a message."""
    return repr(printable(data[: 2 * _MAX_EXCERPT].decode("utf-8", "replace"), _MAX_EXCERPT))

"""JSON: the only door to orjson.

In: bytes or values. Out: values or bytes. Never touched: files, the network.

orjson is strict where real servers and real prompts are not (lone surrogates, invalid UTF-8, integers beyond 64
bits, integer keys), so each direction falls back to the standard library's codec, which costs nothing until then.

The decoders, from the strictest on:

* `loads_strict` raises for everything that is not JSON to the letter. It is the fastest, and rounds long integers.
* `loads_exact` is as strict, but keeps long integers: for what users have written.
* `loads` also accepts invalid UTF-8 and lone surrogates.
* `loads_answer` also accepts control characters in strings: for what endpoints send.
* `loads_loose` also leaves lone surrogates as they are: for chunks, of which the next may hold the other half.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

import orjson

__all__ = [
    "as_text",
    "dumps",
    "dumps_exact",
    "ends_within",
    "index_of",
    "join_surrogates",
    "loads",
    "loads_answer",
    "loads_exact",
    "loads_loose",
    "loads_strict",
    "map_strings",
    "mend",
    "plain_scalar",
    "string_of",
    "with_long_numbers",
]

_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19  # numbers with fewer digits all fit into 64 bits
# What is left where the decoder stops, if a number, a literal or an escape was cut off.
_BEGUN = r"-?|[.eE][+-]?|t(ru?)?|f(a(ls?)?)?|n(ul?)?|u[0-9a-fA-F]{0,4}"

loads_strict = orjson.loads
"""orjson's own decoder: raises ValueError for anything that is not strict JSON."""


def loads(data: bytes) -> Any:
    """Decode JSON, accepting invalid UTF-8 and escapes of lone surrogates; each becomes U+FFFD.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        return mend(_loosely(data, _decode))


def loads_answer(data: bytes) -> Any:
    """Decode JSON as `loads` does, but let strings hold control characters: some endpoints send them unescaped.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        return mend(loads_loose(data))


def loads_loose(data: bytes) -> Any:
    """Decode JSON as `loads_answer` does, but keep lone surrogates: the other half may be in the next event.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    return _loosely(data, _decode_any)


def _loosely(data: bytes, decode: Callable[[str], Any]) -> Any:
    try:
        return decode(data.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def loads_exact(data: bytes) -> Any:
    """Decode strict JSON; integers keep all their digits.

    Raises:
        ValueError: It is not strict JSON.
    """
    return with_long_numbers(loads_strict(data), data)


def with_long_numbers(value: Any, data: bytes) -> Any:
    """What `loads_strict` made of the data, but with all the digits of long integers, which it rounds."""
    if data.translate(_AS_ZEROS).find(_LONG_NUMBER) >= 0:  # no `in`: it raises an error internally
        with suppress(ValueError):  # nested too deeply for the decoder that keeps long integers
            return mend(loads_loose(data))
    return value


def ends_within(error: ValueError) -> bool:
    """Whether the text that `loads_answer` could not decode is JSON that was cut off."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    begun = re.fullmatch(_BEGUN, error.doc[error.pos :]) is not None and error.msg != "Extra data"
    return begun or error.msg.startswith("Unterminated string")


def _integer(digits: str) -> int | float:
    """An integer; as a float where Python refuses to convert that many digits."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def plain_scalar(value: Any) -> int | float | bool:
    """Convert a number or truth value of another type, such as numpy's in data frames, to one of Python's.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if type(value).__name__ in ("bool", "bool_"):  # numpy's: it is registered with none of Python's abstract classes
        return bool(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=plain_scalar).encode
_decode = json.JSONDecoder(parse_int=_integer).decode
_decode_any = json.JSONDecoder(parse_int=_integer, strict=False).decode


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of decoded JSON in which every string is changed, keys included."""
    top = [value]
    todo: list[Any] = [top]  # no recursion: the sender decides how deep it is nested
    while todo:
        node = todo.pop()
        for place, item in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(item, str):
                node[place] = change(item)
            elif isinstance(item, dict | list):
                copy = {change(key): part for key, part in item.items()} if isinstance(item, dict) else item.copy()
                node[place] = copy
                todo.append(copy)
    return top[0]


def mend(value: Any) -> Any:
    """A copy of decoded JSON with `join_surrogates` applied to every string."""
    return map_strings(value, join_surrogates)


def dumps(value: Any) -> bytes:
    """Encode as JSON; lone surrogates become U+FFFD, and NaN and the infinities become null.

    Raises:
        ValueError: It holds something that JSON cannot represent.
    """
    try:
        return orjson.dumps(value, plain_scalar)
    except TypeError:
        try:
            text = _dumps(value)
            if "NaN" in text or "Infinity" in text:
                text = _dumps(json.loads(text, parse_constant=lambda _: None))
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        return join_surrogates(text).encode()


def dumps_exact(value: Any) -> bytes:
    """Encode as `dumps` does, but refuse NaN and the infinities.

    Raises:
        ValueError: It holds something that JSON cannot represent.
    """
    data = dumps(value)
    if data.find(b"null") >= 0 and _holds_nan(value):
        raise ValueError("NaN and Infinity are not JSON numbers")
    return data


def _holds_nan(value: Any) -> bool:
    """Whether any number in the value is not finite."""
    todo = [value]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            todo.extend(node.values())
        elif isinstance(node, list | tuple):
            todo.extend(node)
        elif isinstance(node, Real) and not math.isfinite(node):
            return True
    return False


def join_surrogates(text: str) -> str:
    """Join surrogate pairs into the characters they encode; a lone surrogate becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def as_text(value: Any) -> Any:
    """Turn a number or a bool back into its JSON text; anything else is returned as it is.

    Cloudflare parses the pieces of its answers as JSON where it can (cloudflare/ai#651): the text `6` arrives as 6.
    """
    return json.dumps(value) if isinstance(value, int | float) else value


def string_of(value: Any) -> str:
    """A string, or a number as a string; `""` for anything else, which may be nested too deeply for `str`."""
    return str(value) if isinstance(value, str | int | float) else ""


def index_of(value: Any) -> int | None:
    """The number that stands where an index belongs, even if written as `"1"` or `1.0`; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    return value if type(value) is int else None

"""JSON: the only door to orjson.

In: bytes or values. Out: values or bytes. Never touched: files, the network.

orjson is strict where real servers and real prompts are not (lone surrogates, invalid UTF-8, integers beyond 64
bits, integer keys), so each direction falls back to the standard library's codec, which costs nothing until then.

From the strictest decoder on:

* `loads_strict` raises for all that is not JSON to the letter. It is the quickest, and rounds long whole numbers.
* `loads_exact` keeps them: for what users have written.
* `loads` forgives bytes that are no UTF-8, and halves of characters.
* `loads_answer` forgives control characters in strings besides: for what endpoints send.
* `loads_loose` leaves halves of characters as they are: for a piece of that, whose next piece may hold the other half.
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
_LONG_NUMBER = b"0" * 19  # digits: of fewer all fit into 64 bits
# What stands where reading stops, if a number, a word or an escape was cut.
_BEGUN = r"-?|[.eE][+-]?|t(ru?)?|f(a(ls?)?)?|n(ul?)?|u[0-9a-fA-F]{0,4}"

loads_strict = orjson.loads
"""orjson's own decoder: raises ValueError for anything that is not strict JSON."""


def loads(data: bytes) -> Any:
    """Decode JSON, forgiving bytes that are no UTF-8 and escapes of lone surrogates; each becomes U+FFFD.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        return mend(_loosely(data, _decode))


def loads_answer(data: bytes) -> Any:
    """Decode JSON as `loads` does, but let strings hold control characters: some endpoints send them as they are.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        return mend(loads_loose(data))


def loads_loose(data: bytes) -> Any:
    """Decode JSON as `loads_answer` does, but let strings hold lone surrogates: the rest may be in the next event.

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
    """Decode strict JSON; whole numbers stay as they are, however long.

    Raises:
        ValueError: It is not strict JSON.
    """
    return with_long_numbers(loads_strict(data), data)


def with_long_numbers(value: Any, data: bytes) -> Any:
    """What a strict decoder has made of the data, with its whole numbers as they stand there: it rounds long ones."""
    if data.translate(_AS_ZEROS).find(_LONG_NUMBER) >= 0:  # no `in`: it raises an error within
        with suppress(ValueError):  # nested too deeply for the decoder that has room
            return mend(loads_loose(data))
    return value


def ends_within(error: ValueError) -> bool:
    """Whether the text that `loads_answer` could not read is the beginning of JSON: it was cut off."""
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
    """A number or a truth value of another kind, such as numpy's, which data frames hold, as one of Python's.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if type(value).__name__ in ("bool", "bool_"):  # numpy's, which no abstract class of Python's knows
        return bool(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=plain_scalar).encode
_decode = json.JSONDecoder(parse_int=_integer).decode
_decode_any = json.JSONDecoder(parse_int=_integer, strict=False).decode


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of decoded JSON in which every string is changed, those that are keys too."""
    top = [value]
    todo: list[Any] = [top]  # no recursion: the depth is the sender's choice
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
    """A copy of decoded JSON to every string of which `join_surrogates` was applied."""
    return map_strings(value, join_surrogates)


def dumps(value: Any) -> bytes:
    """Encode as JSON; lone surrogates become U+FFFD, and what is no number (NaN, the infinities) null.

    Raises:
        ValueError: It holds something that JSON has no form for.
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
        ValueError: It holds something that JSON has no form for.
    """
    data = dumps(value)
    if data.find(b"null") >= 0 and _holds_nan(value):
        raise ValueError("NaN and Infinity are no numbers of JSON")
    return data


def _holds_nan(value: Any) -> bool:
    """Whether a float somewhere in it is not finite."""
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
    """Join surrogate pairs into the characters they mean; a lone one becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def as_text(value: Any) -> Any:
    """A number, true or false as the text that it is, anything else as it stands.

    Cloudflare reads the pieces of its answers as JSON where it can (cloudflare/ai#651): the text `6` comes as 6.
    """
    return json.dumps(value) if isinstance(value, int | float) else value


def string_of(value: Any) -> str:
    """A string, or a number as one; empty of anything else, which may be nested too deeply for `str`."""
    return str(value) if isinstance(value, str | int | float) else ""


def index_of(value: Any) -> int | None:
    """The number that stands where an index belongs, be it written as `"1"` or `1.0`; None of anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return int(value)
    return value if type(value) is int else None

"""Checks of arguments: an invalid value is refused where it is passed, and the message names the argument.

In: a value, and the name of its argument. Out: the same value, or a ValueError; or which kind of value it is, and how
many items it holds. Never touched: what the value is used for.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "checked_count",
    "checked_flag",
    "checked_kind",
    "checked_path",
    "count_of",
    "is_many",
    "is_number",
    "is_table",
]


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold; True and False do not count."""
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= sys.float_info.max


def checked_count(value: Any, argument: str, least: int = 1, *, optional: bool = False) -> Any:
    """The value, if it is a whole number of at least `least`, or None where that is allowed (`optional`).

    Raises:
        ValueError: It is anything else.
    """
    if (value is not None or not optional) and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ValueError(f"{argument} must be a whole number of at least {least}{' or None' * optional}, not {value!r}")
    return value


def checked_flag(value: Any, argument: str) -> bool:
    """The value, if it is True or False. Anything else is refused: the string "no" would count as true.

    Raises:
        ValueError: It is not. The message does not show it: somebody may pass the key itself as `pickle_key`.
    """
    if value is not True and value is not False:
        raise ValueError(f"{argument} must be True or False, not {type(value).__name__}")
    return value


def checked_kind(value: Any, kind: type, argument: str) -> Any:
    """The value, if it is an instance of `kind`.

    Raises:
        ValueError: It is not. The message does not show it: it may be a secret.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{argument} must be of type {kind.__name__}, not {type(value).__name__}")
    return value


def checked_path(value: Any, argument: str) -> Path:
    """The value as a path.

    Raises:
        ValueError: It cannot be the path of a file.
    """
    try:
        path = Path(value)
    except TypeError:  # for bytes, too
        raise ValueError(f"{argument} must be a string or a Path, not {type(value).__name__}") from None
    if "\0" in str(path):
        raise ValueError(f"{argument} must not contain a NUL character: {str(path)!r}")
    return path


def is_many(inputs: Any) -> bool:
    """Whether inputs can be iterated over; a string is a single input, and so is a dict."""
    by_turns = isinstance(inputs, Iterable | AsyncIterable) or hasattr(inputs, "__getitem__")  # as torch's datasets
    return by_turns and not isinstance(inputs, str | bytes | Mapping)


def is_table(inputs: Any) -> bool:
    """Whether inputs are a data frame of any library: iterating over one gives columns or their names, not rows."""
    return any(kind.__name__ == "DataFrame" for kind in type(inputs).__mro__)


def count_of(inputs: Any) -> int | None:
    """How many inputs there are; None if unknown, as for a generator, or a progress bar around one."""
    try:
        return len(inputs)
    except Exception:
        return None

"""Checks of arguments: what cannot be right is refused where it is given, and the message names it.

In: a value, and the name of its argument. Out: the same value, or a ValueError; or what kind of value it is, and how
many it holds. Never touched: what the value is for.
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
    """Whether it is a number that a float can hold; True and False are none."""
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= sys.float_info.max


def checked_count(value: Any, argument: str, least: int = 1, *, optional: bool = False) -> Any:
    """The value, if it is a whole number, and not too small; None, too, where it is `optional`.

    Raises:
        ValueError: It is not.
    """
    if (value is not None or not optional) and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise ValueError(f"{argument} must be a whole number of at least {least}{' or None' * optional}, not {value!r}")
    return value


def checked_flag(value: Any, argument: str) -> bool:
    """The value, if it is True or False: "no" would be taken for yes.

    Raises:
        ValueError: It is not. The message does not show it: whoever takes `pickle_key` for the key gives a secret.
    """
    if value is not True and value is not False:
        raise ValueError(f"{argument} must be True or False, not {type(value).__name__}")
    return value


def checked_kind(value: Any, kind: type, argument: str) -> Any:
    """The value, if it is of this kind.

    Raises:
        ValueError: It is not. The message does not show it: it may be a secret.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{argument} must be of the type {kind.__name__}, not {type(value).__name__}")
    return value


def checked_path(value: Any, argument: str) -> Path:
    """The path of a file, if it can be one.

    Raises:
        ValueError: It cannot.
    """
    try:
        path = Path(value)
    except TypeError:  # of bytes, too
        raise ValueError(f"{argument} must be a string or a Path, not {type(value).__name__}") from None
    if "\0" in str(path):
        raise ValueError(f"{argument} must not hold a NUL character: {str(path)!r}")
    return path


def is_many(inputs: Any) -> bool:
    """Whether they can be taken one after another; a text is one input, and so is a dict."""
    by_turns = isinstance(inputs, Iterable | AsyncIterable) or hasattr(inputs, "__getitem__")  # as torch's data sets
    return by_turns and not isinstance(inputs, str | bytes | Mapping)


def is_table(inputs: Any) -> bool:
    """Whether they are a data frame, of any library: those of pandas and polars give their columns, not their rows."""
    return any(kind.__name__ == "DataFrame" for kind in type(inputs).__mro__)


def count_of(inputs: Any) -> int | None:
    """How many there are, or None where nobody knows, such as of a generator, or of a progress bar around one."""
    try:
        return len(inputs)
    except Exception:
        return None

"""What error trackers show of an error."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["captured"]


def captured(raised: BaseException) -> str:
    """What an error tracker shows if it captures the local variables of all frames; those of the tests are left out."""
    shown: list[str] = []
    pending: list[BaseException | None] = [raised]
    seen: set[int] = set()
    while pending:
        error = pending.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        pending += [error.__cause__, error.__context__]
        shown += [repr(error), repr(vars(error))]
        for frame, line in traceback.walk_tb(error.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                shown += [
                    f"{frame.f_code.co_filename}:{line} {name} = {_told(v)}" for name, v in frame.f_locals.items()
                ]
    return "\n".join(shown)


def _told(value: Any) -> str:
    """A value as shown by trackers that look beyond its repr: into mappings, and the fields of attrs classes."""
    if isinstance(value, Mapping):
        return repr({repr(key): _told(part) for key, part in value.items()})
    if attrs.has(type(value)):
        return repr([_told(getattr(value, field.name)) for field in attrs.fields(type(value)) if field.repr])
    return repr(value)

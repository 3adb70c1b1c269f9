"""The arguments of `run_batch`, checked: one value that planning, feeding and running share.

In: the arguments as the caller gave them. Out: `JobSettings`, or an error that says which of them is wrong. Never
touched: any file. A mistake that is not refused here would fail every row, one by one.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from io import IOBase
from os import PathLike
from typing import Any, Literal, TypeAlias, get_args

from attrs import define, field
from attrs.converters import optional

from ..checks import checked_count, checked_flag, checked_path, is_number, is_table
from ..parameters import Concurrency, check_names
from ..progress.price import Price
from ..progress.show import ProgressOption
from .files import Files
from .journal import Sync
from .template import Template

__all__ = ["JobSettings", "OnBadLine", "Source", "check_common", "check_source"]

Source: TypeAlias = str | PathLike[str] | Iterable[Any] | AsyncIterable[Any]
OnBadLine: TypeAlias = Literal["fail", "skip"]


@define(frozen=True, eq=False, repr=False)
class JobSettings:
    """The settings of the whole batch; see `run_batch`. `Run` checks `concurrency` and `progress`.

    Raises:
        ValueError: A value is invalid.
    """

    files: Files
    concurrency: Concurrency = "auto"
    template: Template | None = field(default=None, converter=optional(Template))
    limit: int | None = None
    on_bad_line: OnBadLine = "fail"
    fresh: bool = False
    retry_permanent: bool = False
    allow_changed: bool = False
    price: Price | None = None
    budget_usd: float | None = None
    sync: Sync = "group"
    sort: bool = False
    stream: bool = False
    progress: ProgressOption = False

    def __attrs_post_init__(self) -> None:
        for name, value, kind in (("sync", self.sync, Sync), ("on_bad_line", self.on_bad_line, OnBadLine)):
            if value not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(kind)))}, not {value!r}")
        for name in ("fresh", "retry_permanent", "allow_changed", "sort"):
            checked_flag(getattr(self, name), name)  # fresh="no" would throw everything away
        checked_count(self.limit, "limit", optional=True)
        if self.limit is not None and self.limit > sys.maxsize:
            raise ValueError(f"limit must be at most {sys.maxsize}, not {self.limit}: None means all rows")
        if self.budget_usd is not None:
            if self.price is None:
                raise ValueError("budget_usd needs price: without it the cost is unknown")
            if not (is_number(self.budget_usd) and self.budget_usd > 0):
                raise ValueError(f"budget_usd must be a positive number of USD, not {self.budget_usd!r}")


def check_common(parameters: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse parameters that cannot hold for all rows, and names that are not `known`.

    Raises:
        ValueError: A parameter belongs to the rows.
        TypeError: There is no such parameter.
    """
    for name in ("prompt", "messages"):
        if parameters.get(name) is not None:
            raise ValueError(f"{name} belongs in the rows: what is given here applies to all of them")
    check_names(parameters, (*known, "messages"), "run_batch")


def check_source(source: Source) -> None:
    """Refuse what cannot be a source, before any file is touched.

    Raises:
        ValueError: It is not a source.
    """
    known = isinstance(source, str | PathLike | Iterable | AsyncIterable)
    if not known or isinstance(source, bytes | bytearray | Mapping):
        raise ValueError(f"source must be a path, '-' or an iterable of rows, not {type(source).__name__}")
    if isinstance(source, str | PathLike):
        checked_path(source, "source")
    if is_table(source):
        raise ValueError(
            'a DataFrame yields its columns, not its rows: pass source=frame.to_dict("records") with pandas, '
            "frame.to_dicts() with polars"
        )
    if isinstance(source, IOBase):  # iterating over it would send its lines as prompts, JSON and all
        raise ValueError("source is an open file: give its path, '-' for standard input, or an iterable of rows")

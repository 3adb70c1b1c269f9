"""A stand-in for Arrow: what `contrib` needs of its tables, so that it can be tested without the extra."""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["Table", "arrow"]


class Column:
    """The values of one column."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    @property
    def null_count(self) -> int:
        return self._values.count(None)

    def __len__(self) -> int:
        return len(self._values)

    def slice(self, start: int, length: int) -> Column:
        return Column(self._values[start : start + length])

    def to_pylist(self) -> list[Any]:
        for value in self._values:
            if isinstance(value, bytes):  # stands for an Arrow string that is not valid UTF-8
                value.decode()
        return self._values


class Table:
    """Columns of the same length."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return min(map(len, self.columns.values()))

    def slice(self, start: int, length: int) -> Table:
        return Table({name: values[start : start + length] for name, values in self.columns.items()})

    def column(self, name: str) -> Column:
        return Column(self.columns[name])

    def to_pylist(self) -> list[dict[str, Any]]:
        columns = [self.column(name).to_pylist() for name in self.columns]
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*columns, strict=True)]

    def append_column(self, name: str, values: list[Any]) -> Table:
        return Table({**self.columns, name: values})


_KINDS = {"string": str, "int64": int, "double": float}


def _array(values: list[Any], type: str) -> list[Any]:
    """Like Arrow, it takes only values of the type, and nulls."""
    for value in values:
        if value is not None and not isinstance(value, _KINDS[type]):
            raise TypeError(f"{value!r} is no {type}")
    return values


arrow = ModuleType("pyarrow")
arrow.array = _array  # type: ignore[attr-defined]

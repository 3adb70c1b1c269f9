"""Stand-ins for the tables of other libraries, and for the scalars in them."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real

__all__ = ["Bool", "DataFrame", "Float32", "GeoDataFrame", "Int64"]


class DataFrame:
    """Like that of pandas: iterating over it gives the names of its columns."""

    def __iter__(self) -> Iterator[str]:
        return iter(["prompt"])


class GeoDataFrame(DataFrame):
    """Like that of geopandas."""


@Integral.register
class Int64:
    """Like that of numpy: not an int, but registered as a whole number."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


@Real.register
class Float32:
    """Like that of numpy: not a float, but registered as a real number."""

    def __init__(self, value: str) -> None:
        self._value = float(value)

    def __float__(self) -> float:
        return self._value


class Bool:
    """As that of numpy: no bool, and registered as nothing."""

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value


Bool.__name__ = "bool"

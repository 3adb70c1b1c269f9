"""Tables of other libraries."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["DataFrame", "GeoDataFrame"]


class DataFrame:
    """As that of pandas: it gives the names of its columns."""

    def __iter__(self) -> Iterator[str]:
        return iter(["prompt"])


class GeoDataFrame(DataFrame):
    """As that of geopandas."""

"""Files of rows, and what is read from them, for the tests of their readers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rusty_agent.batch.rows import BadLine, Row
from rusty_agent.batch.source import FileSource, open_source

BOM = b"\xef\xbb\xbf"


def source_of(folder: Path, data: bytes, name: str = "in.jsonl", **options: Any) -> FileSource:
    path = folder / name
    path.write_bytes(data)
    return open_source(path, **options)


def prompts_of(rows: Iterable[Row | BadLine]) -> list[tuple[int, Any]]:
    """The line and the prompt of each row; the prompt is None for a bad line."""
    return [(row.line, row.parameters["prompt"] if isinstance(row, Row) else None) for row in rows]

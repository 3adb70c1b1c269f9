"""A table, CSV or TSV → its records, one at a time.

In: the table's bytes. Out: records as columns by name, and what is wrong with the others, each with the line where it
begins. Never touched: what becomes of a record.
"""

from __future__ import annotations

import csv
import gzip
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeAlias

__all__ = ["Readable", "records"]

_BLOCK = 2**18  # characters

_csv_limit = threading.Lock()

Readable: TypeAlias = io.BufferedReader | gzip.GzipFile


def records(
    file: Readable, delimiter: str, *, require: Callable[[list[str] | str], object], longest: int
) -> Iterator[tuple[int, dict[str, str] | str]]:
    """The records of a table, each with the number of its first line, from 1; blank ones are left out.

    Args:
        file: The table, not closed here.
        delimiter: What separates two columns.
        require: Called with the header, or with what is wrong with it; raises if the header is unfit.
        longest: How many characters a record may have.

    Yields:
        The columns by their names; or what is wrong with a record, in words.
    """
    header: list[str] | None = None
    # Bytes that are not UTF-8 become lone surrogates here, so that only their own record is bad.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        lines = _TableLines(text, longest)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while (record := _next_record(reader, lines)) is not None:
            if header is None:
                require(record)
                header = list(record)
            elif isinstance(record, str):
                yield lines.first, record
            elif len(record) != len(header):
                yield lines.first, f"{len(record)} columns where the header has {len(header)}"
            else:
                yield lines.first, dict(zip(header, record, strict=True))
    finally:
        with suppress(ValueError):  # the file was closed
            text.detach()  # or the wrapper would close the file, which belongs to the caller


class _TooLongError(Exception):
    """A record is longer than the cap."""


class _TableLines:
    """The lines of a table, with any line ends, for csv to read. It counts them, and caps the length of a record."""

    def __init__(self, text: io.TextIOWrapper, longest: int) -> None:
        self._text = text
        self.longest = longest
        self._line = 0

    def begin(self) -> None:
        """Note that a record begins with the next line; call it before the first, too."""
        self.first = self._line + 1
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = self._text.readline(self.longest + 1)
        if not text:
            raise StopIteration
        self._line += 1
        self._size += len(text)
        if self._size > self.longest:
            while text and not text.endswith(("\n", "\r")):
                text = self._text.readline(_BLOCK)
            raise _TooLongError
        return text


def _next_record(reader: Iterator[list[str]], lines: _TableLines) -> list[str] | str | None:
    """The next record that is not blank, or what is wrong with it; None at the end.

    csv has one limit on the length of a field for the whole process. We raise it only while a record is parsed. The
    only code that could notice is another thread that uses csv at that very moment: it gets a higher limit.
    """
    record: list[str] = []
    while not record:
        lines.begin()
        try:
            with _csv_limit:
                usual = csv.field_size_limit(lines.longest)
                try:
                    record = next(reader)
                finally:
                    csv.field_size_limit(usual)
        except StopIteration:
            return None
        except csv.Error as error:
            return f"not CSV: {error}"
        except _TooLongError:
            return f"longer than {lines.longest} characters (is a closing quote missing?)"
    text = "".join(record)
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not UTF-8: save it as UTF-8"
    return "holds a NUL byte: save it as UTF-8" if "\0" in text else record

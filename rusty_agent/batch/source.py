"""A file of requests, or a list → rows, which can be read several times: once to check them all, once to send them.

In: the path of a file of JSON lines or of a table (CSV, TSV), gzipped or not; or standard input; or values. Out: rows
one at a time, what is wrong with the others, the input's digest. Never touched: the file's contents, the network, the
output.

Input that cannot be read twice (a pipe, standard input) is first copied into a temporary file without a name.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import select
import sys
import tempfile
import threading
import weakref
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from ..errors import BatchError
from ..remedy import with_remedy
from ..wire.words import printable
from .files import LOOK_EVERY, given_up_error
from .input import Input
from .rows import BadLine, Row, as_bytes, parse_line, parse_row
from .table import Readable, records
from .template import Template

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["MAX_LINE_BYTES", "FileSource", "ListSource", "open_source"]

MAX_LINE_BYTES = 64 * 2**20
"""The longest line; in a table the longest record, in characters. It has room for images, and fits easily in memory."""

_BLOCK = 2**18
_WIDE_BOMS = (BOM_UTF16_LE, BOM_UTF16_BE)  # as `>` of Windows PowerShell writes; UTF-32 LE begins with the former too
_ASK_SECONDS = 0.1
_GZIP = b"\x1f\x8b"
_PROMPT_COLUMN = Template("{prompt}")

_Stamp: TypeAlias = tuple[int, int, int, int]


def open_source(
    source: str | PathLike[str],
    *,
    template: Template | None = None,
    spool_folder: str | PathLike[str] | None = None,
    given_up: Callable[[], bool] = lambda: False,
) -> FileSource:
    """The source of rows for a path, or for standard input.

    Args:
        source: A path, or `"-"`. A name that ends in `.csv` or `.tsv`, with or without `.gz` after it, is that of a
            table; anything else is lines of JSON. Gzip is recognised by its first bytes.
        template: Makes the prompts from the columns. Without one, a table needs a column `prompt`.
        spool_folder: Where to copy input that cannot be read twice. Default: the system's folder for temporary files.
        given_up: Called while such input is waited for, which may be for ever, and while rows are read; true once the
            batch was given up.

    Raises:
        BatchError: It cannot be read, or the batch was given up.
    """
    if source == "-":
        stdin = getattr(sys.stdin, "buffer", None)
        if stdin is None or stdin.closed:
            raise BatchError("standard input is closed: redirect a file into it, or name the file instead of -")
        spool = _spooled(stdin, "standard input", spool_folder, given_up)
        return FileSource(Path("standard input"), template, spool, given_up)
    path = Path(source)
    with _open(path) as file:
        copy = None if file.seekable() else _spooled(file, str(path), spool_folder, given_up)
        return FileSource(path, template, copy, given_up)


def _open(path: Path, kind: Callable[[Path], io.FileIO] = io.FileIO) -> io.BufferedReader:
    try:
        return io.BufferedReader(kind(path), _BLOCK)
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {with_remedy(error)}") from error


def _spooled(
    file: io.BufferedReader, name: str, folder: str | PathLike[str] | None, given_up: Callable[[], bool]
) -> BinaryIO:
    """A copy of input that cannot be read twice."""
    try:
        with ExitStack() as on_failure:
            spool = on_failure.enter_context(tempfile.TemporaryFile(dir=folder))
            while data := _next_block(file, name, given_up):
                spool.write(data)
            spool.flush()
            on_failure.pop_all()
            return spool
    except OSError as error:
        where = folder or tempfile.gettempdir()
        raise BatchError(
            f"{name} cannot be copied to {where}, which is needed to read it twice: {with_remedy(error)} "
            "Or save it as a file and name that."
        ) from error


def _next_block(file: io.BufferedReader, name: str, given_up: Callable[[], bool]) -> bytes:
    """The next bytes, or none at the end. Polls, because a thread blocked in `read` would never see `given_up`."""
    with suppress(OSError, ValueError):  # no descriptor; or Windows, where `select` takes only sockets
        while not select.select([file], [], [], _ASK_SECONDS)[0]:
            if given_up():
                raise given_up_error(name)
    return file.read1(_BLOCK)


class _FileReader(io.FileIO):
    """A file that calls `look` after each block that it reads, before any row is made from it."""

    def __init__(self, path: Path, look: Callable[[_Stamp | None], object]) -> None:
        super().__init__(path)
        self._look = look

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = super().readinto(buffer)
        self._look(self.stamp())
        return count

    def stamp(self) -> _Stamp:
        """Values that change when somebody writes to the file, or when another file has taken its name."""
        status = os.fstat(self.fileno())
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _SpoolReader(io.RawIOBase):
    """Reads a spool from its beginning; each reader has its own position. Nobody else can change the spool."""

    def __init__(self, spool: BinaryIO, lock: threading.Lock, look: Callable[[_Stamp | None], object]) -> None:
        self._spool = spool
        self._lock = lock
        self._look = look
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        with self._lock:
            self._spool.seek(self._position)
            data = self._spool.read(len(view))
        view[: len(data)] = data
        self._position += len(data)
        self._look(None)
        return len(data)


class ListSource(Input):
    """Rows that the caller has in memory, in any sequence; `given_up` as in `open_source`."""

    def __init__(
        self, values: Sequence[Any], template: Template | None, given_up: Callable[[], bool] = lambda: False
    ) -> None:
        self._values = values
        self._template = template
        self._given_up = given_up

    def digest(self) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        for _, value in self._numbered(None):
            data = as_bytes(value)
            digest.update(data + b"\n")
            size += len(data) + 1
        return digest.hexdigest(), size

    def rows(
        self, *, limit: int | None = None, check: bool = False, done: Set[str] = frozenset()
    ) -> Iterator[Row | BadLine]:
        for line, value in self._numbered(limit):
            yield parse_row(value, line, template=self._template, check=check, done=done)

    def _numbered(self, limit: int | None) -> Iterator[tuple[int, Any]]:
        for line, value in enumerate(islice(self._values, limit), 1):
            if line % LOOK_EVERY == 0 and self._given_up():
                raise given_up_error("the list of rows")
            yield line, value


class FileSource(Input):
    """A file of requests; `open_source` makes it."""

    def __init__(
        self, path: Path, template: Template | None, spool: BinaryIO | None, given_up: Callable[[], bool]
    ) -> None:
        self.name: str = str(path)
        self._path = path.absolute() if spool is None else path  # the working folder may change
        self._template = template
        self.delimiter = {".csv": ",", ".tsv": "\t"}.get(Path(path.name.lower().removesuffix(".gz")).suffix)
        self._spool = spool
        self._given_up = given_up
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None  # of the file that was digested
        if spool is not None:
            weakref.finalize(self, spool.close)

    def digest(self) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        view = memoryview(bytearray(_BLOCK))
        with self._raw() as file:
            self._stamp = file.raw.stamp() if isinstance(file.raw, _FileReader) else None
            while count := file.readinto(view):
                digest.update(view[:count])
                size += count
        return digest.hexdigest(), size

    def rows(
        self, *, limit: int | None = None, check: bool = False, done: Set[str] = frozenset()
    ) -> Iterator[Row | BadLine]:
        line, read = 0, self._records if self.delimiter else self._lines
        try:
            with self._raw() as raw, _unpacked(raw) as file:
                if file.peek(2).startswith(_WIDE_BOMS):
                    raise BatchError(f"{self.name} is UTF-16, which cannot be read: save it as UTF-8.")
                for row in islice(read(file, check, done), limit):
                    line = row.line
                    yield row
        except (EOFError, zlib.error, OSError) as error:
            damaged = f"{error}. It may be damaged or cut short. Create it again."
            said = with_remedy(error) if getattr(error, "errno", None) else damaged
            raise BatchError(f"{self.name} cannot be read past line {line}: {said}") from error

    def _look(self, stamp: _Stamp | None) -> None:
        """Raise if the file is no longer the one that was digested and checked, or if the batch was given up."""
        if self._given_up():
            raise given_up_error(self.name)
        if self._stamp is not None and stamp != self._stamp:
            raise BatchError(
                f"{self.name} changed while it was being read. Start again once whatever writes it is done; if rows "
                "of it were sent, with allow_changed=True: their answers are kept."
            )

    def _raw(self) -> io.BufferedReader:
        if self._spool is None:
            return _open(self._path, partial(_FileReader, look=self._look))
        return io.BufferedReader(_SpoolReader(self._spool, self._lock, self._look), _BLOCK)

    def _lines(self, file: Readable, check: bool, done: Set[str]) -> Iterator[Row | BadLine]:
        template = self._template
        for line, data in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), 1):
            if len(data) > MAX_LINE_BYTES and not data.endswith(b"\n"):
                while data and not data.endswith(b"\n"):
                    data = file.readline(_BLOCK)
                yield BadLine(line, f"longer than {MAX_LINE_BYTES} bytes")
                continue
            if line == 1:
                data = data.removeprefix(BOM_UTF8)
            if data := data.strip():
                yield parse_line(data, line, template=template, check=check, done=done)

    def _records(self, file: Readable, check: bool, done: Set[str]) -> Iterator[Row | BadLine]:
        """The rows of a table; a row's line is the first line of its record."""
        template, delimiter = self._template or _PROMPT_COLUMN, self.delimiter or ","
        for line, record in records(file, delimiter, require=self._require, longest=MAX_LINE_BYTES):
            if isinstance(record, str):
                yield BadLine(line, record)
            else:
                yield parse_row(record, line, template=template, check=check, done=done)

    def _require(self, header: list[str] | str) -> None:
        """Refuse an unfit header, or a first record that cannot be read."""
        if isinstance(header, str):
            raise BatchError(f"{self.name}: the header cannot be read: {header}")
        if len(set(header)) < len(header):
            raise BatchError(printable(f"{self.name}: two columns have the same name. Rename one: {header}"))
        try:
            (self._template or _PROMPT_COLUMN).require(header)
        except ValueError as error:
            said = (
                str(error) if self._template else str(error).replace("the template", "without a template, a table", 1)
            )
            if len(header) == 1 and any(other in header[0] for other in ",;\t"):
                said += "; columns are separated by commas in a .csv, by tabs in a .tsv"
            raise BatchError(printable(f"{self.name}: {said}")) from None


@contextmanager
def _unpacked(file: io.BufferedReader) -> Iterator[Readable]:
    if file.peek(2).startswith(_GZIP):
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked
    else:
        yield file

"""What earlier runs of a batch have left behind.

In: the output and the errors file, line by line. Out: which rows are done, which have failed for good, and which
lines are useless. Never touched: anything but those two files, and only `repair` and `drop_lines` change them.

A power cut can leave holes: lines that reached the disk only in part. Their rows count as not done. A last line
without its newline, left by a crash, is ignored here; opening a `Journal` cuts it off.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from attrs import define, field

from ..errors import BatchError
from ..remedy import with_remedy
from ..wire.codec import loads
from .files import BLOCK_BYTES, LOOK_EVERY, Files, given_up_error, replace_atomically
from .lines import BAD_LINE, ID_PREFIX

__all__ = ["MAX_RESULT_BYTES", "Index", "Told", "drop_lines", "identify", "read_lines", "repair", "scan", "scan_errors"]

MAX_RESULT_BYTES = 256 * 2**20
"""A longer line in a batch's files counts as damaged, and is not kept in memory: it can only be a hole."""

_BEGINNING = f'{{"id":"{ID_PREFIX}'.encode()


class Told(NamedTuple):
    """What a line of a batch says: its row, the contents of `x_rusty`, and whether the row has failed."""

    custom_id: str
    facts: dict[str, Any]
    failed: bool


@define
class Index:
    """What a batch finds when it begins.

    Attributes:
        done: Every `custom_id` with a result in the output.
        permanent: Every other `custom_id` whose last error is permanent.
        failed: How many rows have errors and no result.
        useless_results: Where lines of the output start that are not a batch's results, or repeat the row of an earlier
            line.
        useless_errors: Where lines of the errors file start that are damaged, or superseded by a result or by a later
            error of the same row.
        bad_lines: Where lines of the errors file start that report bad lines of the input.
    """

    done: set[str] = field(factory=set)
    permanent: set[str] = field(factory=set)
    failed: int = 0
    useless_results: array[int] = field(factory=lambda: array("Q"))
    useless_errors: array[int] = field(factory=lambda: array("Q"))
    bad_lines: array[int] = field(factory=lambda: array("Q"))


def scan(files: Files, marks: dict[str, str] | None = None, given_up: Callable[[], bool] = lambda: False) -> Index:
    """Read both files; a missing file counts as empty.

    Args:
        files: The batch's files, whose lock is held.
        marks: Filled with the marks of rows without a name, by `custom_id`; see `Row.mark`.
        given_up: Called while they are read; true once the batch was given up.

    Raises:
        BatchError: A file cannot be read, or is not a batch's, so that going on would damage it. Or the batch was given
            up.
    """
    index = Index()
    done, useless = index.done, index.useless_results
    begun = files.manifest.exists()  # the manifest is written before any line
    for start, told in _lines_of(files.output, useless, begun, given_up, results=True):
        if told.custom_id in done:
            useless.append(start)
            continue
        done.add(told.custom_id)
        _keep_mark(told, marks)
    scan_errors(files.errors, index, marks, given_up, begun=begun)
    index.useless_errors += index.bad_lines  # each run reports bad lines anew
    return index


def scan_errors(
    errors: Path,
    index: Index,
    marks: dict[str, str] | None = None,
    given_up: Callable[[], bool] = lambda: False,
    *,
    begun: bool = True,
) -> None:
    """Read an errors file into an index whose `done` is filled already.

    Raises:
        BatchError: As `scan`.
    """
    last: dict[str, int] = {}  # by row: twice the place where its last line starts, plus one if that line is permanent
    for start, told in _lines_of(errors, index.useless_errors, begun, given_up):
        custom_id, facts, failed = told
        if not failed:  # an answer: it would be dropped as if it were an error
            raise BatchError(f"{errors} holds answers, so it is left alone. Name another output, or move it away.")
        if facts.get("kind") == BAD_LINE:
            index.bad_lines.append(start)
        elif custom_id in index.done:
            index.useless_errors.append(start)
        else:
            if custom_id in last:
                index.useless_errors.append(last[custom_id] >> 1)
            last[custom_id] = start << 1 | (facts.get("permanent") is True)
            _keep_mark(told, marks)
    index.failed = len(last)
    index.permanent = {custom_id for custom_id, place in last.items() if place & 1}


def _lines_of(
    path: Path, useless: array[int], begun: bool, given_up: Callable[[], bool], *, results: bool = False
) -> Iterator[tuple[int, Told]]:
    """What a batch's lines say, and where each starts. Damaged lines, and errors among results, go to `useless`.

    Raises:
        BatchError: No batch has written the file: repairing it, or cutting off its tail, would destroy it. Or the batch
            was given up.
    """
    good = damaged = 0
    for number, (start, _, line) in enumerate(read_lines(path), 1):
        if number % LOOK_EVERY == 0 and given_up():
            raise given_up_error(path)
        told = identify(line)
        if told is None or (results and told.failed):
            damaged += 1
            useless.append(start)
        else:
            good += 1
            yield start, told
    if not path.exists() or (good and (begun or not damaged)):
        return
    with path.open("rb") as file:
        beginning = file.read(len(_BEGINNING))
    # A crash may have left only the beginning of the first line, or zeros instead.
    if (damaged and not begun) or not _BEGINNING.startswith(beginning.rstrip(b"\0")):
        raise BatchError(
            f"{path} exists and holds {'lines that are not' if good else 'no lines'} from a batch, so it is left "
            "alone. Name another output, or move it away."
        )


def repair(files: Files, index: Index) -> None:
    """Drop useless lines: damaged ones, all but the first result of a row, all but the last error of a row.

    Nothing may have changed the files since the scan, and no journal may have them open.

    Raises:
        BatchError: A file cannot be replaced; both are whole.
    """
    for path, useless in ((files.output, index.useless_results), (files.errors, index.useless_errors)):
        if useless:
            drop_lines(path, useless)
            del useless[:]  # these places no longer mean the same lines


def drop_lines(path: Path, starts: Iterable[int]) -> None:
    """Rewrite a file without the lines that start at these places.

    Raises:
        BatchError: It cannot be replaced, and is as it was.
    """
    dropped = frozenset(starts)
    replace_atomically(path, (line for start, _, line in read_lines(path) if start not in dropped))


def read_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The complete lines of a file, one at a time: where each starts and ends, and its bytes with the newline.

    A line longer than `MAX_RESULT_BYTES` is yielded as `b""`. A missing file has no lines.

    Raises:
        BatchError: The file cannot be read.
    """
    try:
        with path.open("rb", buffering=BLOCK_BYTES) as file:
            start = 0
            for line in iter(partial(file.readline, MAX_RESULT_BYTES), b""):
                end = start + len(line)
                if not line.endswith(b"\n"):
                    rest = line
                    while not rest.endswith(b"\n"):
                        rest = file.readline(BLOCK_BYTES)
                        end += len(rest)
                        if not rest:
                            return
                    line = b""
                yield start, end, line
                start = end
    except FileNotFoundError:
        return
    except OSError as error:
        raise BatchError(
            f"{path} cannot be read: {with_remedy(error)} Without it the batch cannot tell which rows are done. You "
            "can also name another output."
        ) from error


def identify(line: bytes) -> Told | None:
    """What a line says; None if it is damaged, or not a batch's."""
    try:
        value = loads(line)
    except ValueError:
        return None
    try:
        name, custom_id, response, error = value["id"], value["custom_id"], value["response"], value["error"]
    except (TypeError, KeyError):  # another line, such as a request, which has a custom_id too
        return None
    if not isinstance(name, str) or not name.startswith(ID_PREFIX) or not isinstance(custom_id, str):
        return None
    facts = value.get("x_rusty")
    failed = isinstance(error, dict) or (isinstance(response, dict) and response.get("status_code", 200) != 200)
    return Told(custom_id, facts if isinstance(facts, dict) else {}, failed)


def _keep_mark(told: Told, marks: dict[str, str] | None) -> None:
    if marks is not None and isinstance(mark := told.facts.get("mark"), str):
        marks[told.custom_id] = mark

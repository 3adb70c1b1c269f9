"""The last steps of a batch: tidying its files.

In: the output and the errors file, when nobody writes to them any more. Out: the same lines without those that later
ones have superseded, in the order of the input. Never touched: what the lines say.

Each step replaces a file as a whole, so a crash leaves the old one or the new one. All of it blocks: on an event
loop, run it in a thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .files import Files, remove, replace_atomically
from .index import Index, Told, drop_lines, identify, read_lines, scan_errors
from .lines import BAD_LINE

__all__ = ["drop_superseded", "sort_output"]

_PLACE_BITS = 48  # the low bits of a sort key: the line's place in the file; above them is the input's line number
_UNNUMBERED = 2**63


def drop_superseded(files: Files, done: set[str]) -> None:
    """Keep in the errors file only the last line of each row that has no result; remove the file if none is left.

    Args:
        files: The batch's files, whose lock is held.
        done: Every `custom_id` that has a result.

    Raises:
        BatchError: The file cannot be read or replaced; it is whole.
    """
    index = Index(done)
    scan_errors(files.errors, index)
    if not index.failed and not index.bad_lines:
        remove(files.errors)
    elif index.useless_errors:
        drop_lines(files.errors, index.useless_errors)


def sort_output(files: Files, lines: Mapping[str, int] | None = None) -> None:
    """Put the results and the errors into the order of the input, by `x_rusty.line`; lines without it come last.

    Takes about 72 bytes of memory per line. A file that is already in order is only read.

    Args:
        files: The batch's files, whose lock is held.
        lines: The present line of each row in the input, by `custom_id`, if the input has changed since rows were
            answered; rows that are not in it come last.

    Raises:
        BatchError: A file cannot be read or replaced; both are whole.
    """
    for path in (files.output, files.errors):
        _sort(path, lines)


def _sort(path: Path, lines: Mapping[str, int] | None) -> None:
    borders = array("Q", [0])
    keys: list[int] = []
    for _, end, line in read_lines(path):
        told = identify(line)
        number = None if told is None else _number(told, lines)
        if type(number) is not int or not 0 <= number < _UNNUMBERED:
            number = _UNNUMBERED
        keys.append(number << _PLACE_BITS | len(keys))
        borders.append(end)
    keys.sort()
    places = array("Q", (key & 2**_PLACE_BITS - 1 for key in keys))
    del keys
    if any(place != expected for expected, place in enumerate(places)):
        replace_atomically(path, _pick(path, borders, places))


def _number(told: Told, lines: Mapping[str, int] | None) -> Any:
    """The line's number in the input."""
    if lines is None or told.facts.get("kind") == BAD_LINE:  # this run wrote these itself, with present numbers
        return told.facts.get("line")
    return lines.get(told.custom_id)


def _pick(path: Path, borders: array[int], places: array[int]) -> Iterator[bytes]:
    with path.open("rb") as file:  # a large buffer would be refilled for each line: 26 s instead of 1 for 200,000 lines
        for place in places:
            file.seek(borders[place])
            yield file.read(borders[place + 1] - borders[place])

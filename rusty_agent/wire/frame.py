"""Reads chunks that differ from the previous one only in their text, as most do, without decoding them in full.

In: the bytes of a chunk that was decoded in full; then those of the next chunks. Out: their texts. Never touched: any
chunk that differs in more, which takes the long way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..types import UsageUpdate
from .codec import dumps, loads_strict
from .delta import Delta
from .plain import PADDING_KEYS
from .usage import parse_usage

__all__ = ["NO_FRAME", "Frame", "Kind", "frame_of"]

Kind: TypeAlias = Callable[[str], Delta]

_PADDED = tuple(b',"%b":"' % key.encode() for key in PADDING_KEYS)
_AT_ONCE = 64  # chunks: if every few chunks one differs in more, those after it must not be copied again each time


class Frame:
    """The bytes around the text that one plain chunk after another has in common.

    Args:
        before: The bytes before the text.
        after: The bytes at the end.
        padding: If chunks are padded, the bytes between their text and the padding; else `b""`.
        kind: Makes a delta of the text: `str` leaves it as it is.
        counted: Token counts stand in the place of the padding.

    Attributes:
        kind: As the argument.
        counted: As the argument.
        useful: Whether a chunk has matched it; set by the code that finds one.
        lead: The bytes before the text in an event with such a chunk.
        trail: The bytes after the text.
        span: The slice between the two, which holds the text.
        least_of_two: The fewest bytes that two such events have: anything shorter is one. 0 if chunks are padded.
    """

    __slots__ = ("_after", "_before", "_padding", "counted", "kind", "lead", "least_of_two", "span", "trail", "useful")

    def __init__(
        self, before: bytes, after: bytes, padding: bytes = b"", kind: Kind = str, *, counted: bool = False
    ) -> None:
        self._before = before
        self._after = after
        self._padding = padding
        self.kind = kind
        self.counted = counted
        self.useful = False
        self.lead, self.trail = b"data: " + before, after + b"\n\n"
        self.span = slice(len(self.lead), -len(self.trail))
        self.least_of_two = 0 if padding or not before else 2 * len(self.lead + self.trail)

    def texts(self, events: list[bytes], start: int = 0) -> list[str]:
        """The texts of chunks from `start` on that differ in nothing else; it stops at the first other one, or earlier.

        Full decoding would give the same texts, but takes several times as long. No JSON string holds a bare quotation
        mark, so the bytes around the text cannot occur within it.
        """
        texts: list[str] = []
        before, after, padding = self._before, self._after, self._padding
        begin, end = len(before), -len(after)
        for data in events[start : start + _AT_ONCE] if start else events:
            if not (data.startswith(before) and data.endswith(after)):
                break
            string = data[begin:end]
            try:
                text = loads_strict(_unpadded(string, padding) if padding else string)
            except ValueError:
                break
            if type(text) is not str or not text or type(data) is not bytes:
                break
            texts.append(text)
        return texts

    def texts_and_counts(self, events: list[bytes], start: int = 0) -> list[Delta]:
        """As `texts`, if token counts follow each text (vLLM's `continuous_usage_stats`): two deltas per chunk.

        A chunk takes 3.2 µs; decoding it in full takes 7.
        """
        deltas: list[Delta] = []
        begin, end = len(self._before), -len(self._after)
        for data in events[start : start + _AT_ONCE]:
            if not (data.startswith(self._before) and data.endswith(self._after)):
                break
            string, _, counts = data[begin:end].partition(self._padding)
            try:
                text, usage = loads_strict(string), parse_usage(loads_strict(counts))
            except ValueError:
                break
            if type(text) is not str or not text or usage is None or type(data) is not bytes:
                break
            deltas += self.kind(text), UsageUpdate(usage)
        return deltas


def _unpadded(string: bytes, mark: bytes) -> bytes:
    """The bytes before the padding; `b""`, which is not JSON, if what follows does not look like padding."""
    string, found, padding = string.partition(mark)
    return string if found and (padding.isalnum() or not padding) else b""


NO_FRAME = Frame(b"", b"")  # stands for none: nobody asks it for texts


def frame_of(data: bytes, text: str, key: str, kind: Kind = str, counted: bool = False) -> Frame:
    """The frame of a plain chunk; `NO_FRAME` if it is not clear which bytes are the text.

    Args:
        data: The chunk's bytes.
        text: Its text.
        key: The key whose value is the text.
        kind: As for `Frame`.
        counted: The chunk also holds token counts.
    """
    name = b'"%b"' % key.encode()
    if data.count(name) != 1 or b"\n" in data:  # an event of several lines: joined, they are not the bytes that arrive
        return NO_FRAME
    start = len(data) - len(data.partition(name)[2].lstrip(b": "))
    string = dumps(text)
    before, after = data[:start], data[start + len(string) :]
    if not data.startswith(string, start) or b"\\u" in before or b"\\u" in after:  # escapes may spell the key again
        return NO_FRAME
    if counted:
        mark, name, counts = after.rpartition(b'"usage":')
        try:
            loads_strict(counts[:-1])
        except ValueError:  # other fields follow the counts
            return NO_FRAME
        return Frame(before, b"}", mark + name, kind, counted=True)
    for mark in _PADDED:
        if after.endswith(b'"}') and (apart := _unpadded(after[:-2], mark)):
            return Frame(before, b'"}', apart + mark, kind)
    return Frame(before, after, b"", kind)

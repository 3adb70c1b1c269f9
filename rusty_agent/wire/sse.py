"""Bytes → server-sent events, by the rules of the WHATWG (HTML §9.2.5-6), at any split of the bytes.

In: the body as it arrives, any number of bytes at a time. Out: each event's data, undecoded. Never touched: what
the data means.

Departures from the rules, because servers depart from them:

* `close()` hands out a last event that lacks its blank line.
* Blanks, NULs and a byte order mark before an event's first line are dropped: heartbeats and some writers leave them.
* A field `error` is data of an event of that type (older llama.cpp). An event of that type needs no data.
* A line that begins with a brace is data without its field (errors of new-api, after its pings), and so is a bare end
  mark. If a line holds only the opening of a JSON text, the lines after it are the rest of it (errors of Gemini).
* If a JSON text ends and the next line of data begins another, or is the end mark, a blank line is missing between the
  two (GLM and Kimi: eventsource-parser#31): no JSON text goes on like that.
"""

from __future__ import annotations

from codecs import BOM_UTF8

from ..errors import ResponseError

__all__ = ["END_MARK", "KEEP_ALIVES", "MAX_EVENT_BYTES", "Event", "SSEDecoder", "bared", "says_nothing"]

END_MARK = b"[DONE]"
"""The data of the event after which nothing counts. It is OpenAI's, not part of the standard."""

MAX_EVENT_BYTES = 16 * 2**20
"""The default cap of one event in bytes: well above any answer seen in one line (an image, a reasoning trace).

It bounds what is held until an event is whole. Once decoded, the event may take more: four bytes per character, or some
thirty times its size if it is nothing but `[],[],…`.
"""

KEEP_ALIVES = ("ping", "heartbeat", "keepalive", "keep-alive", "keep_alive")  # no set: unhashable values are looked up

_CR = b"\r"[0]  # a number: looking for bytes in bytes raises an error internally, which takes five times as long
_MAX_WORD = 2**5
_MAX_NAME_BYTES = 2**12  # no more of an event's type is decoded
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})
_LITTER = b" \t\0" + BOM_UTF8
_AROUND = _LITTER + b"\r\n"
_OPENINGS = frozenset({b"{", b"[", b"[{"})
_BEGINNINGS = (b"{", END_MARK)  # of a line that is data, with its field or without
_FIELD_SLACK = 16  # an unfinished line may hold this much besides its value: the field's name, colon and space


class Event(bytes):
    """The data of an event that names its type; the data of an event of the default type is plain `bytes`."""

    type: str


def bared(data: bytes) -> bytes:
    """An event's data without what double encoding left around it: blanks, NULs, a BOM, a second `data:`."""
    return data.strip(_AROUND).removeprefix(b"data:").strip(_AROUND)


def says_nothing(data: bytes) -> bool:
    """Whether bare data is a comment that a gateway re-wrapped (mnfst/llm-gateway#2053), or only a sign of life."""
    word = data[:_MAX_WORD].strip(b'[]"').lower()  # Duck.ai's is `[PING]`
    return not data or data.startswith(b":") or word.decode("utf-8", "replace") in KEEP_ALIVES


class SSEDecoder:
    """Turns bytes into events; constant work per byte, one event of memory.

    Args:
        max_event_bytes: The most that an event may hold.

    Attributes:
        error: Set if an event was longer than the cap: the events before it were handed out, none will follow.
        odd: The beginning of the first line that is not a field of an event stream, if there was one.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._cap = max_event_bytes
        self._after_cr = False  # the last byte was a CR: an LF right after it belongs to it
        self._partial = bytearray()  # a line whose end has not arrived
        # The data of the unfinished event: nearly always one line, kept as it is, else the lines joined.
        self._data: bytes | bytearray | None = None
        self._size = 0  # its bytes
        self._type = ""
        self._type_before = ""  # the type when the data began
        self._sprawls = False  # inside a JSON text over several lines without `data:`
        self._over = False  # an odd line has come after the end mark
        self.error: ResponseError | None = None
        self.odd = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the events that they complete."""
        plain = data[:6] == b"data: " and data[-2:] == b"\n\n"
        plain = plain and data.find(b"\n") == len(data) - 2 and _CR not in data
        if plain and self.idle and len(data) <= self._cap:
            return [data[6:-2]]  # one plain event, as tokens mostly arrive: a third of what `_feed` takes
        events: list[bytes] = []
        if self.error is None:
            try:
                self._feed(data, events)
            except ResponseError as error:
                self.error = error
        return events

    @property
    def idle(self) -> bool:
        """Whether nothing is unfinished that the next bytes could belong to."""
        waits = self._after_cr or self._partial or self._data is not None or self._type
        return not waits and self.error is None

    def _feed(self, data: bytes, events: list[bytes]) -> None:
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if _CR in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        start = self._end_plain(data, events) if self._partial and self._data is None and not self._type else 0
        while self._partial or self._data is not None or self._type:  # finish the event that an earlier arrival began
            end = data.find(b"\n", start)
            if end < 0:
                self._keep(data[start:])
                return
            self._end_line(data[start:end], events)
            start = end + 1
        self._feed_whole(data[start:] if start else data, events)

    def close(self) -> list[bytes]:
        """Take the end of the body: return the last event if it lacked its blank line."""
        return self.feed(b"\n\n")

    def _feed_whole(self, data: bytes, events: list[bytes]) -> None:
        """Take bytes that begin at the start of an event, as nearly all arrivals do."""
        whole, found, tail = data.rpartition(b"\n\n")
        if found:
            plain = whole[6:].split(b"\n\ndata: ")  # a third faster, and right if every event is one line of data
            # `count` would take 6 instructions per byte; joining and searching take less than one.
            if whole.startswith(b"data: ") and len(whole) <= self._cap and b"\n" not in b"".join(plain):
                events += plain
            else:
                for line in whole.split(b"\n"):
                    self._line(line, events)
                self._line(b"", events)
        if tail:
            lines = tail.split(b"\n")
            rest = lines.pop()
            for line in lines:
                self._line(line, events)
            self._keep(rest)

    def _end_plain(self, data: bytes, events: list[bytes]) -> int:
        """Finish an event of one line in a third of the usual time; return where the next one begins, 0 if not done."""
        end = data.find(b"\n\n")
        if end < 0 or not self._partial.startswith(b"data: ") or data.find(b"\n") < end:
            return 0
        line = bytes(self._partial) + data[:end]
        if len(line) > self._cap:
            return 0
        self._partial.clear()
        events.append(line[6:])
        return end + 2

    def _keep(self, data: bytes) -> None:
        """Keep the beginning of an unfinished line; of a comment, only the colon."""
        if self._partial.startswith(b":"):
            return
        self._partial += b":" if not self._partial and data.startswith(b":") else data
        if self._size + len(self._partial) > self._cap + _FIELD_SLACK:
            raise self._too_long()

    def _end_line(self, rest: bytes, events: list[bytes]) -> None:
        if self._partial:
            self._keep(rest)
            rest = bytes(self._partial)
            self._partial.clear()
        self._line(rest, events)

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            self._dispatch(events)
            return
        colon = line.find(b":")
        name = line if colon < 0 else line[:colon]
        if name and self._size + len(line) > self._cap + _FIELD_SLACK:
            raise self._too_long()
        if self._sprawls and name:
            self._sprawls = name not in _FIELDS
            if self._sprawls:
                self._add(line)
                return
        start = len(name) + (2 if line.startswith(b": ", colon) else 1)
        bare = line.startswith(_BEGINNINGS) or line in _OPENINGS
        value = line.rstrip() if bare else line[start:]  # cut out once: it may be as long as the cap
        if bare or name == b"data":
            if self._data is not None and self._data.endswith((b"}", b"]")) and value.startswith(_BEGINNINGS):
                type_, self._type = self._type, self._type_before
                self._dispatch(events)
                self._type = type_
            self._sprawls = self._data is None and value in _OPENINGS
            self._add(value)
        elif name == b"event":
            self._type = value[:_MAX_NAME_BYTES].decode("utf-8", "replace")
        elif name == b"error":  # older llama.cpp: `error: {…}` as a line of its own
            self._type = "error"
            self._add(value)
        elif name and name not in _FIELDS:  # `id` and `retry` are for reconnecting, and of no use here
            self._take_odd(line, events)

    def _take_odd(self, line: bytes, events: list[bytes]) -> None:
        """Take a line that is no field: between events litter may hide one, else the first is kept as `odd`."""
        bare = line.lstrip(_LITTER) if self._data is None else line
        if bare != line and bare.partition(b":")[0] in _FIELDS:
            self._line(bare, events)
        elif any(field.startswith(line) for field in _FIELDS):
            pass  # the body was cut here
        elif not self.odd and not self._over:
            # Nothing counts after the end mark, which may be at the beginning or the end of an event's data.
            ended = (*events, bytes(self._data or b""))
            self._over = any(data.startswith(END_MARK) or data.endswith(END_MARK) for data in map(bared, ended))
            self.odd = b"" if self._over else line[:2048]

    def _add(self, value: bytes) -> None:
        self._size += len(value) + 1
        if self._size > self._cap:
            raise self._too_long()
        if self._data is None:
            self._data = value
            self._type_before = self._type
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)
        self._data += b"\n"
        self._data += value

    def _dispatch(self, events: list[bytes]) -> None:
        data = self._data
        if data is not None or self._type == "error":
            if self._type and self._type != "message":
                event = Event(data or b"")
                event.type = self._type
                events.append(event)
            else:
                events.append(bytes(data or b""))
            self._data = None
            self._size = 0
        self._type = ""
        self._sprawls = False

    def _too_long(self) -> ResponseError:
        return ResponseError(
            f"An event of the stream is longer than {self._cap} bytes. Raise max_event_bytes if that is expected."
        )

"""The event-stream decoder against a naive one, at any split."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.errors import ResponseError
from rusty_agent.wire.sse import Event, SSEDecoder
from tests.property.strategies import cut
from tests.replies import in_bytes

Events = list[tuple[str, bytes]]

_fields = [
    b"data",
    b"data: ",
    b"data:x",
    b"event",
    b"error",
    b"id",
    b"retry",
    b":",
    b" ",
    b"\t",
    b"\0",
    b"ping",
    b"message",
]
_LITTER = b" \t\0\xef\xbb\xbf"
_others = [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"a", b"7", b"\xef\xbb\xbf", b"\xef", b"\xff"]
tricky = st.lists(st.sampled_from(_fields) | st.sampled_from(_others), max_size=25).map(b"".join)


def _naive(data: bytes) -> Events:
    """The rules of the WHATWG, line by line; the end of the data ends a line and an event (our first departure).

    Litter in front of an event's first line is no part of it (our second).
    """
    events: Events = []
    type_, lines = "", list[bytes]()
    for line in [*re.split(b"\r\n|\n|\r", data), b""]:
        field, _, value = line.partition(b":")
        if field and not lines and field.lstrip(_LITTER) in (b"data", b"event", b"id", b"retry"):
            field = field.lstrip(_LITTER)
        value = value.removeprefix(b" ")
        if line == b"":
            if lines or type_ == "error":  # without data too
                events.append((type_ or "message", b"\n".join(lines)))
            type_, lines = "", []
        elif field == b"data":
            lines.append(value)
        elif field == b"event":
            type_ = value.decode("utf-8", "replace")
        elif field == b"error":  # our other departure
            type_ = "error"
            lines.append(value)
    return events


def _decode(pieces: Iterable[bytes], cap: int = 2**20) -> tuple[Events, ResponseError | None]:
    decoder = SSEDecoder(cap)
    raw = [event for piece in pieces for event in decoder.feed(piece)] + decoder.close()
    events = [(event.type if isinstance(event, Event) else "message", bytes(event)) for event in raw]
    return events, decoder.error


@given(tricky, st.data())
def test_it_agrees_with_the_naive_decoder(data: bytes, draw: st.DataObject) -> None:
    expected = (_naive(data), None)
    assert _decode([data]) == expected
    assert _decode(in_bytes(data)) == expected
    assert _decode(draw.draw(cut(data))) == expected


@given(st.binary(max_size=200) | tricky, st.integers(0, 40), st.data())
def test_any_bytes_end_the_same_way_at_any_split(data: bytes, cap: int, draw: st.DataObject) -> None:
    events, error = _decode([data], cap)
    for pieces in (in_bytes(data), draw.draw(cut(data))):
        again, other = _decode(pieces, cap)
        assert again == events
        assert type(other) is type(error)
        assert str(other) == str(error)
    assert all(len(event) < max(cap, 1) for _, event in events)


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
# Without what our departures for JSON begin with: a line that lacks its field would belong to it.
data_lines = st.binary(max_size=12).map(lambda data: re.sub(rb"[\r\n{\[]", b".", data))
event_types = st.sampled_from(["message", "", "ping", "chunk", "é"])
noise = st.sampled_from([b": comment", b":", b"retry: 5", b"id: 3", b"unknown: x", b"Data: x"])


@given(st.lists(st.tuples(event_types, st.lists(data_lines, min_size=1, max_size=3)), max_size=5), st.data())
def test_events_survive_their_serialisation(events: list[tuple[str, list[bytes]]], draw: st.DataObject) -> None:
    stream = b"\xef\xbb\xbf" if draw.draw(st.booleans()) else b": first\n"
    for type_, lines in events:
        written = [b"data: " + line for line in lines]
        if type_:
            written.insert(draw.draw(st.integers(0, len(written))), b"event: " + type_.encode())
        for item in draw.draw(st.lists(noise, max_size=2)):
            written.insert(draw.draw(st.integers(0, len(written))), item)
        for line in [*written, *[b""] * draw.draw(st.integers(1, 2))]:
            end = draw.draw(line_ends)
            if stream.endswith(b"\r") and line + end == b"\n":  # it would be one line end, not two
                end = b"\r"
            stream += line + end
    told, error = _decode(draw.draw(cut(stream)))
    assert error is None
    assert told == [(type_ or "message", b"\n".join(lines)) for type_, lines in events]

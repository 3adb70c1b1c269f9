"""What is ours in the event-stream decoder: the cap, the types, the `error` field. The rules: tests/conformance."""

from __future__ import annotations

import pytest

from rusty_agent.errors import ResponseError
from rusty_agent.wire.sse import MAX_EVENT_BYTES, Event, SSEDecoder
from tests.replies import in_bytes, in_two


def test_plain_events_are_bytes_and_named_ones_know_their_type() -> None:
    plain, named = SSEDecoder().feed(b"data: 1\n\nevent: ping\ndata: 2\n\n")
    assert type(plain) is bytes
    assert isinstance(named, Event)
    assert (named, named.type) == (b"2", "ping")


def test_a_line_named_error_is_an_event_of_that_type() -> None:  # older llama.cpp
    (event,) = SSEDecoder().feed(b'error: {"code":500}\n\n')
    assert isinstance(event, Event)
    assert (event, event.type) == (b'{"code":500}', "error")


@pytest.mark.parametrize("ending", [b"\n\n", b"\n", b""], ids=repr)
@pytest.mark.parametrize("data", [b"", b"\ndata:", b"\ndata: "], ids=repr)
def test_an_event_of_type_error_counts_without_data_too(data: bytes, ending: bytes) -> None:
    body = b"event: ping\n\nevent: error" + data + ending
    for pieces in [[body], in_bytes(body)]:
        decoder = SSEDecoder()
        (event,) = [event for piece in pieces for event in decoder.feed(piece)] + decoder.close()
        assert isinstance(event, Event)
        assert (event, event.type) == (b"", "error")


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n\n', [b'{"a":1}', b'{"b":2}', b"[DONE]"]),
        (b'data: [{"a":1},\ndata: {"b":2}]\n\n', [b'[{"a":1},\n{"b":2}]']),
        (b'data: {"a":\ndata: {"b":2}}\n\n', [b'{"a":\n{"b":2}}']),
        (b'data: {}\n{"error":1}\n\n{"error":2}\n\n', [b"{}", b'{"error":1}', b'{"error":2}']),
        (b"data: {}\n\n[DONE]\n\n", [b"{}", b"[DONE]"]),  # api.lmm.best#420
        (b"data: {}\n[DONE] \n\n", [b"{}", b"[DONE]"]),
    ],
)
def test_lines_that_are_events_of_their_own(data: bytes, events: list[bytes]) -> None:
    for end in range(len(data)):
        decoder = SSEDecoder()
        assert decoder.feed(data[:end]) + decoder.feed(data[end:]) == events
        assert not decoder.odd


def test_lines_that_are_events_of_their_own_are_of_the_type_told() -> None:
    for told in (b"event: error\ndata: {}\n", b"error: {}\n"):
        first, second = SSEDecoder().feed(told + b"data: {}\n\n")
        assert isinstance(first, Event)
        assert isinstance(second, Event)
        assert first.type == second.type == "error"


def test_a_type_that_is_told_between_two_events_is_the_latters() -> None:
    for body in (b"data: {}\nevent: error\ndata: {}\n\n", b"data: {}\n\ndata: {}\nevent: error\n\n"):
        first, second = SSEDecoder().feed(body)
        assert type(first) is bytes
        assert isinstance(second, Event)
        assert second.type == "error"
    types = [event.type for event in SSEDecoder().feed(b"event: a\ndata: {}\nevent: b\ndata: {}\n\n")]  # type: ignore[attr-defined]
    assert types == ["a", "b"]


def test_a_type_that_comes_alone_is_that_of_the_data_behind_it() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"event: error\n") == []
    (named, plain) = [event for data in (b"data: 1\n\n", b"data: 2\n\n") for event in decoder.feed(data)]
    assert isinstance(named, Event)
    assert (named, named.type, plain, type(plain)) == (b"1", "error", b"2", bytes)


def test_of_a_type_no_more_than_a_name_is_kept() -> None:
    (event,) = SSEDecoder().feed(b"event: %b\ndata: 1\n\n" % (b"x" * 2**20))
    assert isinstance(event, Event)
    assert len(event.type) == 4096


def test_fields_of_every_length() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data\ndata:\ndata: \ndata:  a\ndata:b\n: data: c\ndataX: d\n\n") == [b"\n\n\n a\nb"]
    assert decoder.feed(b"data\n\n") == [b""]


def _outcome(pieces: list[bytes], cap: int) -> tuple[list[bytes], str | None]:
    decoder = SSEDecoder(cap)
    events = [event for piece in pieces for event in decoder.feed(piece)] + decoder.close()
    assert decoder.error is None or decoder.feed(b"\n\ndata: more\n\n") == decoder.close() == []
    return events, None if decoder.error is None else decoder.error.message


CAPPED = {
    "fits": (b"data: " + b"x" * 31 + b"\n\n", [b"x" * 31], False),
    "a-byte-more": (b"data: " + b"x" * 32 + b"\n\n", [], True),
    "unfinished": (b"data: " + b"x" * 32, [], True),
    "the-events-before-it-count": (b"data: 1\n\ndata: " + b"x" * 100 + b"\n\ndata: 2\n\n", [b"1"], True),
    "before-an-unfinished-one": (b"data: 1\n\ndata: " + b"x" * 100, [b"1"], True),
    "in-two-lines": (b"data: aaaaaaaaaaaaaaaaaa\n" * 2 + b"\n", [], True),
    "two-lines-fit": (b"data: aaaaaaaaaaaaaa\n" * 2 + b"\n", [b"aaaaaaaaaaaaaa\naaaaaaaaaaaaaa"], False),
    "error-lines-count": (b"error: aaaaaaaaaaaaaaaaaa\n" * 2 + b"\n", [], True),
    "small-ones-never-add-up": (b"data: 1\n\n" * 20, [b"1"] * 20, False),
    "type": (b"event: " + b"x" * 42 + b"\ndata: 1\n\n", [], True),
    "type-fits": (b"event: " + b"x" * 41 + b"\ndata: 1\n\n", [b"1"], False),
    "id": (b"data: 1\nid: " + b"x" * 60 + b"\n\n", [], True),
    "unknown-field": (b"unknown" + b"x" * 60 + b"\n\n", [], True),
    "comment": (b": " + b"x" * 60 + b"\n\ndata: 1\n\n", [b"1"], False),
    "comment-in-an-event": (b"data: 1\n: " + b"x" * 60 + b"\n\n", [b"1"], False),
}


@pytest.mark.parametrize(("data", "events", "too_long"), CAPPED.values(), ids=CAPPED)
def test_cap(data: bytes, events: list[bytes], too_long: bool) -> None:
    expected = events, "An event of the stream is longer than 32 bytes. Raise max_event_bytes if that is expected."
    for pieces in [[data], in_bytes(data), *map(list, in_two(data))]:
        told, message = _outcome(pieces, 32)
        assert (told, message) == (expected if too_long else (events, None))


def test_the_error_is_typed() -> None:
    decoder = SSEDecoder(8)
    decoder.feed(b"data: " + b"too long" * 3)
    assert isinstance(decoder.error, ResponseError)


def test_the_default_cap_takes_a_large_event_in_small_pieces() -> None:
    decoder = SSEDecoder()
    size = MAX_EVENT_BYTES - 1
    decoder.feed(b"data: ")
    for _ in range(size // 65536):
        assert decoder.feed(b"x" * 65536) == []
    (event,) = decoder.feed(b"x" * (size % 65536) + b"\n\n")
    assert event == b"x" * size

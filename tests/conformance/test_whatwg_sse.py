"""The event-stream format, case by case as web-platform-tests/eventsource has it, at every split of the bytes.

Our documented departures: `close()` hands out a last event that lacks its blank line (`CLOSED` below), and a byte order
mark costs no event, wherever and however often it stands in front of one (`format-bom`, `format-bom-2`).
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rusty_agent.wire.sse import Event, SSEDecoder
from tests.replies import in_bytes, in_two

BOM = b"\xef\xbb\xbf"
LONG = b"x" * 2048

Expected = list[tuple[str, bytes]]


def _messages(*data: bytes) -> Expected:
    return [("message", item) for item in data]


CASES: dict[str, tuple[bytes, Expected]] = {
    "event-data": (
        b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nSend any data\n\ndata:end\n\n",
        _messages(b"msg\nmsg", b"end"),
    ),
    "format-bom": (BOM + b"data:1\n\n" + BOM + b"data:2\n\ndata:3\n\n", _messages(b"1", b"2", b"3")),
    "format-bom-2": (BOM + BOM + b"data:1\n\ndata:2\n\ndata:3\n\n", _messages(b"1", b"2", b"3")),
    "format-bom-alone": (BOM, []),
    "format-bom-half": (BOM[:2] + b"\n\ndata:1\n\n", _messages(b"1")),
    "format-comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:%b\rdata:3\n:data:fail\r:%b\ndata:4\n\n" % (LONG[:40], LONG[:40]),
        _messages(b"1\n2\n3\n4"),
    ),
    "format-comments-only": (b":\n\n: hello\n\n:\r\n\r\n", []),
    "format-field-data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", _messages(b"", b"\n", b"test")),
    "format-field-event": (b"event:test\ndata:x\n\ndata:x\n\n", [("test", b"x"), ("message", b"x")]),
    "format-field-event-twice": (b"event:one\nevent: two\ndata:x\n\n", [("two", b"x")]),
    "format-field-event-after-data": (b"data:x\nevent: late\n\n", [("late", b"x")]),
    "format-field-event-empty": (b"event: \ndata:data\n\n", _messages(b"data")),
    "format-field-event-message": (b"event: message\ndata:data\n\n", _messages(b"data")),
    "format-field-event-without-data": (b"event: test\n\ndata:x\n\n", _messages(b"x")),
    "format-field-parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\n"
        b"data:3\rdata:\r\n data:32\ndata:4\n\n",
        _messages(b"\0\n 2\n1\n3\n\n4"),
    ),
    "format-field-unknown": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        _messages(b"test\n\ntest"),
    ),
    "format-leading-space": (b"data:\ttest\rdata: \ndata:test\n\n", _messages(b"\ttest\n\ntest")),
    "format-leading-two-spaces": (b"data:  x\n\n", _messages(b" x")),
    "format-newlines": (b"data:test\r\ndata\ndata:test\r\n\r\n", _messages(b"test\n\ntest")),
    "format-newlines-lf": (b"data:a\ndata:b\n\n\n\ndata:c\n\n", _messages(b"a\nb", b"c")),
    "format-newlines-cr": (b"data:a\rdata:b\r\r\rdata:c\r\r", _messages(b"a\nb", b"c")),
    "format-newlines-crlf": (b"data:a\r\ndata:b\r\n\r\n\r\ndata:c\r\n\r\n", _messages(b"a\nb", b"c")),
    "format-newlines-mixed": (b"data:a\r\n\rdata:b\n\r\ndata:c\r\n\n", _messages(b"a", b"b", b"c")),
    "format-newlines-lf-cr": (b"data:a\n\rdata:b\n\r", _messages(b"a", b"b")),
    "format-null-character": (b"data:\0\n\n\n\n", _messages(b"\0")),
    "format-utf-8": ("data:ok…😀\n\n".encode(), _messages("ok…😀".encode())),
    "format-utf-8-invalid": (b"data:\xff\xc3\n\n", _messages(b"\xff\xc3")),
    "format-other-line-ends": (
        "data:a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode(),
        _messages("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg".encode()),
    ),
    "format-colon-in-value": (b"data: : OPENROUTER PROCESSING\n\n", _messages(b": OPENROUTER PROCESSING")),
    "many-in-one-arrival": (
        b"".join(b"data: %d\n\n" % n for n in range(12)),
        _messages(*map(b"%d".__mod__, range(12))),
    ),
    "plain-then-named": (
        b"data: 1\n\nevent: ping\ndata: 2\n\ndata: 3\n\n",
        [("message", b"1"), ("ping", b"2"), ("message", b"3")],
    ),
    "data-that-looks-like-an-end": (b"data: a\\n\\ndata: b\n\n", _messages(b"a\\n\\ndata: b")),
    "empty": (b"", []),
}

CLOSED: dict[str, tuple[bytes, Expected, Expected]] = {
    "format-data-before-final-empty-line": (
        b"retry:1000\ndata:test1\n\nid:test\ndata:test2",
        _messages(b"test1"),
        _messages(b"test2"),
    ),
    "line-end-but-no-blank-line": (b"data:1\n\ndata:2\n", _messages(b"1"), _messages(b"2")),
    "a-lone-cr": (b"data:1\r", [], _messages(b"1")),
    "cut-in-the-field-name": (b"data:1\n\ndat", _messages(b"1"), []),
    "named": (b"event:test\ndata:1", [], [("test", b"1")]),
    "comment": (b"data:1\n\n: the en", _messages(b"1"), []),
    "half-a-bom": (BOM[:2], [], []),
}


def _decode(pieces: Iterable[bytes]) -> tuple[Expected, Expected]:
    decoder = SSEDecoder()
    fed = [event for piece in pieces for event in decoder.feed(piece)]
    closed = decoder.close()
    assert decoder.close() == []
    return [*map(_told, fed)], [*map(_told, closed)]


def _told(event: bytes) -> tuple[str, bytes]:
    return event.type if isinstance(event, Event) else "message", bytes(event)


def _all_splits(data: bytes) -> Iterable[Iterable[bytes]]:
    yield [data]
    yield in_bytes(data)
    yield from in_two(data)


@pytest.mark.parametrize("case", CASES)
def test_format(case: str) -> None:
    data, expected = CASES[case]
    for pieces in _all_splits(data):
        assert _decode(pieces) == (expected, [])


@pytest.mark.parametrize("case", CLOSED)
def test_the_last_event_lacks_its_blank_line(case: str) -> None:
    data, fed, closed = CLOSED[case]
    for pieces in _all_splits(data):
        assert _decode(pieces) == (fed, closed)


def test_a_long_comment_takes_no_memory() -> None:
    decoder = SSEDecoder(max_event_bytes=64)
    assert decoder.feed(b"data: 1\n: " + LONG) == []
    for _ in range(10):
        assert decoder.feed(LONG) == []
    assert decoder.feed(b"\n\ndata: 2\n\n") == [b"1", b"2"]
    assert decoder.error is None

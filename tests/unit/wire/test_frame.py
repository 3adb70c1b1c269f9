"""What stands around a text, learned from one chunk, tells the text of the next."""

from __future__ import annotations

import pytest

from rusty_agent.types import ReasoningDelta
from rusty_agent.wire.frame import NO_FRAME, frame_of

CHUNK = b'{"id":"i","choices":[{"delta":{"content":%b}}]}'
PADDED = b'{"choices":[{"delta":{"content":%b}}],"usage":null,"obfuscation":"%b"}'


def test_a_text_between_the_same_bytes() -> None:
    frame = frame_of(CHUNK % b'"a"', "a", "content")
    assert frame.kind is str
    assert frame.texts([CHUNK % b'"b"', CHUNK % rb'"\u00e9\n"', CHUNK % b'""', CHUNK % b'"c"']) == ["b", "é\n"]
    assert frame.texts([CHUNK % b'"b"', CHUNK % b'"c"'], 1) == ["c"]
    assert frame.lead + b'"d"' + frame.trail == b"data: " + CHUNK % b'"d"' + b"\n\n"
    assert frame.least_of_two == 2 * len(frame.lead + frame.trail)


def test_an_event_with_more_than_text_between_is_not_known_by_what_stands_around_it() -> None:
    padded = frame_of(PADDED % (b'"a"', b"x7"), "a", "content")
    assert NO_FRAME.least_of_two == padded.least_of_two == 0


def test_padding_may_be_of_any_length() -> None:
    frame = frame_of(PADDED % (b'"a"', b"x7"), "a", "content", ReasoningDelta)
    assert frame.kind is ReasoningDelta
    assert frame.texts([PADDED % (b'"b"', b"x" * 40), PADDED % (b'"c"', b""), PADDED % (b'"d"', b"-")]) == ["b", "c"]
    assert frame.texts([CHUNK % b'"b"']) == []


def test_many_chunks_are_looked_at_a_few_at_a_time() -> None:
    frame = frame_of(CHUNK % b'"a"', "a", "content")
    chunks = [CHUNK % b'"b"'] * 1000
    assert len(frame.texts(chunks)) == 1000
    assert 0 < len(frame.texts(chunks, 1)) < 999


@pytest.mark.parametrize(
    "data",
    [
        b'{"content":"x","choices":[{"delta":{"content":"a"}}]}',
        b'{"choices":[{"delta":{"content":"a","c\\u006fntent":"z"}}]}',
        b'{"c\\u006fntent":"x","choices":[{"delta":{"content":"a"}}]}',
        b'{"choices":[{"delta":{\n"content":"a"}}]}',
        b'{"choices":[{"delta":{"content":"\\u0061"}}]}',
        b'{"choices":[{"delta":{"text":"a"}}]}',
    ],
    ids=["twice", "escaped-after", "escaped-before", "lines", "escaped-text", "elsewhere"],
)
def test_where_the_text_stands_must_be_clear(data: bytes) -> None:
    assert frame_of(data, "a", "content") is NO_FRAME

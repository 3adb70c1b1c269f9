"""Whatever arrives, and however it is cut: a finish or a typed error, and nothing that cannot be printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.errors import ResponseError, RustyAgentError
from rusty_agent.types import Finish
from rusty_agent.wire.chunks import ChunkDecoder, Delta
from rusty_agent.wire.failure import status_error
from rusty_agent.wire.wait import in_headers
from tests.property.strategies import chunks, cut, loose_texts, plain_chunks, plain_documents, values
from tests.replies import Outcome, in_bytes, replay


def _strings(value: Any) -> Iterator[str]:
    """Every string that a caller can get at."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, RustyAgentError):
        yield from _strings([value.args, vars(value)])
    elif attrs.has(type(value)):
        yield from _strings([getattr(value, field.name) for field in attrs.fields(type(value))])


def _check(outcome: Outcome) -> None:
    """What holds of every answer."""
    finishes = [delta for delta in outcome.deltas if isinstance(delta, Finish)]
    if outcome.error is None:
        assert finishes
        assert outcome.deltas[-len(finishes) :] == finishes
        assert finishes[-1] == Finish(outcome.finish_reason, 0)
    else:
        assert not finishes
    for text in _strings(outcome):
        text.encode()


def _stream(items: list[Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(item).encode() for item in items)


_framing = [b"data: ", b"data:", b"\n", b"\n\n", b"\r\n", b"\r", b": x", b" ", b"event: error\n", b"event: ping\n"]
_jsonish = [
    b"{",
    b"[",
    b"<",
    b"}",
    b"]",
    b"null",
    b"a",
    b"\\ud83d",
    b"\\ude00",
    b"\xf0\x9f\x98\x80",
    b"\xff",
    b"\xef\xbb\xbf",
]
_events = [
    b"[DONE]",
    b'{"choices":[{"delta":{"content":"',
    b'"}}]}',
    b'{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}',
    b'{"error":{"code":429}}',
    b"error: x\n",
]
fragments = st.lists(st.sampled_from(_framing) | st.sampled_from(_jsonish) | st.sampled_from(_events), max_size=25).map(
    b"".join
)


@given(st.binary(max_size=100) | fragments, st.sampled_from([2**20, 2**20, 20]), st.data())
def test_any_bytes(body: bytes, cap: int, draw: st.DataObject) -> None:
    whole = replay([body], max_bytes=cap)
    _check(whole)
    assert replay(in_bytes(body), max_bytes=cap) == whole
    assert replay(draw.draw(cut(body)), max_bytes=cap) == whole


@given(st.lists(chunks, max_size=4), st.booleans(), st.integers(1, 2), st.data())
def test_any_chunks(items: list[Any], done: bool, choices: int, draw: st.DataObject) -> None:
    body = _stream(items) + (b"data: [DONE]\n\n" if done else b"")
    whole = replay([body], choices=choices)
    _check(whole)
    pieces = draw.draw(cut(body))
    assert repr(replay(pieces, choices=choices)) == repr(whole)  # there may be NaN in it, which equals nothing


@given(chunks)
def test_any_document(item: Any) -> None:
    _check(replay([json.dumps(item).encode()]))


@given(st.lists(loose_texts, min_size=1, max_size=6), st.sampled_from(["content", "reasoning", "refusal", "arguments"]))
def test_text_cut_anywhere_is_the_text(pieces: list[str], field: str) -> None:
    def delta(piece: str) -> dict[str, Any]:
        if field == "arguments":
            return {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": piece}}]}
        return {field: piece}

    items = [{"choices": [{"index": 0, "delta": delta(piece)}]} for piece in pieces]
    outcome = replay([_stream(items) + b"data: [DONE]\n\n"])
    text = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    told = {
        "content": outcome.text,
        "reasoning": outcome.reasoning or "",
        "refusal": outcome.refusal or "",
        "arguments": "".join(call.arguments for call in outcome.tool_calls),
    }
    assert told[field] == text


@given(st.lists(plain_chunks(), max_size=8), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 2))
def test_the_shortcuts_change_nothing(
    items: list[Any], ascii_only: bool, compact: bool, apart: bool, choices: int
) -> None:
    """Chunks decoded as they come, and each in the long way: the same deltas."""
    separators = (",", ":") if compact else None
    events = [json.dumps(item, ensure_ascii=ascii_only, separators=separators).encode() for item in items]
    short, long = ChunkDecoder(choices), ChunkDecoder(choices)
    told: list[Delta] = []
    expected: list[Delta] = []
    for arrival in [[event] for event in events] if apart else [events]:
        if short.error is None:
            short.decode_all(arrival, told)
    for item, event in zip(items, events, strict=True):
        if long.error is None:
            long.decode_value(item, event, expected)
    assert told == expected
    assert (short.reasons, short.choices, short.done) == (long.reasons, long.choices, long.done)
    assert short.meta == long.meta
    assert repr(short.error) == repr(long.error)


@given(
    st.lists(plain_chunks(), max_size=8),
    st.booleans(),
    st.lists(st.sampled_from(_framing + _events), max_size=2),
    st.data(),
)
def test_arrivals_of_whole_events(
    items: list[Any], ascii_only: bool, between: list[bytes], draw: st.DataObject
) -> None:
    """One event an arrival, or a few: most are told by their first and last bytes, and that changes nothing either."""
    compact = (",", ":") if draw.draw(st.booleans()) else None
    told = [json.dumps(item, ensure_ascii=ascii_only, separators=compact).encode() for item in items]
    events = [b"data: %b\n\n" % event for event in told]
    pieces = [*events, *between, *events, b"data: [DONE]\n\n", *events]
    expected = repr(replay([b"".join(pieces)]))
    assert repr(replay(pieces)) == expected
    assert repr(replay(map(b"".join, draw.draw(cut(pieces))))) == expected


def test_an_event_of_one_by_one_that_is_too_long() -> None:
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    outcome = replay([chunk % b"a", chunk % b"a", chunk % b"b", chunk % (b"c" * 100)], max_bytes=100)
    assert (outcome.text, type(outcome.error)) == ("aab", ResponseError)
    outcome = replay([chunk % b"a", chunk % b"a" + chunk % b"b", chunk % b"b" + chunk % (b"c" * 100)], max_bytes=100)
    assert (outcome.text, type(outcome.error)) == ("aabb", ResponseError)


@given(plain_documents())
def test_the_shortcut_for_documents_changes_nothing(item: Any) -> None:
    short, long = ChunkDecoder(), ChunkDecoder()
    told: list[Delta] = []
    expected: list[Delta] = []
    short.decode_document(item, b"", told)
    long.decode_value(item, b"", expected)
    assert told == expected
    assert (short.reasons, short.choices, short.meta) == (long.reasons, long.choices, item)
    assert repr(short.error) == repr(long.error)


@given(
    st.integers(200, 600),
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date", "location"]), st.text()),
    st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()),
)
def test_any_failure(status: int, headers: dict[str, str], body: bytes) -> None:
    error = status_error(status, headers, body, now=0.0)
    assert error.message.isprintable()
    assert error.status_code == status
    for text in _strings([error.args, error.body, error.code, error.type, error.param, error.message]):
        text.encode()
    wait = in_headers(headers, 0.0)
    assert wait is None or 0 <= wait < float("inf")


@given(st.binary(min_size=1, max_size=5000).filter(lambda data: b"\n" not in data and b"\r" not in data))
def test_unreadable_events_are_quoted_up_to_two_kib(data: bytes) -> None:
    error = replay([b"data: [!" + data + b"\n\n"]).error  # mere words might name an error
    assert isinstance(error, ResponseError)
    assert error.body == (b"[!" + data)[:2048]

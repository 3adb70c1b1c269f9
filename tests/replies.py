"""Replaying the bytes of an answer in any pieces, for the tests of `wire/`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from rusty_agent.errors import RustyAgentError
from rusty_agent.types import ToolCall, Usage
from rusty_agent.wire.chunks import Delta
from rusty_agent.wire.codec import dumps
from rusty_agent.wire.reply import ReplyDecoder
from rusty_agent.wire.sse import MAX_EVENT_BYTES

from .tracing import untraced


@attrs.define
class Outcome:
    """Everything that a caller can see of an answer."""

    deltas: list[Delta]
    text: str
    reasoning: str | None
    refusal: str | None
    tool_calls: list[ToolCall]
    usage: Usage | None
    finish_reason: str | None
    meta: dict[str, Any]
    streamed: bool
    has_content: bool
    error: RustyAgentError | None = attrs.field(eq=lambda error: error and (type(error), error.args, vars(error)))


def replay(
    pieces: Iterable[bytes],
    *,
    max_bytes: int = MAX_EVENT_BYTES,
    broken: RustyAgentError | None = None,
    choices: int | None = None,
) -> Outcome:
    """Feed the pieces to a decoder, close it, and check what must hold for every answer."""
    decoder = ReplyDecoder(max_bytes, choices=choices)
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += decoder.feed(piece)
        assert decoder.error is None or decoder.ended
    deltas += decoder.close(broken)
    assert decoder.ended
    assert decoder.feed(b'data: {"choices":[{"delta":{"content":"late"}}]}\n\n') == []
    assert decoder.close() == []
    assembler = decoder.assembler
    assert "".join(delta for delta in deltas if isinstance(delta, str)) == assembler.text
    if decoder.error is not None:
        assert decoder.error.partial_text == assembler.text
        assert decoder.error.usage == assembler.usage
    return Outcome(
        deltas,
        assembler.text,
        assembler.reasoning,
        assembler.refusal,
        assembler.tool_calls,
        assembler.usage,
        decoder.finish_reason,
        decoder.meta,
        decoder.streamed,
        decoder.has_content,
        decoder.error,
    )


def in_two(body: bytes, points: Iterable[int] | None = None) -> Iterator[tuple[bytes, bytes]]:
    """The body cut in two at each of the given points, or at every point."""
    for point in range(len(body) + 1) if points is None else points:
        yield body[:point], body[point:]


def in_bytes(body: bytes) -> list[bytes]:
    """The body byte by byte."""
    return [body[at : at + 1] for at in range(len(body))]


def sse(*chunks: Any, done: bool = True) -> bytes:
    """An event stream of chunks; bytes stand for themselves."""
    events = [chunk if isinstance(chunk, bytes) else dumps(chunk) for chunk in chunks]
    return b"".join(b"data: %b\n\n" % event for event in (*events, b"[DONE]")[: None if done else -1])


def chunk(content: Any = None, /, *, finish: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    """A chunk of one choice."""
    if content is not None:
        delta["content"] = content
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
    }


BOM = b"\xef\xbb\xbf"

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}

COUNTED = Usage(1, 2, 3, raw=USAGE)

DOCUMENT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def replay_every_way(body: bytes, **options: Any) -> Outcome:
    """Replay the body whole, byte by byte and cut at every point; check that all outcomes are the same."""
    whole = replay([body], **options)
    assert replay(in_bytes(body), **options) == whole
    with untraced():
        for pieces in in_two(body):
            assert replay(pieces, **options) == whole
    return whole

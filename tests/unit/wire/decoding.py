"""What the tests of chunks share: chunks, and a decoder that gets them."""

from __future__ import annotations

import json
from typing import Any

from rusty_agent.wire.chunks import ChunkDecoder, Delta
from rusty_agent.wire.sse import Event

Data = dict[str, Any] | bytes


def decode(*chunks: Data, expected: int = 1) -> tuple[list[Delta], ChunkDecoder]:
    """Decode chunks, each in its own arrival; `dict`s are written as JSON with escapes and spaces."""
    decoder = ChunkDecoder(expected)
    out: list[Delta] = []
    for item in chunks:
        decoder.decode_all([item if isinstance(item, bytes) else json.dumps(item).encode()], out)
    decoder.deltas.flush(out)
    return out, decoder


def named_event(data: bytes, type_: str) -> Event:
    event = Event(data)
    event.type = type_
    return event


def choice_of(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **fields}]}

"""The decoders of `wire/` by themselves: time per chunk, bytes per second, and instructions per chunk.

They get a stream of 2,000 chunks as the endpoint sends it, without its HTTP framing, in pieces of several sizes.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

from .counts import count
from .server import CHUNKS, FIRST, LAST

COUNT = 2000
SIZES = {"one chunk a piece": None, "1,400 bytes a piece": 1400, "64 KiB a piece": 65536}
CALL = "one chunk a piece, of a tool call's arguments"
LABELS = (*SIZES, CALL)


def _events() -> list[bytes]:
    framed = [FIRST, *(CHUNKS * (COUNT // len(CHUNKS) + 1))[:COUNT], LAST.split(b"\r\n0\r\n")[0]]
    return [re.sub(rb"(^|\r\n)[0-9a-f]+\r\n", b"", piece).removesuffix(b"\r\n") for piece in framed]


def _of_a_call(event: bytes) -> bytes:
    """The same event with its text as a piece of a tool call's arguments."""
    piece = rb'"delta":{"tool_calls":[{"index":0,"function":{"arguments":\1}}]}'
    return re.sub(rb'"delta":\{"content":("(?:[^"\\]|\\.)*")\}', piece, event)


def pieces(label: str) -> list[bytes]:
    """The stream, cut into pieces."""
    events, size = _events(), SIZES.get(label)
    if label == CALL:
        return list(map(_of_a_call, events))
    if size is None:
        return events
    whole = b"".join(events)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def decode(given: list[bytes]) -> str:
    """The text of the stream, or the arguments of its tool call, as `rusty_agent` decodes it."""
    from rusty_agent.wire.reply import ReplyDecoder

    decoder = ReplyDecoder()
    for piece in given:
        decoder.feed(piece)
    assert decoder.ended
    assert decoder.error is None
    return decoder.assembler.text or decoder.assembler.tool_calls[0].arguments


def by_hand(given: list[bytes]) -> str:
    """The same with `split` and orjson, which is right for this stream only."""
    import orjson

    parts: list[str] = []
    rest = b""
    for piece in given:
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                break
            delta = orjson.loads(event[6:])["choices"][0]["delta"]
            content = delta.get("content")
            if content:
                parts.append(content)
            elif calls := delta.get("tool_calls"):
                parts.append(calls[0]["function"]["arguments"])
    return "".join(parts)


WAYS: dict[str, Callable[[list[bytes]], str]] = {"ours": decode, "split and orjson": by_hand}


def measure(rounds: int, quick: bool) -> list[dict[str, Any]]:
    """A result for each size and way; `quick` leaves out the counting, which takes half a minute."""
    results = []
    counted = {} if quick else count_all()
    for label in LABELS:
        given = pieces(label)
        total = sum(map(len, given))
        assert len({way(given) for way in WAYS.values()}) == 1
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, way in WAYS.items():
                began = time.perf_counter()
                for _ in range(5):
                    way(given)
                took = (time.perf_counter() - began) / 5
                rows[name].append({"cost": took / COUNT * 1e6, "rate": total / took / 1e6})
        for name in WAYS:
            if (per_chunk := counted.get((name, label))) is not None:
                rows[name] = [{**row, "instructions": per_chunk} for row in rows[name]]
            results.append({"part": "wire", "label": label, "loop": "", "client": name, "rounds": rows[name]})
    return results


def count_all() -> dict[tuple[str, str], float | None]:
    """Instructions per chunk of each way and size. Counting is slow, but load does not change it: count in parallel."""
    both = list(product(WAYS, LABELS))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(both, pool.map(lambda way: instructions(*way), both), strict=True))


def instructions(way: str, label: str) -> float | None:
    """Instructions per chunk: those of ten decodings less those of none; None if nothing can count them."""
    command = [sys.executable, "-m", "benchmarks.wire", way, label]
    none, ten = count([*command, "0"]), count([*command, "10"])
    return None if none is None or ten is None else (ten - none) / 10 / COUNT


if __name__ == "__main__":
    stream = pieces(sys.argv[2])
    decode(stream)
    for _ in range(int(sys.argv[3])):
        WAYS[sys.argv[1]](stream)

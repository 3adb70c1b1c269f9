"""The quick ways through a stream are taken, and say the same as the slow one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rusty_agent.errors import ResponseError
from rusty_agent.types import Finish, ReasoningDelta, TextDelta, ToolCallDelta
from rusty_agent.wire.chunks import ChunkDecoder, Delta
from rusty_agent.wire.frame import frame_of
from rusty_agent.wire.reply import ReplyDecoder
from tests.replies import chunk, replay, sse


@pytest.mark.parametrize(
    ("arrivals", "frames"),
    [(["a"], 0), (["a", ""], 1), (["a", "b"], 1), (["a", "b", "c"], 1), (["ab"], 1), (["abc", "d"], 1)],
)
def test_a_frame_is_made_once_more_texts_come(
    arrivals: list[str], frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first text does not wait for it, and an answer that comes at once with one piece of text has none."""
    made = []

    def counted(*sample: Any) -> Any:
        made.append(sample)
        return frame_of(*sample)

    monkeypatch.setattr("rusty_agent.wire.chunks.frame_of", counted)
    bodies = [sse(*map(chunk, texts), done=False) for texts in arrivals]
    bodies[0] = sse(chunk("", role="assistant"), done=False) + bodies[0]
    bodies[-1] += sse(chunk(finish="stop"))
    decoder = ReplyDecoder()
    deltas = [delta for body in bodies for delta in decoder.feed(body)]
    assert deltas == [*"".join(arrivals), Finish("stop")]
    assert len(made) == frames


def spoken(text: Any) -> dict[str, Any]:
    return {"content": text}


def thought(text: Any) -> dict[str, Any]:
    return {"reasoning_content": text}


def called(text: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}


@pytest.mark.parametrize("at_once", [1, 2, 7])
@pytest.mark.parametrize(
    ("delta", "decoded", "field"),
    [
        (spoken, str, "text"),
        (thought, ReasoningDelta, "reasoning"),
        (called, lambda text: ToolCallDelta(0, arguments=text), "tool_calls"),
    ],
    ids=["text", "reasoning", "arguments"],
)
def test_of_tokens_that_come_a_few_at_once_nearly_none_goes_the_long_way(
    at_once: int,
    delta: Callable[[str], dict[str, Any]],
    decoded: Callable[[str], Delta],
    field: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the first, from which is learned what they have in common."""
    long_way = 0
    feed = ReplyDecoder._feed

    def counted(self: ReplyDecoder, data: bytes) -> list[Delta]:
        nonlocal long_way
        long_way += 1
        return feed(self, data)

    def event(word: str) -> bytes:
        return sse({"id": "x", "choices": [{"index": 0, "delta": delta(word), "finish_reason": None}]}, done=False)

    monkeypatch.setattr(ReplyDecoder, "_feed", counted)
    decoder = ReplyDecoder()
    words = [f"word {number} \N{SNOWMAN}\n" for number in range(49)]
    for start in range(0, 49, at_once):
        arrival = words[start : start + at_once]
        assert decoder.feed(b"".join(map(event, arrival))) == list(map(decoded, arrival))
    told, long_way_before = getattr(decoder.assembler, field), long_way
    assert (told[0].arguments if field == "tool_calls" else told, long_way_before) == ("".join(words), 1)
    held_back = decoder.feed(b'data: {"id":')  # in the middle of an event nothing is told by its first bytes
    assert decoder.feed(event("a") * at_once) == held_back == []


@pytest.mark.parametrize("odd", ["1", '""', "x", '"a","b"', "null", '"\\ud83d"'])
@pytest.mark.parametrize("delta", [spoken, thought, called])
def test_arrivals_that_only_look_like_texts(odd: str, delta: Callable[[Any], dict[str, Any]]) -> None:
    """Between the bytes that plain events have in common stands something else than a text."""
    event = b'data: {"choices":[{"index":0,"delta":%b}]}\n\n' % json.dumps(delta("?")).encode()
    plain, other = event.replace(b'"?"', b'"a"'), event.replace(b'"?"', odd.encode())
    for arrivals in ([plain, other], [plain, plain + other], [plain, other + plain], [plain, plain + other + plain]):
        assert replay(arrivals) == replay([b"".join(arrivals)])


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"index":%d,"delta":{"content":"%b"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"%b"},"index":%d}]}\n\n',
    ],
    ids=["before", "after"],
)
def test_an_arrival_of_the_same_length_that_differs_around_its_text(event: bytes) -> None:
    decoder = ReplyDecoder(choices=2)
    first = event.replace(b"%d", b"0")
    deltas = [delta for text in (b"a", b"b", b"c") for delta in decoder.feed(first % text)]
    assert deltas + decoder.feed(event.replace(b"%d", b"1") % b"d") == ["a", "b", "c", TextDelta("d", 1)]


@pytest.mark.parametrize("body", [b'data: "a"\n\n', b"data: 5\n\n"])
def test_what_stands_in_no_frame_is_no_text(body: bytes) -> None:
    decoder = ReplyDecoder()
    assert decoder.feed(body) == []
    assert not decoder.has_content


def test_arrivals_of_more_than_whole_events() -> None:
    """One ends within an event, one begins with a comment, and one holds an event that is longer than the cap."""
    first, second, third, fourth = (sse(chunk(text), done=False) for text in "abcd")
    for end in range(len(fourth)):
        assert replay([first, second, third + fourth[:end], fourth[end:]]).text == "abcd"
    assert replay([first, second, b":     " + third.removeprefix(b"data: ") + fourth]).text == "abd"
    long = sse(chunk("c" * 2**12), done=False)
    too_long = replay([first, second, long + fourth], max_bytes=2**12)
    assert (too_long.text, type(too_long.error)) == ("ab", ResponseError)


def test_events_that_are_all_named_are_plain_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As older LocalAI's: a chunk of such a stream takes a third of what decoding it in full would take."""
    monkeypatch.setattr(ChunkDecoder, "decode_value", None)
    events = [b"event: data\n" + sse(chunk(text), done=False) for text in "abc"]
    assert replay([*events, sse(chunk(finish="stop"))]).text == "abc"

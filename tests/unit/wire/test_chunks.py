"""Chunks of a stream → deltas: text, reasoning, finish reasons, what else they carry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rusty_agent.types import RawChunk, RefusalDelta, TextDelta, Usage, UsageUpdate
from rusty_agent.wire.chunks import ChunkDecoder, Delta
from tests.replies import chunk

from .decoding import Data, choice_of, decode, named_event

TEXTS = {
    "text": ([chunk("a"), chunk("b"), chunk("c"), chunk("d")], ["a", "b", "c", "d"]),
    "beside-an-empty-delta": ([choice_of(delta={}, text="a", finish_reason=None)], ["a"]),
    "empty": ([chunk(""), chunk(None), chunk("a")], ["a"]),
    "role-first": ([choice_of(delta={"role": "assistant", "content": None}), chunk("a")], ["a"]),
    "role-repeated": (
        [choice_of(delta={"role": "", "content": "a"}), choice_of(delta={"role": "assistant", "content": "b"})],
        ["a", "b"],
    ),
    "nothing": ([choice_of(delta=None), choice_of(), choice_of(delta={}), {"choices": None}, {"choices": []}, {}], []),
    "empty-choices": ([{"choices": {}}, {"choices": [None, "", 0, []]}, {"choices": ""}], []),
    "message": ([choice_of(message={"role": "assistant", "content": "a"})], ["a"]),
    "message-behind-empty-delta": ([choice_of(delta={}, message={"content": "a"})], ["a"]),
    "older-completions": ([choice_of(text="a")], ["a"]),
    "index-missing": (
        [{"choices": [{"delta": {"content": "a"}}]}, choice_of(index=None, delta={"content": "b"})],
        ["a", "b"],
    ),
    "index-nonsense": ([{"choices": [{"index": "1", "delta": {"content": "a"}}]}], ["a"]),
    "two-choices-in-one-chunk": (
        [{"choices": [{"delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}],
        ["a", TextDelta("b", 1)],
    ),
    "nested-in-provider": ([{"provider": {"choices": [{"delta": {"content": "a"}}], "model": "m"}}], ["a"]),
    "nested-beside-null": ([{"choices": None, "provider": {"choices": [{"delta": {"content": "a"}}]}}], ["a"]),
    "nested-in-data": (
        [{"code": 0, "msg": "ok", "data": chunk("a")}, {"code": 0, "data": {"choices": []}}, chunk("b")],
        ["a", "b"],
    ),
    "not-nested": ([{**chunk("a"), "provider": {"choices": [{"delta": {"content": "b"}}]}}], ["a"]),
    "choices-of-a-question": (
        [{"question": {"choices": [{"text": "a"}]}}],
        [RawChunk({"question": {"choices": [{"text": "a"}]}})],
    ),
    "refusal": ([choice_of(delta={"refusal": "no"}), choice_of(delta={"refusal": None})], [RefusalDelta("no")]),
    "number": (
        [chunk("["), chunk(6), chunk("] $"), chunk(0), chunk(0.5), chunk(" ")],
        ["[", "6", "] $", "0", "0.5", " "],
    ),
    "number-beside-role": (
        [choice_of(delta={"role": "assistant", "content": 0}), chunk(False), chunk(True)],
        ["0", "false", "true"],
    ),
    "number-of-older-completions": ([choice_of(text="a"), choice_of(text=0), choice_of(text=6)], ["a", "0", "6"]),
    "number-beside-counts": (
        [{**chunk(6), "usage": {"total_tokens": 1}}],
        ["6", UsageUpdate(Usage(0, 0, 1, raw={"total_tokens": 1}))],
    ),
}


@pytest.mark.parametrize(("chunks", "deltas"), TEXTS.values(), ids=TEXTS)
def test_text(chunks: list[Data], deltas: list[Delta]) -> None:
    out, decoder = decode(*chunks)
    assert out == deltas
    assert decoder.error is None


def test_two_choices_that_were_asked_for() -> None:
    out, decoder = decode(chunk("b", index=1), chunk("a"), chunk("d", index=1), chunk("c"), expected=2)
    assert out == [TextDelta("b", 1), "a", TextDelta("d", 1), "c"]
    assert decoder.choices.keys() == {0, 1}


@pytest.mark.parametrize("indexes", [range(1, 9), [1] * 8, [-1] * 8, [0, 0, 0, 7, 8, 9, 1, 1]], ids=repr)
def test_the_index_of_the_only_choice_means_nothing(indexes: list[int]) -> None:  # foundry-local#144; older TGI
    chunks = [chunk(text, index=index) for text, index in zip("abcdefg", indexes, strict=False)]
    out, decoder = decode(*chunks, chunk(finish="stop", index=indexes[-1]))
    assert out == list("abcdefg")
    assert decoder.choices.keys() == {0}
    assert decoder.reasons == {0: "stop"}


def test_choices_that_were_not_asked_for_are_kept_apart_once_they_show() -> None:
    both = {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    assert decode(both, chunk("d", index=1), chunk("c"))[0] == ["a", TextDelta("b", 1), TextDelta("d", 1), "c"]


def test_choices_that_are_no_list_come_as_a_raw_chunk() -> None:
    assert decode({"choices": {"0": 1}})[0] == [RawChunk({"choices": {"0": 1}})]


def test_halves_of_characters_everywhere_else() -> None:
    half = "\ud83d"
    out, decoder = decode({**chunk("a", finish=half), "model": half, half: half, "usage": {"total_tokens": 1, half: 1}})
    text, raw, usage = out
    assert text == "a"
    assert isinstance(raw, RawChunk)
    assert raw.data["\ufffd"] == raw.data["model"] == decoder.meta["model"] == decoder.reasons[0] == "\ufffd"
    assert getattr(usage, "usage").raw == {"total_tokens": 1, "\ufffd": 1}  # noqa: B009


@pytest.mark.parametrize(
    "fields",
    [
        {"annotations": [1]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": []}}]},
        {"choices": [{"index": 0, "delta": {"content": "a", "audio": {"id": "x"}}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "content_filter_results": {"hate": {}}}]},
        {"prompt_filter_results": [{"prompt_index": 0}]},
    ],
    ids=["chunk", "logprobs", "delta", "choice", "azure"],
)
@pytest.mark.parametrize("learnt", [False, True])
def test_what_no_other_event_carries_comes_as_a_raw_chunk(fields: dict[str, Any], learnt: bool) -> None:
    odd = {**chunk("a"), **fields}
    before: list[Data] = [chunk("x"), chunk("y"), chunk("z")] if learnt else []
    out, _ = decode(*before, odd)
    assert out[len(before) :] == ["a", RawChunk(odd)]


@pytest.mark.parametrize(
    "fields",
    [
        {"annotations": None, "moderation": [], "x": "", "y": 0},
        {"choices": [{"index": 0, "delta": {"content": "a", "audio": None}, "logprobs": None}]},
        {"obfuscation": "x7", "service_tier": "free-form", "system_fingerprint": "f", "timings": {"a": 1}},
        {"object": "chat.completions", "created": 1.5, "provider": "P", "x_groq": {"id": "r"}, "error": None},
    ],
    ids=["empty", "null", "known", "slips"],
)
def test_what_is_no_news_makes_no_raw_chunk(fields: dict[str, Any]) -> None:
    assert decode(chunk("x"), {**chunk("a"), **fields})[0] == ["x", "a"]


def test_meta_keeps_the_last_value_that_says_something() -> None:
    first = {"id": "1", "model": "", "created": 5, "choices": []}
    second: Data = {
        "id": "2",
        "model": "m",
        "created": None,
        "choices": [{"delta": {"role": "assistant"}}],
        "usage": {},
    }
    _, decoder = decode(first, second, {**chunk(finish="stop"), "id": "", "model": "m2", "timings": {"n": 1}})
    assert decoder.meta == {
        "id": "2",
        "created": 5,
        "model": "m2",
        "object": "chat.completion.chunk",
        "timings": {"n": 1},
    }


@pytest.mark.parametrize(
    ("chunks", "meta"),
    [
        ([chunk(role="assistant"), {**chunk("a"), "id": "2"}, {**chunk("b"), "id": "2"}], {"id": "2"}),
        ([chunk(role="assistant"), {**chunk("a"), "system_fingerprint": "f"}, chunk("b")], {"system_fingerprint": "f"}),
        ([{**chunk(text), "timings": {"n": n}} for n, text in enumerate("abcdefghijkl")], {"timings": {"n": 11}}),
        ([chunk("a"), chunk("b"), {**chunk(role="assistant"), "model": "n"}, chunk("c"), chunk("d")], {"model": "m"}),
        ([chunk("a"), chunk("b"), {**chunk("c"), "model": "n"}, chunk("d")], {"model": "m"}),
        ([*({**chunk("a"), "created": n} for n in range(1, 20)), chunk("b")], {"created": 19}),
        (
            [*(item for n in range(12) for item in (chunk("a"), {**chunk("b"), "id": f"{n}"})), *[chunk("c")] * 3],
            {"id": "chatcmpl-1"},
        ),
    ],
    ids=["id-late", "fingerprint", "timings", "model-and-back", "model-and-back-in-text", "clock", "in-turns"],
)
@pytest.mark.parametrize("apart", [False, True])
def test_meta_is_that_of_every_chunk_of_text_too(chunks: list[Data], meta: dict[str, Any], apart: bool) -> None:
    decoder = ChunkDecoder()
    events = [json.dumps(item).encode() for item in chunks]
    for arrival in [[event] for event in events] if apart else [events]:
        decoder.decode_all(arrival, [])
    expected = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", **meta}
    assert decoder.meta == expected


def test_meta_is_bounded() -> None:
    decoder = ChunkDecoder()
    out: list[Delta] = []
    decoder.decode(json.dumps({**chunk("a"), "n": 1}).encode(), out)
    for number in range(1000):
        decoder.decode(json.dumps({f"k{number}": "x" * 100, "id": f"{number}"}).encode(), out)
    large = {"model": "n", "timings": ["x" * 100_000], "created": 5, "provider": "x" * 2000}
    for item in ({**chunk("b"), **large}, {**chunk(role="assistant"), **large}):
        decoder.decode(json.dumps(item).encode(), out)
    assert len(decoder.meta) == 128
    assert [decoder.meta[name] for name in ("n", "id", "model", "k0")] == [1, "chatcmpl-1", "n", "x" * 100]
    assert sum(len(str(value)) for value in decoder.meta.values()) < 20_000


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (["stop"], {0: "stop"}),
        (["", "", "stop"], {0: "stop"}),
        ([None], {}),
        ([""], {}),
        ([5, ["stop"]], {}),
        (["stop", "length"], {0: "length"}),
        (["stop", None, ""], {0: "stop"}),
    ],
    ids=["plain", "empty-before", "null", "empty", "nonsense", "twice", "nothing-after"],
)
def test_finish_reason(reasons: list[Any], expected: dict[int, str]) -> None:
    _, decoder = decode(*({"choices": [{"delta": {"content": "x"}, "finish_reason": reason}]} for reason in reasons))
    assert decoder.reasons == expected
    assert decoder.choices.keys() == {0}


@pytest.mark.parametrize("mark", [b"[DONE]", b"[DONE] ", b"[DONE]\t\r", b" [DONE]"], ids=repr)
def test_the_end_mark(mark: bytes) -> None:
    decoder = ChunkDecoder()
    out: list[Delta] = []
    decoder.decode_all([json.dumps(chunk("a")).encode(), mark, json.dumps(chunk("b")).encode()], out)
    assert (out, decoder.done) == (["a"], True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b": OPENROUTER PROCESSING",
        b" : keep-alive",
        b"null",
        b"{}",
        b"1",
        b"true",
        b'""',
        b'"ping"',
        b"[]",
        b"[PING]",
        b"[HEARTBEAT]",
        named_event(b"", "ping"),
        named_event(b"beep", "heartbeat"),
        named_event(b"x", "keepalive"),
        named_event(b"x", "keep-alive"),
    ],
    ids=repr,
)
def test_data_without_meaning_is_skipped(data: bytes) -> None:
    out, decoder = decode(chunk("a"), data, chunk("b"))
    assert (out, decoder.done, decoder.error) == (["a", "b"], False, None)


def test_named_events_are_chunks_too() -> None:
    data = json.dumps(chunk("a")).encode()
    assert decode(named_event(data, "completion"), named_event(data, "completion"), chunk("b"))[0] == ["a", "a", "b"]


@pytest.mark.parametrize("told", [b'{"error":"m"}', b'{"status":"error"}', b'{"message":"\\ud83d"}'], ids=repr)
def test_what_an_agent_tells_of_its_tools_is_no_error_of_the_endpoint(told: bytes) -> None:
    out, decoder = decode(chunk("a"), named_event(told, "agent.tool.progress"), chunk("b"))
    assert (out[0], out[2:], decoder.error, decoder.strange) == ("a", ["b"], None, None)
    assert isinstance(out[1], RawChunk)
    assert decoder.foreign


@pytest.mark.parametrize("told", [b"ls", b'["ls"]', b'{"status":'], ids=repr)
def test_what_an_agent_tells_of_its_tools_in_no_object_is_not_passed_on(told: bytes) -> None:
    out, decoder = decode(chunk("a"), named_event(told, "tool_result"), chunk("b"))
    assert (out, decoder.error) == (["a", "b"], None)


def test_a_chunk_in_an_event_of_tools_is_a_chunk() -> None:
    assert decode(named_event(json.dumps(chunk("a")).encode(), "tool_calls"))[0] == ["a"]
    _, decoder = decode(named_event(b'{"choices":[],"error":{"message":"m"}}', "tool_calls"))
    assert decoder.error is not None


def test_many_choices_share_what_is_kept_of_them() -> None:
    """What is made anew for each choice would take minutes for the answer that a broken endpoint can send."""
    decoder = ChunkDecoder(9)
    kept = decoder.choices, decoder.deltas.told
    for index in range(9):
        decoder.decode(json.dumps(chunk("a" if index % 2 else "\ud83d", index=index)).encode(), [])
    assert kept == (dict.fromkeys(range(9), True), dict.fromkeys(range(9)))
    for ours, theirs in zip(kept, (decoder.choices, decoder.deltas.told), strict=True):
        assert ours is theirs

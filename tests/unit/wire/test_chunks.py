"""One chunk → deltas, in every provider's dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rusty_agent import errors
from rusty_agent.types import RawChunk, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from rusty_agent.wire.chunks import ChunkDecoder, Delta
from rusty_agent.wire.sse import Event
from tests.replies import chunk

Data = dict[str, Any] | bytes


def _decode(*chunks: Data, expected: int = 1) -> tuple[list[Delta], ChunkDecoder]:
    """Decode chunks, an arrival each; JSON is written as strict servers and as loose ones do."""
    decoder = ChunkDecoder(expected)
    out: list[Delta] = []
    for item in chunks:
        decoder.decode_all([item if isinstance(item, bytes) else json.dumps(item).encode()], out)
    decoder.flush(out)
    return out, decoder


def _event(data: bytes, type_: str) -> Event:
    event = Event(data)
    event.type = type_
    return event


def _choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **fields}]}


@pytest.mark.parametrize(
    ("chunks", "deltas"),
    [
        ([chunk("a"), chunk("b"), chunk("c"), chunk("d")], ["a", "b", "c", "d"]),
        ([chunk(""), chunk(None), chunk("a")], ["a"]),
        ([_choice(delta={"role": "assistant", "content": None}), chunk("a")], ["a"]),
        (
            [_choice(delta={"role": "", "content": "a"}), _choice(delta={"role": "assistant", "content": "b"})],
            ["a", "b"],
        ),
        ([_choice(delta=None), _choice(), _choice(delta={}), {"choices": None}, {"choices": []}, {}], []),
        ([{"choices": {}}, {"choices": [None, "", 0, []]}, {"choices": ""}], []),
        ([_choice(message={"role": "assistant", "content": "a"})], ["a"]),
        ([_choice(delta={}, message={"content": "a"})], ["a"]),
        ([_choice(text="a")], ["a"]),
        ([{"choices": [{"delta": {"content": "a"}}]}, _choice(index=None, delta={"content": "b"})], ["a", "b"]),
        ([{"choices": [{"index": "1", "delta": {"content": "a"}}]}], ["a"]),
        (
            [{"choices": [{"delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}],
            ["a", TextDelta("b", 1)],
        ),
        ([{"provider": {"choices": [{"delta": {"content": "a"}}], "model": "m"}}], ["a"]),
        ([{"choices": None, "provider": {"choices": [{"delta": {"content": "a"}}]}}], ["a"]),
        ([{**chunk("a"), "provider": {"choices": [{"delta": {"content": "b"}}]}}], ["a"]),
        ([_choice(delta={"refusal": "no"}), _choice(delta={"refusal": None})], [RefusalDelta("no")]),
    ],
    ids=[
        "text",
        "empty",
        "role-first",
        "role-repeated",
        "nothing",
        "empty-choices",
        "message",
        "message-behind-empty-delta",
        "older-completions",
        "index-missing",
        "index-nonsense",
        "two-choices-in-one-chunk",
        "nested-in-provider",
        "nested-beside-null",
        "not-nested",
        "refusal",
    ],
)
def test_text(chunks: list[Data], deltas: list[Delta]) -> None:
    out, decoder = _decode(*chunks)
    assert out == deltas
    assert decoder.error is None


def test_two_choices_that_were_asked_for() -> None:
    out, decoder = _decode(chunk("b", index=1), chunk("a"), chunk("d", index=1), chunk("c"), expected=2)
    assert out == [TextDelta("b", 1), "a", TextDelta("d", 1), "c"]
    assert decoder.choices == {0, 1}


@pytest.mark.parametrize("indexes", [range(1, 9), [1] * 8, [-1] * 8, [0, 0, 0, 7, 8, 9, 1, 1]], ids=repr)
def test_the_index_of_the_only_choice_means_nothing(indexes: list[int]) -> None:  # foundry-local#144; older TGI
    chunks = [chunk(text, index=index) for text, index in zip("abcdefg", indexes, strict=False)]
    out, decoder = _decode(*chunks, chunk(finish="stop", index=indexes[-1]))
    assert out == list("abcdefg")
    assert decoder.choices == {0}
    assert decoder.reasons == {0: "stop"}


def test_choices_that_were_not_asked_for_are_kept_apart_once_they_show() -> None:
    both = {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    assert _decode(both, chunk("d", index=1), chunk("c"))[0] == ["a", TextDelta("b", 1), TextDelta("d", 1), "c"]


@pytest.mark.parametrize("empty", [{"delta": {}}, {"delta": None}, {}], ids=repr)
def test_a_message_after_deltas_is_no_news(empty: dict[str, Any]) -> None:
    whole = _choice(**empty, message={"role": "assistant", "content": "ab"}, finish_reason="stop")
    out, decoder = _decode(chunk("a"), chunk("b"), whole)
    assert (out, decoder.reasons) == (["a", "b"], {0: "stop"})
    call = {"index": 0, "id": "i", "function": {"name": "f", "arguments": "{}"}}
    again = _choice(**empty, message={"content": None, "tool_calls": [call]}, finish_reason="tool_calls")
    assert _decode(chunk(tool_calls=[call]), again)[0] == [ToolCallDelta(0, "i", "f", "{}")]
    assert _decode(chunk(role="assistant"), whole)[0] == ["ab"]


def test_messages_may_be_the_pieces() -> None:
    assert _decode(*(_choice(message={"content": text}) for text in "abc"))[0] == ["a", "b", "c"]
    assert _decode(*(_choice(message={"content": text}) for text in ("a\ud83d", "\ude00b")))[0] == ["a", "😀b"]


TEXTS = ["a", "b", "c", 'say "hi"', "a\\b", "a\nb", "é世😀", '"', '"content": "x"', "\x7f\u2028", "}]}", "d", "e"]


@pytest.mark.parametrize(
    "fields",
    [
        lambda at: {},
        lambda at: {"created": at},
        lambda at: {"created": at // 3},
        lambda at: {"obfuscation": "x" * at},
        lambda at: {"model": "content"},
        lambda at: {"system_fingerprint": '"content": "x"'},
    ],
    ids=["nothing", "always", "now-and-then", "in-length", "content-as-value", "content-in-value"],
)
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")], ids=repr)
def test_text_of_chunks_that_differ_in(fields: Any, ascii_only: bool, separators: tuple[str, str]) -> None:
    texts = TEXTS * 3
    chunks = [{**chunk(text), **fields(at)} for at, text in enumerate(texts)]
    events = [json.dumps(item, ensure_ascii=ascii_only, separators=separators).encode() for item in chunks]
    assert _decode(*events)[0] == texts


class _Counting(ChunkDecoder):
    """Counts the chunks that were decoded in full."""

    decoded = 0

    def decode(self, data: bytes, out: list[Delta]) -> None:
        self.decoded += 1
        super().decode(data, out)


def _decoded(*chunks: dict[str, Any]) -> int:
    decoder = _Counting()
    out: list[Delta] = []
    for item in chunks:
        decoder.decode_all([json.dumps(item, separators=(",", ":")).encode()], out)
    assert len(out) == len(chunks)
    return decoder.decoded


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"role": "assistant", "content": "a"},
        {"content": "a", "reasoning_content": None, "tool_calls": []},
        {"role": "assistant", "content": None, "reasoning_content": "a"},
        {"content": "", "reasoning": "a"},
        {"thinking": "a"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("padded", [False, True])
def test_chunks_that_differ_in_their_text_only_are_decoded_once(delta: dict[str, Any], padded: bool) -> None:
    padding = [{"obfuscation": "x7Zq"[: at % 5]} if padded else {} for at in range(50)]
    assert _decoded(*[{"id": "i", **_choice(delta=delta), **padding[at]} for at in range(50)]) == 1


@pytest.mark.parametrize("key", ["obfuscation", "p"])
@pytest.mark.parametrize("padding", ["", "x7Zq", "x y", 'x"}', 5, {"a": 1}])
def test_padding_is_no_news_and_nowhere_kept(key: str, padding: Any) -> None:
    chunks = [{**chunk(text), key: "abc"} for text in "ab"] + [{**chunk("c"), key: padding}, {**chunk("d"), key: "a"}]
    out, decoder = _decode(*(json.dumps(item, separators=(",", ":")).encode() for item in chunks))
    assert out == ["a", "b", "c", "d"]
    assert decoder.meta.get(key) == (None if isinstance(padding, str) else padding)


def test_what_only_looks_like_padding() -> None:
    plain = [json.dumps({**chunk(text), "p": "x"}, separators=(",", ":")).encode() for text in "abc"]
    begin = plain[0].removesuffix(b'x"}')
    odd = begin + b'x","choices":[{"delta":{"content":"z"}}],"q":"y"}'  # what stands last in an object counts
    assert _decode(*plain, odd, *plain)[0][3] == "z"


def test_learning_stops_where_it_does_not_pay_and_goes_on_where_it_does() -> None:
    clock = [{**chunk("a"), "created": second} for second in range(50)]
    assert _decoded(*clock) == 50
    assert _decoded(*clock, *[chunk("b")] * 9) == 59  # no chunk is looked at for long
    assert _decoded(*(item for item in clock for _ in range(3))) == 50  # one of each three


def test_content_that_is_not_the_text() -> None:
    """Nothing is learnt from a chunk in which it is not clear where the text stands."""
    plain = json.dumps({"provider": {"content": "a"}, **chunk("a")}).encode()
    other = plain.replace(b'"a"', b'"b"', 1)
    assert _decode(plain, plain, plain, other, other)[0] == ["a"] * 5


def test_a_key_spelt_with_an_escape_is_not_overlooked() -> None:
    plain = [b'{"choices":[{"delta":{"content":"%b","c\\u006fntent":"z"}}]}' % text for text in (b"a", b"z", b"c")]
    assert _decode(b'{"choices":[{"delta":{"content":"x"}}]}', *plain)[0] == ["x", "z", "z", "z"]


def test_a_chunk_that_only_looks_like_those_before() -> None:
    plain = [json.dumps(chunk(text)).encode() for text in "abc"]
    begin, end = plain[0].split(b'"a"')
    for middle, expected in [
        (b'""', []),
        (b"null", []),
        (b' "d" ', ["d"]),
        (b'"d", "role": "assistant"', ["d"]),
        (b'["d"]', ["d"]),
        (b'"d"}, "finish_reason": "stop", "x": {"y": 1', ["d"]),
        (b'"\\ud83d"', ["\ufffd"]),
        (b'"\xff"', ["\ufffd"]),
    ]:
        out, decoder = _decode(*plain, begin + middle + end)
        assert [item for item in out if isinstance(item, str)] == ["a", "b", "c", *expected]
        assert decoder.error is None
    assert _decode(*plain, begin[:-1] + end)[1].error is not None


@pytest.mark.parametrize(
    ("content", "deltas"),
    [
        ([{"type": "text", "text": "a"}], ["a"]),
        (["a", {"text": "b"}], ["a", "b"]),
        ([{"type": "thinking", "thinking": "hm"}], [ReasoningDelta("hm")]),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}, "m"]}],
            [ReasoningDelta("h"), ReasoningDelta("m")],
        ),
        (
            [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, {"type": "text", "text": "a"}],
            [ReasoningDelta("hm"), "a"],
        ),
        ([{"type": "refusal", "refusal": "no"}], [RefusalDelta("no")]),
        ({"type": "text", "text": "a"}, ["a"]),
        ([None, [], {}, "", {"text": ""}, {"type": "thinking", "thinking": [None, ""]}], []),
        ([], []),
    ],
    ids=[
        "text",
        "strings",
        "thinking",
        "thinking-parts",
        "reasoning-summary",
        "refusal",
        "object",
        "empty-parts",
        "empty",
    ],
)
def test_content_in_parts(content: Any, deltas: list[Delta]) -> None:
    assert _decode(chunk(content))[0] == deltas
    assert _decode(chunk("x"), chunk(content), chunk("y"))[0] == ["x", *deltas, "y"]


@pytest.mark.parametrize(
    ("choice", "deltas"),
    [
        ({"delta": {"content": 5}}, []),
        ({"delta": {"content": True}}, []),
        ({"delta": {"content": {"a": 1}}}, []),
        ({"delta": {"content": [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "a"}]}}, ["a"]),
        ({"delta": {"content": [4, "a"]}}, ["a"]),
        ({"delta": {"content": [{"thinking": [{"text": 4}, "h"]}]}}, [ReasoningDelta("h")]),
        ({"delta": {"reasoning_details": [{"type": "reasoning.encrypted", "data": "z"}]}}, []),
        (
            {"delta": {"reasoning": "r", "reasoning_details": [{"text": "r"}, {"signature": "s"}]}},
            [ReasoningDelta("r")],
        ),
        ({"delta": {"reasoning": {"id": 4}, "thinking": ["a"], "reasoning_details": "a"}}, []),
        ({"delta": {"refusal": {"why": "x"}}}, []),
        ({"delta": {"tool_calls": "x"}}, []),
        ({"delta": {"tool_calls": [3, None, {}]}}, []),
        ({"delta": {"function_call": "x"}}, []),
        ({"delta": ["x"]}, []),
        ({"text": ["x"]}, []),
        ("x", []),
    ],
    ids=repr,
)
def test_what_is_known_by_name_only_comes_as_a_raw_chunk(choice: Any, deltas: list[Delta]) -> None:
    odd = {"id": "1", "choices": [choice]}
    assert _decode(odd)[0] == [*deltas, RawChunk(odd)]
    assert _decode(odd, chunk("x"))[0] == [*deltas, RawChunk(odd), "x"]


def test_choices_that_are_no_list_come_as_a_raw_chunk() -> None:
    assert _decode({"choices": {"0": 1}})[0] == [RawChunk({"choices": {"0": 1}})]


def test_content_nested_without_end_is_no_recursion() -> None:
    content: Any = "deep"
    for _ in range(300):
        content = [{"thinking": content}]
    assert [type(delta) for delta in _decode(chunk(content))[0]] == [RawChunk]


@pytest.mark.parametrize(
    ("delta", "texts"),
    [
        ({"reasoning_content": "a"}, ["a"]),
        ({"reasoning": "a"}, ["a"]),
        ({"thinking": "a"}, ["a"]),
        ({"reasoning_text": "a"}, ["a"]),
        ({"reasoning_details": [{"text": "a"}, {"summary": "b"}, {}, None]}, ["a", "b"]),
        ({"reasoning": {"content": "a"}}, ["a"]),
        ({"reasoning": {"text": "a"}}, ["a"]),
        ({"reasoning_content": "a", "reasoning": "a"}, ["a"]),
        ({"reasoning": "a", "reasoning_details": [{"text": "a"}]}, ["a"]),
        ({"reasoning_content": "", "reasoning": "a"}, ["a"]),
        ({"reasoning_content": None, "reasoning": None, "reasoning_details": None}, []),
        ({"reasoning": {}, "thinking": [], "reasoning_details": ""}, []),
    ],
    ids=[
        "reasoning_content",
        "reasoning",
        "thinking",
        "reasoning_text",
        "reasoning_details",
        "object-content",
        "object-text",
        "two-spellings",
        "details-beside-text",
        "first-is-empty",
        "null",
        "empty",
    ],
)
def test_reasoning(delta: dict[str, Any], texts: list[str]) -> None:
    assert _decode(_choice(delta=delta))[0] == [ReasoningDelta(text) for text in texts]
    spoken = _decode({"choices": [{"index": 3, "delta": {**delta, "content": "x"}}]}, expected=4)[0]
    assert spoken == [*(ReasoningDelta(text, 3) for text in texts), TextDelta("x", 3)]


@pytest.mark.parametrize(
    ("field", "kind"), [("content", TextDelta), ("reasoning_content", ReasoningDelta), ("refusal", RefusalDelta)]
)
@pytest.mark.parametrize(
    ("pieces", "texts"),
    [
        (["\ud83d", "\ude00"], ["😀"]),
        (["a\ud83d", "\ude00b"], ["a", "😀b"]),
        (["\ud83d", "", "\ude00"], ["😀"]),
        (["\ud83d", "b"], ["\ufffdb"]),
        (["\ude00", "b"], ["\ufffd", "b"]),
        (["\ud83d", "\ud83d", "\ude00"], ["\ufffd", "😀"]),
        (["a\ud83d"], ["a", "\ufffd"]),
        (["a\ud83dc", "d"], ["a\ufffdc", "d"]),
        (["\ud83d\ude00"], ["😀"]),
    ],
    ids=["pair", "inside", "empty-between", "high-alone", "low-alone", "high-twice", "at-the-end", "middle", "whole"],
)
def test_halves_of_characters(field: str, kind: type, pieces: list[str], texts: list[str]) -> None:
    out, _ = _decode(chunk(role="assistant"), *(_choice(delta={field: piece}) for piece in pieces))
    assert out == [text if kind is TextDelta else kind(text) for text in texts]
    out, _ = _decode(*({"choices": [{"index": 1, "delta": {field: piece}}]} for piece in pieces), expected=2)
    assert out == [kind(text, 1) for text in texts]


def test_halves_of_one_choice_do_not_meet_those_of_another() -> None:
    out, _ = _decode(chunk("\ud83d"), chunk("\ud83d", index=1), chunk("\ude00", index=1), chunk("\ude00"), expected=2)
    assert out == [TextDelta("😀", 1), "😀"]


def test_a_half_is_not_overtaken_by_plain_text() -> None:
    plain = [chunk("a"), chunk("b"), chunk("c")]
    out, _ = _decode(*plain, chunk("\ud83d"), chunk("d"), chunk("e"))
    assert out == ["a", "b", "c", "\ufffdd", "e"]


def test_half_in_tool_arguments_at_the_end() -> None:
    raw = {"index": 0, "id": "a", "function": {"name": "w", "arguments": '"\ud83d'}}
    out, _ = _decode({"choices": [{"index": 2, "delta": {"tool_calls": [raw]}}]}, expected=3)
    assert out == [ToolCallDelta(0, "a", "w", '"', 2), ToolCallDelta(0, arguments="\ufffd", index=2)]


def test_halves_of_characters_everywhere_else() -> None:
    half = "\ud83d"
    out, decoder = _decode(
        {**chunk("a", finish=half), "model": half, half: half, "usage": {"total_tokens": 1, half: 1}}
    )
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
    out, _ = _decode(*before, odd)
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
    assert _decode(chunk("x"), {**chunk("a"), **fields})[0] == ["x", "a"]


def test_meta_keeps_the_last_value_that_says_something() -> None:
    first = {"id": "1", "model": "", "created": 5, "choices": []}
    second: Data = {
        "id": "2",
        "model": "m",
        "created": None,
        "choices": [{"delta": {"role": "assistant"}}],
        "usage": {},
    }
    _, decoder = _decode(first, second, {**chunk(finish="stop"), "id": "", "model": "m2", "timings": {"n": 1}})
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
    _, decoder = _decode(*({"choices": [{"delta": {"content": "x"}, "finish_reason": reason}]} for reason in reasons))
    assert decoder.reasons == expected
    assert decoder.choices == {0}


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
        _event(b"", "ping"),
        _event(b"beep", "heartbeat"),
        _event(b"x", "keepalive"),
        _event(b"x", "keep-alive"),
    ],
    ids=repr,
)
def test_data_without_meaning_is_skipped(data: bytes) -> None:
    out, decoder = _decode(chunk("a"), data, chunk("b"))
    assert (out, decoder.done, decoder.error) == (["a", "b"], False, None)


def test_named_events_are_chunks_too() -> None:
    data = json.dumps(chunk("a")).encode()
    assert _decode(_event(data, "completion"), _event(data, "completion"), chunk("b"))[0] == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"choices": [', "an event that is not JSON: '{\"choices\": ['"),
        (b"<html>", "an event that is not JSON: '<html>'"),
        (b"\xff\x1b[2J", "an event that is not JSON: '\ufffd\\\\x1b[2J'"),
        (b'"text"', "an event that is no JSON object: '\"text\"'"),
        (b"12", "an event that is no JSON object: '12'"),
        (b"[]", "an event that is no JSON object: '[]'"),
        (b"[{},{}]", "an event that is no JSON object: '[{},{}]'"),
        (b"[" * 100_000, "an event that is not JSON"),
    ],
    ids=["cut", "html", "control-characters", "string", "number", "list", "long-list", "deep"],
)
def test_events_that_cannot_be_read(data: bytes, said: str) -> None:
    out, decoder = _decode(chunk("a"), data, chunk("b"))
    assert out == ["a", *(["b"] if decoder.error is None else out[1:])]
    assert isinstance(decoder.error, errors.ResponseError)
    assert said in decoder.error.message
    assert decoder.error.body == data[:2048]
    assert type(decoder.error.body) is bytes


@pytest.mark.parametrize("content", [b'"' + b"x" * 5000 + b'"', b"x" * 5000], ids=["no-object", "not-json"])
def test_the_offending_bytes_are_capped(content: bytes) -> None:
    _, decoder = _decode(content)
    assert isinstance(decoder.error, errors.ResponseError)
    assert decoder.error.body == content[:2048]
    assert len(decoder.error.message) < 300


def test_tool_arguments_that_cannot_be_read() -> None:
    data = b'{"choices":[{"delta":{"tool_calls":[{"function":{"name":"w","arguments":{"a":NaN,"b":"\\ud83d"}}}]}}]}'
    out, decoder = _decode(chunk("a"), data)
    assert out == ["a"]
    assert isinstance(decoder.error, errors.ResponseError)


API, BAD, RATE, SERVER = errors.APIStatusError, errors.BadRequestError, errors.RateLimitError, errors.ServerError


@pytest.mark.parametrize(
    ("data", "kind", "message", "fields"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c", "param": "p"}}, API, "m", ("c", "t", "p")),
        ({"error": {"message": "m", "code": 400}}, BAD, "m", (400, None, None)),
        ({"error": {"message": "m", "code": "429"}}, RATE, "m", ("429", None, None)),
        ({"error": {"message": "m", "code": 502}, **chunk("", finish="error")}, SERVER, "m", (502, None, None)),
        ({"choices": [], "error": {"message": "m", "code": 500}}, SERVER, "m", (500, None, None)),
        ({"error": {"message": "m"}, "message": "m"}, API, "m", (None, None, None)),
        ({"error": {}, "message": "m", "code": 500}, SERVER, "m", (500, None, None)),
        ({"error": "m", "error_type": "t"}, API, "m", (None, "t", None)),
        ({"error": "m"}, API, "m", (None, None, None)),
        ({"error": True}, API, None, (None, None, None)),
        ({"error": {"message": {"detail": [{"loc": ["body", 0], "msg": "m"}]}}}, API, "body.0: m", (None, None, None)),
        ({"object": "error", "message": {"detail": [{"msg": "m"}]}, "code": 422}, BAD, "m", (422, None, None)),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "m"}},
            SERVER,
            "m",
            (None, "overloaded_error", None),
        ),
        ({"type": "error", "message": "m"}, API, "m", (None, "error", None)),
        ({"detail": "m"}, API, "m", (None, None, None)),
        ({"code": "InvalidApiKey", "message": "m"}, errors.AuthenticationError, "m", ("InvalidApiKey", None, None)),
        ({"choices": [{"delta": {}, "error": {"message": "m", "code": 429}}]}, RATE, "m", (429, None, None)),
        ({"choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}, API, None, (None, None, None)),
        (b'[{"error":{"code":503,"message":"m"}}]', SERVER, "m", (503, None, None)),
        (b'[{"error":{"code":503,"message":"m"}},{"error":{"code":500}}]', SERVER, "m", (503, None, None)),
        ({"error": [{"message": "m", "code": 400}]}, BAD, "m", (400, None, None)),
        ({"errors": [{"message": "m", "code": 7000}], "success": False}, API, "m", (7000, None, None)),
        ({"base_resp": {"status_code": 1004, "status_msg": "m"}, "choices": None}, API, "m", (1004, None, None)),
        ({"message": "m"}, API, "m", (None, None, None)),
        (_event(b"", "error"), API, None, (None, None, None)),
        (_event(b"[DONE]", "error"), API, "[DONE]", (None, None, None)),
        (_event(b": m", "error"), API, ": m", (None, None, None)),
        (_event(b'{"message":"m","code":500}', "error"), SERVER, "m", (500, None, None)),
        (_event(b'{"error":{"message":"m"}}', "error"), API, "m", (None, None, None)),
        (_event(b"m", "error"), API, "m", (None, None, None)),
        (_event(b'"m"', "error"), API, "m", (None, None, None)),
        (_event(b'{"message":"m\\ud83d","code":"\\ud83d"}', "error"), API, "m\ufffd", ("\ufffd", None, None)),
        (_event(json.dumps(chunk("e")).encode(), "error"), API, None, (None, None, None)),
        (b'{"error":{"message":"m\\ud83d","code":"\\ud83d"}}', API, "m\ufffd", ("\ufffd", None, None)),
        ({"error": {"message": "m", "code": "9" * 5000}}, API, "m", ("9" * 5000, None, None)),
        ({"error": {"message": "m", "code": True}}, API, "m", (None, None, None)),
        ({"error": {"message": "m", "code": 200}}, API, "m", (200, None, None)),
    ],
    ids=[
        "openai",
        "vllm",
        "code-as-string",
        "openrouter",
        "no-choices",
        "lm-studio",
        "empty-object",
        "tgi",
        "string",
        "true",
        "mistral-nested",
        "mistral",
        "anthropic",
        "anthropic-flat",
        "fastapi",
        "dashscope",
        "in-the-choice",
        "finish-reason-only",
        "gemini",
        "gemini-two",
        "list",
        "cloudflare",
        "minimax",
        "message-alone",
        "event-empty",
        "event-end-mark",
        "event-comment",
        "event-flat",
        "event-nested",
        "event-text",
        "event-string",
        "event-half-a-character",
        "event-with-a-plain-chunk",
        "half-a-character",
        "endless-code",
        "code-true",
        "code-200",
    ],
)
def test_error_objects(
    data: Data, kind: type[errors.APIStatusError], message: str | None, fields: tuple[Any, ...]
) -> None:
    for before in ([chunk("a")], [chunk("a"), chunk("b"), chunk("c"), chunk("d")]):
        out, decoder = _decode(*before, data)
        error = decoder.error
        assert out == list("abcd")[: len(before)]
        assert type(error) is kind
        status = error.status_code
        where = f"HTTP {status}" if status != 200 else "The endpoint reported an error inside its answer"
        assert error.message.startswith(f"{where}: {message}" if message else where)
        assert (error.code, error.type, error.param) == fields
        named = {"overloaded_error": 529, "InvalidApiKey": 401}.get(error.type or str(error.code))
        assert status == (named or (int(str(error.code)) if kind is not API else 200))


@pytest.mark.parametrize(
    "data",
    [
        {**chunk("a"), "detail": "x"},
        {**chunk("a"), "code": 0, "message": "ok"},
        {"choices": [], "code": 0, "message": ""},
        {"choices": [], "detail": None},
        {**chunk("a"), "error": None},
        {**chunk("a"), "error": {}},
        {**chunk("a"), "error": ""},
    ],
    ids=repr,
)
def test_what_is_no_error(data: Data) -> None:
    assert _decode(data)[1].error is None


def test_text_beside_an_error_counts() -> None:
    out, decoder = _decode({**chunk("a"), "error": {"message": "m"}})
    assert out == ["a"]
    assert decoder.error is not None


def test_many_choices_share_one_set() -> None:
    """A set that is made anew for each choice would take minutes for the answer that a broken endpoint can send."""
    _, decoder = _decode({"choices": [{"index": index, "delta": {"content": "a"}} for index in range(3)]})
    choices, begun = decoder.choices, decoder.begun
    decoder.decode(json.dumps({"choices": [{"index": 3, "delta": {"content": "a"}}]}).encode(), [])
    assert choices is decoder.choices
    assert begun is decoder.begun
    assert choices == begun == {0, 1, 2, 3}

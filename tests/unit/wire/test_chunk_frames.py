"""Chunks that differ from the last in their text only are decoded once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.types import ReasoningDelta, ToolCallDelta, UsageUpdate
from rusty_agent.wire.chunks import ChunkDecoder, Delta
from tests.replies import chunk

from .decoding import choice_of, decode

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
    assert decode(*events)[0] == texts


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


def call_piece(arguments: Any, **fields: Any) -> dict[str, Any]:
    """A chunk with a piece of a call's arguments."""
    return choice_of(delta={"tool_calls": [{"index": 0, "function": {"arguments": arguments}, **fields}]})


@pytest.mark.parametrize(
    "piece",
    [
        choice_of(delta={"content": "a"}),
        choice_of(delta={"role": "assistant", "content": "a"}),
        choice_of(delta={"content": "a", "reasoning_content": None, "tool_calls": []}),
        choice_of(delta={"role": "assistant", "content": None, "reasoning_content": "a"}),
        choice_of(delta={"content": "", "reasoning": "a"}),
        choice_of(delta={"thinking": "a"}),
        call_piece("a"),
        call_piece("a", type="function"),
        call_piece("a", id=None),
        call_piece("a", index=None),
        call_piece("a", index=7),
        {"choices": [{"index": 2, "delta": {"content": None, "tool_calls": [{"function": {"arguments": "a"}}]}}]},
        choice_of(delta={"function_call": {"arguments": "a"}}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("padded", [False, True])
def test_chunks_that_differ_in_their_piece_only_are_decoded_once(piece: dict[str, Any], padded: bool) -> None:
    padding = [{"obfuscation": "x7Zq"[: at % 5]} if padded else {} for at in range(50)]
    assert _decoded(*[{"id": "i", **piece, **padding[at]} for at in range(50)]) == 1


def calls_in(deltas: list[Delta]) -> list[ToolCallDelta]:
    return [delta for delta in deltas if isinstance(delta, ToolCallDelta)]


class _Long(ChunkDecoder):
    """Decodes each chunk in full."""

    def decode_framed(self, chunks: list[bytes], out: list[Delta], start: int = 0) -> int:
        return 0


CALLS = st.builds(
    call_piece,
    st.sampled_from(
        ['{"', 'a"', "}", '{"arguments": "x"}', '"arguments"', "é😀", "\ud83d", "\ude00", "", None, {"a": 1}]
    ),
    index=st.sampled_from([0, 0, 0, 1, None, "0"]),
    id=st.sampled_from([None, None, None, "", "null", "one", "two"]),
    type=st.sampled_from([None, "function"]),
)
NAMED = st.builds(
    lambda name, **fields: choice_of(delta={"tool_calls": [{"function": {"name": name, "arguments": ""}, **fields}]}),
    st.sampled_from(["look", "find"]),
    index=st.sampled_from([0, 1, None]),
    id=st.sampled_from([None, "one", "two"]),
)
NAMED_AGAIN = st.builds(
    lambda arguments, **fields: choice_of(
        delta={"tool_calls": [{"function": {"name": "look", **arguments}, **fields}]}
    ),
    st.fixed_dictionaries({"arguments": st.sampled_from(['{"a":', "1}", '{"a":1}', "{}"])}),
    index=st.sampled_from([0, 0, None]),
    id=st.sampled_from([None, "one"]),
)
OTHERS = st.sampled_from(
    [
        chunk("a"),
        chunk("a", reasoning_content="b"),
        chunk(finish="tool_calls"),
        {**call_piece("b"), "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
        choice_of(delta={"tool_calls": [{"index": 0, "function": {"arguments": "b"}}]}, finish_reason="tool_calls"),
        choice_of(delta={"content": "c", "tool_calls": [{"index": 0, "function": {"arguments": "b"}}]}),
        {"choices": [{"index": 1, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "b"}}]}}]},
        choice_of(delta={}, message={"tool_calls": [{"function": {"arguments": "b"}}]}),
        choice_of(delta={"role": "assistant"}, message={"function_call": {"arguments": "b"}}),
    ]
)


@given(
    st.lists(st.tuples(st.one_of(CALLS, CALLS, CALLS, NAMED, NAMED_AGAIN, OTHERS), st.integers(1, 4)), max_size=12),
    st.booleans(),
    st.integers(1, 2),
)
def test_calls_are_told_as_they_are_where_each_chunk_is_decoded_in_full(
    told: list[tuple[dict[str, Any], int]], ascii_only: bool, expected: int
) -> None:
    events = [
        json.dumps(item, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        for item, times in told
        for _ in range(times)
    ]
    decoders = ChunkDecoder(expected), _Long(expected)
    outs: tuple[list[Delta], list[Delta]] = [], []
    for decoder, out in zip(decoders, outs, strict=True):
        for event in events:
            decoder.decode_all([event], out)
            if decoder.error is not None:
                break
        decoder.deltas.flush(out)
    framed, full = decoders
    assert outs[0] == outs[1]
    assert (framed.meta, framed.reasons) == (full.meta, full.reasons)
    assert (framed.early, framed.resumed, framed.choices) == (full.early, full.resumed, full.choices)


def named_again(arguments: str, **fields: Any) -> bytes:
    """A chunk that tells the name once more."""
    function = {"name": "look", "arguments": arguments}
    return json.dumps(choice_of(delta={"tool_calls": [{"index": 0, "function": function, **fields}]})).encode()


@pytest.mark.parametrize("last", [['{"', 'a"', ":1}"], ['{"a":1}']], ids=["piece by piece", "at once"])
def test_a_name_that_is_told_each_time_begins_the_next_call(last: list[str]) -> None:
    deltas, _ = decode(*map(named_again, ['{"', 'b"', ":2}", *last]))
    assert [delta.name for delta in calls_in(deltas)] == ["look", None, None, "look", *[None] * (len(last) - 1)]


def test_a_call_that_is_told_once_more_at_its_end_is_no_more_of_it() -> None:
    pieces = ['{"', 'a"', ":1", "}", '{"a":1}']
    deltas, _ = decode(*(named_again(piece, id="one") for piece in pieces))
    assert [delta.arguments for delta in calls_in(deltas)] == [*pieces[:-1], ""]


@pytest.mark.parametrize("key", ["message", "text"])
def test_a_summary_that_is_told_again_is_no_piece(key: str) -> None:
    summary = choice_of(delta={}, **{key: {"tool_calls": [{"function": {"arguments": "abc"}}]}})
    assert [delta.arguments for delta in calls_in(decode(*[summary] * 3)[0])] == ["abc"]


@pytest.mark.parametrize("key", ["obfuscation", "p"])
@pytest.mark.parametrize("padding", ["", "x7Zq", "x y", 'x"}', 5, {"a": 1}])
def test_padding_is_no_news_and_nowhere_kept(key: str, padding: Any) -> None:
    chunks = [{**chunk(text), key: "abc"} for text in "ab"] + [{**chunk("c"), key: padding}, {**chunk("d"), key: "a"}]
    out, decoder = decode(*(json.dumps(item, separators=(",", ":")).encode() for item in chunks))
    assert out == ["a", "b", "c", "d"]
    assert decoder.meta.get(key) == (None if isinstance(padding, str) else padding)


def test_what_only_looks_like_padding() -> None:
    plain = [json.dumps({**chunk(text), "p": "x"}, separators=(",", ":")).encode() for text in "abc"]
    begin = plain[0].removesuffix(b'x"}')
    odd = begin + b'x","choices":[{"delta":{"content":"z"}}],"q":"y"}'  # what stands last in an object counts
    assert decode(*plain, odd, *plain)[0][3] == "z"


def test_learning_stops_where_it_does_not_pay_and_goes_on_where_it_does() -> None:
    clock = [{**chunk("a"), "created": second} for second in range(50)]
    assert _decoded(*clock) == 50
    assert _decoded(*clock, *[chunk("b")] * 9) == 59  # no chunk is looked at for long
    assert _decoded(*(item for item in clock for _ in range(3))) == 50  # one of each three


def test_content_that_is_not_the_text() -> None:
    """Nothing is learnt from a chunk in which it is not clear where the text stands."""
    plain = json.dumps({"provider": {"content": "a"}, **chunk("a")}).encode()
    other = plain.replace(b'"a"', b'"b"', 1)
    assert decode(plain, plain, plain, other, other)[0] == ["a"] * 5


def test_a_key_spelt_with_an_escape_is_not_overlooked() -> None:
    plain = [b'{"choices":[{"delta":{"content":"%b","c\\u006fntent":"z"}}]}' % text for text in (b"a", b"z", b"c")]
    assert decode(b'{"choices":[{"delta":{"content":"x"}}]}', *plain)[0] == ["x", "z", "z", "z"]


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
        out, decoder = decode(*plain, begin + middle + end)
        assert [item for item in out if isinstance(item, str)] == ["a", "b", "c", *expected]
        assert decoder.error is None
    assert decode(*plain, begin[:-1] + end)[1].error is not None


@pytest.mark.parametrize(
    "twice",
    [
        lambda text: {"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "text": text}]},
        lambda text: {"reasoning_details": [{"type": "reasoning.summary", "summary": text}], "reasoning": text},
        lambda text: {"content": "", "reasoning": text, "reasoning_content": text},
    ],
    ids=["OpenRouter", "details-first", "vLLM"],
)
def test_reasoning_that_is_told_twice(twice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the short way, and as it differs in two places, no frame is sought that what follows would lack."""
    events = [choice_of(delta={"role": "assistant", **twice(text)}) for text in "abcdefghijkl"]
    assert _decoded(*events, *map(chunk, "abcdef")) == len(events) + 1
    monkeypatch.setattr(ChunkDecoder, "decode_value", None)
    assert decode(*events)[0] == list(map(ReasoningDelta, "abcdefghijkl"))


def _counted(texts: list[str], **after: Any) -> list[bytes]:
    """Chunks that tell each time how many tokens came, as with vLLM's `continuous_usage_stats`."""
    return [
        json.dumps(
            {**chunk(text), "usage": {"prompt_tokens": 3, "completion_tokens": at, "total_tokens": 3 + at}} | after
        ).encode()
        for at, text in enumerate(texts, 1)
    ]


@pytest.mark.parametrize("after", [{}, {"p": "x"}], ids=["at-the-end", "before-another"])
def test_texts_that_come_with_token_counts(after: dict[str, Any]) -> None:
    decoder = _Counting()
    out: list[Delta] = []
    events = _counted(TEXTS * 3, **after)
    for event in events[:8]:
        decoder.decode_all([event], out)
    decoder.decode_all(events[8:], out)
    assert out[::2] == TEXTS * 3
    usages = [delta.usage for delta in out[1::2] if isinstance(delta, UsageUpdate)]
    assert [usage.completion_tokens for usage in usages] == list(range(1, len(TEXTS) * 3 + 1))
    assert usages[-1].raw == json.loads(events[-1])["usage"]
    assert (decoder.decoded < 5) is not bool(after)


@pytest.mark.parametrize(
    "odd",
    [
        b'{"choices":[{"delta":{"content":""}}],"usage":{"total_tokens":9}}',
        b'{"choices":[{"delta":{"content":"x"}}],"usage":{"total_tokens":0}}',
        b'{"choices":[{"delta":{"content":"x"}}],"usage":null}',
        b'{"choices":[{"delta":{"content":"x","role":"assistant"}}],"usage":{"total_tokens":9}}',
        b'{"choices":[{"delta":{"content":"x"}},{"delta":{"content":"y"}}],"usage":{"total_tokens":9}}',
        b'{"choices":[{"delta":{"content":"x"}}],"usage":{"total_tokens":9},"usage":{"total_tokens":8}}',
    ],
)
def test_what_looks_like_a_text_with_token_counts_but_differs(odd: bytes) -> None:
    usual = b'{"choices":[{"delta":{"content":"a"}}],"usage":{"total_tokens":%d}}'
    framed, alone = ChunkDecoder(), ChunkDecoder()
    out: list[Delta] = []
    plain: list[Delta] = []
    for event in (usual % 1, usual % 2, usual % 3, odd, usual % 4):
        framed.decode_all([event], out)
        alone.decode(event, plain)
    assert out == plain

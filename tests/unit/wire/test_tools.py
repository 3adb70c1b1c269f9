"""Which call a tool delta belongs to, in every dialect seen."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from rusty_agent.errors import ResponseError
from rusty_agent.types import ToolCall, ToolCallDelta
from rusty_agent.wire.codec import dumps
from rusty_agent.wire.tools import ToolCallTracker
from tests.replies import chunk, replay, sse

ROME, OSLO = '{"city":"Rome"}', '{"city":"Oslo"}'


def _delta(arguments: Any = None, /, *, name: Any = None, **more: Any) -> dict[str, Any]:
    """An entry of `tool_calls`; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    return {**more, "function": {key: value for key, value in function.items() if value is not None}}


DIALECTS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, str]]]] = {
    "openai": (
        [
            _delta("", name="w", index=0, id="a", type="function"),
            _delta('{"city":', index=0),
            _delta('"Rome"}', index=0),
            _delta("", name="w", index=1, id="b", type="function"),
            _delta(OSLO, index=1),
        ],
        [("a", "w", ROME), ("b", "w", OSLO)],
    ),
    "told-once-more-without-a-name": (  # opencodex#361
        [
            _delta("", name="w", index=0, id="a", type="function"),
            _delta('{"city":', index=0),
            _delta('"Rome"}', index=0),
            _delta(ROME, index=0),
            _delta("", name="w", index=1, id="b", type="function"),
            _delta(OSLO, index=1),
            _delta(OSLO, index=1),
        ],
        [("a", "w", ROME), ("b", "w", OSLO)],
    ),
    "told-once-more-with-other-blanks": (  # elizaOS#16973
        [
            _delta("", name="w", index=0, id="a"),
            *[_delta(piece, index=0) for piece in ('{"city":', ' "Ro', 'me"', "}")],
            _delta(ROME, name="w", index=0, id="a"),
        ],
        [("a", "w", '{"city": "Rome"}')],
    ),
    "told-once-more-in-a-string": (  # litellm#20480
        [
            _delta("", name="w", index=0, id="a"),
            *[_delta(piece, index=0, id="a") for piece in ('{"city":', ' "Ro', 'me"', "}")],
            _delta(json.dumps(ROME), name="w", index=0, id="a"),
        ],
        [("a", "w", '{"city": "Rome"}')],
    ),
    "all-so-far-each-time": (  # hermes-agent#35718
        [
            _delta(piece, name="w", index=0, id="a")
            for piece in ("", "{", '{"url":', '{"url":', '{"url": "http:', '{"url": "http://a', '{"url": "http://a"}')
        ]
        + [_delta(piece, name="w", index=1, id="b") for piece in ('{"city":"R', ROME, ROME)],
        [("a", "w", '{"url": "http://a"}'), ("b", "w", ROME)],
    ),
    "equal-beginnings": (
        [
            _delta("", name="w", index=0, id="a"),
            *[_delta(piece, index=0) for piece in ('{"and":[', '{"and":[1,', "2]}", "]}")],
            *[_delta(piece, index=1, name="w", id="b") for piece in (" ", " {", '"a"', ":1}")],
            *[_delta(index=2, custom={"input": piece}) for piece in ("{x", "{xy")],  # free text
            *[_delta(piece, index=3, name="w", id="d") for piece in ('{"or":[1,', '{"or":[1,2]}]}')],
        ],
        [
            *[("a", "w", '{"and":[{"and":[1,2]}]}'), ("b", "w", '  {"a":1}'), ("call_2", "", "{x{xy")],
            ("d", "w", '{"or":[1,{"or":[1,2]}]}'),
        ],
    ),
    "equal-pieces": (
        [
            _delta("", name="w", index=0, id="a"),
            *[_delta(piece, index=0) for piece in ('{"a":', " ", " ", "11", "11", "}")],
        ],
        [("a", "w", '{"a":  1111}')],
    ),
    "interleaved": (
        [
            _delta("{", name="w", index=0, id="a"),
            _delta("[", name="v", index=1, id="b"),
            _delta("}", index=0),
            _delta("]", index=1),
        ],
        [("a", "w", "{}"), ("b", "v", "[]")],
    ),
    "index-not-from-zero": (
        [_delta("{", name="w", index=7, id="a"), _delta("}", index=7), _delta("{}", name="v", index=3, id="b")],
        [("a", "w", "{}"), ("b", "v", "{}")],
    ),
    "index-as-string": (
        [_delta("{", name="w", index="0"), _delta("{", name="v", index="1"), _delta("}", index="0")],
        [("call_0", "w", "{}"), ("call_1", "v", "{")],
    ),
    "index-as-string-at-first": (
        [_delta("{", name="w", index="0", id="a"), _delta("}", index=0), _delta("{}", name="v", index="x", id="b")],
        [("a", "w", "{}"), ("b", "v", "{}")],
    ),
    "id-null-as-text": (  # GLM, Mistral
        [
            _delta(name="w", index=0, id="a"),
            _delta('{"city":"Rome"}', index=0, id="null"),
            _delta(name="w", index=1, id="b"),
            _delta(OSLO, index=1, id="null"),
        ],
        [("a", "w", ROME), ("b", "w", OSLO)],
    ),
    "ids-null-as-text-only": ([_delta(ROME, name="w", index=0, id="null")], [("call_0", "w", ROME)]),
    "last-piece-at-another-index": (  # Nebius
        [_delta("", name="w", index=0, id="a"), _delta('{"city":"', index=0), _delta('Rome"}', index=1)],
        [("a", "w", ROME)],
    ),
    "first-id-again-after-another": (
        [_delta('{"city":', name="w", id="a"), _delta('"Ro', id="b"), _delta('me"}', name="w", id="a")],
        [("a", "w", ROME)],
    ),
    "another-index-after-a-whole-call": (
        [_delta(ROME, name="w", index=0, id="a"), _delta(OSLO, index=1), _delta("", name="v", index=1, id="b")],
        [("a", "w", ROME), ("b", "v", OSLO)],
    ),
    "after-a-piece-at-another-index": (
        [_delta("{", name="w", index=0, id="a"), _delta("}", index=1), _delta(OSLO, name="w", index=1, id="b")],
        [("a", "w", "{}"), ("b", "w", OSLO)],
    ),
    "name-in-pieces": (  # Gemini
        [_delta(name="edit", index=0, id="a"), _delta(name="_file", index=0), _delta("{}", index=0)],
        [("a", "edit_file", "{}")],
    ),
    "name-that-grows": (
        [_delta(name="edit", index=0), _delta(name="edit_file", index=0), _delta("{}", name="edit_file", index=0)],
        [("call_0", "edit_file", "{}")],
    ),
    "index-late": (
        [_delta("{", name="w", id="a"), _delta("}", index=0), _delta("{", name="v", id="b", index=1), _delta("}")],
        [("a", "w", "{}"), ("b", "v", "{}")],
    ),
    "index-late-other-call": (
        [_delta("{", name="w", id="a"), _delta("{}", name="v", index=1), _delta("}", name="w", id="a", index=0)],
        [("a", "w", "{}"), ("call_1", "v", "{}")],
    ),
    "id-repeated-at-other-indexes": (  # DeepSeek, GLM (nanobot#3943)
        [
            _delta("", name="w", index=0, id="a"),
            _delta(ROME, index=0, id=""),
            _delta("", name="w", index=1, id="a"),
            _delta('{"city":', index=1, id="a"),
            _delta('"Oslo"}', index=1),
            _delta("", index=0, id="a"),
        ],
        [("a", "w", ROME), ("a", "w", OSLO)],
    ),
    "id-repeated-without-index": (
        [_delta(ROME, name="w", id="a"), _delta(OSLO, name="w", id="a"), _delta("{}", name="v", id="a")],
        [("a", "w", ROME), ("a", "w", OSLO), ("a", "v", "{}")],
    ),
    "id-new-with-each-delta": (  # poolside
        [
            _delta("", name="w", index=0, id="a"),
            _delta('{"city":', index=0, id="b"),
            _delta('"Rome"}', index=0, id="b"),
        ],
        [("a", "w", ROME)],
    ),
    "id-new-with-each-delta-no-index": (
        [_delta("", name="w", id="a"), _delta('{"city":', name="", id="b"), _delta('"Rome"}', id="c")],
        [("a", "w", ROME)],
    ),
    "id-new-before-any-name": (
        [_delta("", index=0, id="a"), _delta("{}", index=0, id="b")],
        [("a", "", ""), ("b", "", "{}")],
    ),
    "name-repeated-at-the-same-id-and-index": (
        [_delta("{}", name="w", index=0, id="a"), _delta(" ", name="w", index=0, id="a")],
        [("a", "w", "{} ")],
    ),
    "index-reused-with-new-ids": (
        [_delta(ROME, name="w", index=0, id="a"), _delta("{", name="w", index=0, id="b"), _delta("}", index=0)],
        [("a", "w", ROME), ("b", "w", "{}")],
    ),
    "index-reused-after-a-call-without-id": (
        [_delta("{", name="w", index=0), _delta("}", index=0, id="a"), _delta(OSLO, name="v", index=0, id="b")],
        [("a", "w", "{}"), ("b", "v", OSLO)],
    ),
    "index-reused-without-ids": (
        [_delta(ROME, name="w", index=0), _delta(OSLO, name="w", index=0), _delta("{}", name="v", index=0)],
        [("call_0", "w", ROME), ("call_1", "w", OSLO), ("call_2", "v", "{}")],
    ),
    "index-with-name-repeated": (
        [
            _delta("", name="w", index=0),
            _delta('{"city":', name="w", index=0),
            _delta('"Rome"}', name="w", index=0),
            _delta("", name="w", index=0),
        ],
        [("call_0", "w", ROME)],
    ),
    "no-index": (
        [_delta("{", name="w", id="a"), _delta("}"), _delta("{", name="w", id="b"), _delta("}")],
        [("a", "w", "{}"), ("b", "w", "{}")],
    ),
    "no-index-id-repeated": (
        [_delta("{", name="w", id="a"), _delta("[", name="w", id="b"), _delta("}", id="a"), _delta("]", id="b")],
        [("a", "w", "{}"), ("b", "w", "[]")],
    ),
    "index-in-the-first-delta-alone": (
        [_delta("", name="w", index=0), _delta('{"city":', name="w"), _delta('"Rome"}', id="a")],
        [("a", "w", ROME)],
    ),
    "index-null": (
        [_delta("{", name="w", id="a", index=None), _delta("}", index=None)],
        [("a", "w", "{}")],
    ),
    "index-nonsense": (
        [_delta("{", name="w", index=[[]]), _delta("}", index=[[]])],
        [("call_0", "w", "{}")],
    ),
    "no-id-no-index-whole-calls": (
        [_delta(ROME, name="w"), _delta(OSLO, name="w"), _delta("{}", name="v")],
        [("call_0", "w", ROME), ("call_1", "w", OSLO), ("call_2", "v", "{}")],
    ),
    "no-id-no-index-other-name-begins-a-call": (
        [_delta("", name="w"), _delta("", name="v"), _delta("{}")],
        [("call_0", "w", ""), ("call_1", "v", "{}")],
    ),
    "no-id-no-index-name-repeated": (
        [_delta('{"city":', name="w"), _delta('"Rome"', name="w"), _delta("}", name="w"), _delta(None, name="w")],
        [("call_0", "w", ROME)],
    ),
    "id-empty-on-continuation": (
        [_delta("{", name="w", index=0, id="a"), _delta("}", name="", index=0, id="")],
        [("a", "w", "{}")],
    ),
    "id-repeated-with-other-index": (
        [_delta("{", name="w", index=0, id="a"), _delta("}", index=1, id="a")],
        [("a", "w", "{}")],
    ),
    "id-late": (
        [_delta("{", name="w", index=0), _delta("}", index=0, id="a"), _delta("", index=0, id="a")],
        [("a", "w", "{}")],
    ),
    "name-late": (
        [_delta("", index=0, id="a"), _delta("{}", name="w", index=0), _delta("", name="w", index=0)],
        [("a", "w", "{}")],
    ),
    "arguments-null": (
        [{"index": 0, "id": "a", "function": {"name": "w", "arguments": None}}, _delta("{}", index=0)],
        [("a", "w", "{}")],
    ),
    "arguments-object": (
        [_delta({"city": "Rome"}, name="w", id="a"), _delta({}, name="v", id="b")],
        [("a", "w", ROME), ("b", "v", "{}")],
    ),
    "arguments-empty-before-they-come": (  # litellm#4537, openai-agents-js#712
        [
            _delta({}, name="w", index=0, id="a"),
            _delta('{"city":', index=0),
            _delta("{}", name="v", index=1, id="b"),
            _delta('"Rome"}', index=0),
            _delta("", index=1),
        ],
        [("a", "w", ROME), ("b", "v", "{}")],
    ),
    "function-missing": (
        [{"index": 0, "id": "a"}, {"index": 0, "id": "a", "function": "w"}, _delta("{}", name="w", index=0)],
        [("a", "w", "{}")],
    ),
    "nothing-in-it": (
        [{}, {"index": 4}, {"type": "function", "function": {}}, _delta("{}", name="w", index=0, id="a"), {"index": 0}],
        [("a", "w", "{}")],
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("together", [False, True], ids=["a-chunk-each", "one-chunk"])
def test_every_dialect_of_tool_calls_comes_to_the_same(dialect: str, together: bool) -> None:
    deltas, expected = DIALECTS[dialect]
    groups = [deltas] if together else [[delta] for delta in deltas]
    outcome = replay([sse(*(chunk(tool_calls=group) for group in groups), chunk(finish="tool_calls"))])
    assert outcome.error is None
    assert outcome.tool_calls == [ToolCall(*call) for call in expected]


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["{}"], True),
        (["[", "]"], True),
        (['{"a":"}', '"}'], True),
        (['"a"'], True),
        (["{'a': 1}"], True),
        ([" "], False),
        (["1"], False),
        (['{"a":"}'], False),
        (['"\\', '"'], False),
        (['"\\', '""'], True),
        (['"\\\\"'], True),
        (['"\\\\', '"'], True),
        (["{\\}"], False),
        (['{"a":{}', "}"], True),
    ],
    ids=repr,
)
def test_arguments_that_are_whole(pieces: list[str], whole: bool) -> None:
    """Only then does the same name begin a new call."""
    for parts in (pieces, [character for piece in pieces for character in piece]):
        tracker = ToolCallTracker()
        for piece in parts:
            tracker.delta(_delta(piece, index=0), 0)
        tracker.delta(_delta(name="w", index=0), 0)
        last = tracker.delta(_delta("x", name="w", index=0), 0)
        assert last is not None
        assert last.call == whole


@pytest.mark.parametrize(
    "deltas",
    [
        [{"id": f"{n}"} for n in range(20_000)],
        [{"index": n, "function": {"name": "f"}} for n in range(20_000)],
        [{"index": n, "id": "a", "function": {"name": "f"}} for n in range(20_000)],
        [{"index": 0, "function": {"name": "f", "arguments": text}} for text in ['{"a":"', *["xxx}"] * 20_000]],
        [{"function": {"name": "f", "arguments": text}} for text in ["{'", *["}{"] * 20_000]],
    ],
    ids=["ids", "indexes", "one-id", "names-repeated", "nearly-whole"],
)
@pytest.mark.usefixtures("untraced")
def test_every_delta_takes_constant_work(deltas: list[dict[str, Any]]) -> None:
    tracker = ToolCallTracker()
    started = time.process_time()
    for delta in deltas:
        tracker.delta(delta, 0)
    assert time.process_time() - started < 1


def test_arguments_that_are_nested_too_deeply_to_be_compared() -> None:
    deep = "[" * 1020 + "]" * 1020  # as deep as orjson goes
    (call,) = replay([sse(*(chunk(tool_calls=[_delta(text, index=0)]) for text in (deep, " " + deep)))]).tool_calls
    assert call.arguments.startswith(deep)


def test_deltas_tell_id_and_name_once() -> None:
    tracker = ToolCallTracker()
    deltas = [tracker.delta(_delta("x", name="w", index=5, id="a"), 2) for _ in range(2)]
    assert deltas == [ToolCallDelta(0, "a", "w", "x", 2), ToolCallDelta(0, None, None, "x", 2)]


@pytest.mark.parametrize("raw", [None, "x", 1, [], {}, {"index": 0}, {"id": 5.5, "function": {"name": 6}}], ids=repr)
def test_what_carries_nothing_is_no_call(raw: Any) -> None:
    assert ToolCallTracker().delta(raw, 0) is None


def test_what_else_comes_with_a_call_is_kept() -> None:
    signature = {"google": {"thought_signature": "s"}}
    deltas = [
        _delta("{", name="w", index=0, id="a", extra_content=signature),
        {"index": 0, "n": 1},
        _delta("}", index=0),
    ]
    outcome = replay([sse(*(chunk(tool_calls=[delta]) for delta in deltas), chunk(finish="tool_calls"))])
    assert outcome.tool_calls == [ToolCall("a", "w", "{}", {"extra_content": signature, "n": 1})]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_whose_input_is_free_text(streamed: bool) -> None:
    """OpenAI's custom tools (https://platform.openai.com/docs/guides/function-calling#custom-tools)."""
    begin = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "sql", "input": ""}}
    pieces = [begin, *({"index": 0, "custom": {"input": text}} for text in ("SELECT ", "1"))]
    whole = [{"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}]
    outcome = replay([sse(*(chunk(tool_calls=[call]) for call in (pieces if streamed else whole)))])
    assert outcome.tool_calls == [ToolCall("a", "sql", "SELECT 1", {"type": "custom"})]


@pytest.mark.parametrize("twice", ["[]", '""', "{}"])
def test_free_text_that_says_the_same_twice(twice: str) -> None:
    tracker = ToolCallTracker()
    begin = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "code", "input": twice}}
    pieces = [begin, *({"index": 0, "custom": {"input": text}} for text in (twice, "x"))]
    assert [delta.arguments for piece in pieces if (delta := tracker.delta(piece, 0))] == [twice, twice, "x"]


def test_a_name_does_not_grow_without_end() -> None:
    deltas = [_delta(name="x" * 600, index=0), *(_delta(name="y" * 600 + str(at), index=0) for at in range(9))]
    (call,) = replay([sse(*(chunk(tool_calls=[delta]) for delta in deltas))]).tool_calls
    assert len(call.name) == 1201


def test_the_older_form_of_one_call() -> None:
    parts = [{"name": "w", "arguments": ""}, {"arguments": '{"city":'}, {"arguments": '"Rome"}'}]
    outcome = replay([sse(*(chunk(function_call=part) for part in parts), chunk(finish="function_call"))])
    assert outcome.tool_calls == [ToolCall("call_0", "w", ROME)]


def test_the_older_form_beside_the_new_one_is_the_same_call() -> None:  # llama-cpp-python
    parts = ["{", "}"]
    chunks = [
        chunk(tool_calls=[_delta(part, name="w", index=0, id="a")], function_call={"name": "w", "arguments": part})
        for part in parts
    ]
    assert replay([sse(*chunks, chunk(finish="tool_calls"))]).tool_calls == [ToolCall("a", "w", "{}")]


def test_one_call_that_is_no_list() -> None:
    outcome = replay([sse(chunk(tool_calls=_delta("{}", name="w", index=0, id="a")), chunk(finish="tool_calls"))])
    assert outcome.tool_calls == [ToolCall("a", "w", "{}")]


@pytest.mark.parametrize("calls", [None, {}, "x", [None, 3, "x"]], ids=repr)
def test_tool_calls_that_are_no_list_of_calls(calls: Any) -> None:
    outcome = replay([sse(chunk("a", tool_calls=calls))])
    assert (outcome.text, outcome.tool_calls, outcome.error) == ("a", [], None)


@pytest.mark.parametrize(
    ("pieces", "told", "at_the_end"),
    [
        (["\ud83d", "\ude00"], ["", "😀"], []),
        (['"\ud83d', "\ude00", '"'], ['"', "😀", '"'], []),
        (["a\ud83d", "b"], ["a", "\ufffdb"], []),
        (["\ude00a"], ["\ufffda"], []),
        (["a\ud83d"], ["a"], ["\ufffd"]),
    ],
    ids=["pair", "in-a-string", "high-alone", "low-alone", "at-the-end"],
)
def test_halves_of_characters_in_arguments(pieces: list[str], told: list[str], at_the_end: list[str]) -> None:
    tracker = ToolCallTracker()
    deltas = [tracker.delta(_delta(piece, index=0, id="a"), 1) for piece in pieces]
    assert [delta and delta.arguments for delta in deltas] == told
    assert list(tracker.flush(1)) == [ToolCallDelta(0, arguments=text, index=1) for text in at_the_end]


def test_halves_of_characters_elsewhere_in_a_call() -> None:
    raw = _delta("", name="w\ud83d", id="a\ude00", extra={"k\ud83d": ["\ude00"]})
    assert ToolCallTracker().delta(raw, 0) == ToolCallDelta(
        0, "a\ufffd", "w\ufffd", "", 0, {"extra": {"k\ufffd": ["\ufffd"]}}
    )


def test_arguments_that_json_has_no_form_for() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    raw = _delta({"a": deep}, name="w")
    with pytest.raises(ResponseError, match="arguments cannot be read as JSON"):
        ToolCallTracker().delta(raw, 0)


def test_an_id_that_is_a_number() -> None:
    tracker = ToolCallTracker()
    first = tracker.delta({"index": 0, "id": 7, "function": {"name": "f", "arguments": "{}"}}, 0)
    second = tracker.delta({"index": 1, "id": 8, "function": {"name": "f", "arguments": "{}"}}, 0)
    assert first is not None
    assert second is not None
    assert [(call.call, call.id) for call in (first, second)] == [(0, "7"), (1, "8")]


@pytest.mark.parametrize(
    ("calls", "arguments"),
    [
        ([_delta("", name="f", id=""), _delta("", name="f", id="")], ["", ""]),
        (
            [_delta('{"a":1}', name="f", id="x", index=0), _delta('{"a":2}', name="f", id="x", index=0)],
            ['{"a":1}', '{"a":2}'],
        ),
        ([_delta("ls", name="sh"), _delta("pwd", name="sh")], ["ls", "pwd"]),
    ],
)
def test_each_entry_of_a_whole_answer_is_a_call(calls: list[dict[str, Any]], arguments: list[str]) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    document = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    assert [call.arguments for call in replay([dumps(document)]).tool_calls] == arguments


def test_an_index_may_be_a_float() -> None:
    pieces = [
        _delta("{", name="w", index=0.0),
        _delta("[", name="v", index=1.0),
        _delta("}", index=0.0),
        _delta("]", index=1.0),
    ]
    outcome = replay([sse(*(chunk(tool_calls=[piece]) for piece in pieces), chunk(finish="tool_calls"))])
    assert [call.arguments for call in outcome.tool_calls] == ["{}", "[]"]


def test_a_call_that_is_told_once_more_as_a_whole_is_told_once() -> None:
    pieces = [_delta('{"a"', name="w", index=0, id="a"), _delta(":1}", index=0)]
    again = _delta('{"a":1}', name="w", index=0, id="a")
    outcome = replay([sse(*(chunk(tool_calls=[delta]) for delta in [*pieces, again]), chunk(finish="tool_calls"))])
    assert outcome.tool_calls == [ToolCall("a", "w", '{"a":1}')]


@pytest.mark.parametrize("first", ["null", "{}"])
def test_what_stands_for_no_arguments_is_left_out_before_some(first: str) -> None:
    pieces = [_delta(first, name="w", index=0, id="a"), _delta('{"a":1}', index=0)]
    outcome = replay([sse(*(chunk(tool_calls=[delta]) for delta in pieces), chunk(finish="tool_calls"))])
    assert outcome.tool_calls == [ToolCall("a", "w", '{"a":1}')]


@pytest.mark.parametrize(
    "call",
    [
        {"index": 0, "id": "a", "type": "function", "name": "w", "arguments": '{"a":1}'},  # beside the id
        {"index": 0, "id": "a", "function": {"name": "w", "parameters": {"a": 1}}},  # under another name
    ],
)
def test_arguments_may_stand_elsewhere(call: dict[str, Any]) -> None:
    outcome = replay([sse(chunk(tool_calls=[call]), chunk(finish="tool_calls"))])
    assert outcome.tool_calls == [ToolCall("a", "w", '{"a":1}')]

"""One line → one request: every form, everything that may be wrong with a line."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.batch.estimate import prompt_characters
from rusty_agent.batch.rows import BadLine, Row, parse_line, parse_row
from rusty_agent.batch.source import ListSource
from rusty_agent.batch.template import Template
from rusty_agent.parameters import Parameters
from rusty_agent.wire.request import PARAMETERS, build_body, encode_body
from tests.frames import Int64

USER = {"role": "user", "content": "Hi"}
BODY = {"model": "m", "messages": [USER]}
OPENAI = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": BODY}


def _row(value: Any, **options: Any) -> Row:
    row = parse_line(json.dumps(value).encode(), 7, **options)
    assert isinstance(row, Row), row
    assert row.line == 7
    return row


def _reason(value: Any, **options: Any) -> str:
    bad = parse_row(value, 7, **options)
    assert isinstance(bad, BadLine), bad
    assert bad.line == 7
    return bad.reason


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ({}, None),
        ({"model": "m"}, {"model": "m"}),
        ({"temperature": 0, "max_tokens": 5, "tools": [1]}, {"temperature": 0, "max_tokens": 5, "tools": [1]}),
        ({"model": "m", "stream": True, "stream_options": {}}, {"model": "m"}),
        ({"model": None, "stop": None, "n": 1}, {"n": 1}),
    ],
    ids=["bare", "model", "anything", "the-runner-s", "null"],
)
def test_openai_lines(body: dict[str, Any], extra: dict[str, Any] | None) -> None:
    row = _row({**OPENAI, "body": {"messages": [USER], **body}, "metadata": {"x": 1}})
    assert row.custom_id == "a"
    assert row.parameters == {"messages": [USER]} | ({} if extra is None else {"extra_body": extra})
    assert row.fields == {"metadata": {"x": 1}}


def test_a_whole_number_names_a_row_in_either_form() -> None:
    assert _row({**OPENAI, "custom_id": 5}).custom_id == _row({"prompt": "Hi", "custom_id": 5}).custom_id == "5"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "GET"}, "method must be 'POST', not 'GET'"),
        ({"method": None}, "method must be 'POST', not None"),
        ({"url": "/v1/embeddings"}, "the only supported endpoint, not '/v1/embeddings'"),
        ({"url": 5}, "the only supported endpoint, not 5"),
        ({"body": [USER]}, "body must be an object with messages"),
        ({"body": {"model": "m"}}, "body must be an object with messages"),
        ({"body": {"messages": []}}, "body must be an object with messages"),
        ({"body": {"messages": ["Hi"]}}, "messages[0] must be a mapping"),
        ({"body": {"messages": "Hi"}}, "messages must be a list of messages"),
        ({"body": {**BODY, "model": ""}}, "model must be a model's name, not ''"),
        ({"custom_id": 5.5}, "custom_id must be a non-empty string or a whole number, not 5.5"),
        ({"custom_id": None}, "custom_id must be a non-empty string or a whole number, not None"),
        ({"custom_id": ""}, "custom_id must be a non-empty string or a whole number, not ''"),
    ],
)
def test_bad_openai_lines(change: dict[str, Any], says: str) -> None:
    assert says in _reason({**OPENAI, **change})


def test_which_form_an_object_has() -> None:
    without_method = {name: item for name, item in OPENAI.items() if name != "method"}
    assert "method" in _reason(without_method)
    mail = {"prompt": "Sort this mail", "body": "Dear …", "url": "https://x.test"}
    assert _row(mail).fields == {"body": "Dear …", "url": "https://x.test"}
    assert _row({**OPENAI, "prompt": "a note"}).fields == {"prompt": "a note"}
    assert "no prompt, messages or body" in _reason({"custom_id": "a", "text": "Hi"})
    assert "no prompt, messages or body" in _reason({}, check=False)


def test_simple_lines_take_the_parameters_and_carry_the_rest() -> None:
    line = {
        "prompt": "Hi",
        "system_prompt": "S",
        "temperature": 0.5,
        "max_tokens": 3,
        "stop": ["x"],
        "seed": None,
        "model": "m",
        "extra_body": {"top_k": 1, "stream": True},
        "custom_id": "a",
        "id": 5,
        "label": None,
        "timeout": 3,
        "stream": True,
    }
    row = _row(line)
    assert row.custom_id == "a"
    assert row.parameters == {
        "prompt": "Hi",
        "system_prompt": "S",
        "temperature": 0.5,
        "max_tokens": 3,
        "stop": ["x"],
        "extra_body": {"top_k": 1, "model": "m"},
    }
    assert row.fields == {"id": 5, "label": None, "timeout": 3, "stream": True}


def test_every_parameter_of_generate_text_is_used_or_meant_for_the_caller() -> None:
    for name in Parameters.__annotations__:
        row = parse_row({"prompt": "Hi", name: {}}, 1, check=False)
        assert isinstance(row, Row)
        assert (name in row.fields) == (name in ("extra_headers", "timeout", "retry")), name


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("Hi", {"prompt": "Hi"}),
        ("", {"prompt": ""}),
        ([USER], {"messages": [USER]}),
        ({"messages": [USER], "prompt": None}, {"messages": [USER]}),
        ({"messages": [], "prompt": "Hi"}, {"messages": [], "prompt": "Hi"}),
    ],
)
def test_bare_lines(value: Any, parameters: dict[str, Any]) -> None:
    row = _row(value)
    assert (row.custom_id, row.parameters, row.fields) == ("7", parameters, {})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (5, "not a number"),
        (None, "not null"),
        (True, "not true or false"),
        ([], "prompt or messages is required"),
        (["Hi", "Ho"], "its first has no role (put each row on a line of its own)"),
        ([{"prompt": "Hi"}], "a list is one row's messages, but its first has no role"),
        ({"prompt": None}, "prompt or messages is required"),
        ({"prompt": 5}, "prompt must be a string, not int"),
        ({"prompt": "Hi", "temperature": "hot"}, "temperature must be a finite number, not 'hot'"),
        ({"prompt": "Hi", "max_tokens": 0}, "max_tokens must be at least 1"),
        ({"prompt": "Hi", "system_prompt": 5}, "system_prompt must be a string"),
        ({"prompt": "Hi", "model": 5}, "model must be a model's name, not 5"),
        ({"prompt": "Hi", "extra_body": {"model": None}}, "model must be a model's name, not None"),
        (
            {"prompt": "Hi", "extra_body": [], "model": "m"},
            "extra_body must be an object of further fields, not a list",
        ),
        ({"messages": [USER], "tools": [{"type": "function"}]}, "'tools' is sent only as part of extra_body"),
        ({"prompt": "Hi", "max_completion_tokens": 9}, "'max_completion_tokens' is sent only as"),
        ({"prompt": "Hi", "custom_id": ""}, "custom_id must be a non-empty string"),
        ({"prompt": "Hi", "custom_id": True}, "custom_id must be a non-empty string or a whole number"),
        ({"prompt": "Hi", "custom_id": 1.5}, "custom_id must be a non-empty string or a whole number"),
        ({"prompt": "Hi", "custom_id": None}, "custom_id must be a non-empty string or a whole number"),
    ],
)
def test_bad_lines(value: Any, says: str) -> None:
    assert says in _reason(value)


def test_fields_that_may_be_data_are_carried_through() -> None:
    assert _row({"prompt": "Hi", "n": 2, "user": "me", "tools": None}).fields == {"n": 2, "user": "me", "tools": None}
    assert _row({"prompt": "Hi", "tools": [], "tool_choice": None}).fields == {"tools": [], "tool_choice": None}
    assert "tools" in _row({"prompt": "Hi", "tools": math.nan}).fields  # as data frames have what is missing
    columns = {"word": "cat", "tools": "a hammer"}
    assert _row(columns, template=Template("Say {word}.")).fields == columns


def test_what_cannot_be_carried_through_is_named() -> None:
    assert "carried through ('when') cannot be written as JSON: Object of type set" in _reason(
        {"prompt": "Hi", "who": "me", "when": {1}}
    )
    assert "carried through cannot be written as JSON: keys must" in _reason({"prompt": "Hi", (1, 2): 3})


def test_whole_numbers_are_ids() -> None:
    assert _row({"prompt": "Hi", "custom_id": 12}).custom_id == "12"
    assert _row({"prompt": "Hi", "custom_id": 0}).custom_id == "0"
    numpys = parse_row({"prompt": "Hi", "custom_id": Int64(12)}, 1)
    assert isinstance(numpys, Row)
    assert numpys.custom_id == "12"


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**64), 10**40])
def test_long_numbers_are_carried_through_and_put_into_prompts_as_they_are(number: int) -> None:
    assert _row({"prompt": "x", "user": number}).fields == {"user": number}
    assert _row({"user": number}, template=Template("Who is {user}?")).parameters == {"prompt": f"Who is {number}?"}


def test_a_large_number_in_a_line_too_deep_to_be_read_again() -> None:
    deep = "[" * 1000 + "]" * 1000
    row = parse_line(f'{{"prompt": "x", "size": 1e30, "deep": {deep}}}'.encode(), 7, check=False)
    assert isinstance(row, Row)
    assert row.fields["size"] == 1e30


def test_the_checks_can_be_left_out() -> None:
    assert _row({"prompt": 5, "temperature": "hot"}, check=False).parameters == {"prompt": 5, "temperature": "hot"}


def test_templates() -> None:
    template = Template("Say {word} in {language}.")
    line = {"word": "cat", "language": "French", "custom_id": 3, "temperature": 2}
    row = _row(line, template=template)
    assert (row.custom_id, row.parameters, row.fields) == ("3", {"prompt": "Say cat in French."}, line)
    assert _row({"word": "cat", "language": "French"}, template=template).custom_id == "7"
    assert "'word'; the available columns are: 'language'" in _reason({"language": "French"}, template=template)
    assert "needs an object with columns, not a string" in _reason("cat", template=template)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"prompt": "Hi"', "not JSON (one value per line): "),
        (b'{"prompt": "Hi', "not JSON (one value per line): Unterminated string starting at character 12"),
        (b'{"prompt": "Hi"} {}', "at character 18"),
        (b"[", "not JSON"),
        (b'"a\0b"', "not JSON"),
        (b"\0\0\0\0", "not JSON"),
        (b'"caf\xe9"', "not UTF-8 at byte 5: save it as UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json(data: bytes, says: str) -> None:
    bad = parse_line(data, 3)
    assert isinstance(bad, BadLine)
    assert bad.line == 3
    assert says in bad.reason


def test_lone_surrogates_are_forgiven_as_everywhere() -> None:
    row = parse_line(rb'{"prompt":"\ud83d","custom_id":"\ud83d\ude00"}', 1)
    assert isinstance(row, Row)
    assert (row.parameters, row.custom_id) == ({"prompt": "\ufffd"}, "😀")


def test_a_deep_value_of_the_wrong_type_is_a_bad_line() -> None:
    deep = b"[" * 1000 + b"]" * 1000
    for data in (b'{"prompt":"Hi","temperature":%b}', b'{"prompt":"Hi","custom_id":%b}'):
        assert isinstance(parse_line(data % deep, 1), BadLine)


def test_what_could_not_be_written_again_is_a_bad_line() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for fields in ({"x": deep}, {"extra_body": {"x": deep}}):
        bad = parse_row({"prompt": "Hi", **fields}, 1)
        assert isinstance(bad, BadLine)
        assert re.search("as JSON: (maximum recursion depth|Stack overflow)", bad.reason)  # 3.14 says the latter


def test_reasons_are_one_printable_line_and_capped() -> None:
    reason = _reason({"prompt": "Hi", "temperature": "\x1b[2J\n\u202e" + "x" * 100_000})
    assert reason.isprintable()
    assert len(reason) <= 301


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["prompt", "messages", "system_prompt", "extra_body", "custom_id", "model", "method", "url"])
objects = st.dictionaries(
    keys | st.sampled_from(sorted(PARAMETERS)) | st.sampled_from(["body", "x"]),
    json_values
    | st.sampled_from(["POST", "/v1/chat/completions", 1, 0.5])
    | st.just([USER])
    | st.fixed_dictionaries({"messages": st.just([USER]) | json_values}, optional={"model": json_values}),
    max_size=6,
)


@given(objects | json_values, st.sampled_from([None, Template("{x}")]))
def test_any_value_is_a_request_that_would_be_made_or_a_bad_line(value: Any, template: Template | None) -> None:
    row = parse_row(value, 1, template=template)
    if isinstance(row, BadLine):
        assert row.reason
        return
    given = row.parameters
    body = build_body(
        "m",
        given.get("prompt"),
        given.get("system_prompt"),
        given.get("messages"),
        {name: item for name, item in given.items() if name in PARAMETERS},
        stream=False,
        include_usage=False,
        extra_body=given.get("extra_body"),
    )
    assert encode_body(body)
    assert "stream" not in body
    assert body["model"]
    assert prompt_characters(row.parameters) >= 0
    assert row.custom_id
    assert parse_row(value, 1, template=template, check=False) == row or "nan" in repr(value)


@given(
    st.binary()
    | st.binary().map(lambda data: b'{"prompt":"' + data)
    | json_values.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_request_or_a_bad_line(data: bytes) -> None:
    assert isinstance(parse_line(data, 1), Row | BadLine)
    assert isinstance(parse_line(data, 1, template=Template("{a}")), Row | BadLine)


def test_long_whole_numbers_stay_what_they_are_wherever_they_stand() -> None:
    long = 123456789012345678901
    line = f'{{"custom_id":{long},"prompt":"p","seed":{long},"extra_body":{{"a":[{long}]}},"meta":{{"id":[{long}]}}}}'
    row = parse_line(line.encode(), 1)
    assert isinstance(row, Row)
    assert (row.custom_id, row.fields) == (str(long), {"meta": {"id": [long]}})
    assert (row.parameters["seed"], row.parameters["extra_body"]) == (long, {"a": [long]})


def test_of_a_row_that_is_done_only_the_name_is_wanted() -> None:
    value = {"custom_id": "a", "prompt": "Hi", "more": 1}
    assert parse_row(value, 7, done={"a"}) == Row(7, "a", {}, {})
    assert parse_row(value, 7, done={"b"}) == parse_row(value, 7)
    assert parse_row({"custom_id": 7, "prompt": "Hi"}, 1, done={"7"}) == Row(1, "7", {"prompt": "Hi"}, {})
    assert parse_row("Hi", 1, done={"1"}) == Row(1, "1", {"prompt": "Hi"}, {})


def test_rows_are_known_again_whatever_kind_of_numbers_they_hold() -> None:
    """Such as numpy's: rows that differ elsewhere are not the same."""
    values = [{"prompt": prompt, "max_tokens": Int64(5)} for prompt in ("a", "b")]
    rows = [parse_row(value, 1, check=True) for value in values]
    assert len({row.mark for row in rows if isinstance(row, Row)}) == 2
    assert len({ListSource([value], None).digest() for value in values}) == 2

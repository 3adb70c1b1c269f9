"""Where a row's request stands, and the columns that come of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rusty_agent import APIConnectionError, BadRequestError, GenerateResult, Usage
from rusty_agent.contrib.table import Columns, Place, RowOutcome
from rusty_agent.wire.codec import loads

from .tables import Table, arrow

CHAT = [{"role": "user", "content": "hi"}]
LINE = {"method": "POST", "url": "/v1/chat/completions"}


def requests(place: Place, **columns: list[Any]) -> list[Any]:
    return place.requests(Table(columns))


@pytest.mark.parametrize(
    ("place", "columns", "expected"),
    [
        (Place(prompt="q"), {"q": ["one", "two"]}, ["one", "two"]),
        (Place(prompt=lambda row: row["a"] + row["b"]), {"a": ["x"], "b": ["y"]}, ["xy"]),
        (Place(messages="chat"), {"chat": [CHAT]}, [CHAT]),
        (Place(messages="chat"), {"chat": ['[{"role": "user", "content": "hi"}]']}, [CHAT]),
        (Place(body="b"), {"b": [{"messages": CHAT}]}, [LINE | {"body": {"messages": CHAT}}]),
        (Place(body="b"), {"b": ['{"messages": []}']}, [LINE | {"body": {"messages": []}}]),
        (Place(), {"custom_id": ["a"], "body": [{"n": 1}]}, [{"custom_id": "a", "body": {"n": 1}}]),
    ],
)
def test_the_request_of_a_row(place: Place, columns: dict[str, list[Any]], expected: list[Any]) -> None:
    assert requests(place, **columns) == expected


def test_fields_that_only_other_rows_have_are_left_out() -> None:
    chat = [{"role": "user", "content": [{"type": "text", "text": "hi", "image_url": None}], "name": None}]
    [found] = requests(Place(messages="chat"), chat=[chat])
    assert found == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    [line] = requests(Place(), body=[{"messages": CHAT, "seed": None}], prompt=[None])
    assert line == {"body": {"messages": CHAT}}


def test_nulls_in_json_text_are_meant() -> None:
    [found] = requests(Place(messages="chat"), chat=['[{"role": "assistant", "content": null}]'])
    assert found == [{"role": "assistant", "content": None}]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (Place(prompt="q"), None, "has no prompt"),
        (Place(prompt="q"), [0.5] * 1000, "must be text, not list"),
        (Place(messages="q"), "hello", "not JSON"),
        (Place(body="q"), "{", "not JSON"),
        (Place(prompt=lambda row: row["z"]), "x", "z"),
    ],
)
def test_a_row_that_asks_nothing_is_an_error_of_its_own(place: Place, value: Any, said: str) -> None:
    [bad, *_] = requests(place, q=[value, "good"])
    assert isinstance(bad, Exception)
    assert said in str(bad)


@pytest.mark.parametrize("place", [Place(prompt="q"), Place(prompt=lambda row: row["q"]), Place()])
def test_a_value_that_python_cannot_hold_costs_its_row_only(place: Place) -> None:
    first, bad, last = requests(place, q=["one", b"\xff", "two"])
    assert isinstance(bad, UnicodeDecodeError)
    assert [first, last] in (["one", "two"], [{"q": "one"}, {"q": "two"}])


def test_there_is_one_place() -> None:
    with pytest.raises(ValueError, match="give only one"):
        Place(prompt="a", body="b")
    with pytest.raises(ValueError, match=r"no column 'q'; the columns are: 'a', 'b'"):
        Place(prompt="q").check(Table({"a": [], "b": []}))


def test_rows_that_a_checkpoint_would_not_know_again() -> None:
    place = Place(prompt="q", id="name")
    place.check(Table({"q": ["one", None], "name": ["a", "b"]}))
    with pytest.raises(ValueError, match="no column 'name'"):
        place.check(Table({"q": ["one"]}))
    with pytest.raises(ValueError, match="a row has no 'name'"):
        place.check(Table({"q": ["one", "two"], "name": ["a", None]}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"messages": CHAT}, "messages must be the name of a column"),
        ({"body": {"messages": CHAT}}, "body must be the name of a column"),
        ({"prompt": ["a"]}, "prompt must be the name of a column or a function"),
    ],
)
def test_a_request_in_place_of_a_column(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Place(**given)


def test_a_coroutine_function_makes_no_request() -> None:
    async def request(row: dict[str, Any]) -> str:
        return str(row)

    with pytest.raises(ValueError, match="not a coroutine function"):
        Place(prompt=request)


@pytest.mark.parametrize("name", ["error", "latency_s", "", 3])
def test_a_name_that_the_answers_column_cannot_have(name: Any) -> None:
    with pytest.raises(ValueError, match="output must"):
        Columns(name)
    with pytest.raises(ValueError, match="output must not be 'result'"):
        Columns("result", include_result=True)


def test_columns_that_are_there_already() -> None:
    Columns("answer").check(["question", "result"])
    with pytest.raises(ValueError, match="'answer', 'status'"):
        Columns("answer").check(["status", "answer"])
    with pytest.raises(ValueError, match="'result'"):
        Columns("answer", include_result=True).check(["result"])


def test_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    good = GenerateResult("yes", finish_reason="stop", usage=Usage(3, 5, 8), duration=0.5, raw={"id": "x"})
    outcomes: list[RowOutcome] = [
        good,
        BadRequestError("no", status_code=400),
        APIConnectionError("gone", usage=Usage(7, 9, 16)),
        ValueError("\ud800"),
    ]
    table: Any = Columns("said", include_result=True).add(Table({"id": [1, 2, 3, 4]}), outcomes)
    result = table.columns.pop("result")
    assert table.columns == {
        "id": [1, 2, 3, 4],
        "said": ["yes", None, None, None],
        "error": [None, "BadRequestError: no", "APIConnectionError: gone", "ValueError: \ufffd"],
        "status": [200, 400, None, None],
        "finish_reason": ["stop", None, None, None],
        "prompt_tokens": [3, None, 7, None],
        "completion_tokens": [5, None, 9, None],
        "latency_s": [0.5, None, None, None],
    }
    assert loads(result[0])["raw"] == {"id": "x"}
    assert result[1:] == [None, None, None]


def test_an_answer_too_deep_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    deep: Any = []
    for _ in range(1000):
        deep = [deep]
    outcomes: list[RowOutcome] = [GenerateResult("yes", raw={"deep": deep}), GenerateResult("no", raw={"id": "x"})]
    table: Any = Columns("said", include_result=True).add(Table({"id": [1, 2]}), outcomes)
    assert [loads(result)["raw"] for result in table.columns["result"]] == [{}, {"id": "x"}]
    assert [loads(result)["text"] for result in table.columns["result"]] == ["yes", "no"]

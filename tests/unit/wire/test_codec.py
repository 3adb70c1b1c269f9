"""What the JSON codec forgives, and what it makes of it."""

from __future__ import annotations

import datetime
import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from rusty_agent.wire.codec import (
    dumps,
    dumps_exact,
    ends_within,
    join_surrogates,
    loads,
    loads_answer,
    loads_exact,
    loads_loose,
    loads_strict,
    mend,
)
from tests.frames import Bool, Float32, Int64

NESTED = b"[" * 100_000 + b"]" * 100_000


LOADED = {
    "plain": (b'{"a":[1,2.5,null,true,"x"]}', {"a": [1, 2.5, None, True, "x"]}),
    "blanks": (b' \n"x" ', "x"),
    "pair": (rb'"\ud83d\ude00"', "😀"),
    "high": (rb'"a\ud83d"', "a\ufffd"),
    "low": (rb'"\ude00b"', "\ufffdb"),
    "everywhere": (rb'{"\ud83d":["\ud83d",{"a":"\ude00"}],"b":1}', {"\ufffd": ["\ufffd", {"a": "\ufffd"}], "b": 1}),
    "not-utf-8": (b'"\xff"', "\ufffd"),
    "cut-character": (b'"caf\xc3"', "caf\ufffd"),
    "large-integer": (b"18446744073709551616000", 18446744073709551616000),
    "5000-digits": (b"[" + b"1" * 5000 + b",-" + b"1" * 5000 + b"]", [math.inf, -math.inf]),
}


@pytest.mark.parametrize(("data", "value"), LOADED.values(), ids=LOADED)
def test_loads(data: bytes, value: Any) -> None:
    assert loads(data) == value


def test_only_answers_may_hold_control_characters() -> None:
    assert loads_answer(b'"a\0\xff"') == "a\0\ufffd"
    with pytest.raises(ValueError):
        loads(b'"a\0"')  # of a file, that is a line half of which was never written


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[DONE]", b"'a'", b"{} {}", b"\xef\xbb\xbf{}", NESTED],
    ids=["empty", "cut", "mark", "quotes", "two", "bom", "deep"],
)
def test_loads_refuses(data: bytes) -> None:
    for decode in (loads, loads_loose):
        with pytest.raises(ValueError):
            decode(data)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_that_ends_within(ascii_only: bool) -> None:
    value: dict[str, Any] = {"a": [1, -2.5e-3, True, False, None, "né\n\\", {"b": {}}, "世"], "c": "d"}
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    for end in range(1, len(text)):
        with pytest.raises(ValueError) as cut:
            loads(text[:end])
        assert ends_within(cut.value)


@pytest.mark.parametrize(
    "data", [b"{a", b"{]", b'{"a" 1}', b'{"a": b}', b"{}x", b"{}n", b"{} {", b"{'a'", b'{"a\nb"}', NESTED]
)
def test_what_is_no_json_and_not_cut(data: bytes) -> None:
    with pytest.raises(ValueError) as wrong:
        loads(data)
    assert not ends_within(wrong.value)


def test_loads_not_a_number() -> None:
    assert math.isnan(loads(b"NaN"))


def test_loads_strict_refuses_what_loads_forgives() -> None:
    with pytest.raises(ValueError):
        loads_strict(rb'"\ud83d"')


def test_loads_loose_keeps_halves_of_characters() -> None:
    assert loads_loose(rb'["\ud83d","\ude00","\ud83d\ude00"]') == ["\ud83d", "\ude00", "😀"]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ({"a": [1, None, "é"]}, '{"a":[1,null,"é"]}'.encode()),
        ({"a": "\ud83d"}, '{"a":"\ufffd"}'.encode()),
        (["\ud83d\ude00"], '["😀"]'.encode()),
        ({"\ude00": 2**70}, '{"\ufffd":1180591620717411303424}'.encode()),
        ([math.nan, {"NaN": -math.inf}], b'[null,{"NaN":null}]'),
        ([math.nan, {"NaN": -math.inf}, 2**70], b'[null,{"NaN":null},1180591620717411303424]'),
        ({1: "a"}, b'{"1":"a"}'),
        ((1, 2), b"[1,2]"),
    ],
    ids=["plain", "half", "pair", "large-integer", "nan", "nan-beside-large", "integer-key", "tuple"],
)
def test_dumps(value: Any, data: bytes) -> None:
    assert dumps(value) == data


def test_dumps_takes_what_orjson_takes() -> None:
    assert dumps(datetime.date(2026, 1, 2)) == b'"2026-01-02"'


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _deep() -> Any:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [object(), {"a": {1, 2}}, {(1, 2): 3}, _circle()],
    ids=["object", "set", "tuple-key", "circle"],
)
def test_dumps_refuses(value: Any) -> None:
    with pytest.raises(ValueError):
        dumps(value)


def test_dumps_refuses_what_is_nested_too_deep() -> None:
    with pytest.raises(ValueError):
        dumps(_deep())


@pytest.mark.parametrize("value", [math.nan, [1.5, (math.inf,)], {"a": [{"b": -math.inf}]}, [math.nan, 2**70]])
def test_dumps_exact_refuses_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="NaN and Infinity"):
        dumps_exact(value)


def test_dumps_exact_takes_null() -> None:
    assert dumps_exact({"a": None, "b": ["null", 0.5, 2**70]}) == b'{"a":null,"b":["null",0.5,1180591620717411303424]}'


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("", ""),
        ("abc", "abc"),
        ("é😀", "é😀"),
        ("\ud83d\ude00", "😀"),
        ("\ud83d", "\ufffd"),
        ("\ude00", "\ufffd"),  # noqa: PT014 - not the same as above
        ("\ud83dx", "\ufffdx"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
    ],
    ids=["empty", "ascii", "whole", "pair", "high", "low", "high-then-text", "high-then-pair", "wrong-order"],
)
def test_join_surrogates(text: str, joined: str) -> None:
    assert join_surrogates(text) == joined


def _innermost(value: Any) -> list[Any]:
    while isinstance(value[0], list):
        value = value[0]
    return list(value)


def test_mend_copies_at_any_depth() -> None:
    value = inner = _deep()
    while inner[0] != 0:
        inner = inner[0]
    inner[0] = "\ud83d"
    assert _innermost(mend(value)) == ["\ufffd"]
    assert _innermost(value) == ["\ud83d"]
    assert mend({"\ud83d": {"\ud83d": ["\ude00", 1]}}) == {"\ufffd": {"\ufffd": ["\ufffd", 1]}}
    assert mend("\ud83d") == "\ufffd"
    assert mend(None) is None


def test_whole_numbers_of_any_length() -> None:
    long = 123456789012345678901
    assert loads_exact(b'{"a":[%d,1.5],"b":"\xc3\xa9 %d"}' % (long, long)) == {"a": [long, 1.5], "b": f"é {long}"}
    deep = loads_exact(b"[" * 1010 + b"%d" % long + b"]" * 1010)
    while isinstance(deep, list):
        deep = deep[0]
    assert float(deep) == float(long)  # rounded, where only the strict decoder goes so deep
    with pytest.raises(ValueError):
        loads_exact(b"{a}")


def test_scalars_of_other_kinds_are_written_as_what_they_are() -> None:
    value = {"whole": Int64(7), "half": Fraction(1, 2), "truth": [Bool(True), Bool(False)]}
    told = {"whole": 7, "half": 0.5, "truth": [True, False]}
    assert json.loads(dumps(value)) == told
    assert json.loads(dumps(value | {1: "a key that orjson refuses"})) == told | {"1": "a key that orjson refuses"}
    with pytest.raises(ValueError, match="Object of type Decimal is not JSON serializable"):
        dumps({"x": Decimal(1)})


def test_no_number_of_another_kind_is_refused_as_such() -> None:
    with pytest.raises(ValueError, match="NaN"):
        dumps_exact([Float32("nan")])
    assert dumps_exact([Float32("0.5"), None]) == b"[0.5,null]"

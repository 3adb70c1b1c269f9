"""Columns → a prompt: what a template takes, what it refuses, and that it never looks into a value."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.batch.template import Template

NAMES = st.text(st.characters(blacklist_characters="{}[].!:"), min_size=1).filter(
    lambda n: n.strip() and not n.isdigit()
)


@pytest.mark.parametrize(
    ("text", "row", "prompt"),
    [
        ("Say: {a}", {"a": "x", "b": "y"}, "Say: x"),
        ("{b}{a}{b}", {"a": "x", "b": "y"}, "yxy"),
        ("{my column}: {é}", {"my column": "x", "é": "y"}, "x: y"),
        ("{{a}} {a}", {"a": "{b}"}, "{a} {b}"),
        ("{a}", {"a": ""}, ""),
        ("{a} {b} {c}", {"a": 5, "b": 0.5, "c": True}, "5 0.5 true"),
        ("{a} {b}", {"a": ["é", None], "b": {"c": 1}}, '["é",null] {"c":1}'),
    ],
    ids=["one", "often", "any-name", "braces", "empty-value", "numbers", "json"],
)
def test_columns_stand_in_for_their_names(text: str, row: dict[str, Any], prompt: str) -> None:
    assert Template(text).render(row) == prompt


def test_columns_are_named_once() -> None:
    assert Template("{b} {{c}} {a} {b}").columns == ("a", "b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "contains no {column}, so every row would have the same prompt"),
        ("Say: {{a}}", "contains no {column}, so every row would have the same prompt"),
        ("{a", "for a literal brace write {{ or }}"),
        ("a}", "for a literal brace write {{ or }}"),
        ('{"a": {a}}', "must be a bare name"),
        ("{a!x", "for a literal brace"),
        ("{}", "{} is not a column's name"),
        ("{ }", "{ } is not a column's name"),
        ("{0}", "named, not numbered"),
        ("{a.__class__}", "looks into a value"),
        ("{a[0]}", "looks into a value"),
        ("{a:>5}", "{a} must be a bare name"),
        ("{a:{b}}", "{a} must be a bare name"),
        ("{a!r}", "{a} must be a bare name"),
    ],
)
def test_what_is_no_template(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^template: ") as raised:
        Template(text)
    assert says in str(raised.value)


def test_a_missing_column_is_named_and_so_are_those_there() -> None:
    with pytest.raises(ValueError, match="the column 'c'; the available columns are: 'a', 'b'"):
        Template("{a}{c}").render({"a": "x", "b": "y"})
    with pytest.raises(ValueError, match="columns are: none"):
        Template("{a}").require([])


class NA:
    """As that of pandas."""

    ambiguous: Exception = TypeError("boolean value of NA is ambiguous")

    def __ne__(self, _: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise self.ambiguous


class Array(NA):
    """As that of numpy."""

    ambiguous = ValueError("the truth value of an array is ambiguous")


@pytest.mark.parametrize("value", [None, math.nan, NA()])
def test_a_column_without_a_value_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="'a', which the template needs, has no value"):
        Template("{a}").render({"a": value})


def test_what_has_no_form_in_json_is_told_as_that() -> None:
    with pytest.raises(ValueError, match="Object of type Array is not JSON serializable"):
        Template("{a}").render({"a": Array()})


@given(st.text())
def test_any_text_is_a_template_or_a_value_error(text: str) -> None:
    try:
        template = Template(text)
    except ValueError:
        return
    assert (
        template.render(dict.fromkeys(template.columns, "")) == text.replace("{{", "{").replace("}}", "}")
        or "{" in text
    )


@given(st.lists(st.tuples(st.text(), NAMES), min_size=1), st.data())
def test_values_stand_where_their_names_stood(pieces: list[tuple[str, str]], draw: st.DataObject) -> None:
    row = {name: draw.draw(st.text()) for _, name in pieces}
    text = "".join(f"{literal.replace('{', '{{').replace('}', '}}')}{{{name}}}" for literal, name in pieces)
    assert Template(text).render(row) == "".join(literal + row[name] for literal, name in pieces)

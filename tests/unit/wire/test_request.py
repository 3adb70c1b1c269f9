"""Arguments → body and headers; what an endpoint would surely refuse is a ValueError that names the argument."""

from __future__ import annotations

import json
import math
import tracemalloc
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import pytest

from rusty_agent.wire.request import _CHECKS, PARAMETERS, build_body, checked_headers, encode_body
from tests.frames import Int64

USER = {"role": "user", "content": "Hi"}


def _body(prompt: Any = "Hi", **given: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "system_prompt": None,
        "messages": None,
        "stream": False,
        "include_usage": False,
        "extra_body": None,
    }
    parameters = {name: given.pop(name) for name in PARAMETERS if name in given}
    options.update(given)
    system_prompt, messages = options.pop("system_prompt"), options.pop("messages")
    return build_body("m", prompt, system_prompt, messages, parameters, **options)


MESSAGES = {
    "prompt": ({}, [USER]),
    "empty-prompt": ({"prompt": ""}, [{"role": "user", "content": ""}]),
    "messages-win": (
        {"messages": [{"role": "assistant", "content": None}, USER]},
        [{"role": "assistant", "content": None}, USER],
    ),
    "empty-messages": ({"messages": []}, [USER]),
    "empty-tuple": ({"messages": ()}, [USER]),
    "system-prompt": ({"system_prompt": "S"}, [{"role": "system", "content": "S"}, USER]),
    "empty-system-prompt": ({"system_prompt": ""}, [{"role": "system", "content": ""}, USER]),
    "system-prompt-and-messages": (
        {"prompt": None, "system_prompt": "S", "messages": [USER]},
        [{"role": "system", "content": "S"}, USER],
    ),
    "any-mapping": ({"messages": (MappingProxyType(USER),)}, [USER]),
}


@pytest.mark.parametrize(("given", "messages"), MESSAGES.values(), ids=MESSAGES)
def test_messages(given: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    body = _body(**given)
    assert body == {"model": "m", "messages": messages}
    assert json.loads(encode_body(body)) == body


def test_every_parameter_has_a_check() -> None:
    assert set(_CHECKS) == set(PARAMETERS)


def test_parameters_that_are_none_are_not_sent() -> None:
    assert _body(**dict.fromkeys(PARAMETERS)) == {"model": "m", "messages": [USER]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 1.7),
        ("max_tokens", 1),
        ("top_p", 0),
        ("top_p", 1),
        ("top_p", 0.5),
        ("stop", "x"),
        ("stop", ["x", "y"]),
        ("stop", ()),
        ("frequency_penalty", -2.5),
        ("presence_penalty", 2),
        ("seed", -(2**70)),
        ("response_format", {"type": "json_object"}),
    ],
)
def test_a_parameter_is_sent_as_it_was_given(name: str, value: Any) -> None:
    assert _body(**{name: value}) == {"model": "m", "messages": [USER], name: value}


def test_any_mapping_is_a_response_format() -> None:
    body = _body(response_format=MappingProxyType({"type": "json_object"}))
    assert json.loads(encode_body(body))["response_format"] == {"type": "json_object"}


def test_numbers_of_other_kinds_are_sent_as_numbers() -> None:
    """Columns of data frames are made of such."""
    body = _body(max_tokens=Int64(5), temperature=Fraction(1, 2), extra_body={"top_k": Int64(3)})
    sent = json.loads(encode_body(body))
    assert (sent["max_tokens"], sent["temperature"], sent["top_k"]) == (5, 0.5, 3)
    with pytest.raises(ValueError, match=r"seed must be a whole number, not 0\.5"):
        _body(seed=Fraction(1, 2))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": None}, "prompt or messages is required"),
        ({"prompt": None, "messages": []}, "prompt or messages is required"),
        ({"prompt": None, "system_prompt": "S"}, "prompt or messages is required"),
        ({"prompt": 5}, "prompt must be a string, not int"),
        ({"prompt": b"x"}, "prompt must be a string, not bytes"),
        ({"system_prompt": ["x"]}, "system_prompt must be a string, not list"),
        ({"messages": "x"}, "messages must be a list"),
        ({"messages": b"x"}, "messages must be a list"),
        ({"messages": USER}, "messages must be a list"),
        pytest.param({"messages": iter([USER])}, "messages must be a list", id="iterator"),
        ({"messages": 0}, "messages must be a list"),
        ({"messages": [USER, "x"]}, r"messages\[1\] must be a mapping, not str"),
        ({"messages": [{"content": "x"}]}, r"messages\[0\] has no role"),
        ({"messages": [{"role": ""}]}, r"messages\[0\] has no role"),
        ({"messages": [{"role": 5}]}, r"messages\[0\] has no role"),
        ({"temperature": -0.1}, "temperature must be at least 0, not -0.1"),
        ({"temperature": math.nan}, "temperature must be a finite number, not nan"),
        ({"temperature": math.inf}, "temperature must be a finite number, not inf"),
        ({"temperature": "1"}, "temperature must be a finite number, not '1'"),
        ({"temperature": True}, "temperature must be a finite number, not True"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        ({"max_tokens": 1.0}, "max_tokens must be a whole number, not 1.0"),
        ({"max_tokens": True}, "max_tokens must be a whole number, not True"),
        ({"top_p": 1.1}, "top_p must be from 0 to 1, not 1.1"),
        ({"top_p": -1}, "top_p must be from 0 to 1, not -1"),
        ({"top_p": 10**400}, "top_p must be from 0 to 1, not 1000"),
        ({"stop": 5}, "stop must be a string or a list of strings, not 5"),
        ({"stop": ["x", 5]}, "stop must be a string or a list of strings"),
        ({"frequency_penalty": -math.inf}, "frequency_penalty must be a finite number"),
        ({"presence_penalty": "x"}, "presence_penalty must be a finite number"),
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"response_format": "json"}, "response_format must be a mapping"),
        ({"include_usage": 1}, "include_usage must be True or False, not int"),
        ({"include_usage": None}, "include_usage must be True or False, not NoneType"),
        ({"extra_body": [1]}, "extra_body must be a mapping"),
        ({"extra_body": {1: 2}}, "extra_body must be a mapping of field names"),
    ],
    ids=repr,
)
def test_an_argument_that_cannot_be_right_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _body(**given)


@pytest.mark.parametrize(
    ("stream", "include_usage", "fields"),
    [
        (False, False, {}),
        (False, True, {}),
        (True, False, {"stream": True}),
        (True, True, {"stream": True, "stream_options": {"include_usage": True}}),
    ],
)
def test_stream(stream: bool, include_usage: bool, fields: dict[str, Any]) -> None:
    assert _body(stream=stream, include_usage=include_usage) == {"model": "m", "messages": [USER], **fields}


def test_extra_body_is_laid_over_the_rest() -> None:
    extra = {"temperature": 2, "top_k": 5, "seed": None, "absent": None}
    assert _body(temperature=1, seed=3, extra_body=extra) == {
        "model": "m",
        "messages": [USER],
        "temperature": 2,
        "top_k": 5,
    }
    assert _body(extra_body={}) == _body()


def test_a_large_body_takes_no_more_memory_than_it_is_long() -> None:
    body = _body("a" * 2**20)
    tracemalloc.start()
    try:
        data = encode_body(body)
        assert tracemalloc.get_traced_memory()[0] < 1.5 * len(data)
    finally:
        tracemalloc.stop()
    assert json.loads(data) == body


def test_halves_of_characters_are_sent_as_replacement_characters() -> None:
    assert json.loads(encode_body(_body("a\ud83d")))["messages"][0]["content"] == "a\ufffd"


def test_what_json_has_no_form_for() -> None:
    with pytest.raises(ValueError, match=r"messages, response_format or extra_body cannot be sent as JSON: .*set"):
        encode_body(_body(extra_body={"a": {1, 2}}))
    with pytest.raises(ValueError, match=r"cannot be sent as JSON: NaN and Infinity"):
        encode_body(_body(extra_body={"a": [math.nan]}))


@pytest.mark.parametrize(
    ("headers", "checked"),
    [
        (None, {}),
        ({}, {}),
        ({"X-Title": " My App\t"}, {"x-title": "My App"}),
        ({"authorization": "Bearer x", "X-A!#": "é"}, {"authorization": "Bearer x", "x-a!#": "é"}),
        ({"X-Tab": "a\tb", "X-Empty": ""}, {"x-tab": "a\tb", "x-empty": ""}),
        ({"X-A": "1", "x-a": "2"}, {"x-a": "2"}),
    ],
    ids=repr,
)
def test_names_of_headers_are_lowered_and_values_stripped(
    headers: dict[str, str] | None, checked: dict[str, str]
) -> None:
    assert checked_headers(headers, "headers") == checked


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([("a", "b")], "extra_headers must be a mapping"),
        ({"": "x"}, "'' is not a header name"),
        ({"a b": "x"}, "'a b' is not a header name"),
        ({"a:": "x"}, "'a:' is not a header name"),
        ({"a\n": "x"}, "is not a header name"),
        ({"é": "x"}, "'é' is not a header name"),
        ({5: "x"}, "5 is not a header name"),
        ({"a": 5}, "the value of 'a' must be a string, not int"),
        ({"a": b"x"}, "the value of 'a' must be a string, not bytes"),
        ({"a": "secret\r\nHost: evil"}, "the value of 'a' contains a line break or another character that is not"),
        ({"a": "secret\n"}, "contains a line break"),
        ({"a": "secret\0"}, "contains a line break or another character"),
        ({"a": "secret\x7f"}, "contains a line break or another character"),
        ({"a": "secret\ud800"}, "contains a line break or another character"),
        ({"Content-Length": "5"}, "'Content-Length' frames the request"),
        ({"host": "x"}, "'host' frames the request"),
        ({"TRANSFER-ENCODING": "chunked"}, "frames the request"),
        ({"Connection": "close"}, "frames the request"),
        ({"content-encoding": "gzip"}, "frames the request"),
    ],
    ids=repr,
)
def test_headers_refused(headers: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        checked_headers(headers, "extra_headers")
    assert str(caught.value).startswith("extra_headers")
    assert "secret" not in str(caught.value)

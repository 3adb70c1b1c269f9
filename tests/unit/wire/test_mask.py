"""Secrets are struck out of whatever may be printed, escaped or cut."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.wire.mask import Mask

KEY = 'sk-"q\\uote"-0123456789'


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        (f"bad key {KEY}!", "bad key ***!"),
        (f"{KEY}{KEY}", "******"),
        (f"bad {KEY}".encode(), b"bad ***"),
        ({"a": [KEY, 1], KEY: None}, {"a": ["***", 1], "***": None}),
        ([[f"x{KEY}"]], [["x***"]]),
        (f"cut at the end {KEY[:9]}", "cut at the end ***"),
        (f"cut at the end {KEY[:9]}…'.", "cut at the end ***…'."),
        (b"\xff" + KEY.encode(), b"\xff***"),
        ("nothing here", "nothing here"),
        ({}, {}),
        (None, None),
        (3, 3),
    ],
    ids=repr,
)
def test_mask(value: Any, masked: Any) -> None:
    assert Mask([KEY])(value) == masked


def test_what_holds_no_secret_is_handed_back_as_it_is() -> None:
    value = {"a": [1.0, "b"]}
    assert Mask([KEY])(value) is value


def test_placeholders_are_no_secrets() -> None:
    assert Mask(["none"])("there is none") == "there is none"


@pytest.mark.parametrize("depth", [200, 500, 20_000], ids=["fast", "slower", "beyond-any-encoder"])
def test_deep_values(depth: int) -> None:
    value: Any = [KEY, {KEY: KEY}]
    for _ in range(depth):
        value = [value]
    masked = Mask([KEY])(value)
    for _ in range(depth):
        masked, value = masked[0], value[0]
    assert masked == ["***", {"***": "***"}]
    assert value == [KEY, {KEY: KEY}]


def test_values_that_are_no_strict_json() -> None:
    masked = Mask([KEY])({"a": math.nan, "b": 2**70, "c": KEY})
    assert (masked["b"], masked["c"]) == (2**70, "***")


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"a": KEY}),
        '{"a": "' + "".join(f"\\u{ord(each):04x}" for each in KEY) + '"}',
        json.dumps({"a/b": "/"}).replace("/", "\\/"),
    ],
)
def test_json_text_that_may_hold_a_secret(text: str) -> None:
    assert not Mask([KEY, "a/b and more"]).misses(text.encode())


def test_escapes_that_cannot_hide_a_secret() -> None:
    text = json.dumps({"a": "世界 né “quoted” back\\slash\n"}).replace("/", "\\/").encode()
    assert Mask([KEY]).misses(text)
    assert not Mask([KEY, "schlüssel-ü"]).misses(text)  # of which «ü» may be escaped


@given(st.text(st.sampled_from('ab"\\/\n é'), min_size=8), st.text(st.sampled_from('ab"\\/\n é')), st.booleans())
def test_json_text_that_misses_the_secrets_decodes_to_what_does(secret: str, around: str, ascii_only: bool) -> None:
    mask = Mask([secret])
    for text in (around, around + secret, secret + around):
        value = [{text: [text]}]
        if mask.misses(json.dumps(value, ensure_ascii=ascii_only).encode()):
            assert mask(value) is value
            assert secret not in text

"""Secrets are struck out of whatever may be printed, escaped or cut."""

from __future__ import annotations

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
def test_the_key_is_struck_out_wherever_it_stands(value: Any, masked: Any) -> None:
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


@given(st.text(st.sampled_from('ab"\\/\n é'), min_size=8), st.text(st.sampled_from('ab"\\/\n é')))
def test_only_values_without_the_secret_are_left_as_they_are(secret: str, around: str) -> None:
    mask = Mask([secret])
    for text in (around, around + secret, secret + around):
        value = [{text: [text]}]
        assert (mask(value) is value) is (secret not in text)


@pytest.mark.parametrize(
    "shown",
    [
        "AbCd%2FEfGh%2BIjKl%3D%3D",
        "AbCd/EfGh%2BIjKl%3D%3D",
        "AbCd%2fEfGh%2bIjKl%3d%3d",
        "AbCd\\/EfGh+IjKl==",
        "AbCd/EfGh+IjKl==",
    ],
)
def test_a_secret_is_struck_out_in_other_spellings(shown: str) -> None:
    mask = Mask(["AbCd/EfGh+IjKl=="])
    assert mask(f"bad key: {shown}, sorry") == "bad key: ***, sorry"

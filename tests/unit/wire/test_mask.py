"""Secrets are struck out of whatever may be printed, escaped or cut."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_deep_values() -> None:
    value: Any = KEY
    for _ in range(200):
        value = [value]
    assert KEY not in repr(Mask([KEY])(value))

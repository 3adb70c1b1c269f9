"""Checks of arguments: what passes, what is refused and in which words, none of which shows a secret."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import checks
from rusty_agent.checks import checked_count, checked_flag, checked_kind, checked_path, count_of, is_many, is_table
from tests.frames import DataFrame, GeoDataFrame


def test_a_number_is_one_that_a_float_can_hold() -> None:
    most = sys.float_info.max
    assert all(map(checks.is_number, (0, -1, 0.5, -most, int(most))))
    assert not any(map(checks.is_number, (True, False, None, "1", 10**400, float("inf"), float("nan"), 1j)))


def test_what_can_be_right_is_handed_on() -> None:
    counts = checked_count(1, "n"), checked_count(0, "n", 0), checked_count(None, "n", optional=True)
    assert (counts, checked_flag(False, "f"), checked_kind("x", str, "k")) == ((1, 0, None), False, "x")
    assert checked_path("a", "p") == checked_path(Path("a"), "p") == Path("a")


COUNT, FLAG = "n must be a whole number of at least", "f must be True or False, not"


@pytest.mark.parametrize(
    ("check", "given", "said"),
    [
        *((checked_count, (value, "n"), f"{COUNT} 1, not {value!r}") for value in (0, True, 1.0, "1", None)),
        (checked_count, (-1, "n", 0), f"{COUNT} 0, not -1"),
        (lambda value: checked_count(value, "n", optional=True), (0,), f"{COUNT} 1 or None, not 0"),
        (checked_flag, ("sk-secret", "f"), f"{FLAG} str"),
        (checked_flag, (1, "f"), f"{FLAG} int"),
        (checked_flag, (None, "f"), f"{FLAG} NoneType"),
        (checked_kind, ("sk-secret", int, "k"), "k must be of type int, not str"),
        (checked_path, (b"a", "p"), "p must be a string or a Path, not bytes"),
        (checked_path, (True, "p"), "p must be a string or a Path, not bool"),
        (checked_path, ("a\0b", "p"), r"p must not contain a NUL character: 'a\x00b'"),
    ],
)
def test_what_cannot_be_right_is_refused(check: Any, given: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        check(*given)
    assert str(refused.value) == said


class Counted:
    """As torch's data sets, and as a progress bar around something that has no length."""

    def __getitem__(self, index: int) -> str:
        return ["a", "b"][index]

    def __len__(self) -> int:
        raise RuntimeError("nobody knows")


@pytest.mark.parametrize(
    ("inputs", "many", "count"),
    [
        *((["a", "b"], True, 2), (iter(["a"]), True, None), (Counted(), True, None), (None, False, None)),
        *(("text", False, 4), (b"text", False, 4), ({"prompt": "a"}, False, 1), (1, False, None)),
    ],
)
def test_many_inputs_and_how_many(inputs: Any, many: bool, count: int | None) -> None:
    assert (is_many(inputs), count_of(inputs)) == (many, count)


@pytest.mark.parametrize(("inputs", "table"), [(DataFrame(), True), (GeoDataFrame(), True), ([DataFrame()], False)])
def test_a_data_frame_of_any_library_is_a_table(inputs: Any, table: bool) -> None:
    assert is_table(inputs) == table

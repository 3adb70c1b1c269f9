"""The settings: what they check."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from rusty_agent.policy import UNSET, AttemptReport, Limits, RetryPolicy, Timeout


@pytest.mark.parametrize("value", [Timeout(), RetryPolicy(), AttemptReport(1, None, None, 0.0)], ids=repr)
def test_settings_are_frozen(value: Any) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.total = 1


def test_unset_is_one_value_with_a_short_repr() -> None:
    assert copy.deepcopy(UNSET) is UNSET
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET
    assert repr(Timeout()) == "Timeout(total=UNSET, connect=UNSET, first_token=None, idle=UNSET, stall=None)"


@pytest.mark.parametrize("field", ["total", "connect", "first_token", "idle", "stall"])
def test_a_time_limit_is_a_positive_number_or_none(field: str) -> None:
    for good in (None, 1, 0.001, 1e9):
        assert getattr(Timeout(**{field: good}), field) == good
    for bad in (0, -1, 0.0, float("nan"), float("inf"), True, False, "1", 10**400, [1]):
        with pytest.raises(ValueError, match=f"{field} must be a positive number of seconds or None, not"):
            Timeout(**{field: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["base_delay", "max_delay", "max_retry_after"])
def test_a_delay_is_a_number_of_at_least_0(field: str) -> None:
    for good in (0, 1, 0.5):
        assert getattr(RetryPolicy(**{field: good}), field) == good  # type: ignore[arg-type]
    for bad in (-1, float("nan"), float("inf"), True, "1", None, 10**400):
        with pytest.raises(ValueError, match=f"{field} must be a number of at least 0, not"):
            RetryPolicy(**{field: bad})  # type: ignore[arg-type]


def test_retries_are_a_whole_number_of_at_least_0() -> None:
    assert RetryPolicy(0).max_retries == 0
    for bad in (-1, 1.0, True, "1", None):
        with pytest.raises(ValueError, match="max_retries must be a whole number of at least 0, not"):
            RetryPolicy(bad)  # type: ignore[arg-type]


def test_the_defaults_of_a_retry_policy() -> None:
    policy = RetryPolicy()
    assert (policy.max_retries, policy.base_delay, policy.max_delay, policy.max_retry_after) == (2, 0.25, 64.0, 120.0)
    assert policy.on_attempt is None


@pytest.mark.parametrize("field", ["requests_per_minute", "tokens_per_minute", "in_flight"])
@pytest.mark.parametrize("value", [0, -1, 5e-324, "many", True, float("nan"), float("inf")])
def test_limits_that_cannot_be(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Limits(**{field: value})


def test_only_requests_in_flight_are_whole() -> None:
    assert Limits(0.5, 0.5).requests_per_minute == 0.5
    with pytest.raises(ValueError, match="in_flight"):
        Limits(in_flight=0.5)  # type: ignore[arg-type]

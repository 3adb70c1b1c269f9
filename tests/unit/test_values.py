"""Results, events and settings: that they compare, copy and pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from rusty_agent import policy, types
from rusty_agent.policy import AttemptReport, Limits, RetryPolicy, Timeout
from rusty_agent.types import GenerateResult, Usage

VALUES = [
    Usage(1, 2, 3, 1, 1, {"a": 1}),
    types.ToolCall("i", "f", "{}", {"a": 1}),
    GenerateResult(
        "t", "stop", "m", Usage(1, 2, 3), "r", "n", [types.ToolCall("i", "f", "{}")], "id", 0.5, 1.5, 2, {"a": 1}
    ),
    types.TextDelta("t", 1),
    types.ReasoningDelta("t", 1),
    types.RefusalDelta("t", 1),
    types.ToolCallDelta(0, "i", "f", "{", 1, {"a": 1}),
    types.UsageUpdate(Usage(1, 2, 3)),
    types.Finish("stop", 1),
    types.RawChunk({"a": 1}),
    types.MapItem(3, "p", GenerateResult("t")),
    Timeout(1, 2, 3, None),
    AttemptReport(1, None, 0.5, 1.0),
    RetryPolicy(1, 2, 3, 4),
    Limits(600, 1e6, 8),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_compare_copy_and_pickle(value: Any) -> None:
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value
    assert not hasattr(value, "__dict__")
    assert repr(value).startswith(type(value).__name__)


def test_every_value_is_tried_here() -> None:
    names = {name for room in (types, policy) for name in room.__all__ if attrs.has(getattr(room, name))}
    assert {type(value).__name__ for value in VALUES} == names

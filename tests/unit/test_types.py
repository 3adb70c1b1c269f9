"""The values: what they check, and that they compare, copy and pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from rusty_agent import types
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
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_compare_copy_and_pickle(value: Any) -> None:
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value
    assert not hasattr(value, "__dict__")
    assert repr(value).startswith(type(value).__name__)


def test_every_value_is_tried_here() -> None:
    names = {name for name in types.__all__ if attrs.has(getattr(types, name))}
    assert {type(value).__name__ for value in VALUES} == names


def test_a_result_is_its_text() -> None:
    assert str(GenerateResult("Hi", "stop")) == f"{GenerateResult('Hi')}" == "Hi"
    assert str(GenerateResult("")) == ""


def test_the_counts_of_a_result() -> None:
    counted, uncounted = GenerateResult("", usage=Usage(1, 2, 3)), GenerateResult("")
    assert (counted.prompt_tokens, counted.completion_tokens, counted.total_tokens) == (1, 2, 3)
    assert (uncounted.prompt_tokens, uncounted.completion_tokens, uncounted.total_tokens) == (None, None, None)


def test_results_share_nothing() -> None:
    GenerateResult("").warnings.append("x")
    GenerateResult("").raw["x"] = 1
    assert (GenerateResult("").warnings, GenerateResult("").raw, GenerateResult("").tool_calls) == ([], {}, [])


def test_raw_objects_stay_out_of_the_repr() -> None:
    assert "secret" not in repr([GenerateResult("", raw={"secret": 1}), Usage(raw={"secret": 1})])

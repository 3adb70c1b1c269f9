"""Results and events: what they tell."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from attrs import AttrsInstance, asdict

from rusty_agent import BatchResult
from rusty_agent.types import Finish, GenerateResult, RawChunk, StreamEvent, ToolCall, ToolCallDelta, Usage, UsageUpdate

_USAGE = Usage(1, 2, 3, raw={"total_tokens": 3})
_VALUES: list[AttrsInstance] = [
    GenerateResult("Hi", usage=_USAGE, tool_calls=[ToolCall("id", "name", "{}", {"a": 1})], raw={"a": [1, None]}),
    *[kind("Hi") for kind in get_args(StreamEvent) if kind not in (ToolCallDelta, UsageUpdate, Finish, RawChunk)],
    ToolCallDelta(0, extra={"a": 1}),
    UsageUpdate(_USAGE),
    Finish(None),
    RawChunk({"a": 1}),
]


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
    assert "long" not in repr(BatchResult(1, 1, 0, 0, 0, 0, None, None, None, {"long": 1}))


@pytest.mark.parametrize("value", _VALUES, ids=lambda value: type(value).__name__)
def test_results_and_events_go_into_json_as_dicts(value: AttrsInstance) -> None:
    as_dict = asdict(value)
    assert json.loads(json.dumps(as_dict)) == as_dict

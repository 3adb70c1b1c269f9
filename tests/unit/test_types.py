"""Results and events: what they tell."""

from __future__ import annotations

from rusty_agent.types import GenerateResult, Usage


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

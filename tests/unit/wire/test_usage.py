"""Where usage stands and how it is counted."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.types import Usage
from rusty_agent.wire.usage import find_usage, parse_usage
from tests.replies import chunk, replay, sse

ONE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
TWO = {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}


@pytest.mark.parametrize(
    "place",
    [
        {"choices": [], "usage": ONE},
        {**chunk(finish="stop"), "usage": ONE},
        {"choices": [{"index": 0, "delta": {}}], "usage": ONE},
        {"choices": [], "x_groq": {"usage": ONE}},
        {"choices": [{"delta": {}, "usage": ONE}]},
        {"choices": [], "usage": {}, "x_groq": {"usage": ONE}},
        {"choices": [{"delta": {}, "usage": ONE}], "usage": None, "x_groq": {"id": "req"}},
    ],
    ids=["own-chunk", "finish-chunk", "empty-delta", "x_groq", "choice", "x_groq-after-empty", "choice-after-null"],
)
def test_places(place: dict[str, Any]) -> None:
    assert find_usage(place) == Usage(1, 2, 3, raw=ONE)
    outcome = replay([sse(chunk("a"), place)])
    assert (outcome.usage, outcome.error) == (Usage(1, 2, 3, raw=ONE), None)


def test_the_chunk_itself_goes_before_other_places() -> None:
    assert find_usage({"usage": ONE, "x_groq": {"usage": TWO}, "choices": [{"usage": TWO}]}) == Usage(1, 2, 3, raw=ONE)
    assert find_usage({"x_groq": {"usage": ONE}, "choices": [{"usage": TWO}]}) == Usage(1, 2, 3, raw=ONE)


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"usage": None},
        {"x_groq": []},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": {"a": 1}},
    ],
    ids=repr,
)
def test_what_is_no_usage_is_not_taken_for_it(place: dict[str, Any]) -> None:
    assert find_usage(place) is None


@pytest.mark.parametrize(
    ("sent", "counted"),
    [
        ([ONE, TWO], Usage(4, 5, 9, raw=TWO)),
        ([TWO, ONE], Usage(1, 2, 3, raw=ONE)),
        ([ONE, {}], Usage(1, 2, 3, raw=ONE)),
        ([ONE, None], Usage(1, 2, 3, raw=ONE)),
        ([{}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}], None),
        ([ONE] * 5, Usage(1, 2, 3, raw=ONE)),
    ],
    ids=["last-wins", "even-if-smaller", "empty-is-no-news", "null-is-no-news", "zeros", "never-summed"],
)
def test_the_last_one_that_says_something_counts(sent: list[Any], counted: Usage | None) -> None:
    chunks = [{**chunk("a"), "usage": usage} for usage in sent]
    assert replay([sse(*chunks, chunk(finish="stop"))]).usage == counted


def test_plain_chunks_with_usage_elsewhere_are_read_too() -> None:
    first, second, third = chunk("a"), chunk("b"), chunk("c")
    second["x_groq"] = {"usage": ONE}
    third["choices"][0]["usage"] = TWO
    assert replay([sse(first, second, chunk("c"))]).usage == Usage(1, 2, 3, raw=ONE)
    assert replay([sse(first, second, third)]).usage == Usage(4, 5, 9, raw=TWO)


COUNTS = {
    "no-count-beside-others": ({"prompt_tokens": None, "completion_tokens": 4, "total_tokens": 4}, (0, 4, 4, 0, 0)),
    "negative-beside-others": ({"prompt_tokens": -1, "completion_tokens": 4, "total_tokens": 3}, (0, 4, 3, 0, 0)),
    "zero-total": ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 0}, (3, 4, 7, 0, 0)),
    "less-in-total": ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 5, "x": 1}, (3, 4, 5, 0, 0)),
    "no-total": ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4, 7, 0, 0)),
    "other-names": ({"input_tokens": 3, "output_tokens": 4}, (3, 4, 7, 0, 0)),
    "first-name-wins": ({"prompt_tokens": 3, "input_tokens": 8, "total_tokens": 3}, (3, 0, 3, 0, 0)),
    "total-only": ({"total_tokens": 5}, (0, 0, 5, 0, 0)),
    "float": ({"prompt_tokens": 3.0, "completion_tokens": None}, (3, 0, 3, 0, 0)),
    "negative": ({"prompt_tokens": 3, "completion_tokens": -4}, (3, 0, 3, 0, 0)),
    "string": ({"prompt_tokens": 3, "completion_tokens": "4"}, (3, 0, 3, 0, 0)),
    "not-finite": (
        {"prompt_tokens": 3, "completion_tokens": float("nan"), "total_tokens": float("inf")},
        (3, 0, 3, 0, 0),
    ),
    "absurd": ({"prompt_tokens": 3, "total_tokens": 2**63}, (3, 0, 3, 0, 0)),
    "cached": ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, (9, 0, 9, 4, 0)),
    "cached-clamped": ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 40}}, (9, 0, 9, 9, 0)),
    "cached-flat": ({"prompt_tokens": 9, "prompt_tokens_details": None, "cached_tokens": 4}, (9, 0, 9, 4, 0)),
    "reasoning": ({"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}, (0, 9, 9, 0, 4)),
    "reasoning-clamped": (
        {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 40}},
        (0, 9, 9, 0, 9),
    ),
    "reasoning-flat": ({"completion_tokens": 9, "reasoning_tokens": 4}, (0, 9, 9, 0, 4)),
    "reasoning-apart": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        (32, 103, 135, 0, 94),
    ),
    "reasoning-in-the-total-alone": (
        {"prompt_tokens": 16, "completion_tokens": 9, "total_tokens": 627},
        (16, 611, 627, 0, 602),
    ),
    "one-token-of-reasoning-in-the-total-alone": (
        {"prompt_tokens": 16, "completion_tokens": 9, "total_tokens": 26},
        (16, 10, 26, 0, 1),
    ),
    "nothing-but-reasoning": (
        {"prompt_tokens": 16, "completion_tokens": 0, "total_tokens": 116},
        (16, 100, 116, 0, 100),
    ),
    "nothing-but-reasoning-null": ({"prompt_tokens": 16, "total_tokens": 116}, (16, 100, 116, 0, 100)),
    "apart-but-not-reasoning": (
        {"prompt_tokens": 16, "completion_tokens": 9, "total_tokens": 30, "reasoning_tokens": 4},
        (16, 9, 30, 0, 4),
    ),
    "cache-apart": (
        {
            "prompt_tokens": 368,
            "completion_tokens": 19,
            "total_tokens": 10_923,
            "cache_read_input_tokens": 10_536,
            "cache_creation_input_tokens": 0,
        },
        (10_904, 19, 10_923, 10_536, 0),
    ),
    "cache-apart-and-written": (
        {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 107,
            "prompt_tokens_details": {"cached_tokens": 60},
            "cache_creation_input_tokens": 40,
        },
        (103, 4, 107, 60, 0),
    ),
    "audio-apart": (  # Mistral's Voxtral
        {
            "prompt_audio_seconds": 6,
            "prompt_tokens": 12,
            "completion_tokens": 31,
            "total_tokens": 418,
            "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 375},
        },
        (387, 31, 418, 8, 0),
    ),
}


@pytest.mark.parametrize(("raw", "counts"), COUNTS.values(), ids=COUNTS)
def test_counts(raw: dict[str, Any], counts: tuple[int, ...]) -> None:
    usage = parse_usage(raw)
    assert usage is not None
    assert (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
    ) == counts
    assert usage.raw is raw


@pytest.mark.parametrize("raw", [None, [], "12", 12, {}, {"prompt_tokens": 0}, {"cached_tokens": 5}], ids=repr)
def test_nothing_to_count(raw: Any) -> None:
    assert parse_usage(raw) is None


@pytest.mark.parametrize(
    "details",
    [
        {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2}},
        {"input_tokens_details": {"cached_tokens": 3}, "output_tokens_details": {"reasoning_tokens": 2}},
        {"prompt_cache_hit_tokens": 3, "reasoning_tokens": 2},
        {"cache_read_input_tokens": 3, "reasoning_tokens": 2},
        {"num_cached_tokens": 3, "reasoning_tokens": 2},
        {"prompt_tokens_details": None, "cached_tokens": 3, "reasoning_tokens": 2},
    ],
    ids=["openai", "responses", "deepseek", "anthropic", "mistral", "flat"],
)
def test_names_of_details(details: dict[str, Any]) -> None:
    usage = parse_usage({**TWO, **details})
    assert usage is not None
    assert (usage.cached_tokens, usage.reasoning_tokens) == (3, 2)

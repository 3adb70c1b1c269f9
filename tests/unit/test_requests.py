"""A call's arguments → the request: what wins over what, what is refused, and which secrets it knows."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from rusty_agent import AsyncProvider, MissingAPIKeyError, RetryPolicy
from rusty_agent.requests import Common, Requests, merged
from rusty_agent.wire.codec import loads

KEY = "sk-test-0123456789abcdef"
HELLO = [{"role": "user", "content": "hello"}]


def requests(**options: Any) -> Requests:
    return AsyncProvider("m", api_key=KEY, base_url="http://h/v1", **options)._requests


def test_what_every_request_has_and_what_one_call_adds() -> None:
    every = requests(headers={"X-Own": "1", "User-Agent": "mine"}, preset="anthropic")
    plain = every.prepare("hi", whole=True, streamed=False)
    assert loads(plain.body) == plain.fields == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    more = {"X-Own": "2", "Authorization": "Bearer another-key-4567"}
    call = every.prepare("hi", whole=False, streamed=True, extra_headers=more, seed=1, timeout=3, retry=RetryPolicy(7))
    own = every.prepare("hi", whole=True, streamed=False).headers
    assert own == plain.headers == every.headers
    assert (own["x-own"], own["user-agent"], own["authorization"]) == ("1", "mine", f"Bearer {KEY}")
    assert (call.headers["x-own"], call.headers["authorization"]) == ("2", "Bearer another-key-4567")
    assert (call.time_limits.idle, call.policy.max_retries, call.streamed) == (3, 7, True)
    assert (plain.warnings, call.warnings) == ((), ("anthropic accepts seed and ignores it",))


def test_a_secret_of_one_call_is_masked_in_that_call() -> None:
    every = requests(headers={"x-api-key": "own-header-1234"})
    secrets: dict[str, Any] = {
        "extra_headers": {"cookie": "session=cookie-1234"},
        "extra_body": {"api_key": "body-key-1234", "api_keys": ["body-key-5678"]},
    }
    call = every.prepare("hi", whole=True, streamed=False, **secrets)
    said = f"{KEY} own-header-1234 session=cookie-1234 body-key-1234 body-key-5678"
    assert call.mask(said) == "*** *** *** *** ***"
    others = every.prepare("hi", whole=True, streamed=False)
    assert others.mask(said) == "*** *** session=cookie-1234 body-key-1234 body-key-5678"


def test_why_no_request_can_be_made_is_told_each_time_anew() -> None:
    every = requests()
    every.refusal = MissingAPIKeyError("no key")
    lengths = set()
    for _ in range(3):
        with pytest.raises(MissingAPIKeyError, match="no key") as refused:
            every.prepare("hi", whole=True, streamed=False)
        assert refused.value is not every.refusal
        lengths.add(len(traceback.extract_tb(refused.tb)))
    assert len(lengths) == 1


@pytest.mark.parametrize(
    ("common", "own", "together"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"extra_body": {"x": 1, "y": 2}}, {"extra_body": {"y": 3}}, {"extra_body": {"x": 1, "y": 3}}),
        ({"extra_body": {"x": 1}}, {}, {"extra_body": {"x": 1}}),
        ({}, {"extra_body": {"x": 1}}, {"extra_body": {"x": 1}}),
        # A parameter of its own wins over the same field of all …
        ({"extra_body": {"seed": 1, "x": 1}}, {"seed": 2}, {"seed": 2, "extra_body": {"x": 1}}),
        ({"extra_body": {"seed": 1}}, {"seed": None}, {"seed": None, "extra_body": {"seed": 1}}),
        # … but does not put back what was taken out.
        ({"extra_body": {"seed": None}}, {"seed": 2}, {"seed": 2, "extra_body": {"seed": None}}),
        ({"extra_body": {"seed": None}}, {"extra_body": {"seed": 2}}, {"extra_body": {"seed": 2}}),
        ({"extra_body": {"x": 1}}, {"extra_body": 5}, {"extra_body": 5}),  # which is refused later
    ],
)
def test_what_one_call_of_many_says_wins(common: dict[str, Any], own: dict[str, Any], together: dict[str, Any]) -> None:
    assert merged(common, own) == together


def test_a_prompt_beside_messages_for_all_is_refused_unless_it_takes_them_away() -> None:
    run = Common(requests(), {"messages": HELLO})
    with pytest.raises(ValueError, match="messages set for all prompts would be sent instead of this one"):
        run.prepare({"prompt": "own"})
    none: list[Any] = [None, []]
    for messages in none:
        assert run.prepare({"prompt": "own", "messages": messages}).fields["messages"] == [
            {"role": "user", "content": "own"}
        ]
    assert run.prepare({"temperature": 0}).fields["messages"] == HELLO

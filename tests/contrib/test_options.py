"""A provider's arguments that are pickled: what they must not hold; and the key, found where they are unpacked."""

from __future__ import annotations

import ssl as tls
from typing import Any

import pytest

from rusty_agent import MissingAPIKeyError, Preset
from rusty_agent.contrib.options import check_picklable, make_provider, provider_of
from rusty_agent.policy import Limits

GOOD: dict[str, Any] = {"model": "m", "base_url": "http://127.0.0.1:1"}
KEYED = GOOD | {"api_key_env": "RAY_TEST_KEY"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"api_key": "sk-1"}, "api_key_env"),
        ({"headers": {"x-api-key": "1"}}, "'x-api-key' looks like a key"),
        ({"base_url": "https://h/v1?api-key=1"}, "base_url holds a secret"),
        ({"proxy": "http://u:p@h:1"}, "proxy holds a secret"),
        ({"preset": Preset("own", "https://h/v1?api-key=1", "OWN_KEY")}, "the preset's base_url holds a secret"),
        ({"headers": "x-api-key: 1"}, "^headers must be a mapping"),
        ({"extra_headers": {"Authorization": "1"}}, "'authorization' looks like a key"),
        ({"extra_headers": [("Authorization", "sk-1")]}, "^extra_headers must be a mapping"),
        ({"extra_body": {"top_k": "1", "api_key": "sk-1"}}, "extra_body holds a field that looks like a key"),
        ({"extra_body": {"fallbacks": [{"model": "m", "api_key": "sk-1"}]}}, "extra_body holds a field"),
        ({"ssl": tls.create_default_context()}, "ssl, which cannot be pickled.*SSL_CERT_FILE"),
        *(({name: None}, f"{name}: each actor has its own") for name in ("limits", "session", "pickle_key")),
        ({"api_key_env": "sk-1"}, "name of an environment variable, not the key"),
        ({"api_key_env": "gsk_0123456789abcdefABCDEFGH"}, ", not the key"),
        ({"api_key_env": 1}, "name of an environment variable"),
    ],
)
def test_what_must_not_be_pickled(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        check_picklable(GOOD | wrong, wrong)  # the latter are the arguments of all calls
    assert "sk-1" not in str(caught.value)


def test_what_may_be_pickled() -> None:
    long = {"api_key_env": "OPENAI_API_KEY_OF_TEAM_42", "headers": {"x-trace": "1"}}  # whose length makes it no key
    check_picklable(GOOD | long, {"extra_headers": {"x-trace": "1"}, "extra_body": {"top_k": "1"}})


def test_the_key_is_that_of_the_environment_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TEST_KEY", "sk-test-0123456789")
    key = make_provider(KEYED, Limits())._requests.config.key
    assert key is not None
    assert key.reveal() == "sk-test-0123456789"
    for empty in (True, False):
        monkeypatch.setenv("RAY_TEST_KEY", "") if empty else monkeypatch.delenv("RAY_TEST_KEY")
        with pytest.raises(MissingAPIKeyError, match=r"RAY_TEST_KEY .*is not set where this Ray worker runs"):
            make_provider(KEYED, Limits())
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(MissingAPIKeyError, match=r"the preset's .* takes no key, pass preset=.vllm."):
        make_provider(GOOD, Limits())
    assert make_provider(GOOD | {"preset": "vllm"}, Limits()).model == "m"


@pytest.mark.parametrize(("options", "said"), [(GOOD | {"modle": "m"}, "modle"), ({"base_url": "http://x"}, "model")])
def test_what_are_no_arguments_of_a_provider(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"provider must hold arguments for AsyncProvider: .*{said}"):
        provider_of(options, Limits(), "k")

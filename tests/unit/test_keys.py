"""Keys and other secrets: where they are looked for, what is refused, and that they show nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.errors import MissingAPIKeyError
from rusty_agent.keys import Secret, is_secret, named_secrets, resolve_key, url_secrets, without_secrets
from rusty_agent.presets import find_preset

OPENAI, OLLAMA = find_preset("openai"), find_preset("ollama")


@pytest.mark.parametrize(
    ("api_key", "preset", "environ", "key"),
    [
        ("sk-1", OPENAI, {}, "sk-1"),
        ("sk-1", OPENAI, {"OPENAI_API_KEY": "sk-2"}, "sk-1"),
        (" sk-1\n", OPENAI, {}, "sk-1"),
        (None, OPENAI, {"OPENAI_API_KEY": "sk-2\n"}, "sk-2"),
        (None, OLLAMA, {}, None),
        (None, OLLAMA, {"OLLAMA_API_KEY": ""}, None),
        (None, OLLAMA, {"OLLAMA_API_KEY": "k"}, "k"),
        ("none", OLLAMA, {}, "none"),
        ("", OLLAMA, {"OLLAMA_API_KEY": "k"}, None),
    ],
    ids=["argument", "argument-first", "stripped", "environment", "not-needed", "empty", "used", "given", "none-given"],
)
def test_the_argument_wins_over_the_environment(
    api_key: str | None, preset: Any, environ: dict[str, str], key: str | None
) -> None:
    secret = resolve_key(api_key, preset, environ)
    assert (secret and secret.reveal()) == key


@pytest.mark.parametrize(
    ("api_key", "preset", "environ"),
    [
        (None, OPENAI, {}),
        (None, OPENAI, {"OPENAI_API_KEY": " "}),
        ("", OPENAI, {"OPENAI_API_KEY": "k"}),
    ],
    ids=["none", "blank", "empty-argument"],
)
def test_keys_that_are_missing(api_key: str | None, preset: Any, environ: dict[str, str]) -> None:
    with pytest.raises(MissingAPIKeyError, match=f"set the environment variable {preset.key_variable} or pass api_key"):
        resolve_key(api_key, preset, environ)


@pytest.mark.parametrize("api_key", ["sk-sec\r\nret", "sk-secrét", "sk-sec\0ret", "sk-sec\u202eret"], ids=repr)
def test_keys_that_cannot_stand_in_a_header(api_key: str) -> None:
    with pytest.raises(ValueError, match="api_key contains a line break") as caught:
        resolve_key(api_key, OPENAI, {})
    assert "sk-" not in str(caught.value)
    with pytest.raises(ValueError, match="OPENAI_API_KEY contains a line break") as caught:
        resolve_key(None, OPENAI, {"OPENAI_API_KEY": api_key})
    assert "sk-" not in str(caught.value)


def test_a_whole_header_is_no_key() -> None:
    """It would be sent as `Bearer Bearer sk-…`, of which the endpoint says no more than that the key is wrong."""
    for api_key, environ in (("Bearer sk-secret", {}), (None, {"OPENAI_API_KEY": " bearer sk-secret"})):
        with pytest.raises(ValueError, match=r"(api_key|OPENAI_API_KEY) must be the key alone") as caught:
            resolve_key(api_key, OPENAI, environ)
        assert "secret" not in str(caught.value)


def test_keys_that_are_no_strings() -> None:
    with pytest.raises(ValueError, match="api_key must be a string, not bytes"):
        resolve_key(b"sk-secret", OPENAI, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("X-Api-Key", True),
        ("X-Session-Id", True),
        ("X-Gateway-Pass", True),
        ("X-Passwd", True),
        ("sig", True),
        ("X-JWT-Assertion", True),
        ("Authorization", True),
        ("access_token", True),
        ("X-Session-Affinity", False),
        ("session_id", False),
        ("prompt_cache_key", False),
        ("author", False),
        ("keywords", False),
        ("tokenizer", False),
        ("token_type", False),
        ("X-Passthrough", False),
        ("X-Signal", False),
        ("OpenAI-Organization", False),
    ],
)
def test_the_name_of_a_header_or_field_tells_whether_it_is_secret(name: str, secret: bool) -> None:
    assert is_secret(name) is is_secret(name.lower()) is secret


def test_the_scheme_of_a_header_is_no_secret() -> None:
    headers = {"Authorization": "Basic dTpw", "x-key": "a b", "x-token": "bearer  t", "x-other": "plain"}
    assert named_secrets(headers) == ["dTpw", "a b", "t"]


def test_what_is_no_text_is_no_secret() -> None:
    assert named_secrets({"max_completion_tokens": 5, "logit_keys": [1], "keys": [], "api_key": "k"}) == ["k"]


def test_each_of_a_list_is_a_secret_but_not_a_models_tokens() -> None:
    fields = {"api_keys": ["Bearer a", "b"], "secrets": ("c",), "stop_tokens": ["d"], "bannedTokens": ["e"]}
    assert named_secrets(fields) == ["a", "b", "c"]


def test_secrets_of_a_body_are_found_at_any_depth_but_in_schemas() -> None:
    schema = {"type": "function", "function": {"parameters": {"properties": {"t": {"default_token": "no"}}}}}
    webhook = {**schema, "server": {"url": "https://h", "secret": "e"}}
    server = {"type": "mcp", "authorization": "a", "headers": {"X-Api-Key": "Bearer b"}}
    fallbacks = ({"model": "m", "api_key": "c"}, "api_key", {"type": {"api_key": "d"}})
    body = {"type": "function", "tools": [webhook, server], "fallbacks": fallbacks, "api_key": "f"}
    assert sorted(named_secrets(body)) == ["a", "b", "c", "d", "e", "f"]


def test_secrets_of_urls_in_a_body_are_found() -> None:
    """A batch's manifest leaves them out too."""
    servers = [{"server_url": "https://h/sse?api_key=a&x=1"}, {"server_url": "http://b@h"}, {"server_url": "https://h"}]
    assert {"a", "b"} <= set(named_secrets({"tools": servers})) <= {"a", "b", "Yg=="}


def test_a_secret_shows_nowhere() -> None:
    secret = Secret("sk-secret")
    assert secret.reveal() == "sk-secret"
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret])):
        assert "sk-" not in shown
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize(
    ("url", "secrets", "rest"),
    [
        ("https://h/v1?api-version=1", set(), "https://h/v1?api-version=1"),
        ("https://h/v1?key=k%2B1&v=1&api_key=b&flag", {"k%2B1", "k+1", "b"}, "https://h/v1?v=1&flag"),
        ("https://h/v1?token=a+b", {"a+b", "a b"}, "https://h/v1"),
        ("https://h/v1?code=a&language_code=en", {"a"}, "https://h/v1?language_code=en"),  # Azure's functions
        ("https://h/p@1?user=a@b", set(), "https://h/p@1?user=a@b"),
        ("http://u:p%40@h:1", {"p%40", "p@", "dTpwQA=="}, "http://h:1"),
        ("http://token@h:1/x", {"token", "dG9rZW4="}, "http://h:1/x"),
        ("u:p@h:1", {"p", "dTpw"}, None),
        ("http://\udcff@h:1", {"\udcff", "7bO/"}, "http://h:1"),
    ],
)
def test_secrets_in_urls(url: str, secrets: set[str], rest: str | None) -> None:
    assert set(url_secrets(url)) == secrets
    if rest is not None:
        assert without_secrets(url) == rest

"""The environment and URLs: what is taken, what is refused, and that no message shows a secret."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.config import Settings, TimeLimits, chat_url, checked_proxy, time_limits
from rusty_agent.policy import RetryPolicy, Timeout

REQUEST, CONNECT = "RUSTY_AGENT_REQUEST_TIMEOUT_SECS", "RUSTY_AGENT_CONNECT_TIMEOUT_SECS"
RETRIES, BACKOFF = "RUSTY_AGENT_MAX_RETRIES", "RUSTY_AGENT_RETRY_BACKOFF_MS"


@pytest.mark.parametrize(
    ("environ", "settings"),
    [
        ({}, Settings(60.0, 10.0, 2, 0.25)),
        ({REQUEST: "5"}, Settings(request_timeout=5.0)),
        ({CONNECT: " 0.5 "}, Settings(connect_timeout=0.5)),
        ({RETRIES: "0"}, Settings(max_retries=0)),
        ({RETRIES: "3.0"}, Settings(max_retries=3)),
        ({BACKOFF: "0"}, Settings(retry_backoff=0.0)),
        ({BACKOFF: "1500"}, Settings(retry_backoff=1.5)),
    ],
    ids=repr,
)
def test_the_environment_sets_seconds_and_retries(environ: dict[str, str], settings: Settings) -> None:
    assert Settings.from_env(environ) == settings


@pytest.mark.parametrize("name", [REQUEST, CONNECT, RETRIES, BACKOFF])
@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "1e999", "5s"])
def test_settings_that_are_no_numbers(name: str, text: str) -> None:
    kind = "positive number" if name in (REQUEST, CONNECT) else "number of at least 0"
    with pytest.raises(ValueError, match=f"{name} must be a {kind}, not '{text}'"):
        Settings.from_env({name: text})


@pytest.mark.parametrize("name", [REQUEST, CONNECT])
def test_settings_that_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive number, not '0'"):
        Settings.from_env({name: "0"})


def test_retries_are_whole() -> None:
    with pytest.raises(ValueError, match=f"{RETRIES} must be a whole number, not 1.5"):
        Settings.from_env({RETRIES: "1.5"})


def test_the_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUEST, "7")
    assert Settings.from_env().request_timeout == 7.0


def test_the_exponent_of_the_backoff_is_capped_at_eight() -> None:
    assert Settings().retry_policy() == RetryPolicy(2, 0.25, 64.0)
    assert Settings(max_retries=5, retry_backoff=1.0).retry_policy() == RetryPolicy(5, 1.0, 256.0)


@pytest.mark.parametrize(
    ("timeout", "whole", "streamed"),
    [
        (None, (60.0, 10.0, None, None, None), (None, 10.0, None, 60.0, None)),
        (5, (5, 10.0, None, None, None), (None, 10.0, None, 5, None)),
        (Timeout(), (60.0, 10.0, None, None, None), (None, 10.0, None, 60.0, None)),
        (Timeout(1, 2, 3, 4, 5), (1, 2, 3, None, None), (1, 2, 3, 4, 5)),
        (Timeout(total=None, connect=None, idle=None), (None,) * 5, (None,) * 5),
        (Timeout(total=9), (9, 10.0, None, None, None), (9, 10.0, None, 60.0, None)),
    ],
    ids=["default", "number", "empty", "all", "off", "total"],
)
def test_a_bare_number_limits_the_whole_call_or_the_silence_of_a_stream(
    timeout: Timeout | float | None, whole: tuple[Any, ...], streamed: tuple[Any, ...]
) -> None:
    assert time_limits(timeout, Settings(), whole=True, streamed=False) == TimeLimits(*whole)
    assert time_limits(timeout, Settings(), whole=False, streamed=True) == TimeLimits(*streamed)
    both = TimeLimits(whole[0], whole[1], whole[2], *streamed[3:])
    assert time_limits(timeout, Settings(), whole=True, streamed=True) == both  # streamed underneath


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5", 10**400], ids=repr)
def test_a_bare_number_must_be_positive(timeout: Any) -> None:
    with pytest.raises(ValueError, match="must be a positive number of seconds"):
        time_limits(timeout, Settings(), whole=False, streamed=True)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("http://localhost:8080", "http://localhost:8080/chat/completions"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
        ("https://h/v1/chat/completions/", "https://h/v1/chat/completions"),
        ("https://h/d/x?api-version=1", "https://h/d/x/chat/completions?api-version=1"),
        ("HTTPS://H/v1", "https://H/v1/chat/completions"),
        ("http://müller.example/v1", "http://xn--mller-kva.example/v1/chat/completions"),
        ("http://müller.example:8080", "http://xn--mller-kva.example:8080/chat/completions"),
        ("https://h/é/%C3%a9|'?a=é%20b+c", "https://h/%C3%A9/%C3%a9%7C'/chat/completions?a=%C3%A9%20b+c"),
        ("https://h/~a:b;c=d,e@f!$&()*?[x]=/?:@", "https://h/~a:b;c=d,e@f!$&()*/chat/completions?[x]=/?:@"),
    ],
)
def test_requests_go_to_chat_completions_below_the_base_url(base_url: str, url: str) -> None:
    assert chat_url(base_url) == url


@pytest.mark.parametrize(
    ("base_url", "said"),
    [
        (5, "base_url must be a string, not int"),
        (None, "base_url must be a string, not NoneType"),
        ("", "base_url must be http://host… or https://host…, not ''"),
        ("localhost:8080", "base_url must be http://host"),
        ("api.openai.com/v1", "base_url must be http://host"),
        ("ftp://host", "base_url must be http://host"),
        ("http://", "base_url must be http://host"),
        ("http://:80/v1", "base_url must be http://host"),
        ("http://host\\@evil", "credentials|base_url must be http://host"),
        ("http://host\\v1", "base_url must be http://host"),
        ("http://host:99999", "base_url is not a URL"),
        ("http://host:0/v1", "base_url must be http://host"),
        ("http://[::1", "base_url is not a URL"),
        ("http://host/v1 ", "base_url contains white space"),
        ("http://host/\r\nx", "base_url contains white space"),
        ("http://host/\x7f", "base_url contains white space or another character that cannot be sent"),
        ("http://host/v1\ud800", "base_url contains white space or another character that cannot be sent"),
        ("http://user:secret@host/v1", "base_url must not contain credentials"),
        ("http://secret@host/v1", "base_url must not contain credentials"),
        ("http://user:secret@host:99999/v1", "base_url is not a URL"),
        ("user:secret@host/v1", "base_url must be http://host"),
        ("sk-secret-0123456789", r"base_url must be http://host… or https://host…, not '\*\*\*'"),
        ("ftp:user:secret@host/v1", "base_url must be http://host"),
        ("http://host/v1#part", "base_url must not contain a fragment"),
        ("http://host/v1?key=secret#part", r"base_url must not contain a fragment: 'http://host/v1\?…'"),
        ("ftp://host/v1?key=secret", r"base_url must be .* not 'ftp://host/v1\?…'"),
        ("http://host:99999?key=secret", "base_url is not a URL"),
        (f"http://{'ü' * 70}/v1?key=secret", "the host in base_url is not a valid host name"),
        ("http://xn--/v1", "the host in base_url is not a valid host name"),
    ],
    ids=repr,
)
def test_a_base_url_that_is_none_is_refused_without_its_secrets(base_url: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        chat_url(base_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["http://h:3128", "https://user:pass@h", "http://[::1]:1/"])
def test_a_proxy_may_carry_credentials(proxy: str) -> None:
    assert checked_proxy(proxy) == proxy


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (5, "proxy must be a string, not int"),
        ("", "proxy must be http://host"),
        ("user:secret@h:3128", r"proxy must be http://host… or https://host…, not '\*\*\*@h:3128'"),
        ("//user:secret@h:3128", "proxy must be http://host"),
        ("socks5://user:secret@h:3128", "proxy must be http://host"),
        ("http://user:secret@", "proxy must be http://host"),
        ("http://user:secret@h:99999", r"proxy is not a URL: '\*\*\*@h:99999'"),
        ("http://user:secret@h\n", "proxy contains white space"),
        ("http://user:secret\udcff@h", "proxy contains white space or another character that cannot be sent"),
    ],
    ids=repr,
)
def test_a_proxy_is_an_http_url_with_a_host(proxy: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        checked_proxy(proxy)
    assert "secret" not in str(caught.value)

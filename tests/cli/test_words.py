"""The library's advice in the command's words: options, not arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rusty_agent import AsyncProvider, Limits, RetryPolicy
from rusty_agent.batch.input import Checked
from rusty_agent.batch.rows import BadLine
from rusty_agent.batch.template import Template
from rusty_agent.cli.words import in_our_words
from rusty_agent.stop_rule import StopRule


def refusal(make: Callable[..., object], *given: Any, **named: Any) -> str:
    with pytest.raises(ValueError) as raised:
        make(*given, **named)
    return in_our_words(str(raised.value))


def provider(**given: Any) -> AsyncProvider:
    return AsyncProvider("m", api_key="k", **given)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (lambda: refusal(provider, base_url="h"), "--base-url must be http://host… or https://host…"),
        (lambda: refusal(provider, base_url="http://u:p@h"), "--base-url must not contain credentials"),
        (lambda: refusal(Limits, 1e-9), "--rpm must be a positive number (at least 1e-06), not 1e-09"),
        (lambda: refusal(Limits, 1, 1e-9), "--tpm must be a positive number (at least 1e-06), not 1e-09"),
        (lambda: refusal(RetryPolicy, max_retries=-1), "--max-retries must be a whole number of at least 0, not -1"),
        (lambda: refusal(StopRule, -1, None), "--max-failures must be a whole number of at least 0, not -1"),
        (lambda: refusal(StopRule, None, 2), "--max-error-rate must be at least 0 and below 1, not 2"),
        (lambda: refusal(Template, "x"), "--template: 'x' contains no {column}"),
    ],
)
def test_an_invalid_argument_is_named_as_the_option(said: Callable[[], str], expected: str) -> None:
    assert said().startswith(expected)


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        ("Check the model's name and base_url, which often", "Check the model's name and --base-url, which often"),
        ("base_url and that the server is running", "--base-url and that the server is running"),
        ("Check that base_url names the API itself.", "Check that --base-url names the API itself."),
        ("limit the answer with max_tokens", "limit the answer with --max-tokens"),
        ("Check the certificate or pass ssl.", "Check the certificate or set SSL_CERT_FILE."),
        ("(ulimit -n), or pass max_connections", "(ulimit -n)"),
        (" Raise max_event_bytes if that is expected.", ""),
        ("or discard what is there with fresh=True.", "or discard what is there with --fresh."),
        ("or continue anyway with allow_changed=True;", "or continue anyway with --allow-changed;"),
        ('skip them with on_bad_line="skip".', "skip them with --on-bad-line skip."),
        (" failed (max_error_rate), the last with", " failed (--max-error-rate), the last with"),
        (" failed (max_failures), the last with", " failed (--max-failures), the last with"),
        ("but max_retry_after is ", "but the longest wait is "),
        ("use a template to make a prompt", "use --template to make a prompt"),
    ],
)
def test_advice_names_options(advice: str, expected: str) -> None:
    assert in_our_words(f"So it is: {advice}") == f"So it is: {expected}"


def test_advice_that_the_library_puts_together() -> None:
    assert in_our_words("Raise it with timeout=Timeout(idle=…) if the") == "Raise it with --timeout if the"
    said = "Check proxy, or the environment if trust_env is set."
    assert in_our_words(said) == "Check HTTPS_PROXY and the like."
    assert in_our_words("set the environment variable K or pass api_key.") == "set the environment variable K."


def test_a_bad_line_has_fields_and_no_options() -> None:
    bad = [BadLine(2, "max_tokens must be x"), BadLine(3, "temperature must")]
    said = in_our_words(Checked(bad=bad, bad_count=2).complaint())
    assert "  line 2: max_tokens must be x\n  line 3: temperature must\n" in said
    assert said.endswith("Correct them, or skip them with --on-bad-line skip.")


def test_what_an_endpoint_says_stays() -> None:
    said = "HTTP 400: max_tokens must be at most 9, temperature must be below 1 or None; extra_body is unknown."
    assert in_our_words(said) == said


@pytest.mark.parametrize("path", ["base_url.jsonl", "/data/base_url/x", "a-base_url"])
def test_files_keep_their_names(path: str) -> None:
    assert in_our_words(f"{path} cannot be read") == f"{path} cannot be read"

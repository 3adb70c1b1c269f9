"""The library's advice in the command's words: options, not arguments."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

import rusty_agent
from rusty_agent import AsyncProvider, Limits, RetryPolicy
from rusty_agent.batch.files import Files
from rusty_agent.batch.input import Checked
from rusty_agent.batch.rows import BadLine
from rusty_agent.batch.template import Template
from rusty_agent.cli import words
from rusty_agent.cli.words import in_our_words
from rusty_agent.net.http.failures import network_error
from rusty_agent.stop_rule import StopRule
from rusty_agent.wire.request import build_body


def refusal(make: Callable[..., object], *given: Any, **named: Any) -> Callable[[], str]:
    def said() -> str:
        with pytest.raises(ValueError) as raised:
            make(*given, **named)
        return str(raised.value)

    return said


def provider(**given: Any) -> AsyncProvider:
    return AsyncProvider("m", api_key="k", **given)


def body(**sampling: Any) -> object:
    return build_body("m", "p", None, None, sampling, stream=False, include_usage=False, extra_body=None)


MADE = [
    (refusal(provider, base_url="h"), "--base-url must be http://host… or https://host…"),
    (refusal(provider, base_url="http://u:p@h"), "--base-url must not contain credentials"),
    (refusal(Limits, 1e-9), "--rpm must be a positive number (at least 1e-06), not 1e-09"),
    (refusal(Limits, 1, 1e-9), "--tpm must be a positive number (at least 1e-06), not 1e-09"),
    (refusal(RetryPolicy, max_retries=-1), "--max-retries must be a whole number of at least 0, not -1"),
    (refusal(StopRule, -1, None), "--max-failures must be a whole number of at least 0, not -1"),
    (refusal(StopRule, None, 2), "--max-error-rate must be at least 0 and below 1, not 2"),
    (refusal(Template, "x"), "--template: 'x' contains no {column}"),
    (refusal(Files.of, Path()), "--output must be the path of a file, not '.'"),
    (refusal(body, temperature=-1), "--temperature must be at least 0, not -1"),
    (
        refusal(body, max_tokens=0),
        "--max-tokens must be at least 1, not 0; anything else an endpoint takes goes into --option",
    ),
    (
        lambda: str(network_error(ConnectionResetError(), URL("http://h"), proxy=URL("http://p"))),
        "Cannot connect to h:80 through the proxy p:80: it closed the connection. Check HTTPS_PROXY and the like.",
    ),
]


@pytest.mark.parametrize(("said", "expected"), MADE)
def test_a_message_names_options(said: Callable[[], str], expected: str) -> None:
    assert in_our_words(said()).startswith(expected)


WRITTEN = [  # "…" stands for what is put into the text
    ("Check the model's name and base_url, which often", "Check the model's name and --base-url, which often"),
    ("base_url and that the server is running", "--base-url and that the server is running"),
    ("Check that base_url names the API itself.", "Check that --base-url names the API itself."),
    ("Raise it with timeout=Timeout(…=…) if the", "Raise it with --timeout if the"),
    ("limit the answer with max_tokens", "limit the answer with --max-tokens"),
    ("Check the certificate or pass ssl.", "Check the certificate or set SSL_CERT_FILE."),
    ("(ulimit -n), or pass max_connections", "(ulimit -n)"),
    ("set the environment variable … or pass api_key.", "set the environment variable …."),
    (" Raise max_event_bytes if that is expected.", ""),
    ("or discard what is there with fresh=True.", "or discard what is there with --fresh."),
    ("or continue anyway with allow_changed=True;", "or continue anyway with --allow-changed;"),
    ('skip them with on_bad_line="skip".', "skip them with --on-bad-line skip."),
    (" failed (max_error_rate), the last with", " failed (--max-error-rate), the last with"),
    (" failed (max_failures), the last with", " failed (--max-failures), the last with"),
    ("but max_retry_after is ", "but the longest wait is "),
    ("use a template to make a prompt", "use --template to make a prompt"),
]


@cache
def texts_of_the_library() -> str:
    """All that is written in its code, but for the docs and the command line's own words."""
    texts = []
    root = Path(rusty_agent.__file__).parent
    for path in root.rglob("*.py"):
        if path.parent != root / "cli":
            nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
            docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            for node in nodes:
                parts = node.values if isinstance(node, ast.JoinedStr) else [] if id(node) in docs else [node]
                values = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
                texts.append("".join(value for value in values if isinstance(value, str)))
    return "\n".join(texts)


@pytest.mark.parametrize(("advice", "expected"), WRITTEN)
def test_advice_that_the_library_gives_names_options(advice: str, expected: str) -> None:
    assert advice in texts_of_the_library()
    said = advice.replace("Timeout(…", "Timeout(idle")
    assert in_our_words(f"So it is: {said}") == f"So it is: {expected}"


def test_each_entry_translates_something_that_the_library_says() -> None:
    said = [*(made() for made, _ in MADE), *(advice.replace("Timeout(…", "Timeout(idle") for advice, _ in WRITTEN)]
    assert [entry.pattern for entry, _ in words._OURS if not any(map(entry.search, said))] == []


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

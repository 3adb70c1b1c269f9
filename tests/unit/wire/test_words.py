"""What is safe to print; what whole errors say is tested with them."""

from __future__ import annotations

import pytest

from rusty_agent.wire.words import excerpt, printable, words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        (" two \n lines\t", "two lines"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u202eevil\u200b", "\\u202eevil\\u200b"),
        ("half \ud83d", "half \\ud83d"),
        ("é世😀", "é世😀"),
        ("x" * 1000, "x" * 1000),
        ("x" * 1001, "x" * 1000 + "…"),
        ("\x00" * 1000, "\\x00" * 250 + "…"),
    ],
    ids=["plain", "lines", "control", "bidi", "half", "unicode", "fits", "capped", "capped-after-escaping"],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_excerpt() -> None:
    assert excerpt(b"a\n'b'\xff\x1b") == repr("a 'b'\ufffd\\x1b")
    assert excerpt(b"x" * 500) == repr("x" * 200 + "…")


@pytest.mark.timeout(5)
def test_text_that_begins_with_many_comments_is_read_at_once() -> None:
    """Where nothing else follows them, a regular expression could try all ways to part them."""
    assert words("<!--x-->" * 400 + "<p>") == "<!--x-->" * 400 + "<p>"
    assert words("<!--x-->" * 400 + "<html>") == "an HTML page"

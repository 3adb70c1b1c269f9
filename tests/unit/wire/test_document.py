"""What a body that is one JSON object, or was to be one, is worth."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.wire.document import is_bare, is_page, is_piece, is_whole, unreadable, unwrapped


@pytest.mark.parametrize(
    ("document", "bare", "piece"),
    [
        ({"choices": [{"message": {"content": "a"}}]}, False, False),
        ({"choices": [{"delta": {"content": "a"}}]}, False, True),
        ({"choices": [{"delta": {"content": "a"}, "message": {"content": "a"}}]}, False, False),
        ({"choices": [{"delta": {}}]}, False, True),
        ({"object": "chat.completion.chunk", "choices": [{"message": {"content": "a"}}]}, False, True),
        ({"object": "text_completion.chunk", "choices": [{"text": "a"}]}, False, True),
        ({"object": "chat.completion", "choices": [{"text": "a"}]}, False, False),
        ({"choices": [{"text": ""}]}, False, False),
        ({"choices": [{"index": 0}]}, True, False),
        ({"choices": [{}, None, "x"]}, True, False),
        ({"choices": []}, True, False),
        ({"choices": {"0": {}}}, False, False),
        ({"error": "boom"}, False, False),
        ([1], False, False),
    ],
    ids=repr,
)
def test_choices(document: Any, bare: bool, piece: bool) -> None:
    assert (is_bare(document), is_piece(document)) == (bare, piece)


@pytest.mark.parametrize(("body", "whole"), [(b'{"a":1}', True), (b'{"a":1', False), (b"[1]", False), (b"", False)])
def test_an_object_is_whole_from_brace_to_brace(body: bytes, whole: bool) -> None:
    assert is_whole(bytearray(body)) is whole


@pytest.mark.parametrize(
    ("body", "page"),
    [(b"<!DOCTYPE html>", True), (b"<!-- a -->\n<HTML>", True), (b"<br />", False), (b"a<html>", False)],
)
def test_a_page(body: bytes, page: bool) -> None:
    assert is_page(body) is page


def test_what_is_unreadable_says_what_it_is() -> None:
    cut, page = unreadable(b'{"a":', cut=True), unreadable(b"<html>", cut=False)
    assert (cut.retryable, "cut off" in str(cut)) == (True, True)
    assert (page.retryable, "HTML" in str(page), "base_url" in str(page)) == (False, True, True)


def test_an_answer_inside_an_object_is_taken_out_but_not_the_choices_of_a_named_event() -> None:
    inside = {"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": None}
    assert unwrapped({"data": inside}) == inside
    for kind in ("type", "event"):
        asks = {kind: "question", "data": inside}
        assert unwrapped(asks) is asks

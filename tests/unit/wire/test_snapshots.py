"""Streams whose chunks tell the whole text so far."""

from __future__ import annotations

from typing import Any

import pytest

from rusty_agent.types import Finish, ReasoningDelta
from rusty_agent.wire.reply import ReplyDecoder
from rusty_agent.wire.snapshots import Snapshots, tells_all_so_far
from tests.replies import chunk, in_bytes, sse

MODEL = "qwen-mt-plus"
ALL_SO_FAR = sse(
    chunk("", role="assistant"),
    *(chunk("We went home"[:end]) for end in (2, 7, 12)),
    chunk("We went home."),
    chunk("We went home.", finish="stop"),
    chunk("We went home.", finish="stop"),
)


def text_of(pieces: list[bytes], **options: Any) -> str:
    decoder = ReplyDecoder(**options)
    for piece in pieces:
        decoder.feed(piece)
    decoder.close()
    assert decoder.error is None
    assert decoder.finish_reason == "stop"
    return decoder.assembler.text


@pytest.mark.parametrize("pieces", [[ALL_SO_FAR], in_bytes(ALL_SO_FAR)], ids=["whole", "bytes"])
def test_what_is_known_is_not_told_again(pieces: list[bytes]) -> None:
    assert text_of(pieces, model=MODEL) == "We went home."
    assert text_of(pieces, model="m").startswith("WeWe went")


def test_each_event_that_arrives_tells_what_is_new() -> None:
    decoder = ReplyDecoder(model=MODEL)
    events = ALL_SO_FAR.replace(b"\n\n", b"\n\n\0").split(b"\0")
    told = [decoder.feed(event) for event in events]
    assert told == [[], ["We"], [" went"], [" home"], ["."], [], [], [Finish("stop")], []]


def test_pieces_stay_pieces() -> None:
    pieces = sse(chunk("It"), chunk(" is"), chunk("It is"), chunk(" it"), chunk(finish="stop"))
    assert text_of([pieces], model=MODEL) == "It isIt is it"


def test_thinking_can_be_split_off_what_is_new() -> None:
    body = sse(chunk("<think>A"), chunk("<think>A</think>B"), chunk("<think>A</think>BC"), chunk(finish="stop"))
    assert text_of([body], model=MODEL, split_thinking=True) == "BC"


def test_other_deltas_pass() -> None:
    thought = ReasoningDelta("hm")
    assert Snapshots().sift([thought, "a", thought, "ab"], failed=False) == [thought, "a", thought, "b"]


@pytest.mark.parametrize(
    ("model", "so"),
    [(MODEL, True), ("qwen/qwen-mt-turbo", True), ("qwen-mt-flash", False), ("qwen-mt-lite", False), (None, False)],
)
def test_the_models_that_tell_all_so_far_are_known(model: Any, so: bool) -> None:
    assert tells_all_so_far(model) is so

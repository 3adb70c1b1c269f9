"""`<think>` tags are split off at any cut of the text."""

from __future__ import annotations

import time

import pytest

from rusty_agent.types import Finish, ReasoningDelta, RefusalDelta, ToolCallDelta
from rusty_agent.wire.reply import ReplyDecoder
from rusty_agent.wire.thinking import ThinkingSplitter

CASES = {
    "plain text": ("Hello <b>world</b>", "", "Hello <b>world</b>"),
    "a thought, then text": ("<think>Hm, 2 < 3.</think>Yes.", "Hm, 2 < 3.", "Yes."),
    "white space around the tags": ("\n<think>\nHm.\n</think>\n\nYes, yes.", "Hm.", "Yes, yes."),
    "white space within the thought": ("<think>a \n b</think>c", "a \n b", "c"),
    "an empty thought": ("<think>\n\n</think>\n\nYes.", "", "Yes."),
    "a thought without end": ("<think>Hm </thin", "Hm </thin", ""),
    "a thought and nothing else": ("<think>Hm</think>", "Hm", ""),
    "a tag in the middle is text": (
        "Use <think> like <think>this</think>.",
        "",
        "Use <think> like <think>this</think>.",
    ),
    "a second thought is text": ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    "almost a tag": ("<thinker>", "", "<thinker>"),
    "the beginning of a tag and no more": ("<thi", "", "<thi"),
    "nothing but white space": ("  \n", "", "  \n"),
    "Gemini's tag": ("<thought>**Hm**\n\n</thought>Yes.", "**Hm**", "Yes."),
    "another tag": ("<thinking>Hm</think></thinking>Yes.", "Hm</think>", "Yes."),
    "Bedrock's tag": ("<reasoning>Hm</reasoning>Yes.", "Hm", "Yes."),
    "Mistral's tag": ("[THINK]Hm[/THINK]Yes.", "Hm", "Yes."),
    "nearly closed": ("<think>a</thinking</think>b", "a</thinking", "b"),
}


def split(pieces: list[str]) -> tuple[str, str]:
    splitter = ThinkingSplitter()
    deltas = [delta for piece in pieces for delta in splitter.feed(piece)] + splitter.close()
    assert all(delta for delta in deltas)
    thought = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
    return thought, "".join(delta for delta in deltas if isinstance(delta, str))


@pytest.mark.parametrize(("text", "thought", "rest"), CASES.values(), ids=CASES)
def test_every_cut(text: str, thought: str, rest: str) -> None:
    assert split([text]) == (thought, rest)
    assert split(list(text)) == (thought, rest)
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert split([text[:first], text[first:second], text[second:]]) == (thought, rest)


def spent(pieces: list[str]) -> float:
    """Seconds of CPU, the least of a few."""

    def once() -> float:
        started = time.process_time()
        split(pieces)
        return time.process_time() - started

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    ("begin", "end"), [([], ["<think>"]), (["<think>a"], ["b</think>"]), ([], [])], ids=["before", "within", "only"]
)
@pytest.mark.usefixtures("untraced")
def test_white_space_takes_constant_work(begin: list[str], end: list[str]) -> None:
    """Sixteen times as much takes some sixteen times as long, and not 256 times."""
    assert spent([*begin, *["\n"] * 32_000, *end]) < 64 * spent([*begin, *["\n"] * 2_000, *end])


@pytest.mark.parametrize(("text", "told"), [("  ", ["  "]), ("<thi", ["<thi"]), ("x", ["x"]), ("<think>a ", [])])
@pytest.mark.parametrize("later", [b'"refusal":"no"', b'"tool_calls":[{"index":0,"function":{"name":"f"}}]'])
def test_what_was_held_back_comes_before_what_came_later(text: str, told: list[str], later: bytes) -> None:
    decoder = ReplyDecoder(split_thinking=True)
    deltas = decoder.feed(b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode())
    deltas += decoder.feed(b'data: {"choices":[{"delta":{%b}}]}\n\ndata: [DONE]\n\n' % later)
    assert [delta for delta in deltas if isinstance(delta, str)] == told
    assert [type(delta) for delta in deltas[-2:]] == [RefusalDelta if b"refusal" in later else ToolCallDelta, Finish]


@pytest.mark.parametrize("ending", [b"data: [DONE]\n\n", b""], ids=["whole", "cut"])
@pytest.mark.parametrize("asked", [True, False])
def test_tags_are_text_unless_asked_for(asked: bool, ending: bytes) -> None:
    decoder = ReplyDecoder(split_thinking=asked)
    for text in ("<thi", "nk>Hm", "</think>Y", "es</thi"):
        decoder.feed(b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text.encode())
    decoder.feed(ending)
    decoder.close()
    assert decoder.assembler.reasoning == ("Hm" if asked else None)
    assert decoder.assembler.text == ("Yes</thi" if asked else "<think>Hm</think>Yes</thi")
    if not ending:
        assert decoder.error is not None
        assert decoder.error.partial_text == decoder.assembler.text


@pytest.mark.parametrize("cut", [False, True])
def test_a_thought_that_the_endpoint_tells_itself_as_well_is_told_once(cut: bool) -> None:  # MiniMax M3
    decoder = ReplyDecoder(split_thinking=True)
    both = b'data: {"choices":[{"delta":{"content":"%b","reasoning_content":"%b"}}]}\n\n'
    decoder.feed(both % (b"<think>Hm", b"Hm"))
    decoder.feed(both % (b", so </th", b", so "))
    if not cut:
        decoder.feed(b'data: {"choices":[{"delta":{"content":"ink>Yes."}}]}\n\ndata: [DONE]\n\n')
    decoder.close()
    assert (decoder.assembler.reasoning, decoder.assembler.text) == ("Hm, so ", "" if cut else "Yes.")


def test_a_thought_that_the_endpoint_has_not_told_is_kept() -> None:
    decoder = ReplyDecoder(split_thinking=True)
    decoder.feed(b'data: {"choices":[{"delta":{"reasoning_content":"Hm. "}}]}\n\n')
    decoder.feed(b'data: {"choices":[{"delta":{"content":"<think>Or not"}}]}\n\ndata: [DONE]\n\n')
    assert (decoder.assembler.reasoning, decoder.assembler.text) == ("Hm. Or not", "")


@pytest.mark.parametrize(
    ("told", "thought", "new"),
    [
        ("1. Look.", ["There are 2", " (not:", "1", ")."], "There are 2 (not:1)."),  # the same by chance
        ("The user asks.", ["The", " answer is 4"], "The answer is 4"),
        (" Hm", ["Hm", ", and on"], ", and on"),
        ("Hm, so on", ["H", "m"], ""),
        ("", ["Hm"], "Hm"),
    ],
)
def test_of_a_thought_between_tags_only_what_was_told_is_dropped(told: str, thought: list[str], new: str) -> None:
    for pieces in (thought, ["".join(thought)], list("".join(thought))):
        for heard in ([told], list(told)):
            splitter = ThinkingSplitter()
            for piece in heard:
                splitter.hear(piece)
            deltas = [delta for piece in ("<think>", *pieces) for delta in splitter.feed(piece)]
            splitter.hear(" And on.")
            deltas += splitter.feed("</think>Yes")
            assert "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)) == new
            assert deltas[-1] == "Yes"


@pytest.mark.usefixtures("untraced")
def test_what_is_told_takes_no_longer_the_more_of_it_there_is() -> None:
    splitter = ThinkingSplitter()
    started = time.process_time()
    for _ in range(80_000):
        splitter.hear("Hm, so. ")
    splitter.feed("<think>")
    for _ in range(20_000):
        splitter.hear("Hm, so. ")
        assert splitter.feed("Hm, so. ") == []
    assert time.process_time() - started < 3


def test_reasoning_of_another_choice_does_not_matter() -> None:
    decoder = ReplyDecoder(split_thinking=True, choices=2)
    decoder.feed(b'data: {"choices":[{"index":1,"delta":{"reasoning":"Hm"}}]}\n\n')
    decoder.feed(b'data: {"choices":[{"delta":{"content":"<think>a</think>b"}}]}\n\ndata: [DONE]\n\n')
    assert (decoder.assembler.reasoning, decoder.assembler.text) == ("a", "b")

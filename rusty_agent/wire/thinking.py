"""`<think>…</think>` inside an answer's text → reasoning and text.

In: pieces of text, cut anywhere, also within a tag. Out: the same as text and reasoning deltas. Never touched:
answers whose endpoint separates reasoning itself.
"""

from __future__ import annotations

from ..types import ReasoningDelta
from .chunks import Delta

__all__ = ["ThinkingSplitter"]

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkingSplitter:
    """Splits one answer. Only a tag at its very beginning opens reasoning: later ones are text about tags.

    White space around the tags is dropped, as models put it there and nobody wants it.
    """

    def __init__(self) -> None:
        self._state = "start"  # then "opened" (skipping white space), "thinking", "after" (skipping it again), "text"
        self._rest = ""  # what may be the beginning of a tag

    def feed(self, text: str) -> list[Delta]:
        """Take the next piece of text."""
        out: list[Delta] = []
        text = self._rest + text
        self._rest = ""
        if self._state == "start":
            text = self._open(text)
        if self._state == "opened":
            text = text.lstrip()
            if text:
                self._state = "thinking"
        if self._state == "thinking":
            text = self._think(text, out)
        if self._state == "after":
            text = text.lstrip()
            if text:
                self._state = "text"
        if text and self._state == "text":
            out.append(text)
        return out

    def close(self) -> list[Delta]:
        """The answer has ended: what was held back is what it looks like."""
        rest, self._rest = self._rest, ""
        if not rest:
            return []
        return [ReasoningDelta(rest)] if self._state == "thinking" else [rest]

    def _open(self, text: str) -> str:
        bare = text.lstrip()
        if bare.startswith(_OPEN):
            self._state = "opened"
            return bare[len(_OPEN) :]
        if _OPEN.startswith(bare):  # too little to tell
            self._rest = text
            return ""
        self._state = "text"
        return text

    def _think(self, text: str, out: list[Delta]) -> str:
        thought, closed, after = text.partition(_CLOSE)
        if closed:
            self._state = "after"
            thought = thought.rstrip()
        else:
            after = ""
            held = _held_back(thought)
            thought, self._rest = thought[: len(thought) - held], thought[len(thought) - held :]
        if thought:
            out.append(ReasoningDelta(thought))
        return after


def _held_back(text: str) -> int:
    """How many characters at the end may be white space before a closing tag, or a piece of the tag."""
    for length in range(min(len(_CLOSE) - 1, len(text)), 0, -1):
        if _CLOSE.startswith(text[-length:]):
            return length + len(text[:-length]) - len(text[:-length].rstrip())
    return len(text) - len(text.rstrip())

"""Splits `<think>…</think>`, or similar tags, in an answer's text into reasoning and text.

In: pieces of text, cut anywhere, even within a tag. Out: the same as text and reasoning deltas. Never touched:
reasoning that the endpoint separates itself.
"""

from __future__ import annotations

from ..types import Finish, ReasoningDelta, RefusalDelta, ToolCallDelta
from .delta import Delta

__all__ = ["ThinkingSplitter"]

_TAGS = ("<think>", "<thought>", "<thinking>", "<reasoning>", "<mm:think>", "<seed:think>", "[THINK]", "◁think▷")
"""The second is Gemini's; then come those of gateways, gpt-oss on Bedrock, MiniMax, ByteDance, Mistral and Kimi."""


class ThinkingSplitter:
    """Splits one answer. Only a tag at its very beginning opens reasoning: later ones are text about tags.

    White space around the tags is dropped: models put it there and nobody wants it.
    Reasoning that the endpoint has already sent as such is not repeated (MiniMax M3: vellum-assistant#34556).
    """

    def __init__(self) -> None:
        self._closing = ""  # the tag that ends the thought
        self._state = "start"  # then "opened" (skipping white space), "thinking", "after" (skipping it again), "text"
        self._blank: list[str] = []  # white space that a tag may follow
        self._rest = ""  # possibly the beginning of a tag
        # The thought between the tags may repeat reasoning that the endpoint has sent as such, so the two are compared.
        self._told: list[str] | None = []  # pieces of that reasoning, not yet joined; None once the thought differs
        self._known = ""  # the part of it that is being compared, joined
        self._again = 0  # how many characters of `_known` the thought has repeated
        self._dropped: list[str] = []  # pieces of the thought that were held back as repetitions

    def sift(self, deltas: list[Delta], *, failed: bool) -> list[Delta]:
        """Take the next deltas of an answer, return them split; with `failed` they are the last ones."""
        split: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, ReasoningDelta) and delta.index == 0:
                self.hear(delta.text)
            elif isinstance(delta, Finish | ToolCallDelta | RefusalDelta) and delta.index == 0:
                split += self.close()
            split += self.feed(delta) if isinstance(delta, str) else [delta]
        return split + self.close() if failed else split

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
        if text:
            out.append(text)
        return out

    def hear(self, reasoning: str) -> None:
        """Take a piece of reasoning that the endpoint has separated itself."""
        if self._told is not None:
            self._told.append(reasoning)

    def close(self) -> list[Delta]:
        """Take the end of the text, or of the answer: return what was held back, as it is no tag."""
        rest, self._rest = self._unblank(self._rest), ""
        if not rest or (self._dropped and self._state == "thinking"):
            return []
        return [ReasoningDelta(rest)] if self._state == "thinking" else [rest]

    def _open(self, text: str) -> str:
        bare = text.lstrip()
        self._blank.append(text[: len(text) - len(bare)])
        for tag in _TAGS:
            if bare.startswith(tag):
                self._blank.clear()
                self._state, self._closing = "opened", f"{tag[0]}/{tag[1:]}"
                return bare[len(tag) :]
        if any(tag.startswith(bare) for tag in _TAGS):  # too little to tell
            self._rest = bare
            return ""
        self._state = "text"
        return self._unblank(bare)

    def _think(self, text: str, out: list[Delta]) -> str:
        text, closed, after = text.partition(self._closing)
        if not closed:
            kept = len(text) - _tag_begun(text, self._closing)
            text, self._rest = text[:kept], text[kept:]
        thought = text.rstrip()
        blank = text[len(thought) :]
        if thought and (thought := self._new_of(self._unblank(thought))):
            out.append(ReasoningDelta(thought))
        if closed:
            self._state = "after"
            self._blank.clear()
        else:
            self._blank.append(blank)
        return after

    def _new_of(self, thought: str) -> str:
        """The new part of the next piece of a thought; with the dropped pieces if the thought proves to differ."""
        if self._told is None:
            return thought
        if len(self._known) - self._again < len(thought):  # not sooner: joining at each piece would take n² steps
            known = self._known[self._again :] + "".join(self._told)
            self._known, self._again = known if self._dropped else known.lstrip(), 0
            self._told.clear()
        if self._known.startswith(thought, self._again):
            self._again += len(thought)
            self._dropped.append(thought)
            return ""
        left = self._known[self._again :]
        thought = thought[len(left) :] if thought.startswith(left) else "".join([*self._dropped, thought])
        self._told = None
        self._dropped.clear()
        return thought

    def _unblank(self, text: str) -> str:
        """The text with the white space that was held back before it."""
        text = "".join(self._blank) + text
        self._blank.clear()
        return text


def _tag_begun(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    lengths = range(min(len(tag) - 1, len(text)), 0, -1)
    return next((length for length in lengths if tag.startswith(text[-length:])), 0)

"""Event data → typed deltas: every provider's dialect, decoded once.

In: the data of one event, or a whole JSON body. Out: deltas. Text of the first choice, which nearly all deltas are, is
a bare `str`; anything else is one of the events of `types`. Never touched: framing, time, the joined text.

Servers are not validated: the decoder takes what it needs, and anything unknown becomes a `RawChunk`.
"""

from __future__ import annotations

from typing import Any

from ..errors import ResponseError, RustyAgentError
from ..types import RawChunk, ReasoningDelta, TextDelta, ToolCallDelta, UsageUpdate
from . import failure
from .codec import as_text, ends_within, index_of, join_surrogates, loads_loose, loads_strict, mend
from .delta import Delta, DeltaDecoder, has_news, is_tool_result
from .document import begun_anew, is_calls_alone, is_whole, object_in, unwrapped
from .frame import NO_FRAME, Frame, Kind, frame_of
from .plain import FAILURES, META_KEYS, NO_REASONS, keep_meta, plain_answer, plain_chunk
from .sse import END_MARK, KEEP_ALIVES, bared, says_nothing
from .usage import find_usage
from .words import excerpt

__all__ = ["ChunkDecoder", "Delta"]

# Known fields: decoded elsewhere, or of no use to anybody. A chunk with any other field also becomes a RawChunk.
_CHUNK_KEYS = META_KEYS | {"choices", "usage", "error", "x_groq"}
_CHOICE_KEYS = frozenset(
    {"index", "delta", "message", "text", "finish_reason", "native_finish_reason", "usage", "error"}
)
_LESSONS = 8
_WORTH_A_FRAME = 3  # chunks: making a frame takes as long as decoding one chunk in full
_MAX_META_BYTES = 2**16  # of a longer chunk only short values are kept, so that meta stays below 8 MiB in all


class ChunkDecoder:
    """Decodes the chunks of one answer.

    Args:
        expected: How many choices were asked for. If one, the choice's index means nothing: some servers count it up
            from chunk to chunk (foundry-local#144), or begin at 1 (older TGI).

    Attributes:
        deltas: Decodes what stands within a choice.
        meta: The chunks' metadata fields (`id`, `model`, …), the last non-empty value of each; or a whole JSON answer.
        done: `[DONE]` was seen.
        error: The error that ended the answer, once there is one: an error object, or data that cannot be decoded.
        junk: That error is about data that is not JSON, or no JSON object.
        reasons: The finish reason of each choice that has ended, by index.
        reason_alone: The last finish reason came without text; some servers send one with every chunk.
        resumed: The choices that went on after their finish reason and have not had another one since.
        early: A choice went on after its finish reason: this endpoint's reasons do not mean that the answer is whole.
        choices: The choices seen, by index; True once a delta has brought something of the choice.
        in_full: An event came that is not a plain chunk, even if it held nothing.
        counted: Such an event held token counts.
        strange: The last chunk, if it is of unknown kind: not an answer, nor token counts, nor a sign of life.
        foreign: An event of unknown kind came, whether or not it was the last.
    """

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self.meta: dict[str, Any] = {}
        self.done = False
        self.error: RustyAgentError | None = None
        self.junk = False
        self.reasons: dict[int, str] = {}
        self.reason_alone = False
        self.resumed: frozenset[int] = frozenset()
        self.early = False
        self.choices: dict[int, bool] = {}
        self.in_full = False
        self.counted = False
        self.strange: dict[str, Any] | None = None
        self.foreign = False
        self._failed = ""  # a finish reason that means that the choice is not whole
        self.deltas = DeltaDecoder()
        self._held = self.deltas.held  # the same dict: each chunk needs it
        # The frame of the last chunk that was decoded in full, if it was plain; None: not made yet from `_sample`.
        self._frame: Frame | None = NO_FRAME
        self._sample: tuple[bytes, str, str, Kind, bool] = (b"", "", "", str, False)
        self._made = NO_FRAME  # the last frame that was made
        self._lessons = _LESSONS

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason, including those that have not begun."""
        return len(self.reasons) - len(self.resumed) >= max(len(self.choices), self._expected)

    def decode_all(self, events: list[bytes], out: list[Delta]) -> None:
        """Decode the data of events in order, append their deltas to `out`; stop at the end mark or an error.

        Most chunks of a stream differ only in their text. One that fits the frame of the last chunk that was decoded in
        full takes 0.4 µs; decoding it in full takes 2.5.
        """
        at = 0
        while at < len(events):
            known = self.decode_framed(events, out, at)
            at += known
            if not known:
                self.decode(events[at], out)
                at += 1
                if self.done or self.error is not None:
                    return

    def decode_framed(self, events: list[bytes], out: list[Delta], start: int = 0) -> int:
        """Append the deltas of chunks from `start` on that differ from the last only in their text; stop at another.

        Returns:
            How many were decoded; perhaps fewer than would fit.
        """
        if self._frame is None and start and len(events) - start < _WORTH_A_FRAME:  # a short answer gets no frame
            return 0
        frame = self._frame or self._make_frame()
        if frame is NO_FRAME:
            return 0
        if frame.counted:
            out += (deltas := frame.texts_and_counts(events, start))
            known = len(deltas) // 2
        else:
            texts = frame.texts(events, start)
            known = len(texts)
            out += texts if frame.kind is str else map(frame.kind, texts)
        if known:
            frame.useful = True
        return known

    @property
    def frame(self) -> Frame:
        """The frame of chunks that differ from the last only in their text; `NO_FRAME` if unknown."""
        return self._frame or self._make_frame()

    def _make_frame(self) -> Frame:
        """Make the frame of the last plain chunk; give up on a server whose chunks keep differing in more."""
        self._lessons = (_LESSONS if self._made.useful else self._lessons) - 1
        self._made = self._frame = frame_of(*self._sample) if self._lessons > 0 else NO_FRAME
        return self._made

    def decode(self, data: bytes, out: list[Delta]) -> None:
        """Decode one event's data, append its deltas to `out`."""
        if data == END_MARK and type(data) is bytes:  # raising orjson's exception would take longer than a chunk
            self.done = True
            return
        try:
            chunk = loads_strict(data)  # refuses an `Event`: it takes bytes, but no subclass
        except ValueError:
            self._decode_odd(data, out)
            return
        plain = None if self._held or len(data) > _MAX_META_BYTES else plain_chunk(chunk)
        if plain is None:
            self.decode_value(chunk, data, out)
            return
        key, text, reason, usage, meta = plain
        self.strange = None
        self.meta.update(meta)
        self._frame = NO_FRAME
        if text:
            self.choices[0] = True
            out.append(text if key == "content" else ReasoningDelta(text))
            if key == "content":
                self.deltas.told[0] = None
            if self.reasons:
                self._resume(0)
            if key:  # with text under several keys, chunks differ in several places, which no frame fits
                kind = str if key == "content" else ReasoningDelta
                self._frame, self._sample = None, (data, text, key, kind, usage is not None)
        else:
            self.choices.setdefault(0, False)
            if reason is not None:
                self._finish(0, reason, alone=True)
        if usage is not None:
            out.append(UsageUpdate(usage))

    def decode_document(self, document: Any, data: bytes, out: list[Delta]) -> bool:
        """Decode a whole answer that is already parsed; arguments as for `decode_value`.

        Nearly all are one choice of text and nothing else; decoded like a chunk they would take six times as long.

        Returns:
            Whether it was one of these: then it is whole.
        """
        plain = plain_answer(document)
        if plain is None:
            self.deltas.whole = True
            self.decode_value(document, data, out)
        else:
            text, self.reasons[0] = plain
            self.choices[0] = False
            out.append(text)
            usage = find_usage(document)
            if usage is not None:
                out.append(UsageUpdate(usage))
        if isinstance(document, dict):
            self.meta = document
        return plain is not None

    def _decode_odd(self, data: bytes, out: list[Delta]) -> None:
        """Decode data that is not strict JSON: the end mark, a misplaced comment, an escape of half a character."""
        text, type_ = bared(data), getattr(data, "type", "")
        if type_ == "error":
            try:
                told = loads_loose(text)
            except ValueError:
                told = begun_anew(text) or data.decode("utf-8", "replace")
            self.error = failure.in_band(told)
        elif text.startswith(END_MARK):  # what follows it does not matter
            self.done = True
        elif says_nothing(text) or type_ in KEEP_ALIVES:
            pass
        elif not type_:
            self._decode_loose(text, data, out)
        elif text[:1] in b"{[" and ("tool" not in type_ or b'"choices"' in text):
            self.decode(text, out)  # from a server that names all its events (LocalAI#340)
        else:  # other words, or the progress of an agent's tools: the answer goes on if one fails (nanobot#3745)
            self.in_full = self.foreign = True
            out += map(RawChunk, object_in(text))

    def _decode_loose(self, text: bytes, data: bytes, out: list[Delta]) -> None:
        try:
            chunk = loads_loose(text)
        except ValueError as error:
            last = text.removesuffix(END_MARK).rstrip().removesuffix(b"data:").rstrip()
            if text.endswith(END_MARK) and is_whole(last):  # the line end before the mark was missing (ODS#5652)
                self.decode(last, out)
                self.done = self.error is None
                return
            chunk = begun_anew(text)
            if not failure.is_error(chunk) and (not chunk or any(self.choices.values())):
                self._refuse(data, "not JSON", cut=bool(chunk) or (text.startswith(b"{") and ends_within(error)))
                if text[:1] not in b'{["':  # but perhaps an error in words (mistral.rs#1874, oh-my-pi#11344)
                    self.error = failure.error_in(text.decode("utf-8", "replace")) or self.error
                return
        self.decode_value(chunk, data, out, loose=True)

    def decode_value(self, chunk: Any, data: bytes, out: list[Delta], *, loose: bool = False) -> None:
        """Decode one chunk that is already parsed.

        Args:
            chunk: The value.
            data: The bytes that it was parsed from.
            out: Where the deltas go.
            loose: Its strings may hold lone surrogates.
        """
        self._frame = NO_FRAME
        self.in_full = True
        if isinstance(chunk, list) and chunk and (len(chunk) == 1 or failure.is_error(chunk[0])):
            chunk = chunk[0]  # Gemini wraps its errors in a list
        if isinstance(chunk, dict):
            before = len(out)
            try:
                self._decode_chunk(chunk, out, loose, small=len(data) <= _MAX_META_BYTES)
                if len(out) == before + 1:
                    self._sample_call(data, out[before])
            except ResponseError as error:
                self.error = error
        elif self.deltas.whole or (chunk and isinstance(chunk, str | list) and not says_nothing(bared(data))):
            self._refuse(data, "not a JSON object")  # null, 1, `"ping"`, `[]` are signs of life (rig#2258, neuron-ai)

    def _sample_call(self, data: bytes, piece: Delta) -> None:
        """Prepare a frame for a tool call's arguments: a chunk of them takes 2.1 µs in a frame, 29 decoded in full."""
        if isinstance(piece, ToolCallDelta) and not self.reasons and self.error is None:
            summary = b'"message"' in data or b'"text"' in data
            more = None if summary else self.deltas.more_of(piece)
            if more is not None:
                self._frame, self._sample = None, (data, piece.arguments, "arguments", more, False)

    def _refuse(self, data: bytes, what: str, *, cut: bool = False) -> None:
        self.junk = True
        said = f"The stream contains an event that is {what}: {excerpt(data)}"
        said = f"{said}. It was cut off before its end." if cut else said
        self.error = ResponseError(said, body=data, retryable=cut)  # it may be whole next time

    def _decode_chunk(self, chunk: dict[str, Any], out: list[Delta], loose: bool, small: bool) -> None:
        if chunk.get("choices") is None:
            chunk = unwrapped(chunk)
        choices = chunk.get("choices")
        unknown = has_news(chunk, _CHUNK_KEYS)
        choice_error = _error_within(chunk.get("x_groq"))  # why it stopped a stream early
        if isinstance(choices, list):
            single = self._expected == 1
            alone = single and len(choices) == 1 and len(self.choices) <= 1
            for place, choice in enumerate(choices):
                if isinstance(choice, dict):
                    index = index_of(choice.get("index"))
                    if alone or index is None or (single and self.deltas.whole and is_calls_alone(choice)):
                        index = 0 if single else place  # if several were asked for, the position is the index
                    unknown |= self._decode_choice(choice, index, out)
                    choice_error = choice_error or _error_within(choice) or _error_within(choice.get("delta"))
                else:
                    unknown |= bool(choice)
        else:
            unknown |= bool(choices)
        if loose:  # from here on no string waits for another half of a character
            chunk = mend(chunk)
        keep_meta(self.meta, chunk, small)
        if choice_error or self._failed or failure.is_error(chunk):
            told = {"error": choice_error} if choice_error and not _error_within(chunk) else chunk
            self.error = failure.in_band(told, self._failed)
        elif unknown:
            out.append(RawChunk(chunk))
        usage = find_usage(chunk)
        if usage is not None:
            self.counted = True
            out.append(UsageUpdate(usage))
        if chunk.get("type") not in KEEP_ALIVES:
            self.strange = chunk if unknown and choices is None and usage is None else None
            self.foreign = self.foreign or self.strange is not None

    def _decode_choice(self, choice: dict[str, Any], index: int, out: list[Delta]) -> bool:
        """Decode one choice; True if it holds something that no event carries."""
        begun = self.choices.setdefault(index, False)
        before, held = len(out), len(self._held)
        unknown = has_news(choice, _CHOICE_KEYS)
        delta, message, text = choice.get("delta"), choice.get("message"), as_text(choice.get("text"))
        if delta:
            unknown |= self.deltas.decode(delta, index, out)
        if len(out) > before or len(self._held) > held:
            self.choices[index] = True
        elif message and delta is None and not begun:
            unknown |= self.deltas.decode(message, index, out)
        elif message or (text and delta is not None):
            unknown |= self.deltas.summary(message or text, index, out, begun=begun)
        else:  # the older completions API
            unknown |= self.deltas.emit(TextDelta, text, index, out)
        goes_on = len(out) > before or is_tool_result(delta)
        if goes_on and self.reasons:
            self._resume(index)
        reason = choice.get("finish_reason")
        if isinstance(reason, dict):  # SGLang puts it into an object
            reason = reason.get("type")
        if reason and isinstance(reason, str) and reason not in NO_REASONS:
            self._finish(index, reason, alone=not goes_on)
        return unknown

    def _finish(self, index: int, reason: str, *, alone: bool) -> None:
        self.reasons[index] = join_surrogates(reason)
        self.resumed -= {index}
        self.reason_alone = alone
        if reason in FAILURES:
            self._failed = reason

    def _resume(self, index: int) -> None:
        """Note that a choice goes on; if it had a finish reason, that was early (gateways to Gemini send one with each
        chunk: litellm#2195, new-api#378)."""
        if index in self.reasons:
            self.resumed |= {index}
            self.early = True


def _error_within(value: Any) -> Any:
    return failure.unless_fine(value.get("error")) if isinstance(value, dict) else None

"""The body of one successful answer, as bytes → deltas, and how it ended.

In: the body as it arrives, be it an event stream or one JSON object; the headers are not trusted to say which. Out:
deltas, then exactly one of a finish and a typed error. Never touched: the socket, the clock.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from typing import Any

from ..errors import ResponseError, RustyAgentError, StreamInterruptedError
from ..types import Finish, RawChunk, UsageUpdate
from . import failure
from .assemble import Assembler
from .chunks import ChunkDecoder
from .codec import ends_within, loads_answer, loads_strict
from .delta import MEDIA_KEYS, Delta, is_tool_result
from .document import CHECK_URL, empty, is_bare, is_lines, is_page, is_piece, is_whole, unreadable, unwrapped
from .frame import NO_FRAME, Frame
from .snapshots import Snapshots, tells_all_so_far
from .sse import END_MARK, MAX_EVENT_BYTES, SSEDecoder
from .thinking import ThinkingSplitter
from .words import as_it_is, excerpt

__all__ = ["ReplyDecoder", "has_content"]

TAIL_SECONDS = 5.0
"""How long to wait for usage and the end mark after a finish reason that came by itself, after the content."""

DOUBTFUL_TAIL_SECONDS = 120.0
"""The same for a finish reason that came with content, as some servers send one with each chunk, or that says that the
model calls tools: LiteLLM makes some calls itself and goes on with the model's next answer (`MCPStreamingIterator`)."""

_CALLS = frozenset({"tool_calls", "function_call"})
_NO_CONTENT = (UsageUpdate, Finish)

_BLANK = b" \t\r\n"


class ReplyDecoder:
    """Decodes one answer.

    Attributes:
        assembler: What has arrived so far.
        ended: Nothing more of the body is needed: it finished (`[DONE]`), failed, or was closed.
        error: The error that ended the answer; set only once `ended` is.
        tail: The seconds without content that end the answer once every choice has its finish reason; 0 before.
        has_content: Text, reasoning, a refusal, a tool call or result, or media came: no retry is possible any more.
    """

    def __init__(
        self,
        max_bytes: int = MAX_EVENT_BYTES,
        *,
        choices: int | None = 1,
        model: Any = None,
        split_thinking: bool = False,
    ) -> None:
        self.assembler = Assembler()
        self._pieces = self.assembler.pieces  # a shortcut for tokens that arrive one at a time
        self.ended = False
        self.error: RustyAgentError | None = None
        self.tail = 0.0
        self.has_content = False
        # The filters that all deltas pass in turn; most answers need none.
        self._sieves: list[Snapshots | ThinkingSplitter] = [Snapshots()] if tells_all_so_far(model) else []
        if split_thinking:
            self._sieves.append(ThinkingSplitter())
        self._cap = max_bytes
        self._chunks = ChunkDecoder(max(choices, 1) if isinstance(choices, int) else 1)
        self._head = b""  # the byte order mark, or the part of it that has arrived, before anything else
        self._sse: SSEDecoder | None = None
        # The frame of the next events, if they differ from the last only in their text; `NO_FRAME` once it has ended;
        # None: not looked for yet.
        self._frame: Frame | None = NO_FRAME
        self._document: bytearray | None = None  # a body that is not an event stream
        self._looked = False  # `is_lines` was asked: only once, as it takes as long as reading the first line

    def feed(self, data: bytes) -> list[Delta]:
        """Take the next bytes, return the deltas that they complete."""
        # Found only now, or the first text would wait for it; and short answers never need it.
        frame = self._frame or self._find_frame()
        if data.startswith(frame.lead) and data.endswith(frame.trail) and len(data) < frame.least_of_two:
            # One token, as they mostly arrive. Inlined: calls would add 1,500 instructions to 6,900.
            try:
                text = loads_strict(data[frame.span])
            except ValueError:
                text = None
            if type(text) is str and text:
                frame.useful = True
                if frame.kind is str:
                    self._pieces.write(text)
                    return [text]
                deltas = [frame.kind(text)]
                self.assembler.add(deltas)
                return deltas
        whole = frame is not NO_FRAME and data[:6] == b"data: " and data[-2:] == b"\n\n" and len(data) <= self._cap
        return self._feed_several(data) if whole else self._feed(data)

    def _feed_several(self, data: bytes) -> list[Delta]:
        """Take events that may differ from the last only in their text."""
        deltas: list[Delta] = []
        events = data[6:-2].split(b"\n\ndata: ")
        known = self._chunks.decode_framed(events, deltas)
        self.assembler.add(deltas)
        if known < len(events):
            deltas += self._feed(b"data: " + b"\n\ndata: ".join(events[known:]) + b"\n\n" if known else data)
        return deltas

    def _find_frame(self) -> Frame:
        """Find the frame of events that differ from the last only in their text, if such may follow."""
        idle = self._sse is not None and self._sse.idle
        frame = self._chunks.frame if idle else NO_FRAME
        self._frame = frame if frame.least_of_two <= self._cap else NO_FRAME
        return self._frame

    def _feed(self, data: bytes) -> list[Delta]:
        out: list[Delta] = []
        if self.ended:
            return out
        if self._sse is None and self._document is None:
            data = self._sniff(data)
        if self._document is not None:
            data = self._collect(self._document, data, out)
        if self._sse is not None:
            self._frame = NO_FRAME if self._sieves else None
            self._decode(self._sse.feed(data), out)
            if self._sse.error is not None and not self.ended:
                self._fail(self._sse.error, out)
        return self._deliver(out) if out or self.ended else out

    def feed_last(self, data: bytes) -> list[Delta]:
        """Take the last bytes: `feed` and `close` in one, and faster for a whole document in one piece."""
        untouched = self._sse is None and self._document is None and not self._head and not self.ended
        if untouched and data[:1] == b"{" and len(data) <= self._cap:
            self._document = bytearray()
            return self._decode_document(data)
        return self.feed(data) + self.close()

    def close(self, broken: RustyAgentError | None = None) -> list[Delta]:
        """Take the end of the body, or the error with which the connection broke.

        A broken connection does not matter once every finish reason was seen, even in an event that lacks its blank
        line; unless this endpoint sends finish reasons early, or no content has come.
        """
        out: list[Delta] = []
        if self.ended:
            return out
        if self._sse is not None:
            self._decode(self._sse.close(), out)
            if self._chunks.junk and isinstance(self.error, ResponseError):  # not junk but cut off: its end never came
                self.ended, self.error = False, None
        elif self._document is not None and (broken is None or is_whole(self._document)):
            body = bytes(self._document)
            self._document.clear()
            return self._decode_document(body)
        if not self.ended:
            begun = self.has_content or has_content(out)
            if self._chunks.finished and (broken is None or (begun and not self._chunks.early)):
                self._end(out)
            else:
                self._fail(broken or self._interruption(), out)
        return self._deliver(out)

    @property
    def streamed(self) -> bool:
        """Whether the body is an event stream."""
        return self._sse is not None

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended; None before."""
        return self._chunks.reasons.get(0)

    @property
    def meta(self) -> dict[str, Any]:
        """The answer's metadata fields; the whole body if it was one JSON object."""
        return self._chunks.meta

    def _sniff(self, data: bytes) -> bytes:
        """Tell an event stream from a document by its first byte; blank lines may lead (DeepSeek's keep-alive)."""
        if not self._head and data.startswith(b"{"):
            self._document = bytearray()
            return data
        if not self._head and data.startswith(b"data:"):
            self._sse = SSEDecoder(self._cap)
            return data
        body = (self._head + data).lstrip(_BLANK)
        bare = body.removeprefix(BOM_UTF8).lstrip(_BLANK)
        if not bare or BOM_UTF8.startswith(body):
            self._head = body[: len(BOM_UTF8)]
            return b""
        self._head = b""
        if bare[:1] in b"{[<":
            self._document = bytearray()
            return bare
        self._sse = SSEDecoder(self._cap)
        return bare

    def _collect(self, document: bytearray, data: bytes, out: list[Delta]) -> bytes:
        """Take the next bytes of a document; if they show that it is a stream, return all of it."""
        start = len(document)
        document += data
        if not self._looked and 0 <= document.find(b"\n{", max(start - 1, 0)) <= self._cap - 2:
            self._looked = True
            if is_lines(document):
                self._document, self._sse = None, SSEDecoder(self._cap)
                return bytes(document)
        if len(document) > self._cap:
            document.clear()
            too_long = f"The answer is longer than {self._cap} bytes. Raise max_event_bytes if that is expected."
            self._fail(ResponseError(too_long), out)
        return b""

    def _decode(self, events: list[bytes], out: list[Delta]) -> None:
        chunks = self._chunks
        chunks.decode_all(events, out)
        if chunks.done:
            self._end_as_said(out)
        elif chunks.error is not None:
            if chunks.junk and chunks.finished and not chunks.early:  # `data: DONE` or another home-made end mark
                self._end(out)
            else:
                self._fail(chunks.error, out)
        elif chunks.reasons:
            self.tail = self._wait_for_more(self.has_content or has_content(out))

    def _wait_for_more(self, begun: bool) -> float:
        """The `tail` once there is a finish reason; 0 before any content: the model may still be thinking."""
        chunks = self._chunks
        if chunks.early or not begun or not chunks.finished:
            return 0.0
        sure = chunks.reason_alone and _CALLS.isdisjoint(chunks.reasons.values())
        return TAIL_SECONDS if sure else DOUBTFUL_TAIL_SECONDS

    def _end_as_said(self, out: list[Delta]) -> None:
        """End at the end mark: whole if a finish reason came too, or if nothing else is wrong; otherwise with an error.

        Some servers send the end mark no matter what: FastChat after `{"text": "…", "error_code": 50001}`, gateways
        after anything that their upstream has said.
        """
        chunks = self._chunks
        assert self._sse is not None
        if chunks.reasons:
            self._end(out)
        elif chunks.strange is not None:
            self._fail(failure.in_band(chunks.strange), out)
        elif self._sse.odd:
            self._fail(self._interruption(), out)
        elif chunks.in_full and not chunks.choices:
            said = "The stream contains no choices, so there is no answer."
            self._fail(empty(said, foreign=chunks.foreign, counted=chunks.counted), out)
        else:
            self._end(out)

    def _decode_document(self, body: bytes) -> list[Delta]:
        out: list[Delta] = []
        try:
            value = loads_answer(body)
        except ValueError as error:
            streamed = b"\ndata:" in body or body.rstrip().endswith(END_MARK)
            if (streamed or is_lines(body)) and not is_page(body):
                # A stream whose first line lacks `data:`: most often an error, or one chunk per line.
                self._document, self._sse = None, SSEDecoder(self._cap)
                return self._feed(body) + self.close()
            self._fail(unreadable(body, cut=body.startswith(b"{") and ends_within(error)), out)
            return self._deliver(out)
        if isinstance(value, dict) and value.get("choices") is None:
            value = unwrapped(value)
        chunks = self._chunks
        if chunks.decode_document(value, body, out) and not self._sieves:
            self.assembler.add(out)
            out.append(Finish(chunks.reasons[0]))  # inlined: `_end` and `_deliver` would take 8,000 instructions
            self.ended = self.has_content = True
            return out
        if chunks.error is not None:
            self._fail(chunks.error, out)
        elif chunks.reasons:
            self._end(out)
        elif is_piece(value):
            self._fail(self._interruption(), out)
        elif not chunks.choices or is_bare(value):
            what = "message" if chunks.choices else "choices"
            foreign = not (isinstance(value, dict) and "choices" in value)
            said = f"The answer contains no {what}: {excerpt(body)}."
            nothing = empty(said, body, foreign=foreign, counted=chunks.counted)
            self._fail(failure.error_in(chunks.strange) or nothing, out)
        else:
            self._end(out)
        return self._deliver(out)

    def _end(self, out: list[Delta]) -> None:
        self._chunks.deltas.flush(out)
        self.ended, self._frame = True, NO_FRAME
        reasons, choices = self._chunks.reasons, self._chunks.choices
        if len(choices) > 1 or 0 not in choices:
            out.extend(Finish(reasons.get(index), index) for index in sorted(choices.keys() - {0}, reverse=True))
        out.append(Finish(reasons.get(0)))

    def _fail(self, error: RustyAgentError, out: list[Delta]) -> None:
        self._chunks.deltas.flush(out)
        self.ended, self._frame = True, NO_FRAME
        self.error = error.with_traceback(None)  # its frames would hold this decoder

    def _interruption(self) -> RustyAgentError:
        if self._sse is None and self._document is None:
            return StreamInterruptedError("The endpoint closed the connection with an empty answer.")
        chunks = self._chunks
        if failed := failure.error_in(chunks.strange):
            return failed
        odd = self._sse.odd if self._sse is not None else b""
        if odd and not (chunks.choices or chunks.meta):
            said = excerpt(odd)
            return ResponseError(f"The answer is neither JSON nor an event stream: {said}. {CHECK_URL}", body=odd)
        said = "The stream ended before it was complete: what arrived is in partial_text, and is not the whole answer."
        if odd:
            said += f" One of its lines was {excerpt(odd)}."
        elif last := as_it_is(chunks.strange):  # perhaps an error in an unknown form
            said += f" Its last event was {last}."
        return StreamInterruptedError(said)

    def _deliver(self, out: list[Delta]) -> list[Delta]:
        for sieve in self._sieves:
            out = sieve.sift(out, failed=self.error is not None)
        if out:
            self.assembler.add(out)
        if not self.has_content:
            self.has_content = has_content(out)
        if self.error is not None:
            self.error.partial_text = self.assembler.text
            self.error.usage = self.assembler.usage
        return out


def has_content(deltas: list[Delta]) -> bool:
    """Whether the deltas hold content, see `ReplyDecoder.has_content`; most often text comes first."""
    return bool(deltas) and (type(deltas[0]) is str or any(map(_is_content, deltas)))


def _is_content(delta: Delta) -> bool:
    if not isinstance(delta, RawChunk):
        return not isinstance(delta, _NO_CONTENT)
    try:
        choice = delta.data["choices"][0]
        told = choice.get("delta") or choice["message"]
        return is_tool_result(told) or any(map(told.get, MEDIA_KEYS))  # a tool has run, and must not run again
    except (KeyError, IndexError, TypeError, AttributeError):
        return False

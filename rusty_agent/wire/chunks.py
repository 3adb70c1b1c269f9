"""Event data → typed deltas: every provider's dialect, decoded once.

In: the data of one event, or a whole JSON body. Out: deltas. The text of the first choice, nearly all there is, is a
bare `str`; anything else is one of the events of `types`. Never touched: framing, time, the joined text.

Servers are not validated: what is needed is taken, what is unknown becomes a `RawChunk`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from ..errors import ResponseError, RustyAgentError
from ..types import RawChunk, ReasoningDelta, RefusalDelta, StreamEvent, TextDelta, UsageUpdate
from . import failure
from .codec import dumps, join_surrogates, loads_loose, loads_strict, mend
from .sse import Event
from .tools import ToolCallTracker
from .usage import find_usage

__all__ = ["ChunkDecoder", "Delta"]

Delta: TypeAlias = str | StreamEvent
"""A bare str is text of the first choice."""

# Fields that are no news: decoded elsewhere, or of no use to anybody. A chunk with any other becomes a RawChunk too.
_CHUNK_KEYS = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "error"}
    | {"system_fingerprint", "service_tier", "provider", "x_groq", "timings", "obfuscation"}
)
_CHOICE_KEYS = frozenset(
    {"index", "delta", "message", "text", "finish_reason", "native_finish_reason", "usage", "error"}
)
_PLAIN_CHUNK_KEYS = _CHUNK_KEYS - {"error", "x_groq"}
_PLAIN_CHOICE_KEYS = frozenset({"index", "delta", "finish_reason", "native_finish_reason", "logprobs"})
_PLAIN_ANSWER_KEYS = _PLAIN_CHOICE_KEYS - {"delta"} | {"message"}
_PLAIN_MESSAGE_KEYS = frozenset({"role", "content", "refusal", "annotations"})
_REASONING_KEYS = frozenset({"reasoning_content", "reasoning", "thinking", "reasoning_details"})
_DELTA_KEYS = _REASONING_KEYS | {"role", "content", "refusal", "name", "tool_calls", "function_call"}
_NEVER = b"\xff"  # no JSON holds it
_LESSONS = 8
_KEEP_ALIVE_TYPES = frozenset({"ping", "heartbeat", "keepalive", "keep-alive"})


class ChunkDecoder:
    """Decodes the chunks of one answer.

    Attributes:
        meta: The chunks' fields that are no content (`id`, `model`, …), last non-empty value each.
        done: `[DONE]` was seen.
        error: The error that ended the answer, once there is one: an error object, or data that is not JSON.
        reasons: The finish reason of each choice that has ended, by index.
        reason_alone: The last finish reason came without text; some servers send one with every chunk.
        choices: The indexes of the choices seen.
    """

    def __init__(self) -> None:
        self.meta: dict[str, Any] = {}
        self.done = False
        self.error: RustyAgentError | None = None
        self.reasons: dict[int, str] = {}
        self.reason_alone = False
        self.choices: set[int] = set()
        self._tools: dict[int, ToolCallTracker] = {}
        self._held: dict[tuple[type, int], str] = {}  # high surrogates whose other half is in the next delta
        self._before = self._after = _NEVER  # the bytes around the text of a plain chunk, once learnt
        self._lessons = _LESSONS

    def decode_all(self, events: list[bytes], out: list[Delta]) -> None:
        """Decode the data of events in order, append their deltas to `out`; stop at the end mark or an error.

        Most chunks of a stream differ in nothing but their text. Where one begins and ends with the very bytes of
        a chunk that was decoded before, and what stands between is one JSON string, that is the text: the rest would
        decode to the same again. It takes 0.4 µs where decoding takes 1.7.
        """
        before, after = (_NEVER, _NEVER) if self._held else (self._before, self._after)
        begin, end = len(before), -len(after)
        for data in events:
            if data.startswith(before) and data.endswith(after):
                try:
                    text = loads_strict(data[begin:end])
                except ValueError:
                    text = None
                if type(text) is str and text and type(data) is bytes:
                    out.append(text)
                    self._lessons = _LESSONS
                    continue
            self.decode(data, out)
            if self.done or self.error is not None:
                return
            before, after = (_NEVER, _NEVER) if self._held else (self._before, self._after)
            begin, end = len(before), -len(after)

    def _learn(self, data: bytes, text: str) -> None:
        """Note what stands around the text of a plain chunk; give up on a server whose chunks differ in more."""
        if self._lessons and data.count(b'"content"') == 1:
            self._lessons -= 1
            start = len(data) - len(data.partition(b'"content"')[2].lstrip(b": "))
            string = dumps(text)
            if data.startswith(string, start):
                self._before, self._after = data[:start], data[start + len(string) :]

    def decode(self, data: bytes, out: list[Delta]) -> None:
        """Decode one event's data, append its deltas to `out`."""
        try:
            chunk = loads_strict(data)  # which refuses an `Event`: it takes bytes, and no subclass
        except ValueError:
            self._decode_odd(data, out)
            return
        try:  # the plain case: one choice, one piece of text, nothing else
            (choice,) = chunk["choices"]
            delta = choice["delta"]
            text = delta["content"]
            if (
                len(delta) == 1
                and type(text) is str
                and text
                and 0 in self.choices
                and not self._held
                and not choice.get("finish_reason")
                and not choice.get("index")
                and not choice.get("logprobs")
                and not chunk.get("usage")
                and chunk.get("model") == self.meta.get("model")
                and chunk.keys() <= _PLAIN_CHUNK_KEYS
                and choice.keys() <= _PLAIN_CHOICE_KEYS
            ):
                out.append(text)
                self._learn(data, text)
                return
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            pass
        self.decode_value(chunk, data, out)

    def decode_plain_document(self, document: Any, out: list[Delta]) -> bool:
        """Decode a whole answer if it is one choice of text and nothing else; False, with nothing done, if not.

        Such are nearly all; decoding them like a chunk would give the same, for six times the 1.5 µs.
        """
        try:
            (choice,) = document["choices"]
            message = choice["message"]
            text = message["content"]
            reason = choice["finish_reason"]
            plain = (
                type(text) is str
                and text
                and type(reason) is str
                and reason
                and reason != "error"
                and message.keys() <= _PLAIN_MESSAGE_KEYS
                and not (message.get("refusal") or message.get("annotations"))
                and choice.keys() <= _PLAIN_ANSWER_KEYS
                and not (choice.get("index") or choice.get("logprobs"))
                and document.keys() <= _PLAIN_CHUNK_KEYS
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        if plain:
            out.append(text)
            usage = find_usage(document)
            if usage is not None:
                out.append(UsageUpdate(usage))
            self.choices.add(0)
            self.reasons[0] = reason
            self.meta = document
        return bool(plain)

    def flush(self, out: list[Delta]) -> None:
        """The answer has ended: hand out what waited for its other half."""
        for kind, index in list(self._held):
            self._emit(kind, "", index, out, last=True)
        for index, tracker in self._tools.items():
            out.extend(tracker.flush(index))

    def _decode_odd(self, data: bytes, out: list[Delta]) -> None:
        """Data that is not strict JSON: the end mark, a comment in the wrong place, an escape of half a character."""
        text = data.strip()
        if text == b"[DONE]":
            self.done = True
            return
        if not text or text.startswith(b":"):  # gateways re-wrap comments as data (mnfst/llm-gateway#2053)
            return
        type_ = getattr(data, "type", "")
        if type_ in _KEEP_ALIVE_TYPES:
            return
        try:
            chunk = loads_loose(data)
        except ValueError:
            if type_ == "error":
                self.error = failure.in_band(data.decode("utf-8", "replace"))
            else:
                self.error = ResponseError(
                    f"The stream holds an event that is not JSON: {failure.excerpt(data)}", body=bytes(data[:2048])
                )
            return
        self.decode_value(chunk, data, out, loose=True)

    def decode_value(self, chunk: Any, data: bytes, out: list[Delta], *, loose: bool = False) -> None:
        """Decode one chunk, or a whole answer, that is parsed already.

        Args:
            chunk: The value.
            data: What it was parsed from.
            out: Where the deltas go.
            loose: Its strings may hold lone surrogates.
        """
        if isinstance(chunk, list) and len(chunk) == 1:  # Gemini wraps its errors in a list
            chunk = chunk[0]
        if isinstance(data, Event) and data.type == "error":
            self.error = failure.in_band(chunk)
        elif isinstance(chunk, dict):
            try:
                self._decode_chunk(chunk, out, loose)
            except ResponseError as error:
                self.error = error
        elif chunk is not None:
            self.error = ResponseError(
                f"The stream holds an event that is no JSON object: {failure.excerpt(data)}", body=bytes(data[:2048])
            )

    def _decode_chunk(self, chunk: dict[str, Any], out: list[Delta], loose: bool) -> None:
        choices = chunk.get("choices")
        nested = chunk.get("provider")
        if choices is None and isinstance(nested, dict) and "choices" in nested:  # OpenRouter (pydantic-ai#3994)
            chunk, choices = nested, nested["choices"]
        unknown = _has_news(chunk, _CHUNK_KEYS)
        choice_error: Any = None
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    unknown |= self._decode_choice(choice, out)
                    choice_error = choice_error or choice.get("error")
        if loose:  # from here on no string waits for its other half
            mend(chunk)
        for key, value in chunk.items():
            if value and key != "choices" and key != "usage":
                self.meta[key] = value
        if chunk.get("error") or choice_error or "error" in self.reasons.values() or failure.is_error(chunk):
            self.error = failure.in_band(chunk if chunk.get("error") or not choice_error else {"error": choice_error})
        elif unknown:
            out.append(RawChunk(chunk))
        usage = find_usage(chunk)
        if usage is not None:
            out.append(UsageUpdate(usage))

    def _decode_choice(self, choice: dict[str, Any], out: list[Delta]) -> bool:
        """Decode one choice; True where it holds something that no event carries."""
        index = choice.get("index")
        if type(index) is not int:
            index = 0
        self.choices.add(index)
        before = len(out)
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            unknown = self._decode_delta(delta, index, out)
        else:
            unknown = False
            self._emit(TextDelta, choice.get("text"), index, out)  # the older completions API
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):
            self.reasons[index] = join_surrogates(reason)
            self.reason_alone = len(out) == before
        return unknown or _has_news(choice, _CHOICE_KEYS)

    def _decode_delta(self, delta: dict[str, Any], index: int, out: list[Delta]) -> bool:
        if not _REASONING_KEYS.isdisjoint(delta):
            for text in _reasoning(delta):
                self._emit(ReasoningDelta, text, index, out)
        content = delta.get("content")
        if isinstance(content, list):
            for kind, text in _parts(content):
                self._emit(kind, text, index, out)
        else:
            self._emit(TextDelta, content, index, out)
        self._emit(RefusalDelta, delta.get("refusal"), index, out)
        calls = delta.get("tool_calls")
        if not isinstance(calls, list):
            calls = []
        if not calls and isinstance(function := delta.get("function_call"), dict):
            calls = [{"index": 0, "function": function}]  # OpenAI's older form; llama-cpp-python sends both
        if calls:
            tracker = self._tools.setdefault(index, ToolCallTracker())
            out.extend(call for raw in calls if (call := tracker.delta(raw, index)) is not None)
        return _has_news(delta, _DELTA_KEYS)

    def _emit(self, kind: type, text: Any, index: int, out: list[Delta], *, last: bool = False) -> None:
        if not isinstance(text, str) or not (text or last):
            return
        key = (kind, index)
        text = self._held.pop(key, "") + text
        if "\ud800" <= text[-1] <= "\udbff" and not last:
            self._held[key], text = text[-1], text[:-1]
            if not text:
                return
        text = join_surrogates(text)
        out.append(text if kind is TextDelta and index == 0 else kind(text, index))


def _has_news(value: dict[str, Any], known: frozenset[str]) -> bool:
    """Whether a field that is not known holds anything."""
    return not value.keys() <= known and any(value[key] for key in value.keys() - known)


def _reasoning(delta: dict[str, Any]) -> Iterator[str]:
    """The reasoning text of a delta: the first spelling that holds any, since some endpoints send two."""
    for key in ("reasoning_content", "reasoning", "thinking"):
        value = delta.get(key)
        if isinstance(value, dict):
            value = value.get("content") or value.get("text")
        if isinstance(value, str) and value:
            yield value
            return
    details = delta.get("reasoning_details")
    if isinstance(details, list):
        for detail in details:
            if isinstance(detail, dict) and isinstance(text := detail.get("text") or detail.get("summary"), str):
                yield text


def _parts(content: list[Any]) -> Iterator[tuple[type, str]]:
    """Content as a list of parts (Mistral, Z.ai): text, thinking, refusal."""
    for part in content:
        if isinstance(part, str):
            yield TextDelta, part
        elif isinstance(part, dict):
            if isinstance(thinking := part.get("thinking"), str):
                yield ReasoningDelta, thinking
            elif isinstance(thinking, list):
                for inner in thinking:
                    text = inner.get("text") if isinstance(inner, dict) else inner
                    if isinstance(text, str):
                        yield ReasoningDelta, text
            elif isinstance(refusal := part.get("refusal"), str):
                yield RefusalDelta, refusal
            elif isinstance(text := part.get("text"), str):
                yield TextDelta, text

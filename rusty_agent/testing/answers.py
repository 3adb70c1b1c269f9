"""Answers as data: what a `FaultServer` sends, down to the byte if need be.

In: texts, objects, raw bytes. Out: `Answer`s, which are sequences of steps. Never touched: sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from attrs import define

from ..wire.codec import dumps

__all__ = ["Answer", "Hang", "Pause", "Reset", "Step", "answer", "completion", "error", "events", "stream"]


@define(frozen=True)
class Pause:
    """Send nothing for a while.

    Attributes:
        seconds: How long.

    Raises:
        ValueError: `seconds` is not a number of at least 0.
    """

    seconds: float

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.seconds, int | float) or not self.seconds >= 0:
            raise ValueError(f"a pause must be a number of seconds, at least 0, not {self.seconds!r}")


@define(frozen=True)
class Hang:
    """Send nothing more, until the client closes the connection."""


@define(frozen=True)
class Reset:
    """Reset the connection (RST) instead of closing it."""


Step: TypeAlias = bytes | Pause | Hang | Reset


@define(frozen=True)
class Answer:
    """What the server does for one request: the steps in order. Each bytes step is one write.

    Attributes:
        steps: Bytes to send, pauses, faults.
        close: Close the connection afterwards.

    Raises:
        TypeError: A step is anything else.
    """

    steps: tuple[Step, ...]
    close: bool = False

    def __attrs_post_init__(self) -> None:
        for step in self.steps:
            if not isinstance(step, Step):
                raise TypeError(f"a step must be bytes, Pause(…), Hang() or Reset(), not {step!r}")


def answer(
    body: bytes | str | Mapping[str, Any] | Iterable[Step] = b"",
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
    framing: str = "length",
) -> Answer:
    """An HTTP answer.

    Args:
        body: The body: bytes or text; an object to send as JSON, such as a `completion()`; or the steps that send it.
        status: The HTTP status.
        headers: Further headers.
        content_type: The `Content-Type`; `""` for none.
        framing: `"length"` sends the length of all bytes as Content-Length, so that the client does not wait for a
            `Hang` or `Reset` after the last byte. `"chunked"` makes each bytes step an HTTP chunk and ends the body
            properly; `"cut"` does the same without that end; `"close"` ends the body by closing the connection.

    Raises:
        TypeError: A step is neither bytes nor a fault.
        ValueError: There is no such framing.
    """
    if framing not in ("length", "chunked", "cut", "close"):
        raise ValueError(f"framing must be 'length', 'chunked', 'cut' or 'close', not {framing!r}")
    if isinstance(body, Mapping):
        body = dumps(body)
    elif isinstance(body, str):
        body = body.encode()
    steps: list[Step] = [body] if isinstance(body, bytes) else list(body)
    lines = [f"HTTP/1.1 {status} Scripted"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if framing == "length":
        lines.append(f"Content-Length: {sum(len(step) for step in steps if isinstance(step, bytes))}")
    elif framing in ("chunked", "cut"):
        lines.append("Transfer-Encoding: chunked")
        steps = [b"%x\r\n%b\r\n" % (len(step), step) if isinstance(step, bytes) and step else step for step in steps]
        if framing == "chunked":
            steps.append(b"0\r\n\r\n")
    else:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode()
    return Answer((head, *steps), close=framing in ("cut", "close"))


def completion(text: str = "Hello world", **fields: Any) -> dict[str, Any]:
    """A whole chat completion with this text; `fields` are added to the top level, or replace fields there."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "scripted",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        **fields,
    }


def chunk(delta: Mapping[str, Any] | None = None, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "scripted",
        "choices": [{"index": 0, "delta": dict(delta or {}), "logprobs": None, "finish_reason": finish_reason}],
        **fields,
    }


def event(value: Any) -> bytes:
    """One server-sent event: a string as it is, anything else as JSON."""
    return b"data: " + (value.encode() if isinstance(value, str) else dumps(value)) + b"\n\n"


def events(*texts: str, finish_reason: str | None = "stop", usage: bool = True, done: bool = True) -> list[bytes]:
    """The events of a whole stream, as OpenAI sends them.

    Args:
        *texts: The pieces of text.
        finish_reason: The finish reason, sent in a chunk of its own; None to leave that chunk out.
        usage: Whether to send token counts, in a chunk of their own.
        done: Whether to send `[DONE]` at the end.
    """
    sent = [event(chunk({"role": "assistant", "content": ""}))]
    sent += [event(chunk({"content": text})) for text in texts]
    if finish_reason is not None:
        sent.append(event(chunk({}, finish_reason)))
    if usage:
        counts = {"prompt_tokens": 3, "completion_tokens": len(texts), "total_tokens": 3 + len(texts)}
        sent.append(event(chunk() | {"choices": [], "usage": counts}))
    if done:
        sent.append(event("[DONE]"))
    return sent


def stream(
    *texts: str,
    gap: float = 0,
    headers: Mapping[str, str] | None = None,
    finish_reason: str | None = "stop",
    usage: bool = True,
    done: bool = True,
) -> Answer:
    """A whole streamed answer, each event an HTTP chunk of its own.

    Args:
        *texts: The pieces of text.
        gap: Seconds between two events.
        headers: Further headers.
        finish_reason: The finish reason, sent in a chunk of its own; None to leave that chunk out.
        usage: Whether to send token counts, in a chunk of their own.
        done: Whether to send `[DONE]` at the end.
    """
    steps: list[Step] = []
    for sent in events(*texts, finish_reason=finish_reason, usage=usage, done=done):
        if gap and steps:
            steps.append(Pause(gap))
        steps.append(sent)
    return answer(steps, headers=headers, content_type="text/event-stream", framing="chunked")


def error(status: int, message: str = "scripted", *, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
    """An error as OpenAI sends it.

    Args:
        status: The HTTP status.
        message: The error's message.
        headers: Further headers.
        **fields: Fields of the error object to add or replace, such as `code`.
    """
    body = {"error": {"message": message, "type": "scripted_error", "param": None, "code": None, **fields}}
    return answer(body, status=status, headers=headers)

"""Every way we know in which an answer can go wrong, and the outcome it must have: the table behind `test_faults.py`
and behind the page «What happens when…» of the documentation."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

from attrs import define

import rusty_agent as ra
from rusty_agent.testing import Answer, Hang, Pause, Reset, answer, completion
from rusty_agent.testing.answers import Step, chunk, event
from rusty_agent.wire.codec import dumps

SSE = "text/event-stream"
FIRST = event(chunk({"role": "assistant", "content": ""}))
A, B = event(chunk({"content": "foo "})), event(chunk({"content": "bär"}))
STOP = event(chunk({}, "stop"))
HASTY = tuple(event(chunk({"content": text}, "stop")) for text in ("foo ", "bär"))
USAGE = event(chunk() | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
DONE = event("[DONE]")


@define(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        name: What goes wrong, in words.
        answer: The server's answer.
        error: The error that must be raised, or None for a good end.
        text: The text that must have arrived; for an error, its `partial_text`.
        says: A piece of the error's message.
        streamed: Whether the request asks for a stream, or for a whole answer.
        timeout: The call's `Timeout`, if the fault needs one.
        attempts: How many attempts there must be with two retries allowed.
        usage: The total of tokens known afterwards.
    """

    name: str
    answer: Answer
    error: type[ra.RustyAgentError] | None = None
    text: str = ""
    says: str = ""
    streamed: bool = True
    timeout: Any = None
    attempts: int = 1
    usage: int | None = None


def sse(*steps: Step, framing: str = "chunked", **options: Any) -> Answer:
    return answer(steps, content_type=options.pop("content_type", SSE), framing=framing, **options)


def body(value: Any, **options: Any) -> Answer:
    return answer(value if isinstance(value, bytes) else dumps(value), **options)


def _repeat(step: Step, gap: float, times: int) -> list[Step]:
    return [step, Pause(gap)] * times


def raw(*steps: Step) -> Answer:
    return Answer(steps, close=True)


def in_band(value: Any) -> Answer:
    return sse(FIRST, A, event(value))


def in_chunk(step: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(step), step)


WHOLE = dumps(completion("foo"))
ALIVE: Step = b": keep-alive\n\n"
PING: Step = event({"type": "ping"})
REFUSED = b"HTTP/1.1 401 Unauthorized\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CUT = ra.StreamInterruptedError
LOST = ra.APIConnectionError
BAD = ra.ResponseError

TRUNCATION: Sequence[Fault] = (
    Fault("The connection closes without an answer", raw(), LOST, says="without an answer", attempts=3),
    Fault("The connection closes within the status line", raw(b"HTTP/1.1 20"), LOST, attempts=3),
    Fault("The connection closes after the headers", raw(HEAD), CUT, attempts=3),
    Fault("The stream is cut before its first text", sse(FIRST, framing="cut"), CUT, attempts=3),
    Fault("The stream is cut between two events", sse(FIRST, A, framing="cut"), CUT, "foo "),
    Fault("The stream is cut within an event", sse(FIRST, A, B[:40], framing="cut"), CUT, "foo "),
    Fault(
        "The stream is cut within a character",
        sse(FIRST, A, B[: B.index("ä".encode()) + 1], framing="cut"),
        CUT,
        "foo ",
    ),
    Fault("The stream is cut within an HTTP chunk", raw(HEAD, b"%x\r\n%b" % (len(A) + 9, A)), CUT, "foo "),
    Fault(
        "The stream's HTTP framing breaks before its first text",
        raw(HEAD, Pause(0.02), b"zz\r\n"),
        CUT,
        timeout=5,
        attempts=3,
    ),
    Fault(
        "The stream's HTTP framing breaks in mid-stream",
        raw(HEAD, Pause(0.02), in_chunk(A), Pause(0.02), b"zz\r\nfoo\r\n"),
        CUT,
        "foo ",
        "framing",
        timeout=5,
    ),
    Fault(
        "An HTTP chunk of the stream lacks its end",
        raw(HEAD, Pause(0.02), in_chunk(A), Pause(0.02), b"%x\r\n%bXX" % (len(A), A)),
        CUT,
        "foo ",
        timeout=5,
    ),
    Fault(
        "The HTTP framing breaks behind the first text, in one go with it",
        raw(HEAD + in_chunk(A) + b"zz\r\n"),
        CUT,
        "foo ",
    ),
    Fault("The stream ends properly but unfinished", sse(FIRST, A, B), CUT, "foo bär"),
    Fault("The stream ends properly with half an event", sse(FIRST, A, B[:-20]), CUT, "foo "),
    Fault("The stream closes unfinished, without any framing", sse(FIRST, A, framing="close"), CUT, "foo "),
    Fault("The connection is reset before the headers", raw(Reset()), LOST, attempts=3),
    Fault("The connection is reset before the first text", raw(HEAD, Pause(0.02), Reset()), CUT, attempts=3),
    Fault("The connection is reset in mid-stream", sse(FIRST, A, Pause(0.02), Reset()), CUT, "foo "),
    Fault(
        "… of a server that sends a finish reason with each chunk", sse(*HASTY, Pause(0.02), Reset()), CUT, "foo bär"
    ),
    Fault("… and one that did so once ends without another", sse(HASTY[0], B), CUT, "foo bär"),
    Fault(
        "A stream announces more bytes than it sends",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", A),
        CUT,
        "foo ",
    ),
    Fault(
        "A whole answer announces more bytes than it sends",
        raw(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"id'),
        LOST,
        streamed=False,
        attempts=3,
    ),
    Fault(
        "A whole answer is cut within its JSON, but ends properly",
        body(dumps(completion())[:60]),
        BAD,
        says="cut off",
        streamed=False,
        attempts=3,
    ),
    Fault("A stream ends within its first word, but ends properly", sse(b"dat"), CUT, attempts=3),
    Fault("An empty answer to a stream request", sse(), CUT, says="empty", attempts=3),
    Fault("An empty answer to a plain request", body(b""), CUT, says="empty", streamed=False, attempts=3),
)

WRAPPED = {"Response": {"Error": {"Code": "RequestLimitExceeded", "Message": "boom"}, "RequestId": "r"}}  # Tencent's

GOOD: Sequence[Fault] = (
    Fault("A finish reason with each chunk, and no end mark", sse(*HASTY), None, "foo bär"),
    Fault(
        "A finish reason at the beginning (Ollama)",
        sse(event(chunk({"content": ""}, "stop")), A, B, STOP),
        None,
        "foo bär",
    ),
    Fault("An end mark of its own after the finish", sse(A, STOP, event("DONE")), None, "foo "),
    Fault("An end mark without its field", sse(A, b"[DONE]\n\n"), None, "foo "),
    Fault("The end mark in the line of the last event", sse(A, STOP[:-2], DONE), None, "foo "),
    Fault("No blank lines between events", sse(A[:-1], B[:-1], STOP[:-1], DONE), None, "foo bär"),
    Fault("A stream without the end mark", sse(FIRST, A, STOP), None, "foo "),
    Fault("A stream without a finish reason", sse(FIRST, A, DONE), None, "foo "),
    Fault("A stream whose last event lacks its blank line", sse(FIRST, A, STOP, DONE.strip()), None, "foo "),
    Fault("The end mark comes twice", sse(A, STOP, DONE, DONE), None, "foo "),
    Fault("Text after the end mark", sse(A, STOP, DONE, B), None, "foo "),
    Fault("The body goes on for ever after the end mark", sse(A, STOP, DONE, Hang(), framing="cut"), None, "foo "),
    Fault("The connection breaks after the finish reason", sse(A, STOP, Pause(0.01), Reset()), None, "foo "),
    Fault(
        "The connection breaks before the blank line of the end mark",
        sse(A, DONE[:-1], Pause(0.01), Reset()),
        None,
        "foo ",
    ),
    Fault(
        "The connection breaks before the blank line of the finish reason",
        sse(A, STOP[:-1], framing="cut"),
        None,
        "foo ",
    ),
    Fault(
        "The HTTP framing breaks after the finish reason",
        raw(HEAD, Pause(0.02), in_chunk(A), in_chunk(STOP), Pause(0.02), b"zz\r\n"),
        None,
        "foo ",
        timeout=5,
    ),
    Fault(
        "The HTTP framing breaks behind an answer that came in one go",
        raw(HEAD + in_chunk(A + STOP + DONE) + b"0\r\n\r\n0\r\n\r\n"),
        None,
        "foo ",
    ),
    Fault("The connection is cut after the end mark", sse(A, STOP, DONE, framing="cut"), None, "foo "),
    Fault("Usage follows the finish reason", sse(A, STOP, USAGE, DONE), None, "foo ", usage=5),
    Fault("Comments between and within events", sse(b": hi\n\n", A[:-1], b":x\n\n", STOP, DONE), None, "foo "),
    Fault("Comments wrapped as data", sse(event(": OPENROUTER PROCESSING"), A, STOP, DONE), None, "foo "),
    Fault("Events without data", sse(b"retry: 100\n\n", b"id: 1\n\n", A, STOP, DONE), None, "foo "),
    Fault("CRLF line ends", sse(*(step.replace(b"\n", b"\r\n") for step in (A, STOP, DONE))), None, "foo "),
    Fault("A byte order mark", sse(b"\xef\xbb\xbf", A, STOP, DONE), None, "foo "),
    Fault("Bytes that are not UTF-8", sse(A.replace(b"foo", b"f\xff"), STOP, DONE), None, "f� "),
    Fault(
        "Half a character in each of two events",
        sse(
            event(chunk()).replace(b'"delta":{}', b'"delta":{"content":"\\ud83d"}'),
            event(chunk()).replace(b'"delta":{}', b'"delta":{"content":"\\ude00"}'),
            STOP,
        ),
        None,
        "😀",
    ),
    Fault(
        "One byte at a time",
        answer([bytes([byte]) for byte in A + STOP + DONE], content_type=SSE, framing="chunked"),
        None,
        "foo ",
    ),
    Fault("A whole answer where a stream was asked for", body(completion("foo")), None, "foo", usage=8),
    Fault("A stream where a whole answer was asked for", sse(A, B, STOP, DONE), None, "foo bär", streamed=False),
    Fault("A stream that claims to be JSON", sse(A, STOP, content_type="application/json"), None, "foo "),
    Fault("A whole answer that claims to be a stream", body(completion("foo"), content_type=SSE), None, "foo", usage=8),
    Fault(
        "Blank lines before a whole answer",
        body(b"\n\n \n" + dumps(completion("foo"))),
        None,
        "foo",
        streamed=False,
        usage=8,
    ),
    Fault(
        "A compressed stream",
        answer(gzip.compress(A + STOP + DONE), content_type=SSE, headers={"Content-Encoding": "gzip"}),
        None,
        "foo ",
    ),
    Fault(
        "A Content-Encoding that names no compression",
        answer([A, STOP, DONE], content_type=SSE, framing="chunked", headers={"Content-Encoding": "none"}),
        None,
        "foo ",
    ),
    Fault("A heartbeat without its newline in front of an event", sse(A, b" ", B, STOP, DONE), None, "foo bär"),
    Fault(
        "Chunks in lines of their own, without fields",
        answer(
            [dumps(chunk({"content": "foo "})), b"\n", dumps(chunk({}, "stop")), b"\n"],
            content_type="application/x-ndjson",
            framing="chunked",
        ),
        None,
        "foo ",
    ),
    Fault("A number where text belongs", sse(A, event(chunk({"content": 0})), STOP, DONE), None, "foo 0"),
    Fault(
        "An informational answer first",
        Answer((b"HTTP/1.1 102 Processing\r\n\r\n", *body(completion("foo")).steps)),
        None,
        "foo",
        streamed=False,
        usage=8,
    ),
    Fault(
        "A whole answer that only claims to be compressed",
        body(completion("foo"), headers={"Content-Encoding": "gzip"}),
        None,
        "foo",
        streamed=False,
        usage=8,
    ),
    Fault(
        "A whole answer whose HTTP framing lacks its end",
        raw(HEAD.replace(SSE.encode(), b"application/json"), in_chunk(dumps(completion("foo")))),
        None,
        "foo",
        streamed=False,
        usage=8,
    ),
    Fault(
        "A whole answer that announces fewer bytes than it has",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b\r\n}" % (len(WHOLE), WHOLE)),
        None,
        "foo",
        streamed=False,
        usage=8,
    ),
    Fault(
        "A whole answer that announces more bytes than it has",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", dumps(completion("foo"))),
        None,
        "foo",
        streamed=False,
        usage=8,
    ),
    Fault(
        "The end mark after a whole answer",
        body(dumps(completion("foo")) + b"\n\n" + DONE, content_type=SSE),
        None,
        "foo",
        usage=8,
    ),
    Fault("Words in events of other kinds", sse(A, b"event: keep_alive\ndata: ok\n\n", STOP, DONE), None, "foo "),
    Fault('A "ping" that is not JSON', sse(A, event("ping"), STOP, DONE), None, "foo "),
    Fault("HTTP/1.0", raw(b"HTTP/1.0 200 OK\r\n\r\n", A, STOP, DONE), None, "foo "),
    Fault(
        "A finish reason that is empty until the last chunk",
        sse(A.replace(b'"finish_reason":null', b'"finish_reason":""'), STOP),
        None,
        "foo ",
    ),
    Fault(
        "Chunks without choices", sse(event({"id": "x", "choices": None}), event({"id": "x"}), A, STOP), None, "foo "
    ),
    Fault(
        "An index that is counted up from chunk to chunk (Foundry Local)",
        sse(*(step.replace(b'"index":0', b'"index":%d' % at) for at, step in enumerate((A, B, STOP))), DONE),
        None,
        "foo bär",
    ),
    Fault(
        "The whole message after its pieces",
        sse(A, B, event({"choices": [{"message": {"content": "foo bär"}, "finish_reason": "stop"}]}), DONE),
        None,
        "foo bär",
    ),
    Fault(
        "Content that is an object",
        sse(event(chunk({"content": {"type": "text", "text": "foo "}})), STOP),
        None,
        "foo ",
    ),
    Fault("An answer within another object", body({"data": completion("foo")}), None, "foo", usage=8),
    Fault("A number of 5000 digits", sse(A.replace(b"1700000000", b"9" * 5000), STOP), None, "foo "),
    Fault(
        "A delta that is null",
        sse(A, event({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]})),
        None,
        "foo ",
    ),
)

IN_BAND: Sequence[Fault] = (
    Fault(
        "An error object (OpenAI)",
        in_band({"error": {"message": "boom", "type": "server_error", "code": None}}),
        ra.ServerError,
        "foo ",
        "boom",
    ),
    Fault(
        "An error object with a numeric code (vLLM)",
        in_band({"error": {"message": "boom", "code": 400}}),
        ra.BadRequestError,
        "foo ",
        "boom",
    ),
    Fault(
        "An error object with status 500 (llama.cpp)",
        in_band({"error": {"code": 500, "message": "boom", "type": "server_error"}}),
        ra.ServerError,
        "foo ",
        "boom",
    ),
    Fault(
        "An error beside choices (OpenRouter)",
        in_band(
            {
                "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
                "error": {"code": 502, "message": "boom"},
            }
        ),
        ra.ServerError,
        "foo ",
        "boom",
    ),
    Fault('A finish reason "error" without an error', in_band(chunk({}, "error")), ra.ServerError, "foo "),
    Fault('A finish reason "abort" (vLLM)', in_band(chunk({}, "abort")), ra.ServerError, "foo ", "abort"),
    Fault(
        'A finish reason "network_error" of a whole answer (Z.ai)',
        body(completion(choices=[{"message": {"content": "foo "}, "finish_reason": "network_error"}], usage=None)),
        ra.ServerError,
        "foo ",
        "network_error",
        attempts=3,
        streamed=False,
    ),
    Fault('A finish reason "cancelled" (TensorRT-LLM)', in_band(chunk({}, "cancelled")), ra.ServerError, "foo "),
    Fault(
        "An error code beside a text (FastChat)",
        sse(A, event({"text": "boom", "error_code": 50001}), DONE),
        ra.APIStatusError,
        "foo ",
        "boom",
    ),
    Fault(
        "A status code and a message (gateways)",
        in_band({"statusCode": 503, "message": "boom"}),
        ra.ServerError,
        "foo ",
        "boom",
    ),
    Fault(
        "A status and a message (gateways)", in_band({"status": 503, "message": "boom"}), ra.ServerError, "foo ", "boom"
    ),
    Fault("An error within another object", in_band(WRAPPED), ra.RateLimitError, "foo ", "boom"),
    Fault("An error in words alone", sse(b"data: 429 Too Many Requests\n\n"), ra.RateLimitError, attempts=3),
    Fault(
        "An error in the delta",
        in_band({"choices": [{"index": 0, "delta": {"error": {"message": "boom"}}}]}),
        ra.APIStatusError,
        "foo ",
        "boom",
    ),
    Fault(
        "An event of no known kind, then the end mark",
        sse(A, event({"modelStreamErrorException": {"message": "boom"}}), DONE),
        ra.APIStatusError,
        "foo ",
        "boom",
    ),
    Fault("A line of text, then the end mark", sse(A, b"Internal Server Error\n\n", DONE), CUT, "foo ", "Internal"),
    Fault(
        "An error in several lines (Gemini)",
        sse(A, json.dumps([{"error": {"message": "boom", "code": 503}}], indent=2).encode()),
        ra.ServerError,
        "foo ",
        "boom",
    ),
    Fault(
        "The end mark after an error object",
        sse(dumps({"error": {"message": "boom", "code": 503}}), b"\n\n", DONE),
        ra.ServerError,
        "",
        "boom",
        attempts=3,
    ),
    Fault(
        "An error in its own field (Groq)",
        in_band(chunk({}, "stop") | {"x_groq": {"id": "req_1", "error": "boom"}}),
        ra.APIStatusError,
        "foo ",
        "boom",
    ),
    Fault(
        "Data without its field (new-api)",
        sse(A, b'{"error":{"message":"boom","code":502}}'),
        ra.ServerError,
        "foo ",
        "boom",
    ),
    Fault(
        "An error named by a word, before any text",
        sse(b": PING\n\n", event({"error": {"message": "boom", "type": "overloaded_error"}})),
        ra.ServerError,
        "",
        "boom",
        attempts=3,
    ),
    Fault("An error that is a string", in_band({"error": "boom"}), ra.APIStatusError, "foo ", "boom"),
    Fault(
        "An error with its type beside it (TGI)",
        in_band({"error": "boom", "error_type": "overloaded"}),
        ra.ServerError,
        "foo ",
        "boom",
    ),
    Fault("A detail (FastAPI)", in_band({"detail": "boom"}), ra.APIStatusError, "foo ", "boom"),
    Fault(
        "An event of type error",
        sse(A, b'event: error\ndata: {"message": "boom"}\n\n'),
        ra.APIStatusError,
        "foo ",
        "boom",
    ),
    Fault("An event of type error without data", sse(A, b"event: error\n\n", STOP, DONE), ra.APIStatusError, "foo "),
    Fault("A message alone", in_band({"message": "boom"}), ra.APIStatusError, "foo ", "boom"),
    Fault("An error that is a list", in_band({"error": [{"message": "boom"}]}), ra.APIStatusError, "foo ", "boom"),
    Fault(
        "A list of errors (Cloudflare)",
        in_band({"success": False, "errors": [{"code": 7000, "message": "boom"}]}),
        ra.APIStatusError,
        "foo ",
        "boom",
    ),
    Fault(
        "A status inside (MiniMax)",
        in_band({"base_resp": {"status_code": 1004, "status_msg": "boom"}}),
        ra.AuthenticationError,
        "foo ",
        "boom",
    ),
    Fault(
        "An error line (older llama.cpp)",
        sse(A, b'error: {"code": 500, "message": "boom"}\n\n'),
        ra.ServerError,
        "foo ",
        "boom",
    ),
    Fault(
        "An error before any text that may pass",
        sse(event({"error": {"message": "boom", "code": 503}})),
        ra.ServerError,
        "",
        "boom",
        attempts=3,
    ),
    Fault(
        "An error before any text that will not pass",
        sse(event({"error": {"message": "boom", "code": 400}})),
        ra.BadRequestError,
        "",
        "boom",
    ),
    Fault(
        "An error object as a whole answer with status 200",
        body({"error": {"message": "boom", "code": 402}}),
        ra.APIStatusError,
        "",
        "boom",
        streamed=False,
    ),
    Fault(
        "A list of errors as a whole answer (Gemini)",
        body([{"error": {"message": "boom", "code": 400}}, {"error": {"message": "boom", "code": 400}}]),
        ra.BadRequestError,
        "",
        "boom",
        streamed=False,
    ),
    Fault(
        "An error nested without end",
        sse(A, b'data: {"error":{"message":"boom","x":' + b"[" * 950 + b"]" * 950 + b"}}\n\n"),
        ra.APIStatusError,
        "foo ",
        "boom",
    ),
    Fault(
        "An error after usage",
        sse(A, USAGE, event({"error": {"message": "boom"}})),
        ra.APIStatusError,
        "foo ",
        "boom",
        usage=5,
    ),
)

UNREADABLE: Sequence[Fault] = (
    Fault("Malformed JSON in one event", sse(A, event('{"choices": [{"delta"'), B, STOP), BAD, "foo ", "not JSON"),
    Fault("A list, or a text, in an event", sse(A, event("[1, 2]"), STOP), BAD, "foo "),
    Fault(
        "HTML with status 200",
        body(b"<!doctype html><title>Log in</title>", content_type="text/html"),
        BAD,
        says="HTML",
    ),
    Fault(
        "HTML with status 200 to a plain request",
        body(b"<html>", content_type="text/html"),
        BAD,
        says="HTML",
        streamed=False,
    ),
    Fault(
        "Malformed JSON as a whole answer", body(b"{malformed json: <<<chaos>>>"), BAD, says="not JSON", streamed=False
    ),
    Fault("An empty object", body(b"{}"), BAD, says="no choices", streamed=False),
    Fault("A stream without choices", sse(event({"response": "foo"}), USAGE, DONE), BAD, says="no choices", usage=5),
    Fault("Chunks with no choices in them", sse(event({"choices": [], "id": "a"}), DONE), BAD, attempts=3),
    Fault("Choices that are null", body({"choices": None}), BAD, says="no choices", streamed=False, attempts=3),
    Fault(
        "Status 202 of a job that is still to be done",
        Answer((b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",)),
        ra.APIStatusError,
        says="202",
    ),
    Fault("Status 204", Answer((b"HTTP/1.1 204 No Content\r\n\r\n",)), ra.APIStatusError, says="204"),
    Fault("No HTTP at all", raw(b"SSH-2.0-OpenSSH_9.2\r\n"), LOST, says="HTTP", attempts=3),
    Fault("A header without end", raw(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 100_000), LOST, attempts=3),
    Fault(
        "A broken compressed body",
        answer(b"\x1f\x8b" + b"\0" * 40, content_type=SSE, headers={"Content-Encoding": "gzip"}),
        BAD,
        says="decompressed",
    ),
)

_BY_STATUS = tuple(
    Fault(f"Status {status}", body({"error": {"message": "boom"}}, status=status), kind, says="boom", attempts=attempts)
    for status, kind, attempts in (
        (400, ra.BadRequestError, 1),
        (401, ra.AuthenticationError, 1),
        (402, ra.APIStatusError, 1),
        (403, ra.PermissionDeniedError, 1),
        (404, ra.NotFoundError, 1),
        (408, ra.APIStatusError, 3),
        (409, ra.APIStatusError, 3),
        (413, ra.APIStatusError, 1),
        (422, ra.BadRequestError, 1),
        (425, ra.APIStatusError, 3),
        (429, ra.RateLimitError, 3),
        (500, ra.ServerError, 3),
        (501, ra.ServerError, 1),
        (502, ra.ServerError, 3),
        (503, ra.ServerError, 3),
        (504, ra.ServerError, 3),
        (529, ra.ServerError, 3),
    )
)
STATUS: Sequence[Fault] = (
    *_BY_STATUS,
    Fault(
        "Status 502 with an HTML page",
        body(b"<html><head><title>502 Bad Gateway</title>", status=502),
        ra.ServerError,
        says="502 Bad Gateway",
        attempts=3,
    ),
    Fault("Status 500 without a body", body(b"", status=500), ra.ServerError, says="HTTP 500", attempts=3),
    Fault(
        "Status 429 for a quota that is used up",
        body({"error": {"message": "boom", "code": "insufficient_quota"}}, status=429),
        ra.RateLimitError,
        says="boom",
    ),
    Fault(
        "Status 429 for a quota that is used up, by its type",
        body({"error": {"message": "boom", "type": "insufficient_quota", "code": None}}, status=429),
        ra.RateLimitError,
        says="boom",
    ),
    Fault(
        "Status 429 for an account without credit, told in words",
        body({"error": {"message": "Insufficient balance. Please recharge.", "code": "1113"}}, status=429),
        ra.RateLimitError,
        says="no credit or quota left",
    ),
    Fault(
        "Status 429 for a full minute that is called a used-up quota (DashScope)",
        body({"error": {"message": "see: error-code#token-limit", "code": "insufficient_quota"}}, status=429),
        ra.RateLimitError,
        attempts=3,
    ),
    Fault(
        "Status 401 with a body that cannot be decompressed",
        body(b"\x00garbage\xff", status=401, headers={"Content-Encoding": "br"}),
        ra.AuthenticationError,
        says="401",
    ),
    Fault(
        "Status 401 whose body is longer than it says",
        raw(REFUSED + b"Content-Length: 2\r\n\r\n{}garbage"),
        ra.AuthenticationError,
        says="401",
    ),
    Fault(
        "Status 401 whose HTTP framing breaks",
        raw(REFUSED + b"Transfer-Encoding: chunked\r\n\r\n" + in_chunk(b'{"error":{"message":"boom"}}') + b"zz\r\n"),
        ra.AuthenticationError,
        says="boom",
    ),
    Fault(
        "A redirect to another host",
        body(b"", status=307, headers={"Location": "http://127.0.0.2:1/"}),
        ra.APIStatusError,
        says="127.0.0.2",
    ),
    Fault(
        "An error's body that never ends",
        answer([b'{"error":"' + b"x" * 70_000, Hang()], status=400, framing="cut"),
        ra.BadRequestError,
    ),
)

SILENCE: Sequence[Fault] = (
    Fault("No answer at all", raw(Hang()), ra.APITimeoutError, says="idle", timeout=0.3, attempts=3),
    Fault("No answer to a plain request", raw(Hang()), ra.APITimeoutError, says="total", streamed=False, timeout=0.3),
    Fault("Headers, then nothing", raw(HEAD, Hang()), ra.APITimeoutError, says="idle", timeout=0.3, attempts=3),
    Fault(
        "Some text, then nothing", sse(FIRST, A, Hang(), framing="cut"), ra.APITimeoutError, "foo ", "idle", timeout=1
    ),
    Fault(
        "Keep-alive comments, and never any text",
        sse(*_repeat(ALIVE, 0.03, 40), framing="cut"),
        ra.APITimeoutError,
        says="first_token",
        timeout=ra.Timeout(first_token=0.3),
        attempts=3,
    ),
    Fault(
        "Some text, then nothing but keep-alive comments",
        sse(A, *_repeat(ALIVE, 0.03, 40), framing="cut"),
        ra.APITimeoutError,
        "foo ",
        "stall",
        timeout=ra.Timeout(stall=0.3),
    ),
    Fault(
        "Some text, then nothing but events without content",
        sse(A, *_repeat(PING, 0.03, 40), framing="cut"),
        ra.APITimeoutError,
        "foo ",
        "stall",
        timeout=ra.Timeout(stall=0.3),
    ),
    Fault(
        "Text for longer than the call may take",
        sse(*_repeat(A, 0.05, 40), framing="cut"),
        ra.APITimeoutError,
        "foo ",
        "total",
        timeout=ra.Timeout(total=1),
    ),
    Fault(
        "Keep-alive comments for longer than the idle limit, then text",
        sse(*_repeat(ALIVE, 0.05, 24), A, STOP),
        None,
        "foo ",
        timeout=1,
    ),
)

FAULTS: dict[str, Sequence[Fault]] = {
    "The answer is cut short": TRUNCATION,
    "The answer is unusual, but whole": GOOD,
    "The answer holds an error": IN_BAND,
    "The answer cannot be read": UNREADABLE,
    "The endpoint refuses": STATUS,
    "The endpoint falls silent": SILENCE,
}
ALL = [fault for group in FAULTS.values() for fault in group]
assert len({fault.name for fault in ALL}) == len(ALL)

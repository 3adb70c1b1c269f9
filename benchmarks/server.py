"""A loopback endpoint that is meant never to be the bottleneck: a raw protocol with answers encoded beforehand.

`python -m benchmarks.server` prints its port and serves until its standard input closes. The prompt chooses the
answer: `json`; `delayed MS` (the same after MS milliseconds); `burst N` (N chunks in one write); `paced N MS` (N
chunks, one write each, MS milliseconds apart, each with the time of its write); `open` (one chunk, then silence). A
request without a prompt gets the CPU time that the endpoint has used.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: %s\r\nx-request-id: req_0123456789abcdef\r\n"
    b"openai-processing-ms: 123\r\n"
    b"x-ratelimit-limit-requests: 30000000\r\nx-ratelimit-remaining-requests: 29999999\r\n"  # so no client waits
    b"strict-transport-security: max-age=31536000\r\ncf-cache-status: DYNAMIC\r\n"
)
ID = "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012"


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    value = {
        "id": ID,
        "object": "chat.completion.chunk",
        "created": 1795362872,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    event = b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


WORDS = [" the", " stream", " of", " tokens", ",", " né", " “quoted”", "\n", " 世界", " back\\slash", ' "x"', " and"]
CHUNKS = [_chunk({"content": word}) for word in WORDS]
FIRST = _chunk({"role": "assistant", "content": ""})
LAST = _chunk({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
STREAM_HEAD = HEAD % b"text/event-stream; charset=utf-8" + b"Transfer-Encoding: chunked\r\n\r\n"
TEXT = "".join(WORDS) * 8
BODY = json.dumps(
    {
        "id": ID,
        "object": "chat.completion",
        "created": 1795362872,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 96, "total_tokens": 108},
    }
).encode()
JSON = HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
LOOPS = ("asyncio", "uvloop") if find_spec("uvloop") else ("asyncio",)
LENGTH = re.compile(rb"(?i)content-length: (\d+)")
PROMPT = re.compile(rb'"content": ?"(json|delayed|burst|paced|open)(?: (\d+))?(?: (\d+))?"')
STAMP = 16  # digits of `time.monotonic_ns`, which is the content of a paced chunk
BEFORE_STAMP, AFTER_STAMP = _chunk({"content": "0" * STAMP}).split(b"0" * STAMP)
GOLDEN = 0.618  # its multiples, modulo one, are spread evenly


class Endpoint(asyncio.Protocol):
    """Collects requests, one after another, for a subclass to answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        given = LENGTH.search(head)
        length = int(given[1]) if given else 0
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.requested(head, rest)

    def requested(self, head: bytes, body: bytes) -> None:
        """Answer it."""
        raise NotImplementedError


class Protocol(Endpoint):
    """Answers as the prompts ask."""

    streams = 0

    def requested(self, head: bytes, body: bytes) -> None:
        asked = PROMPT.search(body)
        if asked is None:
            self.tell()
            return
        kind, count, gap = asked.groups()
        if kind == b"json":
            self.transport.write(JSON)
        elif kind == b"delayed":
            asyncio.get_running_loop().call_later(int(count) / 1000, self.transport.write, JSON)
        elif kind == b"burst":
            chunks = (CHUNKS * (int(count) // len(CHUNKS) + 1))[: int(count)]
            self.transport.write(STREAM_HEAD + FIRST + b"".join(chunks) + LAST)
        elif kind == b"open":
            self.transport.write(STREAM_HEAD + FIRST + CHUNKS[0])
        else:
            self.transport.write(STREAM_HEAD + FIRST)
            self.begin(int(count), int(gap) / 1000)

    def begin(self, count: int, gap: float) -> None:
        """Pace a stream. Streams have different phases of the gap: aligned, they would wake the client in batches."""
        cls, loop = type(self), asyncio.get_running_loop()
        cls.streams += 1
        start = loop.time() + gap * (cls.streams * GOLDEN % 1)
        loop.call_at(start, self.paced, 0, count, gap, start)

    def paced(self, number: int, count: int, gap: float, start: float) -> None:
        if self.transport.is_closing():
            return
        if number == count:
            self.transport.write(LAST)
            return
        stamp = f"{time.monotonic_ns():0{STAMP}d}".encode()
        self.transport.write(BEFORE_STAMP + stamp + AFTER_STAMP)
        when = start + (number + 1) * gap
        asyncio.get_running_loop().call_at(when, self.paced, number + 1, count, gap, start)

    def tell(self) -> None:
        body = json.dumps({"cpu": time.process_time(), "wall": time.monotonic()}).encode()
        self.transport.write(HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def raise_limits() -> None:
    """Allow as many open files as the system does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def pin(process: int, core: int) -> None:
    """Keep a process on one core, given by its index in the available ones; do nothing if there is only one."""
    if hasattr(os, "sched_setaffinity") and len(cores := sorted(os.sched_getaffinity(0))) > 1:
        with suppress(OSError):
            os.sched_setaffinity(process, {cores[core]})


@contextmanager
def endpoint() -> Iterator[str]:
    """Run the endpoint in its own process on the first core; yield its URL."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pin(process.pid, 0)
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        process.kill()


def run(main: Coroutine[Any, Any, None], loop: str) -> None:
    """`asyncio.run`, on one of `LOOPS`."""
    if loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


async def listen(endpoint: type[Endpoint]) -> None:
    """Print the port, and serve for ever."""
    server = await asyncio.get_running_loop().create_server(endpoint, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def serve() -> None:
    """Serve until standard input closes, on uvloop where it is installed."""
    raise_limits()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run(listen(Protocol), LOOPS[-1])


if __name__ == "__main__":
    serve()

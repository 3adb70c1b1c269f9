"""A fast endpoint in its own process, which remembers what it was asked.

`python -m tests.batch.endpoint MILLISECONDS` prints its port, answers each request after so long, and ends when its
standard input closes. A prompt is `row NUMBER`. `GET /` returns how often each number was asked for, and the peak of
requests in flight.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from attrs import define

BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "fast",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "yes"}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()
PROMPT = re.compile(rb'"row (\d+)"')
LENGTH = re.compile(rb"(?i)content-length: (\d+)")


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


ANSWER = answer(BODY)


class Protocol(asyncio.Protocol):
    asked: ClassVar[Counter[int]] = Counter()
    in_flight = 0
    peak = 0
    seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""
        self.busy = False

    def connection_lost(self, _: Exception | None) -> None:
        self.free()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        if head.startswith(b"GET"):
            self.transport.write(answer(json.dumps({"asked": Protocol.asked, "peak": Protocol.peak}).encode()))
            return
        if len(rest) < int(LENGTH.findall(head)[0]):
            return
        self.buffer = b""
        Protocol.asked[int(PROMPT.findall(rest)[0])] += 1
        self.busy = True
        Protocol.in_flight += 1
        Protocol.peak = max(Protocol.peak, Protocol.in_flight)
        asyncio.get_running_loop().call_later(self.seconds, self.send)

    def send(self) -> None:
        if self.busy:
            self.transport.write(ANSWER)
        self.free()

    def free(self) -> None:
        Protocol.in_flight -= self.busy
        self.busy = False


@define
class Endpoint:
    """The running process, as its parent sees it."""

    url: str

    def told(self) -> tuple[Counter[int], int]:
        """How often each row was asked for, and the peak of requests in flight."""
        with urllib.request.urlopen(self.url.removesuffix("/v1")) as response:
            told: dict[str, Any] = json.load(response)
        return Counter({int(number): count for number, count in told["asked"].items()}), told["peak"]


@contextmanager
def endpoint(milliseconds: float) -> Iterator[Endpoint]:
    """Run the endpoint in its own process."""
    command = [sys.executable, "-m", "tests.batch.endpoint", str(milliseconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield Endpoint(f"http://127.0.0.1:{int(server.stdout.readline())}/v1")
        server.kill()


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


async def main() -> None:
    Protocol.seconds = float(sys.argv[1]) / 1000
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=end_with_parent, daemon=True).start()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

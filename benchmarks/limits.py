"""`python -m benchmarks.limits`: runs against a real server with a hidden limit of 100 requests a second.

The server is a token bucket (100 a second, a burst of one second, 200 ms an answer) on loopback, in its own process.
Of its limit it says nothing, or sends `Retry-After`, or OpenAI's `x-ratelimit-*` headers. Clients have 256 requests in
flight, or `"auto"`. Each run prints its share of the limit, how many requests were refused, and how many rows failed.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection

from rusty_agent import AsyncProvider, Limits, RetryPolicy

from .server import BODY, Endpoint

RATE, BURST, LATENCY = 100.0, 100.0, 0.2
REFUSAL = b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'
SAYS = ("nothing", "retry-after-ms", "retry-after", "x-ratelimit")


class Bucket:
    """The token bucket: what is left of the limit, and what was served and refused."""

    def __init__(self) -> None:
        self.level, self.at = BURST, time.monotonic()
        self.served = self.refused = 0

    def take(self) -> bool:
        now = time.monotonic()
        self.level = min(BURST, self.level + (now - self.at) * RATE)
        self.at = now
        taken = self.level >= 1
        self.level -= taken
        self.served += taken
        self.refused += not taken
        return taken

    def headers(self, says: str, taken: bool) -> list[str]:
        wait = (1 - self.level) / RATE
        lines = []
        if says == "x-ratelimit":
            used = BURST - self.level
            lines += [
                f"x-ratelimit-limit-requests: {RATE * 60:.0f}",
                f"x-ratelimit-remaining-requests: {RATE * 60 - used:.0f}",
                f"x-ratelimit-reset-requests: {used / RATE:.3f}s",
            ]
        if not taken and says == "retry-after":
            lines.append("retry-after: 1")
        elif not taken and says != "nothing":
            lines.append(f"retry-after-ms: {max(1.0, wait * 1000):.0f}")
        return lines


class Protocol(Endpoint):
    bucket = Bucket()
    says = "nothing"

    def requested(self, head: bytes, body: bytes) -> None:
        taken = self.bucket.take()
        answer = BODY if taken else REFUSAL
        lines = [
            f"HTTP/1.1 {200 if taken else 429} X",
            "Content-Type: application/json",
            f"Content-Length: {len(answer)}",
        ]
        answer = "\r\n".join([*lines, *self.bucket.headers(self.says, taken), "", ""]).encode() + answer
        asyncio.get_running_loop().call_later(LATENCY if taken else 0, self.write, answer)

    def write(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)


def serve(pipe: Connection) -> None:
    """Serve until the pipe brings None. One of `SAYS` begins anew with it; the reply is the counts until then."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        while (says := await asyncio.to_thread(pipe.recv)) is not None:
            pipe.send((Protocol.bucket.served, Protocol.bucket.refused))
            Protocol.bucket, Protocol.says = Bucket(), says

    asyncio.run(main())


async def run(
    url: str, prompts: int, clients: int, concurrency: int | str, rpm: float | None
) -> tuple[float, list[int]]:
    """Send `prompts` prompts through each client; return the seconds it took, and each client's number of answers."""

    async def client() -> int:
        limits = None if rpm is None else Limits(requests_per_minute=rpm)
        retry = RetryPolicy(max_retries=5)
        async with AsyncProvider("m", api_key="k" * 20, base_url=url, limits=limits, retry=retry) as llm:
            done = 0
            asked = (str(number) for number in range(prompts))
            async for item in llm.map(asked, concurrency=concurrency, ordered=False):  # type: ignore[arg-type]
                done += item.error is None
        return done

    began = time.monotonic()
    answers = await asyncio.gather(*(client() for _ in range(clients)))
    return time.monotonic() - began, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1500)
    prompts = parser.parse_args().prompts
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    print(
        f"{'client':28}{'server says':>16}{'seconds':>9}{'of limit':>10}{'refused':>9}{'wasted':>8}{'failed':>8}"
        "  shares"
    )
    runs: list[tuple[str, int, int | str, float | None]] = [
        ("auto", 1, "auto", None),
        ("256 at once", 1, 256, None),
        ("two of auto", 2, "auto", None),
    ]
    for name, clients, concurrency, rpm in [*runs, ("256 at once, 6,000 rpm", 1, 256, 6000.0)]:
        for says in SAYS if rpm is None else SAYS[:1]:
            ours.send(says)
            ours.recv()
            seconds, answers = asyncio.run(run(url, prompts, clients, concurrency, rpm))
            ours.send("nothing")
            served, refused = ours.recv()
            failed = prompts * clients - sum(answers)
            print(
                f"{name:28}{says:>16}{seconds:9.1f}{served / seconds / RATE:10.1%}{refused:9}"
                f"{refused / (served + refused):8.1%}{failed:8}  {':'.join(map(str, answers))}",
                flush=True,
            )
    ours.send(None)
    server.join(5)


if __name__ == "__main__":
    main()

"""Bounds: what a hostile or broken server can make a client hold, measured in processes of their own."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import Iterator
from time import monotonic

import pytest

from rusty_agent import APITimeoutError, AsyncProvider, RetryPolicy, StreamInterruptedError, Timeout
from rusty_agent.testing import Answer, answer
from rusty_agent.testing.answers import chunk, event
from rusty_agent.wire.sse import MAX_EVENT_BYTES

from .faces import Face, Serve
from .scripts import run

CAP = 4 * 2**20
BLOCK = b"x" * 2**18
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"


class Repeated(tuple[bytes, ...]):
    """A tuple of one block many times over, which the test itself need not hold in memory."""

    __slots__ = ()


def endless(first: bytes, block: bytes = BLOCK, megabytes: int = 96) -> Answer:
    return Answer((HEAD + b"\r\n" + first, *Repeated([block] * (megabytes * 2**20 // len(block)))), close=True)


def bomb(encoding: str) -> Answer:
    def pieces() -> Iterator[bytes]:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
        yield packer.compress(b'data: {"x":"')
        for _ in range(192):
            yield packer.compress(b"x" * 2**20)
        yield packer.flush()

    return Answer((HEAD + f"Content-Encoding: {encoding}\r\n\r\n".encode(), b"".join(pieces())), close=True)


SCRIPTS = {
    "an endless line": lambda: endless(b'data: {"choices":[{"delta":{"content":"'),
    "an endless event of short lines": lambda: endless(b"", b"data: xxxxxxxx\n" * 2**14),
    "an endless event of the shortest lines": lambda: endless(b"", b"data:xx\n" * 2**15, megabytes=16),
    "an endless comment": lambda: endless(b": "),
    "an endless unknown field": lambda: endless(b"foo: "),
    "an endless whole answer": lambda: endless(b'{"choices": "'),
    "an endless page": lambda: endless(b"<html>"),
    "endless blank lines": lambda: endless(b"", b"\n" * 2**18),
    "endless events without content": lambda: endless(b"", b'data: {"x":1}\n\n' * 2**14, megabytes=6),
    "an endless header": lambda: Answer((HEAD + b"X: ", *[BLOCK] * 64), close=True),
    "endless headers": lambda: Answer((HEAD, *[b"X-%d: y\r\n" % n * 100 for n in range(2000)]), close=True),
    "a gzip bomb": lambda: bomb("gzip"),
    "a deflate bomb": lambda: bomb("deflate"),
    "an endless error": lambda: Answer((b"HTTP/1.1 400 No\r\n\r\n", *[BLOCK] * 512), close=True),
}

PROGRAM = f"""
def peak():  # of this very program; getrusage would count its parent's memory from before the exec
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
provider = Provider("m", base_url=URL, max_event_bytes={CAP}, retry=RetryPolicy(max_retries=0), timeout=10)
provider.generate_text("warm up")
before = peak()
try:
    list(provider.stream_text("hi"))
except RustyAgentError as error:
    print(type(error).__name__)
print((peak() - before) // 1024)
"""


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
@pytest.mark.parametrize("name", SCRIPTS)
def test_memory_is_bounded(serve: Serve, name: str) -> None:
    server = serve(answer(b'{"choices":[{"message":{"content":"x"}}]}'), SCRIPTS[name]())
    ended = run(server.url, PROGRAM)
    assert ended.err == ""
    error, grown = ended.out.split()
    assert error in ("ResponseError", "StreamInterruptedError", "APIConnectionError", "BadRequestError")
    assert int(grown) <= 2 * CAP // 2**20 + 32, f"{name}: {grown} MiB"


def compressed(*blocks: bytes) -> Answer:
    head = HEAD + b"Content-Encoding: gzip\r\n\r\n"
    return Answer((head, gzip.compress(b"".join(blocks))), close=True)


def test_a_small_body_that_makes_much_work_leaves_limits_in_force(face: Face, serve: Serve) -> None:
    server = serve(compressed(b": x\n\n" * 2**23))  # 40 KB, for which a loop was held for many seconds
    provider = face.provider(server, timeout=Timeout(total=0.2), retry=RetryPolicy(max_retries=0))
    began = monotonic()
    failure = face.stream(provider).failure
    assert isinstance(failure, APITimeoutError)
    assert failure.limit == "total"
    assert monotonic() - began < 3


async def test_a_small_body_that_makes_much_work_leaves_turns_to_others(serve: Serve) -> None:
    llm = AsyncProvider("m", api_key="k" * 8, base_url=serve(compressed(b"\n" * 2**23)).url)
    reading = asyncio.ensure_future(llm.generate_text("hi", retry=RetryPolicy(max_retries=0)))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert isinstance(reading.exception(), StreamInterruptedError)
    assert turns > 2**23 // 2**16


@pytest.mark.parametrize("cut", [0, 1])
def test_a_large_body_that_was_compressed(face: Face, serve: Serve, cut: int) -> None:
    pieces = [event(chunk({"content": f"{n} "})) for n in range(10_000)]
    server = serve(compressed(*pieces, event(chunk({}, "stop")) * (1 - cut)))
    read = face.stream(face.provider(server))
    assert read.text == "".join(f"{n} " for n in range(10_000))
    assert isinstance(read.error, StreamInterruptedError if cut else type(None))


DEFAULT = MAX_EVENT_BYTES // 2**20  # MiB
PIECES = {
    "a whole answer in the smallest pieces": "(bytes(2) if n else b'{\"' for n in range(2**21))",
    "a line just below the cap": "[b'data: {\"x\":\"', *[b'x' * 2**18] * 63, b'\"}\\n\\n']",
    "a type just below the cap": "['event: 😀'.encode(), *[b'\\xff' * 2**18] * 63, b'\\n\\n']",
    "an id just below the cap": "['id: 😀'.encode(), *[b'\\xff' * 2**18] * 63, b'\\n\\n']",
    "a new field in each chunk": "(b'data: {\"k%d\":\"%b\"}\\n\\n' % (n, b'y' * 4000) for n in range(25_000))",
    "an event without content, again and again": "(b'data: {\"x\":1}\\n\\n' * 100 for _ in range(2000))",
}


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
@pytest.mark.parametrize("name", PIECES)
def test_memory_of_decoding_is_bounded_at_the_default_cap(name: str) -> None:
    ended = run(
        "",
        f"""
        from rusty_agent.wire.reply import ReplyDecoder
        def peak():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        decoder = ReplyDecoder()
        before = peak()
        for piece in {PIECES[name]}:
            decoder.feed(piece)
            if decoder.ended:
                break
        decoder.close()
        print(type(decoder.error).__name__, (peak() - before) // 1024)
        """,
    )
    assert ended.err == ""
    error, grown = ended.out.split()
    assert error in ("ResponseError", "StreamInterruptedError")
    assert int(grown) <= 2 * DEFAULT + 32, f"{name}: {grown} MiB"


@pytest.mark.parametrize("over", [0, 1])
def test_the_cap_is_exact(serve: Serve, over: int) -> None:
    """An event of just the cap is read, one byte more is an error, however it arrives."""
    from rusty_agent import Provider, ResponseError

    data = event(chunk({"content": "x" * 5000}, "stop"))
    size = len(data) - len(b"data: \n\n")
    for steps in ([data], [data[:3000], data[3000:]]):
        server = serve(answer(steps, framing="chunked"))
        provider = Provider("m", api_key="k" * 8, base_url=server.url, max_event_bytes=size + 1 - over)
        if over:
            with pytest.raises(ResponseError, match="max_event_bytes"):
                list(provider.stream_text("hi"))
        else:
            assert "".join(provider.stream_text("hi")) == "x" * 5000


async def test_a_slow_reader_on_a_loop_holds_the_server_back(serve: Serve) -> None:
    """Nothing pumps: what is not asked for stays in the sockets, but for aiohttp's own buffer."""
    block = event(chunk({"content": "x" * 1000})) * 100
    server = serve(endless(b"", block, megabytes=64))
    llm = AsyncProvider("m", api_key="k" * 8, base_url=server.url)
    async with llm.stream_text("hi") as stream:
        assert len(await anext(stream)) == 1000
        await asyncio.sleep(0.3)
        assert stream._attempt is not None
        buffered = stream._attempt._response
        assert buffered is not None
        assert buffered.content.total_bytes < 2 * 2**20
        assert len(stream.partial_text) < 2**20

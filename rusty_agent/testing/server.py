"""FaultServer: answers as scripted, on raw sockets, and tells what it saw.

In: `Answer`s. Out: what clients sent, and when they went. Never touched: what a request means.

It runs on a loop and thread of its own, so that clients of either face can be tested against it from any test.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeAlias

from attrs import define, field

from ..wire.codec import dumps, loads
from .answers import Answer, Hang, Pause, Reset, answer, completion, stream

__all__ = ["FaultServer", "Received"]


@define(eq=False)
class Received:
    """A request that the server has seen.

    Attributes:
        method: The HTTP method.
        path: The path with its query.
        headers: Lower-case names.
        body: The raw body.
        connection: The number of the connection that it came on, from 1.
        gone: Set when the client closed the connection.
        gone_at: When it did, by `time.monotonic()`, or None.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    gone: threading.Event = field(factory=threading.Event, repr=False)
    gone_at: float | None = None

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return loads(self.body)


Script: TypeAlias = Answer | Callable[[Received], Answer]


class FaultServer:
    """A loopback server that answers each request with the next of its answers, and repeats the last.

    Without any it plays a well-behaved endpoint that says «Hello world», streamed or not as asked.

    Args:
        *answers: Answers, or functions that make one from the request.

    Attributes:
        url: The base URL to give to a provider.
        requests: The requests seen, in order.
    """

    def __init__(self, *answers: Script) -> None:
        self._answers = deque(answers or [_well_behaved])
        self.requests: list[Received] = []
        self._arrived = threading.Condition()
        self._connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._run, name="fault-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def answer(self, *answers: Script) -> None:
        """Replace the answers that are left."""
        self._answers = deque(answers)

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._writers)

    @property
    def connections(self) -> int:
        """How many connections there were in all."""
        return self._connections

    def wait_for(self, count: int, seconds: float = 5) -> list[Received]:
        """Wait until this many requests have arrived, and return them.

        Raises:
            TimeoutError: They have not.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, seconds):
                raise TimeoutError(f"{len(self.requests)} of {count} requests within {seconds} s")
            return list(self.requests)

    def stop(self) -> None:
        """Close all connections and end; also the way to see what clients do when their server dies."""
        if self._loop is not None and self._thread.is_alive():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    # On the server's own thread.

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, sock=self._socket, limit=2**26)
        self._ready.set()
        await self._stopping.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for writer in self._writers:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        self._writers.add(writer)
        try:
            while (request := await _read_request(reader, number)) is not None:
                with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                script = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
                if not await self._play(script if isinstance(script, Answer) else script(request), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for request in self.requests:
                if request.connection == number and not request.gone.is_set():
                    request.gone_at = time.monotonic()
                    request.gone.set()
            writer.close()
            with suppress(ConnectionError):  # what it had still to send is stuck, if the client does not read
                await writer.wait_closed()
            self._writers.discard(writer)

    async def _play(self, script: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send an answer; False when the connection is over. The client's leaving ends any step."""
        leaving = asyncio.ensure_future(_left(reader))
        try:
            for step in script.steps:
                if isinstance(step, bytes):
                    writer.write(step)
                    await _first(writer.drain(), leaving)
                elif isinstance(step, Pause):
                    await _first(asyncio.sleep(step.seconds), leaving)
                elif isinstance(step, Hang):
                    await leaving
                elif isinstance(step, Reset):
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
                    return False
                if leaving.done():
                    return False
            return not script.close
        finally:
            leaving.cancel()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, body, connection)


async def _left(reader: asyncio.StreamReader) -> None:
    """Return when the client has closed; it sends nothing while it waits for an answer."""
    # Polled, since a read here could swallow the first byte of the next request.
    while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def _first(step: Any, leaving: asyncio.Future[None]) -> None:
    step = asyncio.ensure_future(step)
    step.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else may look at it
    await asyncio.wait([step, leaving], return_when=asyncio.FIRST_COMPLETED)
    if not step.done():
        step.cancel()
    elif step.exception() is not None:
        raise step.exception()


def _well_behaved(request: Received) -> Answer:
    if request.json.get("stream"):
        return stream("Hello", " world")
    return answer(dumps(completion()))

"""FaultServer: sends scripted answers on raw sockets, and records what it received.

In: `Answer`s. Out: what clients sent, and when they left. Never touched: what a request means.

It runs on a loop and thread of its own, so that any test, async or blocking, can use it.
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
from typing import Any, Self, TypeAlias

from attrs import define, field

from ..wire.codec import loads
from .answers import Answer, Hang, Pause, Reset, answer, completion, error, stream

__all__ = ["FaultServer", "Received"]


@define(eq=False)
class Received:
    """A request that the server has received.

    Attributes:
        method: The HTTP method.
        path: The path with its query.
        headers: The headers, with lower-case names.
        body: The raw body.
        connection: The number of the connection that it came on, from 1.
        gone: Set when the connection has ended, as when the client closed it.
        gone_at: When the connection ended, by `time.monotonic()`, or None.
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
        """The body, decoded from JSON."""
        return loads(self.body)


_ACCEPTING_STEPS = 5  # iterations of the loop within which a connection that is just being accepted is complete

Script: TypeAlias = Answer | Callable[[Received], Answer]


class FaultServer:
    """A loopback server that answers each request with the next of its answers, and repeats the last.

    Without answers it plays a well-behaved endpoint that says «Hello world», streamed or not as asked; a request whose
    body is not a JSON object, such as a GET, gets a 400.

    Args:
        *answers: Answers, or functions that make one from the request. The first exception of such a function is raised
            by `stop`, or on leaving the `with` block.
        port: The TCP port, as when a stopped server comes back on its old port. Default: any free one.

    Raises:
        TypeError: An answer is neither an `Answer` nor a function.

    Attributes:
        requests: The requests received, in order.
        connections: How many connections there have been in all.
    """

    _port: int | None = None

    def __init__(self, *answers: Script, port: int = 0) -> None:
        self._answers = deque(_checked(answers) or [_well_behaved])
        self._wanted_port = port
        self._broken: Exception | None = None
        self.requests: list[Received] = []
        self._arrived = threading.Condition()
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", self._wanted_port), backlog=4096)
        # asyncio sets this only on sockets that name their protocol: without it each answer waits 40 ms for an ACK.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = self._socket.getsockname()[1]
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="fault-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = "that has not begun" if self._port is None else f"at {self.url}"
        return f"<{type(self).__name__} {where}, {len(self.requests)} requests>"

    @property
    def url(self) -> str:
        """The base URL to pass to a provider."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1.

        Raises:
            RuntimeError: The server has not been started.
        """
        if self._port is None:
            raise RuntimeError("This FaultServer has not been started: use `with FaultServer() as server:`")
        return self._port

    def answer(self, *answers: Script) -> None:
        """Replace the answers that are left.

        Raises:
            TypeError: No answer is given, or one is neither an `Answer` nor a function.
        """
        if not answers:
            raise TypeError("answer needs at least one answer: the last one is repeated")
        self._answers = deque(_checked(answers))

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._writers)

    def wait_for(self, count: int, seconds: float = 5) -> list[Received]:
        """Wait until at least this many requests have arrived, and return all that have.

        It blocks: in a coroutine use `await asyncio.to_thread(server.wait_for, count)`, so that other tasks can run.

        Raises:
            TimeoutError: They have not arrived in time.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, seconds):
                raise TimeoutError(f"{len(self.requests)} of {count} requests within {seconds} s")
            return list(self.requests)

    def stop(self) -> None:
        """Close all connections and stop. Use it also to test what a client does when its server dies.

        Raises:
            Exception: The first exception that a function among the answers has raised.
        """
        if self._loop is not None:
            with suppress(RuntimeError):  # it has stopped already
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken

    # On the server's own thread.

    async def _main(self) -> None:
        loop = self._loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            reader = _Reader(2**26, loop)
            return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._connected(reader, writer), loop=loop)

        server = await loop.create_server(protocol, sock=self._socket)
        self._ready.set()
        await self._stopping.wait()
        with suppress(NotImplementedError):  # on Windows
            loop.remove_reader(self._socket)
        for _ in range(_ACCEPTING_STEPS):  # on closing a server asyncio loses a connection that it is just accepting
            await asyncio.sleep(0)
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for writer in self._writers:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)  # at once, so that it is closed even if it is never served
        task = asyncio.ensure_future(self._serve(self.connections, reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, number: int, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        seen: list[Received] = []
        try:
            while (request := await _read_request(reader, number)) is not None:
                seen.append(request)
                with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                if not await self._play(self._next(request), reader, writer):
                    break
        except _NotHTTP:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for request in seen:
                request.gone_at = time.monotonic()
                request.gone.set()
            writer.close()
            # This waits until all is sent, or until `stop` if the client does not read.
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._writers.discard(writer)

    def _next(self, request: Received) -> Answer:
        script = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if isinstance(script, Answer):
            return script
        try:
            made = script(request)
            if not isinstance(made, Answer):
                raise TypeError(f"a script must return an Answer, not {type(made).__name__}: answer(…) makes one")
            return made
        except Exception as error:  # raised to the test when the server stops
            self._broken = self._broken or error
            return Answer((), close=True)

    async def _play(self, script: Answer, reader: _Reader, writer: asyncio.StreamWriter) -> bool:
        """Send an answer; return False if the connection is over. Any step ends when the client leaves."""
        leaving = asyncio.ensure_future(reader.left.wait())
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


def _checked(answers: tuple[Script, ...]) -> tuple[Script, ...]:
    for script in answers:
        if not (isinstance(script, Answer) or callable(script)):
            raise TypeError(
                f"a FaultServer takes Answers, or functions that make one from a request, not "
                f"{type(script).__name__}: answer(…) makes one from a body, a completion or steps"
            )
    return answers


class _NotHTTP(Exception):
    """What was received is not an HTTP request."""


class _Reader(asyncio.StreamReader):
    """A reader that tells when the client has left, even if not all that it sent has been read."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.left = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.left.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.left.set()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise _NotHTTP from None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    try:
        method, path, _ = first.split(" ", 2)
        length = int(headers.get("content-length", 0))
        body = await reader.readexactly(length)
    except ValueError:  # also for a negative length
        raise _NotHTTP from None
    return Received(method, path, headers, body, connection)


async def _first(step: Any, leaving: asyncio.Future[Any]) -> None:
    step = asyncio.ensure_future(step)
    step.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # asyncio warns if nobody retrieves it
    await asyncio.wait([step, leaving], return_when=asyncio.FIRST_COMPLETED)
    if not step.done():
        step.cancel()
    else:
        step.result()


def _well_behaved(request: Received) -> Answer:
    try:
        asked = request.json
    except ValueError:
        asked = None
    if not isinstance(asked, dict):  # such as a check whether a server is there
        return error(400, "the request body is not a JSON object")
    return stream("Hello", " world") if asked.get("stream") else answer(completion())

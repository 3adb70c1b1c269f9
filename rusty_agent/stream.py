"""AsyncTextStream: one streamed answer, as text or as events.

In: a way to begin a call. Out: pieces of text, events, or the whole result. Never touched: HTTP, JSON.

The stream pulls: nothing is read from the socket until the caller asks for the next piece, so a slow caller exerts
backpressure on the server through TCP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from copy import copy
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

from .call import Call
from .errors import RustyAgentError
from .net.attempt import Attempt
from .outcome import Outcome, all_was_given
from .types import GenerateResult, StreamEvent, TextDelta
from .wire.delta import Delta

__all__ = ["AsyncTextStream"]

T = TypeVar("T")


class AsyncTextStream(Outcome):
    """One streamed answer: an async iterator of `str` pieces, and an async context manager.

    Nothing is sent until you ask for the first piece (or await `open()`). The stream ends in exactly one of two ways:
    iteration ends, and the answer is whole; or a `RustyAgentError` is raised, whose `partial_text` holds what had
    arrived.

    Leaving a loop over it early (`break`, an exception, cancellation), `aclose()`, leaving its `async with` block,
    and dropping the last reference each close the connection at once. Reading on in a stream that was closed before
    its end raises `StreamInterruptedError`, also in another task.

    Its metadata (`finish_reason`, `usage`, …) is None until it arrives; it is complete when iteration has ended.
    """

    _call = None  # on the class, for `__del__` after Ctrl-C in the constructor
    _closed = False

    def __init__(self, start: Callable[[], Call]) -> None:
        self._start = start
        self._arrived: list[Delta] = []
        self._backlog: Iterator[Delta] = iter(self._arrived)
        self._begun = False
        self._reading = False
        self._live: Attempt | None = None  # set while it has begun, nobody reads and its end was not seen
        self._whole = False  # the end has been seen
        self._error: RustyAgentError | None = None

    # Reading.

    def __aiter__(self) -> AsyncIterator[str]:
        """A view of the stream as text. Leaving it before its end closes the stream."""
        return _View(self, type(self).__anext__)

    async def __anext__(self) -> str:
        while True:
            for delta in self._backlog:
                if type(delta) is str:
                    return delta
            deltas = await self._arrival()
            if deltas is None:
                raise StopAsyncIteration
            if len(deltas) == 1 and type(deltas[0]) is str:  # a shortcut for tokens that arrive one by one
                return deltas[0]
            self._keep(deltas)

    def events(self) -> AsyncIterator[StreamEvent]:
        """A view of the stream as typed events: text, reasoning, tool calls, usage, and `Finish` as the last.

        Leaving it before its end closes the stream. Reading text and reading events advance the same position.

        Raises:
            RustyAgentError: While iterating, as from the stream itself.
            RuntimeError: Another task is reading.
        """
        return _View(self, type(self)._next_event)

    async def open(self) -> None:
        """Send the request and wait until the answer has begun with its first content.

        Optional: iterating does the same. Use it to get an error (a wrong key, an unknown model) early, for example
        before a web server begins its response.

        Raises:
            RustyAgentError: The answer did not begin.
            RuntimeError: Another task is reading.
        """
        if not self._begun:
            self._keep(await self._arrival() or [])

    async def result(self) -> GenerateResult:
        """Read the rest, and return the whole answer, including what was read before.

        Raises:
            RustyAgentError: As from iterating. A stream that was closed before its end has no result.
            RuntimeError: Another task is reading.
        """
        while await self._arrival() is not None:
            pass
        return self._result()

    async def aclose(self) -> None:
        """Close the connection now. Safe at any time, from any task of the loop, and more than once."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._begun else "new"
        return f"<{type(self).__name__} {state}, {len(self.partial_text)} characters so far>"

    def __del__(self) -> None:
        self._leave()

    # Inside.

    async def _arrival(self) -> list[Delta] | None:
        """The deltas of the next arrival, or None at the end. The blocking face reads this instead of a view."""
        attempt, self._live = self._live, None
        if attempt is None or attempt.decoder.ended:
            return await self._begin_or_end()
        self._reading = True
        try:
            deltas = await attempt.read()
        except BaseException as error:
            self._break(error)
            raise
        finally:
            self._reading = False
        if self._closed:
            self._refuse_rest()
        decoder = attempt.decoder
        if decoder.ended and self._call is not None:
            self._call.close()  # now, to free its place: a caller may stop reading at `Finish`
        self._live = attempt
        return deltas

    async def _begin_or_end(self) -> list[Delta] | None:
        """Begin the stream and return its first deltas; return None at its end; raise if it broke or was closed."""
        if self._error is not None:
            raise copy(self._error)
        if self._whole:
            return None
        if self._closed:
            self._refuse_rest()
        if self._reading:
            raise RuntimeError("The stream is being read by another task: only one may read at a time")
        self._reading = True
        try:
            if not self._begun:
                call = self._call = self._start()
                del self._start  # it holds the request, and a stream may live long
                deltas = await call.begin(whole=False)
                self._begun = True
            elif self._decoder.error is None:
                self._whole = True
                self._close()
                return None
            else:
                raise copy(self._decoder.error)
        except BaseException as error:
            self._break(error)
            raise
        finally:
            self._reading = False
        if self._closed:
            self._refuse_rest()
        self._live = self._attempt
        return deltas

    def _break(self, error: BaseException) -> None:
        self._close()
        if isinstance(error, RustyAgentError):
            self._error = copy(error)  # the original's traceback refers to the stream: a reference cycle

    def _refuse_rest(self) -> NoReturn:
        """Raise because the stream was closed before its end, perhaps by another task while this one was reading."""
        self._error = self._decoder.error or self._given_up()
        raise copy(self._error)

    @property
    def _received(self) -> int:
        """How many bytes of the answer were read so far. For the blocking face."""
        return 0 if self._attempt is None else self._attempt.received

    async def _next_event(self) -> StreamEvent:
        """The next event, as `__anext__` is the next text. For the views."""
        while True:
            for delta in self._backlog:
                return TextDelta(delta) if isinstance(delta, str) else delta
            deltas = await self._arrival()
            if deltas is None:
                raise StopAsyncIteration
            self._keep(deltas)

    def _leave(self) -> None:
        """Close the connection now, from any thread: the garbage collector may run on any. For the views too."""
        if not self._closed and self._call is not None:
            self._mark_closed()
            self._call.close_from_anywhere()

    def _keep(self, deltas: list[Delta]) -> None:
        self._arrived = deltas
        self._backlog = iter(deltas)

    def _close(self) -> None:
        self._mark_closed()
        if self._call is not None:
            self._call.close()

    def _mark_closed(self) -> None:
        self._closed = True
        self._whole = self._whole or all_was_given(self._arrived, self._backlog)
        self._live = None
        self._arrived.clear()  # this also ends iterations over it


class _View(Generic[T]):
    """An iterator over a stream that closes it when a loop is left before its end.

    This is no generator: after an exception, such as that of a time limit around a read, a generator just ends, and
    reading on would look like the end of the answer.
    """

    _used = False  # on the class, for `__del__` after Ctrl-C in the constructor

    def __init__(self, stream: AsyncTextStream, advance: Callable[[AsyncTextStream], Coroutine[Any, Any, T]]) -> None:
        self._stream = stream
        self._advance = advance

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        self._used = not self._stream._reading  # a second reader is refused, and must not close the stream
        return self._advance(self._stream)

    async def aclose(self) -> None:
        """Close the stream, as leaving a loop over it does; for `contextlib.aclosing`."""
        if self._used:
            await self._stream.aclose()

    def __del__(self) -> None:
        if self._used:
            self._stream._leave()

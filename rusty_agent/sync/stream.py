"""TextStream: a streamed answer for threads without an event loop.

In: an `AsyncTextStream`, read by a pump on the background loop. Out: its pieces or events, on the caller's thread,
handed over once per arrival. Never touched: anything that the async stream decides.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from ..call import Call
from ..errors import RustyAgentError
from ..outcome import Outcome, all_was_given
from ..stream import AsyncTextStream
from ..types import GenerateResult, StreamEvent, TextDelta
from ..wire.delta import Delta
from .bridge import Crossing, Handover, read_alone
from .thread import LoopThread

__all__ = ["TextStream"]

T = TypeVar("T")


class TextStream(Outcome):
    """One streamed answer: an iterator of `str` pieces, and a context manager.

    It ends in exactly one of two ways: iteration ends, and the answer is whole; or a `RustyAgentError` is raised,
    whose `partial_text` holds what had arrived.

    Leaving a loop over it early, `close()`, leaving its `with` block, and dropping the last reference each close the
    connection at once. Reading on in a stream that was closed before its end raises `StreamInterruptedError`, also in
    another thread.

    Its metadata (`finish_reason`, `usage`, …) is None until it arrives; it is complete when iteration has ended.
    """

    _ended = True  # nothing to close before the pump begins

    def __init__(self, thread: LoopThread, stream: AsyncTextStream) -> None:
        self._stream = stream
        self._thread = thread
        self._arrived: list[Delta] = []
        self._backlog: Iterator[Delta] = iter(self._arrived)
        self._begun = False
        self._closed = False
        self._whole = False  # the end has been seen
        self._error: RustyAgentError | None = None
        self._reading = threading.Lock()
        handover: Handover[list[Delta]] = Handover(thread)
        self._handover = handover
        self._crossing = Crossing(thread, partial(_pump, stream, handover), lambda _, error: handover.end(error))
        self._ended = False
        try:
            self._crossing.begin()
        except BaseException:  # Ctrl-C
            self.close()
            raise

    @property
    def _call(self) -> Call | None:  # type: ignore[override]
        return self._stream._call

    def __iter__(self) -> Iterator[str]:
        """A view of the stream as text. Leaving it before its end closes the stream."""
        return _View(self, self.__next__)

    def __next__(self) -> str:
        while True:
            try:
                for delta in self._backlog:
                    if type(delta) is str:
                        return delta
            except BaseException:
                self._lose()
                raise
            if not self._arrival():
                raise StopIteration

    def events(self) -> Iterator[StreamEvent]:
        """A view of the stream as typed events: text, reasoning, tool calls, usage, and `Finish` as the last.

        Leaving it before its end closes the stream. Reading text and reading events advance the same position.

        Raises:
            RustyAgentError: While iterating, as from the stream itself.
            RuntimeError: Another thread is reading, or this is the library's own thread.
        """
        return _View(self, self._next_event)

    def _next_event(self) -> StreamEvent:
        """The next event, as `__next__` is the next text. For the views."""
        while True:
            try:
                for delta in self._backlog:
                    return TextDelta(delta) if isinstance(delta, str) else delta
            except BaseException:
                self._lose()
                raise
            if not self._arrival():
                raise StopIteration

    def result(self) -> GenerateResult:
        """Read the rest, and return the whole answer, including what was read before.

        Raises:
            RustyAgentError: As from iterating. A stream that was closed before its end has no result.
            RuntimeError: Another thread is reading, or this is the library's own thread.
        """
        while self._arrival():
            pass
        return self._result()

    def open(self) -> None:
        """Wait until the answer has begun with its first content. Optional: use it to get an error early.

        Raises:
            RustyAgentError: The answer did not begin.
            RuntimeError: Another thread is reading, or this is the library's own thread.
        """
        if not self._begun:
            self._arrival()

    def close(self) -> None:
        """Close the connection now. Safe at any time, from any thread, and more than once."""
        if not self._closed:
            self._closed = True  # first: a reader that finds nothing left must see this too
            self._whole = self._whole or all_was_given(self._arrived, self._backlog)
        self._arrived.clear()  # this also ends iterations over it
        if not self._ended:
            self._crossing.cancel()  # before `_ended` is set: Ctrl-C may come in between
            self._ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._ended:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._ended else "open"
        return f"<{type(self).__name__} {state}, {len(self.partial_text)} characters so far>"

    def _arrival(self) -> bool:
        """Fill the backlog from the next arrival; False at the end of the stream."""
        if self._is_over():
            return False
        return read_alone("stream", self._thread, self._reading, self._fill, self._lose)

    def _is_over(self) -> bool:
        """Whether all was read. Raises if the stream has failed, or was closed before its end."""
        if self._closed and not self._whole and self._error is None:
            self._error = self._given_up()
        if self._error is not None:
            raise copy(self._error)
        return self._whole

    def _fill(self) -> bool:
        if self._is_over():  # another thread has read the end meanwhile: nothing more arrives
            return False
        deltas, error = self._handover.get()
        if isinstance(error, asyncio.CancelledError):  # the pump was cancelled
            self.close()
        elif error is not None:
            if isinstance(error, RustyAgentError):
                self._error = copy(error)  # the original's traceback refers to the stream: a reference cycle
            self._ended = True
            try:
                raise error
            finally:
                del error  # or there would be a reference cycle of the error and this frame
        if self._is_over():  # closed meanwhile, perhaps by another thread
            return False
        self._begun = True
        self._arrived.clear()  # a view may still iterate over it
        if deltas is None:
            self._ended = self._whole = True
            return False
        self._backlog = iter(deltas)  # first: a used-up one beside the new `_arrived` would seem to have been read
        self._arrived = deltas
        return True

    def _lose(self) -> None:
        """Close the stream after Ctrl-C, or after an exception from a signal handler of the caller's.

        A piece that was read but not returned is lost, even if it was the last: the answer must not seem whole.
        """
        self._closed = True
        self.close()
        self._handover.settle()


class _View(Generic[T]):
    """An iterator over a stream that closes it when a loop is left before its end.

    This is no generator: after an exception a generator just ends, and reading on would look like the answer's end.
    """

    _used = False  # on the class, for `__del__` after Ctrl-C in the constructor

    def __init__(self, stream: TextStream, advance: Callable[[], T]) -> None:
        self._stream = stream
        self._advance = advance

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self._used = True
        try:
            return self._advance()
        except RuntimeError:  # a second reader was refused, and must not close the stream
            self._used = False
            raise

    def close(self) -> None:
        """Close the stream, as leaving a loop over it does; for `contextlib.closing`."""
        if self._used:
            self._stream.close()

    def __del__(self) -> None:
        self.close()


async def _pump(stream: AsyncTextStream, handover: Handover[list[Delta]]) -> None:
    handed = 0
    async with stream:
        while (deltas := await stream._arrival()) is not None:
            if deltas:  # an event may take several reads
                size, handed = stream._received - handed, stream._received
                await handover.put(deltas, size)

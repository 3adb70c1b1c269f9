"""TextStream: a streamed answer for threads without an event loop.

In: an `AsyncTextStream`, pumped on the background loop. Out: its pieces or events, on the caller's thread, handed
over once per arrival. Never touched: everything that the async stream decides.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Self

from ..call import Call, Outcome
from ..stream import AsyncTextStream
from ..types import GenerateResult, StreamEvent, TextDelta
from ..wire.chunks import Delta
from .bridge import Crossing, Handover, LoopThread

__all__ = ["TextStream"]


class TextStream(Outcome):
    """One streamed answer: an iterator of `str` pieces, and a context manager.

    It ends in exactly one of two ways: iteration ends, and then the answer is whole; or a `RustyAgentError` is
    raised that carries what had arrived in `partial_text`.

    Leaving a loop over it early, `close()`, leaving its `with` block, and dropping the last reference each close the
    connection at once. Whoever reads on in a stream that was closed before its end gets a `StreamInterruptedError`,
    and so does a loop over it in another thread.

    Its metadata (`finish_reason`, `usage`, …) is None until it arrives; it is complete when iteration has ended.
    """

    _ended = True  # nothing is to be closed before the pump begins

    def __init__(self, thread: LoopThread, stream: AsyncTextStream) -> None:
        self._stream = stream
        self._process = thread.process
        self._arrived: list[Delta] = []
        self._backlog: Iterator[Delta] = iter(self._arrived)
        self._begun = False
        self._whole = False  # the end has been seen
        self._error: BaseException | None = None
        handover: Handover[list[Delta]] = Handover(thread.loop)
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
        """A view of the stream as text; it closes the stream when it is left before its end."""
        try:
            while True:
                for delta in self._backlog:
                    if type(delta) is str:
                        yield delta
                if not self._arrival():
                    return
        finally:
            self.close()

    def __next__(self) -> str:
        while True:
            for delta in self._backlog:
                if type(delta) is str:
                    return delta
            if not self._arrival():
                raise StopIteration

    def events(self) -> Iterator[StreamEvent]:
        """A view of the stream as typed events: text, reasoning, tool calls, usage, and `Finish` as the last.

        It closes the stream when it is left before its end. The two views share one position.

        Raises:
            RustyAgentError: While iterating, as the stream itself.
        """
        try:
            while True:
                for delta in self._backlog:
                    yield TextDelta(delta) if isinstance(delta, str) else delta
                if not self._arrival():
                    return
        finally:
            self.close()

    def result(self) -> GenerateResult:
        """Read what is left and return the whole answer, what was read before included.

        Raises:
            RustyAgentError: As iterating does. A stream that was closed before its end has no result.
        """
        while self._arrival():
            pass
        return self._result()

    def open(self) -> None:
        """Wait until the answer has begun.

        Raises:
            RustyAgentError: It did not begin.
        """
        if not self._begun:
            self._arrival()

    def close(self) -> None:
        """Close the connection now. Safe at any time, from any thread, and more than once."""
        self._arrived.clear()  # which ends iterations over it too
        if not self._ended:
            self._crossing.cancel()  # before it is noted down: Ctrl-C may come in between
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
        if self._error is not None:
            raise self._error.with_traceback(None)  # or each time it is raised would make it longer
        if self._whole:
            return False
        if self._ended:
            self._error = self._given_up()
            raise self._error
        if self._process != os.getpid():
            raise RuntimeError("This stream was opened in the parent process: open another one in this one")
        deltas = self._wait()
        self._begun = True
        if deltas is None:
            self._ended = self._whole = True
            return False
        self._arrived = deltas
        self._backlog = iter(deltas)
        return True

    def _wait(self) -> list[Delta] | None:
        try:
            deltas = self._handover.get()
        except asyncio.CancelledError:  # the pump's
            self.close()
            deltas = []
        except Exception as error:
            self._ended = True
            self._error = error
            raise
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if self._ended and deltas is not None:  # another thread has closed the stream
            self._error = self._given_up()
            raise self._error
        return deltas


async def _pump(stream: AsyncTextStream, handover: Handover[list[Delta]]) -> None:
    handed = 0
    async with stream:
        while (deltas := await stream.arrival()) is not None:
            if deltas:  # an event may take several reads
                size, handed = stream.received - handed, stream.received
                await handover.put(deltas, size)

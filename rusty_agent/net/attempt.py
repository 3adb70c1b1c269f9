"""One attempt: one HTTP exchange, read as it arrives, bounded in time, closed at once when it is given up.

In: a prepared request and its time limits. Out: the deltas of each arrival, and how the answer ended. Never touched:
retries, what callers do with deltas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic, time
from typing import Any

from attrs import define, field

from ..config import ProviderConfig, TimeLimits
from ..errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ResponseError,
    RustyAgentError,
    StreamInterruptedError,
)
from ..policy import RetryPolicy
from ..wire import failure
from ..wire.codec import join_surrogates
from ..wire.delta import Delta
from ..wire.encoding import Inflater, inflater_for
from ..wire.mask import Mask
from ..wire.reply import ReplyDecoder, has_content
from .guard import release
from .http.direct import Headers, Response
from .http.failures import NETWORK_ERRORS, network_error, salvage
from .http.transport import Transport
from .watchdog import Interrupted, Scope, Watchdog

__all__ = ["NOTHING_YET", "Attempt", "Request", "given_up"]

_ERROR_BODY_SECONDS = 2.0
_UNMASKED = frozenset({"partial_text", "usage"})  # the caller already has these

NOTHING_YET = ReplyDecoder()
"""Shared by all attempts without an answer yet, and never fed: a decoder is nine objects, and most calls only wait."""


@define(eq=False, repr=False)
class Request:
    """A request ready to send: what every attempt of one call sends, how often to retry, what to tell the caller."""

    config: ProviderConfig
    headers: Headers = field(repr=False)
    fields: dict[str, Any]
    body: bytes
    time_limits: TimeLimits
    mask: Mask
    streamed: bool
    policy: RetryPolicy
    warnings: tuple[str, ...]


class Attempt:
    """One HTTP exchange. `open()`, then `read()` until `decoder.ended`; `close()` is safe at any time.

    With `anew` it uses a new connection, see `Transport.post`.

    Attributes:
        decoder: What the answer has brought so far.
        headers: The answer's headers.
        number: Which attempt of its call it is, from 1.
        received: Bytes of the answer's body read so far.
        began: When the first content came, by `time.monotonic`, as a loop's own clock may stand still within a step.
        ended: When the answer ended, by the same clock.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        request: Request,
        number: int,
        deadline: float | None,
        scope: Scope,
        *,
        anew: bool = False,
    ) -> None:
        self.decoder = NOTHING_YET
        self.headers: Mapping[str, str] = {}
        self.received = 0
        self.number = number
        self.began: float | None = None
        self.ended: float | None = None
        self._transport = transport
        self._request = request
        self._loop = loop
        self._deadline = deadline
        self._anew = anew
        self._watchdog = Watchdog(loop, request.time_limits, deadline, self)
        self._scope = scope
        self._response: Response | None = None
        self._closed = False
        self._inflater: Inflater | None = None  # set if the answer is compressed

    @property
    def request_id(self) -> str | None:
        """The endpoint's id for the request: from a header, else the completion's own id."""
        headers = self.headers
        found = headers.get("x-request-id") or headers.get("request-id") or headers.get("x-generation-id")
        if found is None:
            id_ = self.decoder.meta.get("id")
            found = id_ if isinstance(id_, str) else None
        return found and join_surrogates(found)

    async def open(self) -> None:
        """Send the request; return when the headers of a successful answer have arrived.

        Raises:
            RustyAgentError: There was no such answer.
        """
        request, config = self._request, self._request.config
        interrupted = False
        try:
            with self._scope:
                if self._transport.queues:
                    self._watchdog.start()
                response = self._response = await self._transport.post(
                    config.url,
                    request.headers,
                    request.body,
                    self._loop,
                    connect=request.time_limits.connect,
                    sending=self._watchdog.waiting,
                    anew=self._anew,
                )
                self.headers = response.headers
                self.decoder = ReplyDecoder(
                    config.max_event_bytes,
                    choices=request.fields.get("n"),
                    model=request.fields.get("model"),
                    split_thinking=config.split_thinking,
                )
                if not self._transport.inflates:
                    self._inflater = inflater_for(response.headers.get("content-encoding"))
                status = response.status
                if not 200 <= status < 300 or (status != 200 and _is_no_answer(response)):
                    failing = self._status_error(response)
                    del response  # its repr may hold the URL, which may hold a key
                    raise await failing
        except Interrupted:
            interrupted = True
        except RustyAgentError as error:
            self.mask(error)
            raise
        if interrupted:  # raised out here, so that the error has no context
            raise self._interruption()
        self._watchdog.arrived(content=False)

    async def read(self) -> list[Delta]:
        """The deltas of the next arrival; [] if it held none. `decoder.ended` is set at the end of the answer.

        An error in the answer is not raised but left in `decoder.error`, as the deltas before it come first.
        """
        response, decoder, watchdog = self._response, self.decoder, self._watchdog
        assert response is not None
        content, inflater = response.content, self._inflater
        whole = content.is_eof()
        if inflater is not None and inflater.more:
            watchdog.waiting()
            await asyncio.sleep(0)  # a small body may decompress to a lot: let other tasks run between two blocks
            deltas = decoder.close(self._interruption()) if self._is_over() else self._inflate(b"", content.at_eof())
        else:
            if not whole:
                watchdog.waiting()
            try:
                data = content.read_nowait() if whole else await content.readany()
            except (*NETWORK_ERRORS, RuntimeError) as error:  # the latter if the caller has closed the session
                data = salvage(response, error)
                if not data:
                    deltas = decoder.close(await self._broken(error, response))
                else:
                    deltas = decoder.feed(data) if inflater is None else self._inflate(data, False)
            else:
                self.received += len(data)
                last = whole or content.at_eof()
                if inflater is not None:
                    deltas = self._inflate(data, last)
                else:
                    deltas = decoder.feed_last(data) if last else decoder.feed(data)
        if self.began is None and decoder.has_content:
            self.began = monotonic()
        if decoder.ended:
            self._end(response)
            return deltas
        watchdog.arrived(has_content(deltas))
        if decoder.tail != watchdog.tail:
            watchdog.settle(decoder.tail)
        return deltas

    def _inflate(self, data: bytes, last: bool) -> list[Delta]:
        """The deltas of the next block that these bytes, or those before them, decompress to."""
        decoder, inflater = self.decoder, self._inflater
        assert inflater is not None
        try:
            deltas = decoder.feed(inflater.feed(data, last=last))
        except ResponseError as error:
            return decoder.close(error)
        return deltas + decoder.close() if last and not inflater.more else deltas

    def close(self) -> None:
        """Give up the exchange: the connection closes now. May be called from anywhere on the loop, at any time."""
        self._closed = True
        self._watchdog.release()
        self._scope.interrupt()
        if self._response is not None:
            release(self._response, self._loop)

    def stop_waiting(self) -> None:
        """End the wait of `open` or `read`. The watchdog calls this once a limit has passed."""
        self._scope.interrupt()
        if self._response is not None:
            self._response.close()

    def _end(self, response: Response) -> None:
        """Finish: the answer is whole, or failed. The connection is kept if a whole answer's body ends now or soon."""
        self._watchdog.release()
        self.ended = monotonic()
        error = self.decoder.error
        release(response, self._loop, linger=error is None)
        if error is not None:
            error.request_id = self.request_id
            error.attempts = self.number
            if isinstance(error, APIStatusError):
                failure.heed(error, _lowered(self.headers), time())
            self.mask(error)

    async def _status_error(self, response: Response) -> RustyAgentError:
        self._watchdog.stop()  # the status says enough: the body gets a short time limit of its own
        until = self._loop.time() + _ERROR_BODY_SECONDS
        if self._deadline is not None:
            until = min(until, self._deadline)
        body = b""
        try:
            async with asyncio.timeout_at(until):
                while len(body) < failure.MAX_ERROR_BYTES and (data := await response.content.readany()):
                    body += data
        except (*NETWORK_ERRORS, RuntimeError) as broken:  # OSError includes timeouts; the last: the connection is gone
            body += salvage(response, broken)
        if self._inflater is not None:
            body = _inflated(self._inflater, body)
        body = self._request.mask(body)[: failure.MAX_ERROR_BYTES]
        error = failure.status_error(
            response.status, _lowered(response.headers), body, now=time(), key_origin=self._request.config.key_origin
        )
        error.request_id = self.request_id
        return error

    @property
    def meta(self) -> dict[str, Any]:
        """The answer's metadata fields, masked; if it was one JSON object, also `choices` as the endpoint sent them."""
        meta, mask = self.decoder.meta, self._request.mask
        others = {**meta, "choices": None} if "choices" in meta else meta
        masked: dict[str, Any] = mask(others)
        if masked is others:
            return meta
        return {**masked, "choices": meta["choices"]} if "choices" in meta else masked

    def mask(self, error: RustyAgentError) -> None:
        """Mask secrets in everything that an error holds, except what the caller already has."""
        mask = self._request.mask
        for name in vars(error).keys() - _UNMASKED:
            setattr(error, name, mask(getattr(error, name)))
        error.args = tuple(map(mask, error.args))

    async def _broken(self, error: BaseException, response: Response) -> RustyAgentError:
        """The error if the connection ended before the answer: by a time limit, by `close()`, or by itself."""
        if self._is_over():
            return self._interruption()
        broken = network_error(error, response.url)
        if isinstance(broken, APIConnectionError) and (self._request.streamed or self.decoder.streamed):
            broken = StreamInterruptedError(
                f"{broken.message} The stream had not finished: what arrived is in partial_text."
            )
        return await self._transport.diagnose(broken, response.url)

    def _is_over(self) -> bool:
        """Whether the attempt was ended from our side: by a limit, by `close()`, or with its transport."""
        return self._watchdog.expired is not None or self._closed or self._transport.ended

    def _interruption(self) -> RustyAgentError:
        if self._watchdog.expired is None:
            return given_up()
        limit, seconds = self._watchdog.expired
        if self._response is not None:
            what = "the rest of the answer"
        else:
            what = "the beginning of the answer" if self._request.streamed else "the answer"
        shorter = ", or limit the answer with max_tokens" if limit == "total" else ""
        return APITimeoutError(
            f"Timed out: {what} did not arrive within {seconds:g} s ({limit} limit). "
            f"Raise it with timeout=Timeout({limit}=…) if the endpoint is just slow{shorter}.",
            limit=limit,
            seconds=seconds,
            retryable=limit != "total",
        )


def _is_no_answer(response: Response) -> bool:
    """Whether a success status comes without an answer: 204, or a 202 for a job that is still to be done."""
    return response.status == 204 or (response.status == 202 and response.headers.get("content-length") == "0")


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers with lower-case names; invalid UTF-8, which aiohttp gives as surrogates, becomes U+FFFD."""
    return {name.lower(): join_surrogates(value) for name, value in headers.items()}


def _inflated(inflater: Inflater, data: bytes) -> bytes:
    """As much of an error's body as can be decompressed; the status says enough without it."""
    body = b""
    try:
        body = inflater.feed(data, last=True)
        while inflater.more and len(body) < failure.MAX_ERROR_BYTES:
            body += inflater.feed(b"", last=True)
    except ResponseError:
        pass
    return body


def given_up() -> StreamInterruptedError:
    """The error for a reader of an answer that was left, or whose provider or session was closed."""
    return StreamInterruptedError(
        "The answer was abandoned: a loop over it was left early, its stream, provider or provider's session was "
        "closed before its end, or a task that read it was cancelled, as by asyncio.wait_for.",
        retryable=False,
    )

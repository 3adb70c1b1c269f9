"""One call: its attempts and its clock. Streams, `generate_text` and both faces are built on it.

In: a prepared request. Out: the deltas of each arrival. Never touched: connections, chunks, who called.
"""

from __future__ import annotations

import asyncio
from copy import copy
from time import monotonic
from typing import TYPE_CHECKING

from .errors import APIConnectionError, BadRequestError, RateLimitError, RunStoppedError, RustyAgentError
from .net.attempt import Attempt, Request, given_up
from .net.caller import Caller
from .net.retry import RetryBudget, logger, retrying
from .net.watchdog import Interrupted, Scope
from .wire.delta import Delta
from .wire.refusal import Adaptation
from .wire.request import encode_body

if TYPE_CHECKING:
    from .calls import Calls
    from .net.limits.limiter import Limiter, Permit

__all__ = ["Call"]

_MAX_HELD = 1000
_MAX_HELD_BYTES = 2**20
_BUDGET_OF_RUNS = RetryBudget(None)  # a run is bounded by its in-flight limit, which refusals lower


class Call:
    """The attempts of one call, one at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        calls: Calls,
        request: Request,
        limiter: Limiter | None,
        caller: Caller | None,
    ) -> None:
        self._transport = calls.transport
        self._request = request
        refusals = self._refusals = calls.refusals
        self._adaptation: Adaptation | None = None  # made once there is a refusal to adapt to
        self._budget = calls.budget if caller is None else _BUDGET_OF_RUNS
        self._scope = Scope(loop)
        self._closed = False
        self._anew = False  # the next attempt must open a new connection
        self._whole = False  # the call lasts until the whole answer has arrived, not only its first content
        self.loop = loop  # passed on, because `get_running_loop` is a system call before Python 3.12
        self.warnings = request.warnings
        now = loop.time()
        self.asked = self._began = monotonic()
        total = request.time_limits.total
        self.deadline = None if total is None else now + total
        self.attempt: Attempt | None = None
        self._limiter = limiter
        self.of_a_run = caller is not None
        self._caller = Caller() if caller is None and limiter is not None else caller
        self._permit: Permit | None = None
        self._waits_since: float | None = now  # when it began, or was sent back, to wait in line; None after its turn
        self._under_way = calls.under_way
        self._under_way.add(self)
        if refusals:
            self._adaptation = Adaptation(refusals, request.fields)
            self._adopt(self._adaptation)

    async def begin(self, *, whole: bool) -> list[Delta]:
        """Make attempts until one brings its first content or, with `whole`, the whole answer, which ends the call.

        Returns:
            The deltas that arrived, for streams. The attempt's decoder holds a whole answer.

        Raises:
            RustyAgentError: No attempt succeeded, or the call was closed meanwhile.
        """
        self._whole = whole
        try:
            deltas = await retrying(self, self._request.policy, self._budget)
            if self._adaptation is not None:
                self._adaptation.worked()
        except RustyAgentError as error:
            if not isinstance(error, RunStoppedError):  # all calls of a run share this error
                error.duration = monotonic() - self.asked
            raise
        finally:
            if whole:
                self.close()
            # Nothing is sent again. A stream, or the frames of an error, may keep the call alive for long, and prompts
            # may be large.
            self._adaptation = None
            self._request.fields, self._request.body = {}, b""
        return deltas

    def _adapts_to(self, error: BadRequestError) -> bool:
        """Change the request to suit the endpoint that refused it; return False if this provider does not adapt.

        Raises:
            BadRequestError: Nothing could be changed. The error names the parameters that were left out before.
        """
        if self._refusals is None:
            return False
        adaptation, changed = self._adaptation, False
        if adaptation is None:  # other calls may have learnt something since the request was sent
            adaptation = self._adaptation = Adaptation(self._refusals, self._request.fields)
            changed = bool(adaptation.lines)
        if not (changed or adaptation.refused(error)):
            try:
                raise adaptation.error(error) from None
            finally:
                del adaptation, error  # or a reference cycle of the error and this frame would keep the prompt
        self._adopt(adaptation)
        return True

    def _adopt(self, adaptation: Adaptation) -> None:
        """From now on send what the endpoint is known to accept; each change adds a line to the warnings."""
        if adaptation.lines:
            self._request.body = encode_body(adaptation.body)
        for line in adaptation.lines:
            if line not in self.warnings:
                self.warnings += (line,)
                logger.debug("%s", line)

    def send_back(self, error: RustyAgentError) -> bool:
        """Go back to the end of the line if waiting is all that the error calls for. Return whether it did.

        Any call does so after a 429, if there is a line. A call of a run also waits, with its clock stopped, for an
        endpoint that is overloaded or away; a single call does not, because somebody may be waiting for it.
        """
        if self._limiter is None:
            return False
        back = isinstance(error, RateLimitError) or (self.of_a_run and self._limiter.will_pass(error))
        if back and self.of_a_run:
            self._waits_since = self.loop.time()
        return back

    def gives_up(self, error: RustyAgentError) -> bool:
        """Whether the run has waited long enough for an endpoint that is away. Call it for each failed attempt."""
        return self._caller is not None and self._caller.gives_up(error, self._began)

    async def turn(self, delay: float | None = None) -> None:
        """Wait `delay` seconds, if given, then until the next attempt may be made: without limits, at once."""
        if self._closed:  # perhaps by a retry hook
            raise given_up()
        limiter, caller = self._limiter, self._caller
        try:
            if delay is not None:
                with self._scope:
                    await (asyncio.sleep if caller is None else caller.sleep)(delay)
            if limiter is not None and caller is not None:
                permit = limiter.try_acquire(caller, len(self._request.body)) if self.attempt is None else None
                self._permit = permit or await self._admitted(limiter, caller)
                self._waits_since = None
        except Interrupted:
            raise given_up() from None

    async def _admitted(self, limiter: Limiter, caller: Caller) -> Permit:
        """Wait in line. The call's clock stops meanwhile: a long line does not make a slow endpoint."""
        again = self._waits_since is None  # an attempt has failed, and this is not a run's call that was sent back
        since = self.loop.time() if self._waits_since is None else self._waits_since
        with self._scope:
            permit = await limiter.acquire(caller, len(self._request.body), again=again)
        if self.attempt is None:
            self.asked = monotonic()
        if self.deadline is not None:
            self.deadline += self.loop.time() - since
        return permit

    async def make_attempt(self, number: int) -> list[Delta]:
        """Make an attempt and read it up to its first content, or to its end if the whole answer is wanted."""
        whole = self._whole
        self.attempt = attempt = Attempt(
            self.loop, self._transport, self._request, number, self.deadline, self._scope, anew=self._anew
        )
        try:
            await attempt.open()
            decoder = attempt.decoder
            deltas = await attempt.read()
            while not (decoder.ended or (not whole and _committed(attempt, deltas))):
                more = await attempt.read()
                if not whole:
                    deltas += more
            if decoder.error is not None and (whole or not decoder.has_content):
                raise copy(decoder.error)  # a copy: the traceback would hold this call, which holds the decoder
        except BaseException as error:
            attempt.close()
            self._give_back(error)
            if not (isinstance(error, BadRequestError) and self._adapts_to(error)):
                raise
            error.__traceback__ = None  # as `retrying` does with an error that is retried
        else:
            if decoder.ended:
                self._give_back(decoder.error)
            return deltas
        await self.turn()  # outside the `except`, so that later errors do not have the refusal as their context
        return await self.make_attempt(number)  # terminates: each round changes another parameter

    def _give_back(self, error: BaseException | None) -> None:
        """Give back the permit of an attempt that has ended, with its outcome, and note what the next one needs."""
        self._anew = isinstance(error, APIConnectionError) and error.sent  # if not sent, it was a new one that failed
        permit, attempt = self._permit, self.attempt
        if permit is None or attempt is None:
            return
        self._permit = None
        if error is None:
            permit.succeeded(attempt.headers, attempt.decoder.assembler.usage, self._request.time_limits.total)
        elif isinstance(error, RustyAgentError):
            permit.failed(error, self._request.policy.max_retry_after)
        else:
            permit.release()

    def close(self) -> None:
        """Give the call up. Run it on the call's loop; safe at any time, also after the end."""
        self._closed = True
        self._scope.interrupt()
        self._under_way.discard(self)
        if self.attempt is not None and not self.attempt.decoder.ended:
            self.attempt.close()
            self._give_back(asyncio.CancelledError())  # its usage is unknown: the estimate stands
        elif self.attempt is not None:
            self._give_back(self.attempt.decoder.error)

    def close_from_anywhere(self) -> None:
        """Give the call up, from any thread: the garbage collector may run on any."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self.loop:
            self.close()
            return
        try:
            self.loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # the loop is closed, and the connection with it
            self._under_way.discard(self)


def _committed(attempt: Attempt, deltas: list[Delta]) -> bool:
    """Whether to settle on this attempt: its content has begun, or too much else has arrived to hold back."""
    held = len(deltas) > _MAX_HELD or (bool(deltas) and attempt.received > _MAX_HELD_BYTES)
    return held or attempt.decoder.has_content

"""One call: its attempts and its clock. Streams, `generate_text` and both faces stand on it.

In: a prepared request. Out: deltas per arrival. Never touched: connections, chunks, who asks.
"""

from __future__ import annotations

import asyncio
from copy import copy
from time import monotonic
from typing import TYPE_CHECKING

from .errors import APIConnectionError, BadRequestError, RateLimitError, RunStoppedError, RustyAgentError
from .net.attempt import Attempt, Exchange, given_up
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
_BUDGET_OF_RUNS = RetryBudget(None)  # a run has a bound of its own: its limit, which refusals cut


class Call:
    """The attempts of one call; only one of them is alive at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        calls: Calls,
        exchange: Exchange,
        limiter: Limiter | None,
        caller: Caller | None,
    ) -> None:
        self._transport = calls.transport
        self._exchange = exchange
        refusals = self._refusals = calls.refusals
        self._adaptation: Adaptation | None = None  # made when there is something to adapt to
        self._budget = calls.budget if caller is None else _BUDGET_OF_RUNS
        self._scope = Scope(loop)
        self._closed = False
        self._anew = False  # whether the next attempt wants a new connection
        self._whole = False  # whether all of the answer is wanted before the call is over
        self.loop = loop  # handed on: to ask for the running one is a system call before Python 3.12
        self.warnings = exchange.warnings
        now = loop.time()
        self.asked = self._began = monotonic()
        total = exchange.time_limits.total
        self.deadline = None if total is None else now + total
        self.attempt: Attempt | None = None
        self._limiter = limiter
        self.of_a_run = caller is not None
        self._caller = Caller() if caller is None and limiter is not None else caller
        self._permit: Permit | None = None
        self._waits_since: float | None = now  # since when it has waited for its turn, not for the endpoint
        self._under_way = calls.under_way
        self._under_way.add(self)
        if refusals:
            self._adaptation = Adaptation(refusals, exchange.fields)
            self._adopt(self._adaptation)

    async def begin(self, *, whole: bool) -> list[Delta]:
        """Make attempts until one brings its first content, or all of it if `whole`; then the call is over.

        Returns:
            What it brought, for streams; of a whole answer the attempt's decoder has it all.

        Raises:
            RustyAgentError: None did, or the call was closed meanwhile.
        """
        self._whole = whole
        try:
            deltas = await retrying(self, self._exchange.policy, self._budget)
            if self._adaptation is not None:
                self._adaptation.worked()
        except RustyAgentError as error:
            if not isinstance(error, RunStoppedError):  # it is of all calls of a run
                error.duration = monotonic() - self.asked
            raise
        finally:
            if whole:
                self.close()
            # Nothing is sent again. A stream, or an error's frames, may hold the call for long; prompts may be large.
            self._adaptation = None
            self._exchange.fields, self._exchange.body = {}, b""
        return deltas

    def _adapts_to(self, error: BadRequestError) -> bool:
        """Whether the request has changed because of the error, and is worth another try.

        Raises:
            BadRequestError: It has not. The error tells of what was left out before.
        """
        if self._refusals is None:
            return False
        adaptation, changed = self._adaptation, False
        if adaptation is None:  # other calls may have learnt since it was sent
            adaptation = self._adaptation = Adaptation(self._refusals, self._exchange.fields)
            changed = bool(adaptation.lines)
        if not (changed or adaptation.refused(error)):
            try:
                raise adaptation.error(error) from None
            finally:
                del adaptation, error  # a cycle of the error and this frame would hold the prompt
        self._adopt(adaptation)
        return True

    def _adopt(self, adaptation: Adaptation) -> None:
        """Send from now on what the endpoint is known to take; each change is a line."""
        if adaptation.lines:
            self._exchange.body = encode_body(adaptation.body)
        for line in adaptation.lines:
            if line not in self.warnings:
                self.warnings += (line,)
                logger.debug("%s", line)

    def send_back(self, error: RustyAgentError) -> bool:
        """Go back to the end of the line, if there is one and that is all that the error asks for; whether it did.

        Any call does so after a 429. A run's also waits, its clock stopped, for an endpoint that has too much to do or
        is away; for a call by itself somebody may be waiting.
        """
        if self._limiter is None:
            return False
        back = isinstance(error, RateLimitError) or (self.of_a_run and self._limiter.will_pass(error))
        if back and self.of_a_run:
            self._waits_since = self.loop.time()
        return back

    def gives_up(self, error: RustyAgentError) -> bool:
        """Whether the run has waited long enough for an endpoint that is away. To be told of each failed attempt."""
        return self._caller is not None and self._caller.gives_up(error, self._began)

    async def turn(self, delay: float | None = None) -> None:
        """Wait so many seconds, if any, and then until the next attempt may be made: at once without limits."""
        if self._closed:  # maybe by a retry hook
            raise given_up()
        limiter, caller = self._limiter, self._caller
        try:
            if delay is not None:
                with self._scope:
                    await (asyncio.sleep if caller is None else caller.sleep)(delay)
            if limiter is not None and caller is not None:
                permit = limiter.try_acquire(caller, len(self._exchange.body)) if self.attempt is None else None
                self._permit = permit or await self._admitted(limiter, caller)
                self._waits_since = None
        except Interrupted:
            raise given_up() from None

    async def _admitted(self, limiter: Limiter, caller: Caller) -> Permit:
        """Stand in line. The call's clock stands still meanwhile: a long line is no slow endpoint."""
        again = self._waits_since is None  # it has failed, and was not sent back
        since = self.loop.time() if self._waits_since is None else self._waits_since
        with self._scope:
            permit = await limiter.acquire(caller, len(self._exchange.body), again=again)
        if self.attempt is None:
            self.asked = monotonic()
        if self.deadline is not None:
            self.deadline += self.loop.time() - since
        return permit

    async def make_attempt(self, number: int) -> list[Delta]:
        """Make an attempt, up to its first content, or all of it if that is wanted; see `begin`."""
        whole = self._whole
        self.attempt = attempt = Attempt(
            self.loop, self._transport, self._exchange, number, self.deadline, self._scope, anew=self._anew
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
                raise copy(decoder.error)  # what has a traceback holds this call, which holds the decoder
        except BaseException as error:
            attempt.close()
            self._give_back(error)
            if not (isinstance(error, BadRequestError) and self._adapts_to(error)):
                raise
            error.__traceback__ = None  # as of what is retried, see `retrying`
        else:
            if decoder.ended:
                self._give_back(decoder.error)
            return deltas
        await self.turn()  # here, so that no error has the refusal for its context
        return await self.make_attempt(number)  # ends: each round leaves one parameter out

    def _give_back(self, error: BaseException | None) -> None:
        """The attempt has ended: note what that means for the next, give its permit back, and tell how it went."""
        self._anew = isinstance(error, APIConnectionError) and error.sent  # else it is new ones that fail
        permit, attempt = self._permit, self.attempt
        if permit is None or attempt is None:
            return
        self._permit = None
        if error is None:
            permit.succeeded(attempt.headers, attempt.decoder.assembler.usage, self._exchange.time_limits.total)
        elif isinstance(error, RustyAgentError):
            permit.failed(error, self._exchange.policy.max_retry_after)
        else:
            permit.release()

    def close(self) -> None:
        """Give the call up, from its loop; safe at any time, also after the end."""
        self._closed = True
        self._scope.interrupt()
        self._under_way.discard(self)
        if self.attempt is not None and not self.attempt.decoder.ended:
            self.attempt.close()
            self._give_back(asyncio.CancelledError())  # what it has cost nobody has told: the estimate stands
        elif self.attempt is not None:
            self._give_back(self.attempt.decoder.error)

    def close_from_anywhere(self) -> None:
        """Give the call up from whatever thread the garbage collector runs on."""
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
    """Whether an attempt is the one: its content has begun, or it brought more of other things than can be held."""
    held = len(deltas) > _MAX_HELD or (bool(deltas) and attempt.received > _MAX_HELD_BYTES)
    return held or attempt.decoder.has_content

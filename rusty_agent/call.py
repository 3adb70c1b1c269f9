"""One call: its attempts, its clock, its outcome. Streams, `generate_text` and both faces stand on it.

In: a way to make attempts. Out: deltas per arrival; what is known so far. Never touched: connections, chunks, who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import APIStatusError, RateLimitError, RustyAgentError
from .net.attempt import Attempt, given_up
from .net.caller import Caller
from .net.http.transport import Transport
from .net.retry import RetryBudget, logger, retrying
from .net.watchdog import Interrupted, Scope
from .requests import Prepared
from .types import Finish, GenerateResult, TokenCounts, ToolCall, Usage
from .wire.delta import Delta
from .wire.refusal import Adaptation, Refusals
from .wire.request import encode_body

if TYPE_CHECKING:
    from .net.limits import Limiter, Permit

__all__ = ["Call", "Outcome", "all_was_given"]

_MAX_HELD = 1000
_MAX_HELD_BYTES = 2**20
_OF_RUNS = RetryBudget(None)  # a run has a bound of its own: its limit, which refusals cut


class Call:
    """The attempts of one call; only one of them is alive at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        prepared: Prepared,
        refusals: Refusals | None,
        budget: RetryBudget,
        registry: set[Call],
        limiter: Limiter | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._transport = transport
        exchange = self._exchange = prepared.exchange
        self._refusals = refusals
        self._adaptation: Adaptation | None = None  # made when there is something to adapt to
        self._policy = prepared.policy
        self._budget = budget if caller is None else _OF_RUNS
        self._scope = Scope(loop)
        self._closed = False
        self._whole = False  # whether all of the answer is wanted before the call is over
        self.loop = loop  # handed on: to ask for the running one is a system call before Python 3.12
        self.warnings = prepared.warnings
        now = loop.time()
        self.asked = monotonic()
        total = exchange.limits.total
        self.deadline = None if total is None else now + total
        self.attempt: Attempt | None = None
        self._limiter = limiter
        self.stands_in_line = caller is not None
        self._caller = Caller() if caller is None and limiter is not None else caller
        self._permit: Permit | None = None
        self._waits_since: float | None = now  # since when it has waited for its turn, not for the endpoint
        self._registry = registry
        registry.add(self)
        if refusals:
            self._adapt(refusals)

    async def begin(self, *, whole: bool) -> list[Delta]:
        """Make attempts until one brings its first content, or all of it if `whole`; then the call is over.

        Returns:
            What it brought, for streams; of a whole answer the attempt's decoder has it all.

        Raises:
            RustyAgentError: None did, or the call was closed meanwhile.
        """
        self._whole = whole
        try:
            deltas = await retrying(self, self._policy, self._budget)
        finally:
            if whole:
                self.close()
        if self._adaptation is not None:
            self._adaptation.worked()
        return deltas

    def _adapt(self, refusals: Refusals, error: APIStatusError | None = None) -> bool:
        """Leave out of the body what the endpoint is known to refuse, or refuses with this error.

        Returns:
            Whether the body has changed because of the error: it is worth another try.
        """
        adaptation = self._adaptation
        if adaptation is None:
            adaptation = self._adaptation = Adaptation(refusals, self._exchange.fields)
        changed = error is not None and adaptation.refused(error)
        new = [line for line in adaptation.lines if line not in self.warnings]
        if new:  # each change is a line
            self._exchange.body = encode_body(adaptation.body)
            self.warnings.extend(new)
        for line in new:
            logger.debug("%s", line)
        return changed

    def _adapts_to(self, error: APIStatusError) -> bool:
        """Whether the request has changed because of the error, and is worth another try.

        Raises:
            APIStatusError: It has not. The error tells of what was left out before.
        """
        if self._refusals is None:
            return False
        if not self._adapt(self._refusals, error):
            assert self._adaptation is not None
            raise self._adaptation.error(error) from None
        return True

    def send_back(self, error: RustyAgentError) -> bool:
        """Go back to the end of the line, if it is nothing but too many calls (429), or, of a run, an endpoint that
        has too much to do or is away: runs wait for that to pass, their clocks stopped, and for a call by itself
        somebody may be waiting. Tells whether it did.
        """
        if self._limiter is None:
            return False
        back = isinstance(error, RateLimitError) or (self.stands_in_line and self._limiter.will_pass(error))
        if back and self.stands_in_line:
            self._waits_since = self.loop.time()
        return back

    async def nap(self, seconds: float) -> None:
        """Wait between two attempts."""
        if self._closed:  # by a retry hook
            raise given_up()
        try:
            with self._scope:
                await (asyncio.sleep if self._caller is None else self._caller.sleep)(seconds)
        except Interrupted:
            raise given_up() from None

    async def _admitted(self, limiter: Limiter, caller: Caller) -> Permit:
        """Wait for a turn. The call's clock stands still meanwhile: a long line is no slow endpoint."""
        since = self.loop.time() if self._waits_since is None else self._waits_since
        try:
            with self._scope:
                permit = await limiter.acquire(caller, len(self._exchange.body))
        except Interrupted:
            raise given_up() from None
        waited = self.loop.time() - since
        if self.attempt is None:
            self.asked += waited
        if self.deadline is not None:
            self.deadline += waited
        return permit

    async def make_attempt(self, number: int) -> list[Delta]:
        """Make an attempt, up to its first content, or all of it if that is wanted; see `begin`."""
        if self._closed:
            raise given_up()
        limiter, caller, whole = self._limiter, self._caller, self._whole
        if limiter is not None and caller is not None:
            permit = None if number > 1 else limiter.try_acquire(caller, len(self._exchange.body))
            self._permit = permit or await self._admitted(limiter, caller)
            self._waits_since = None
        self.attempt = attempt = Attempt(self.loop, self._transport, self._exchange, number, self.deadline)
        decoder = attempt.decoder
        try:
            await attempt.open()
            deltas = await attempt.read()
            while not (decoder.ended or (not whole and _committed(attempt, deltas))):
                more = await attempt.read()
                if not whole:
                    deltas += more
        except BaseException as error:
            attempt.close()
            self._give_back(error)
            if not (isinstance(error, APIStatusError) and self._adapts_to(error)):
                raise
            return await self.make_attempt(number)  # ends: each round leaves one parameter out
        if decoder.ended:
            self._give_back(decoder.error)
        if decoder.error is not None and (whole or not decoder.has_content):
            raise decoder.error
        return deltas

    def _give_back(self, error: BaseException | None) -> None:
        """The attempt has ended: give its permit back, and tell how it went."""
        permit, attempt = self._permit, self.attempt
        if permit is None or attempt is None:
            return
        self._permit = None
        if error is None:
            permit.succeeded(attempt.headers, attempt.decoder.assembler.usage, self._exchange.limits.total)
        elif isinstance(error, RustyAgentError):
            permit.failed(error, self._policy.max_retry_after)
        else:
            permit.release()

    def close(self) -> None:
        """Give the call up, from its loop; safe at any time, also after the end."""
        self._closed = True
        self._scope.interrupt()
        self._registry.discard(self)
        if self.attempt is not None and not self.attempt.decoder.ended:
            self.attempt.close()
            self._give_back(given_up())
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
            self._registry.discard(self)


def _committed(attempt: Attempt, deltas: list[Delta]) -> bool:
    """Whether an attempt is the one: its content has begun, or it brought more of other things than can be held."""
    held = len(deltas) > _MAX_HELD or (bool(deltas) and attempt.received > _MAX_HELD_BYTES)
    return held or attempt.decoder.has_content


def all_was_given(arrived: Sequence[Delta], left: Iterable[Delta]) -> bool:
    """Whether the last arrival holds the answer's end, and no text is left of it: then closing cuts nothing off."""
    return bool(arrived) and isinstance(arrived[-1], Finish) and not any(type(delta) is str for delta in left)


class Outcome(TokenCounts):
    """What is known of a call so far: the metadata that streams of both faces share.

    Everything is None until it arrives, and complete when the stream has ended.
    """

    def __init__(self, call: Call | None = None) -> None:
        self._call = call

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} belongs to a connection: it cannot be copied or pickled")

    @property
    def _attempt(self) -> Attempt | None:
        return None if self._call is None else self._call.attempt

    @property
    def partial_text(self) -> str:
        """The text that has arrived so far, what was not yet read included."""
        return "" if self._attempt is None else self._attempt.decoder.assembler.text

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped; None also where the endpoint sent no reason."""
        return None if self._attempt is None else self._attempt.decoder.finish_reason

    @property
    def raw(self) -> dict[str, Any]:
        """The chunks' fields that are neither content nor padding, last value each."""
        return {} if self._attempt is None else self._attempt.meta

    @property
    def model(self) -> str | None:
        """The model that answers, as the endpoint names it."""
        model = None if self._attempt is None else self._attempt.decoder.meta.get("model")
        return model if isinstance(model, str) else None

    @property
    def usage(self) -> Usage | None:
        """The last token counts."""
        return None if self._attempt is None else self._attempt.decoder.assembler.usage

    @property
    def reasoning(self) -> str | None:
        """The model's reasoning so far."""
        return None if self._attempt is None else self._attempt.decoder.assembler.reasoning

    @property
    def refusal(self) -> str | None:
        """The model's refusal so far."""
        return None if self._attempt is None else self._attempt.decoder.assembler.refusal

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far; their arguments are whole only after the end."""
        return [] if self._attempt is None else self._attempt.decoder.assembler.tool_calls

    @property
    def request_id(self) -> str | None:
        """The endpoint's name for the request: a header's, else the completion's own id."""
        return None if self._attempt is None else self._attempt.request_id

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from the call to the first content, by the monotonic clock."""
        return None if self._attempt is None else self._since_start(self._attempt.began)

    @property
    def duration(self) -> float | None:
        """Seconds from the call to the end of the answer."""
        return None if self._attempt is None else self._since_start(self._attempt.ended)

    @property
    def warnings(self) -> list[str]:
        """What the library changed or could not honour in the request."""
        return [] if self._call is None else self._call.warnings

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None or self._call is None else moment - self._call.asked

    def _given_up(self) -> RustyAgentError:
        """The error of whoever still reads an answer that is given up."""
        error = given_up()
        error.partial_text, error.usage = self.partial_text, self.usage
        return error

    def _result(self) -> GenerateResult:
        call, attempt = self._call, self._attempt
        assert call is not None
        assert attempt is not None
        decoder = attempt.decoder
        assembler = decoder.assembler
        return GenerateResult(
            assembler.text,
            decoder.finish_reason,
            self.model,
            assembler.usage,
            assembler.reasoning,
            assembler.refusal,
            assembler.tool_calls,
            attempt.request_id,
            self._since_start(attempt.began),
            self._since_start(attempt.ended),
            attempt.number,
            attempt.meta,
            call.warnings,
        )

"""What is known of one call so far: the metadata that `generate_text` and both faces' streams share.

In: a call. Out: its text, finish reason, usage, … as far as they have arrived. Never touched: reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from .call import Call
from .errors import RustyAgentError
from .net.attempt import NOTHING_YET, Attempt, given_up
from .types import Finish, GenerateResult, TokenCounts, ToolCall, Usage
from .wire.delta import Delta
from .wire.reply import ReplyDecoder

__all__ = ["Outcome", "all_was_given"]


def all_was_given(arrived: Sequence[Delta], left: Iterable[Delta]) -> bool:
    """Whether the answer has ended with the last arrival and all its text was read: then closing cuts nothing off."""
    return bool(arrived) and isinstance(arrived[-1], Finish) and not any(type(delta) is str for delta in left)


class Outcome(TokenCounts):
    """What is known of a call so far: the metadata that the streams of both faces share.

    Each value is None until it arrives, and complete when the stream has ended.
    """

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} belongs to a connection: it cannot be copied or pickled")

    @property
    def _attempt(self) -> Attempt | None:
        return None if self._call is None else self._call.attempt

    @property
    def _decoder(self) -> ReplyDecoder:
        return NOTHING_YET if self._attempt is None else self._attempt.decoder

    @property
    def partial_text(self) -> str:
        """The text that has arrived so far, even if it has not been read yet."""
        return self._decoder.assembler.text

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped; None until the answer ends, or if the endpoint sent no reason."""
        return self._decoder.finish_reason

    @property
    def raw(self) -> dict[str, Any]:
        """The chunks' fields that are neither content nor padding, each with its last value."""
        return {} if self._attempt is None else self._attempt.meta

    @property
    def model(self) -> str | None:
        """The name of the model that answers, as the endpoint sent it."""
        model = self._decoder.meta.get("model")
        return model if isinstance(model, str) else None

    @property
    def usage(self) -> Usage | None:
        """The latest token counts."""
        return self._decoder.assembler.usage

    @property
    def reasoning(self) -> str | None:
        """The model's reasoning so far."""
        return self._decoder.assembler.reasoning

    @property
    def refusal(self) -> str | None:
        """The model's refusal so far."""
        return self._decoder.assembler.refusal

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls so far; their arguments are complete only after the end."""
        return self._decoder.assembler.tool_calls

    @property
    def request_id(self) -> str | None:
        """The endpoint's id of the request, from a response header, else the completion's own id."""
        return None if self._attempt is None else self._attempt.request_id

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from the call (or, if it waited in line, from its first turn) to the first content."""
        return None if self._attempt is None else self._since_start(self._attempt.began)

    @property
    def duration(self) -> float | None:
        """Seconds from the call (or, if it waited in line, from its first turn) to the end of the answer."""
        return None if self._attempt is None else self._since_start(self._attempt.ended)

    @property
    def warnings(self) -> list[str]:
        """What the library changed or could not honour in the request."""
        return [] if self._call is None else list(self._call.warnings)

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None or self._call is None else moment - self._call.asked

    def _given_up(self) -> RustyAgentError:
        """The error for reading on in an answer that was given up."""
        error, attempt = given_up(), self._attempt
        error.partial_text, error.usage = self.partial_text, self.usage
        error.attempts = 0 if attempt is None else attempt.number
        if attempt is not None:
            error.request_id = attempt.request_id
            attempt.mask(error)
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
            list(call.warnings),
        )

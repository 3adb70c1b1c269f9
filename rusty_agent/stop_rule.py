"""When to stop a run because going on makes no sense.

In: how prompts have ended, and when they were begun. Out: the error to stop the run with, or None. Never touched:
the run, and what is still under way.
"""

from __future__ import annotations

from collections import deque
from time import monotonic

from .checks import checked_count, is_number
from .errors import APIStatusError, RateLimitError, RunStoppedError, RustyAgentError
from .net.limits.absence import tells_of_absence
from .policy import RetryPolicy
from .verdict import OVERLOADED, refuses_content

__all__ = ["StopRule"]

_WINDOW = 100  # finished prompts that an error rate is taken over, and after which a run without any answer is hopeless
_LEAST = 20  # finished prompts below which there is no error rate
_AHEAD = 1000  # finished prompts that may wait to be counted, because one begun before them may hang
_AHEAD_EACH = 16  # … and if many are under way, this many for each of them
_AWAY_SECONDS = 600.0  # without this limit a run would go on for days, and fail one prompt after another
_MOST_SILENT = 120.0  # the part of a gap between attempts that counts; more is a pace, a `Retry-After` or a standstill


class StopRule:
    """Decides when to stop a run: an endpoint that refuses everything is not asked ten thousand times.

    A wrong key (401, or 400 and 403 whose text says so), an account without credit (402) and a used-up quota stop a run
    at once; so does an overload (429, 498, 503, 529) with a longer `Retry-After` than is allowed. An endpoint that
    cannot be reached, or answers nothing but 429, stops it after ten minutes.

    The first and the latest prompts are counted in the order in which they were begun, not in which they ended: fast
    failures would otherwise get ahead of slow answers, and seem to be all there is.

    Args:
        max_failures: Stop when more prompts than this have failed. None: any number may.
        max_error_rate: Stop when more than this share of the latest 100 (at least 20) have failed. None: any may.
        max_retry_after: The longest wait that is allowed, in seconds.
        hopeless: Stop when the first 100 have failed and none was `served`: the name of the model or the host is wrong,
            and thousands would fail one by one.

    Attributes:
        served: Whether a prompt was answered (an earlier run's counts), or refused for its content: model and host are
            right.
        done: How many prompts were answered.
        failed: How many prompts have failed.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        max_failures: int | None = None,
        max_error_rate: float | None = None,
        max_retry_after: float = RetryPolicy().max_retry_after,
        hopeless: bool = False,
    ) -> None:
        if max_error_rate is not None and not (is_number(max_error_rate) and 0 <= max_error_rate < 1):
            raise ValueError(f"max_error_rate must be at least 0 and below 1, or None, not {max_error_rate!r}")
        self._max_failures = checked_count(max_failures, "max_failures", 0, optional=True)
        self._max_error_rate = max_error_rate
        self._max_retry_after = max_retry_after
        self._hopeless = hopeless
        self._latest: deque[bool] = deque(maxlen=_WINDOW)  # whether each has failed
        self._begun = 0
        self._over: dict[int, bool | None] = {}  # by number: whether it failed; counted once `_next` has ended
        self._next = 1  # the oldest prompt that is not counted yet
        self._away_for: float | None = None  # for how long every attempt has found the endpoint away or refusing all
        self._last_away = 0.0  # when the latest such attempt failed
        self.served = False
        self.done = 0
        self.failed = 0

    def begin(self) -> int:
        """Count a prompt that is begun, and return its number, from 1."""
        self._begun += 1
        return self._begun

    def withdraw(self, number: int) -> None:
        """Take back a prompt for which nothing was sent, as if it had never been begun."""
        self._count(number, None)

    def succeeded(self, number: int) -> None:
        """Count a prompt that was answered."""
        self._away_for = None
        self.served = True
        self.done += 1
        self._count(number, False)

    def judge(self, error: Exception, number: int) -> RunStoppedError | None:
        """Count a prompt that has failed.

        Args:
            error: Its error. `gives_up` was called before, for each of its attempts.
            number: Its number, from `begin`.

        Returns:
            The error to stop the run with, or None to go on.
        """
        self._count(number, True)
        self.failed += 1
        if isinstance(error, APIStatusError):
            self.served = self.served or refuses_content(error.code, error.type, error.message)
            if error.spent:
                return self.error("quota", f"the account has nothing left to spend. {error}")
            if error.key_refused:
                return self.error("authentication", f"the endpoint refuses the key. {error}")
            asked = error.retry_after if error.status_code in OVERLOADED else None
            if asked is not None and asked > self._max_retry_after:
                return self.error("quota", f"the endpoint asks for too long a wait. {error}")
        if self._away and isinstance(error, RustyAgentError):
            minutes = f"for {_AWAY_SECONDS / 60:.0f} min. {error}"
            if isinstance(error, RateLimitError):
                return self.error("quota", f"the endpoint has turned all requests away {minutes}")
            return self.error("failures", f"the endpoint could not be reached {minutes}")
        if self._max_failures is not None and self.failed > self._max_failures:
            said = f"more than {self._max_failures} failed (max_failures), the last with"
            return self.error("failures", f"{said}: {error}")
        if self._hopeless and not self.served and len(self._latest) == _WINDOW:
            said = f"none of the first {_WINDOW} was answered. Check the model and the address; the last one failed"
            return self.error("failures", f"{said} with: {error}")
        if self._max_error_rate is not None and len(self._latest) >= _LEAST:
            share = sum(self._latest) / len(self._latest)
            if share > self._max_error_rate:
                said = f"{share:.0%} of the latest {len(self._latest)} failed (max_error_rate), the last with: {error}"
                return self.error("error_rate", said)
        return None

    def error(self, reason: str, said: str) -> RunStoppedError:
        """The error to stop the run with now."""
        return RunStoppedError(f"The run was stopped: {said}", reason=reason, done=self.done, failed=self.failed)

    def _count(self, number: int, failed: bool | None) -> None:
        """Count how a prompt has ended, as soon as those begun before it have ended too."""
        if self._max_error_rate is None and (self.served or not self._hopeless):
            return  # the order does not matter
        self._over[number] = failed
        if number < self._next:  # it took so long that the others were counted without it
            self._take(number)
        while self._next in self._over or (len(self._over) > _AHEAD and self._hangs()):
            self._take(self._next)
            self._next += 1

    def _hangs(self) -> bool:
        """Whether the oldest prompt takes so long that the others should be counted without it."""
        under_way = self._begun - self._next + 1 - len(self._over)
        return len(self._over) > _AHEAD_EACH * under_way

    def _take(self, number: int) -> None:
        failed = self._over.pop(number, None)
        if failed is not None:
            self._latest.append(failed)

    @property
    def _away(self) -> bool:
        return self._away_for is not None and self._away_for > _AWAY_SECONDS

    def gives_up(self, error: RustyAgentError, began: float) -> bool:
        """Whether, with this failed attempt, the endpoint has been away, or has refused all requests, for too long.

        An endpoint that refuses all may have a limit of hours or days that it does not name. A 429 for a request too
        large for any minute is no sign of that. Call this for each attempt: when many prompts take turns at an endpoint
        that is away, it may take hours until one of them has failed for good.

        Args:
            error: The attempt's error.
            began: When its prompt was begun, by `time.monotonic`: idle time before that does not count.
        """
        told = (isinstance(error, RateLimitError) and error.may_pass) or tells_of_absence(error)
        if not told:
            self._away_for = None if told is False else self._away_for
            return False
        now = monotonic()
        gap = now - max(self._last_away, began)
        self._away_for = 0.0 if self._away_for is None else self._away_for + min(gap, _MOST_SILENT)
        self._last_away = now
        return self._away

"""Whether an endpoint is worth waiting for: it has answered before, and is now overloaded or away.

In: that attempts were answered, or how they failed. Out: whether a failure will pass if one waits. Never touched: the
clock, the waiting.
"""

from __future__ import annotations

from ...errors import APIConnectionError, APIStatusError, RustyAgentError
from ...verdict import OVERLOADED, UNREACHED, UNTOLD

__all__ = ["Absence", "tells_of_absence"]

_SIGNS = 3  # a single sign may be due to a request that crashes its server; several in a row are not
_RETURN_SECONDS = 30.0  # the time in which a server restarts, or an address moves to another


def tells_of_absence(error: RustyAgentError) -> bool | None:
    """Whether an error says that the endpoint, or a server behind it, was not reached; None if that is unknown."""
    if isinstance(error, APIConnectionError):
        return not error.sent
    status = error.status_code if isinstance(error, APIStatusError) else None
    return None if status in UNTOLD else status in UNREACHED


class Absence:
    """Keeps watch on one endpoint.

    Attributes:
        ever_answered: It has answered at least once.
    """

    def __init__(self) -> None:
        self.ever_answered = False
        self._signs = 0  # in a row
        self._since = 0.0
        self._latest = 0.0

    def answered(self) -> None:
        """An attempt has brought its answer."""
        self.ever_answered = True
        self._signs = 0

    def failed(self, error: RustyAgentError, now: float) -> None:
        """An attempt has failed, at the time `now`."""
        signs = self._signs if now - self._latest < _RETURN_SECONDS else 0  # else the last failure was too long ago
        self._latest = now
        if isinstance(error, APIConnectionError) and not error.sent:
            self._signs = max(signs, _SIGNS)  # no request can cause that
        else:
            told = tells_of_absence(error)
            self._signs = signs if told is None else signs + 1 if told else 0  # 0: the endpoint is there
        if not signs:
            self._since = now

    @property
    def noticed(self) -> bool:
        """Whether, as far as known, it cannot be reached now."""
        return self._signs >= _SIGNS

    def will_pass(self, error: RustyAgentError, now: float) -> bool:
        """Whether the latest failure, with this error, will pass if one waits."""
        if not self.ever_answered:  # it may not exist at all
            return False
        if isinstance(error, APIStatusError) and error.status_code in OVERLOADED:
            return True
        return self.noticed and now - self._since < _RETURN_SECONDS

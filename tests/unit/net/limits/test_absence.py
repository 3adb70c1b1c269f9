"""Which failures pass if one waits."""

from __future__ import annotations

import pytest

from rusty_agent.errors import APIConnectionError, APIStatusError, RateLimitError, RustyAgentError, ServerError
from rusty_agent.net.limits.absence import Absence

from .door import unreached


def status(code: int) -> APIStatusError:
    return (RateLimitError if code == 429 else ServerError)(str(code), status_code=code)


def told(absence: Absence, error: RustyAgentError, now: float = 0.0) -> bool:
    absence.failed(error, now)
    return absence.will_pass(error, now)


def known() -> Absence:
    absence = Absence()
    absence.answered()
    return absence


@pytest.mark.parametrize("error", [unreached(), status(503), status(502)])
def test_an_endpoint_that_has_never_answered_is_not_waited_for(error: RustyAgentError) -> None:
    absence = Absence()
    assert not any(told(absence, error) for _ in range(9))


def test_what_cannot_be_sent_is_waited_for_half_a_minute() -> None:
    absence = known()
    assert told(absence, unreached(), 100.0)
    assert told(absence, unreached(), 129.0)
    assert not told(absence, unreached(), 130.0)
    absence.answered()
    assert told(absence, unreached(), 131.0)


def test_an_absence_that_nobody_has_looked_at_for_long_is_a_new_one() -> None:
    absence = known()
    assert told(absence, unreached(), 100.0)
    assert told(absence, unreached(), 131.0)
    assert told(absence, status(502), 159.0)
    assert not told(absence, status(502), 162.0)
    assert [told(absence, status(502), now) for now in (200.0, 201.0, 202.0)] == [False, False, True]


@pytest.mark.parametrize("code", [429, 498, 503, 529])
def test_an_overload_passes(code: int) -> None:
    assert told(known(), status(code))


@pytest.mark.parametrize("code", [502, 521, 522, 523, 530])
def test_a_gateway_is_believed_at_the_third_time_in_a_row(code: int) -> None:
    absence = known()
    waited = [told(absence, status(code), now) for now in (0.0, 1.0, 2.0, 29.0, 30.0)]
    assert waited == [False, False, True, True, False]


@pytest.mark.parametrize("code", [503, 504, 524])
def test_what_gateways_say_of_slow_servers_too_is_no_news(code: int) -> None:
    absence = known()
    for _ in range(2):
        assert not told(absence, status(502))
        absence.failed(status(code), 0.0)
        assert not absence.noticed
    assert told(absence, status(502))
    assert told(absence, status(code), 29.0)
    assert code == 503 or not told(absence, status(code), 30.0)


def test_one_row_that_kills_its_server_is_no_absence() -> None:
    absence = known()
    for _ in range(9):
        assert not told(absence, status(502))
        assert not told(absence, status(502))
        absence.answered()


@pytest.mark.parametrize("error", [status(500), status(429), APIConnectionError("broke")])
def test_whatever_else_is_said_somebody_is_there(error: RustyAgentError) -> None:
    absence = known()
    for _ in range(5):
        absence.failed(status(502), 0.0)
    assert absence.noticed
    absence.failed(error, 0.0)
    assert not absence.noticed


def test_a_gateway_that_joins_in_makes_an_absence_no_longer() -> None:
    absence = known()
    assert told(absence, unreached(), 0.0)
    assert told(absence, status(502), 20.0)
    assert not told(absence, status(502), 31.0)

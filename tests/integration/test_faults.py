"""Every fault of the table ends in the right result or the right error, through both faces."""

from __future__ import annotations

import pytest

from rusty_agent import AttemptReport, RetryPolicy, RustyAgentError

from ..events import until
from .faces import Face, Serve
from .faults import ALL, Fault


@pytest.mark.parametrize("fault", ALL, ids=[fault.name for fault in ALL])
def test_fault(face: Face, serve: Serve, fault: Fault) -> None:
    server = serve(fault.answer)
    reports: list[AttemptReport] = []
    policy = RetryPolicy(max_retries=2, base_delay=0.001, on_attempt=reports.append)
    provider = face.provider(server, retry=policy, timeout=fault.timeout)
    if fault.streamed:
        outcome = face.stream(provider)
        error, text = outcome.error, outcome.text
        if outcome.stream is not None:
            assert outcome.stream.partial_text == text
            assert outcome.stream.total_tokens == fault.usage
    else:
        error, text = None, ""
        try:
            result = face.generate(provider, include_usage=True)
            text = result.text
            assert result.total_tokens == fault.usage
        except RustyAgentError as raised:
            error = raised
    if fault.error is None:
        assert error is None
        assert text == fault.text
    else:
        assert type(error) is fault.error, error
        assert isinstance(error, RustyAgentError)
        assert fault.says in str(error)
        assert error.partial_text.startswith(fault.text)
        assert error.attempts == fault.attempts
        assert error.usage is None or error.usage.total_tokens == fault.usage
        if fault.streamed:
            assert text == error.partial_text  # what the caller saw is what the error carries
    assert len(reports) == fault.attempts
    until(lambda: len(server.requests) >= fault.attempts)  # a server may be later than the limit of a silence
    assert len(server.requests) == fault.attempts

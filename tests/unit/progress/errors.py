"""Errors in the form in which calls raise them."""

from __future__ import annotations

from rusty_agent.errors import RustyAgentError

__all__ = ["raised"]


def raised(error: RustyAgentError, seconds: float, attempts: int = 1) -> RustyAgentError:
    """The error of a call that ended after this time and this many attempts."""
    error.duration, error.attempts = seconds, attempts
    return error

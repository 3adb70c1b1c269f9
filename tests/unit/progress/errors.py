"""Errors as calls raise them."""

from __future__ import annotations

from rusty_agent.errors import RustyAgentError

__all__ = ["raised"]


def raised(error: RustyAgentError, seconds: float, attempts: int = 1) -> RustyAgentError:
    """The error of a call that was over after this time, and after so many attempts."""
    error.duration, error.attempts = seconds, attempts
    return error

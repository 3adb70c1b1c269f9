"""Answers that more than one test file scripts."""

from __future__ import annotations

from rusty_agent.testing import Hang, answer
from rusty_agent.testing.answers import events

__all__ = ["FAILS_LATE", "STARTED"]

STARTED = answer([events("a")[1], Hang()], content_type="text/event-stream", framing="cut")
"""A stream that has brought a piece of text, and then stays silent."""

FAILS_LATE = answer(
    [events("a")[1], b'data: {"error": {"message": "no", "code": 500}}\n\n'], content_type="text/event-stream"
)
"""A stream that tells of an error after a piece of text."""

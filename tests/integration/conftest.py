"""Fixtures of the integration tests: a scripted server, and each of the two faces in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from rusty_agent.testing import FaultServer
from rusty_agent.testing.server import Script

from .faces import AsyncFace, Face, NewLoop, Serve, SyncFace


@pytest.fixture(params=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    chosen: Face = AsyncFace() if request.param == "async" else SyncFace()
    yield chosen
    chosen.shut()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that starts a server with these answers; the server ends with the test."""
    with ExitStack() as stack:

        def start(*answers: Script) -> FaultServer:
            return stack.enter_context(FaultServer(*answers))

        yield start


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """A function that makes an event loop: asyncio's, then in a second run uvloop's."""
    if request.param == "uvloop":
        make: NewLoop = pytest.importorskip("uvloop").new_event_loop
        return make
    return asyncio.new_event_loop


@pytest.fixture(autouse=True)
def _clean_environment(no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)

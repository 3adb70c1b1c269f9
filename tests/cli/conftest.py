from __future__ import annotations

from collections.abc import Iterator

import pytest

from rusty_agent.testing import FaultServer


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A well-behaved endpoint; tests replace its answers."""
    with FaultServer() as server:
        yield server

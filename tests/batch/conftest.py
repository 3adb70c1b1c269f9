from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rusty_agent.testing import FaultServer

from .runs import Place


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A well-behaved endpoint; tests replace its answers."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: FaultServer) -> Place:
    return Place(tmp_path, server)

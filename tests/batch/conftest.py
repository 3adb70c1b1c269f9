from __future__ import annotations

from pathlib import Path

import pytest

from rusty_agent.testing import FaultServer

from .runs import Place


@pytest.fixture
def place(tmp_path: Path, server: FaultServer) -> Place:
    return Place(tmp_path, server)

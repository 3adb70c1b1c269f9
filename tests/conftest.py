"""What all tests share.

The hypothesis profiles, the number of workers, what the garbage collector walks, a plain endpoint, an empty
environment, and a way to run without coverage's tracer.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from rusty_agent.testing import FaultServer

from .tracing import untraced

settings.register_profile(
    "ci",
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "full", max_examples=10_000, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """For `-n auto`, one and a half times as many workers as cores: a worker spends a third of its time waiting."""
    cores = yield
    return cores if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else cores + cores // 2


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Freeze the thousands of collected tests, or each full garbage collection would walk through all their objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(name="untraced")
def _untraced() -> Iterator[None]:
    with untraced():
        yield


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves a test's child processes out of the coverage measurement, which doubles their time.

    For children that run only lines that the children of other tests run too.
    """
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """A well-behaved endpoint; tests replace its answers."""
    with FaultServer() as server:
        yield server


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the tester's own settings, and lets retries hardly wait."""
    for name in ("REQUEST_TIMEOUT_SECS", "CONNECT_TIMEOUT_SECS", "MAX_RETRIES"):
        monkeypatch.delenv(f"RUSTY_AGENT_{name}", raising=False)
    monkeypatch.setenv("RUSTY_AGENT_RETRY_BACKOFF_MS", "1")

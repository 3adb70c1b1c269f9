"""The end of another process is told at once, of the right one only."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import attrs
import pytest

from rusty_agent.contrib import driver as module
from rusty_agent.contrib.driver import Driver

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system has no pidfd_open")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


def of(process: subprocess.Popen[bytes]) -> Driver:
    started = module._started(process.pid)
    assert started is not None
    return Driver("here", process.pid, started)


async def test_its_end_is_told_once(process: subprocess.Popen[bytes]) -> None:
    gone = asyncio.Event()
    assert of(process).watch("here", gone.set)
    await asyncio.sleep(0.02)
    assert not gone.is_set()
    process.kill()
    await asyncio.wait_for(gone.wait(), 10)


async def test_the_end_of_one_after_another_is_told(process: subprocess.Popen[bytes]) -> None:
    """The second is watched by the number that the first was."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        for watched in (process, other):
            gone = asyncio.Event()
            assert of(watched).watch("here", gone.set)
            watched.kill()
            await asyncio.wait_for(gone.wait(), 10)


async def test_another_process_is_not_watched(process: subprocess.Popen[bytes]) -> None:
    driver = of(process)
    assert not driver.watch("there", pytest.fail)
    assert not attrs.evolve(driver, started="0").watch("here", pytest.fail)
    process.kill()
    process.wait()
    assert not driver.watch("here", pytest.fail)


def test_this_process() -> None:
    here = Driver.here("here")
    assert here is not None
    assert here == Driver("here", os.getpid(), here.started)
    assert here.started.isdigit()


async def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, process: subprocess.Popen[bytes]) -> None:
    driver = of(process)
    monkeypatch.setattr(module, "_started", lambda _: None)
    assert Driver.here("here") is None
    monkeypatch.undo()
    monkeypatch.delattr(os, "pidfd_open")
    assert not driver.watch("here", pytest.fail)

"""The model's process dies: an error that says so, and another process for the next call."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from rusty_agent import AsyncProvider, LocalModelError, Provider

from .process import LONG, SMALL, child_of, pid_of, until, vanishes

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to crash with"),
]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
async def test_a_crash_while_a_coroutine_streams(local: Provider, name: str) -> None:
    stream = local._core.stream_text(LONG, max_tokens=400)
    first = await anext(stream)
    pid = pid_of(local)
    os.kill(pid, getattr(signal, name))
    started = time.monotonic()
    with pytest.raises(LocalModelError, match=f"ended unexpectedly: signal {name}") as caught:
        async for _ in stream:
            pass
    assert time.monotonic() - started < 5
    assert caught.value.partial_text.startswith(first)
    assert not caught.value.retryable
    # The next call starts another one.
    assert await local._core.generate_text("Hi", max_tokens=2)
    assert pid_of(local) != pid


def test_a_crash_while_a_script_streams(local: Provider) -> None:
    stream = local.stream_text(LONG, max_tokens=400)
    first = next(stream)
    os.kill(pid_of(local), signal.SIGSEGV)
    with pytest.raises(LocalModelError, match="SIGSEGV") as caught:
        list(stream)
    assert caught.value.partial_text.startswith(first)
    assert local.generate_text("Hi", max_tokens=2)


async def test_a_crash_before_the_first_token(local: Provider) -> None:
    call = asyncio.create_task(local._core.generate_text("fox " * 400, max_tokens=100))
    await asyncio.sleep(0.1)
    os.kill(pid_of(local), signal.SIGSEGV)
    with pytest.raises(LocalModelError, match="SIGSEGV"):
        await call


async def test_every_call_under_way_hears_of_the_crash(local: Provider) -> None:
    streams = [local._core.stream_text(LONG, max_tokens=400) for _ in range(SMALL["parallel"])]
    for stream in streams:
        await anext(stream)
    os.kill(pid_of(local), signal.SIGKILL)
    outcomes = await asyncio.gather(*(stream.result() for stream in streams), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LocalModelError] * len(streams)
    assert outcomes[0] is not outcomes[1]


async def test_an_older_crash_is_told_after_the_new_start(local: Provider) -> None:
    """A call that reads late must not take the new process's health for its own process's."""
    stream = local._core.stream_text(LONG, max_tokens=400)
    await anext(stream)
    os.kill(pid_of(local), signal.SIGSEGV)
    assert until(lambda: child_of(local).port is not None)
    with pytest.raises(LocalModelError, match="SIGSEGV"):
        await stream.result()


def test_a_crash_between_calls_is_not_noticed(local: Provider) -> None:
    child = child_of(local)
    os.kill(pid_of(local), signal.SIGKILL)
    assert until(lambda: child.gone)
    assert local.generate_text("Hi", max_tokens=2)


async def test_a_broken_connection_of_a_process_that_lives_is_no_crash(local: Provider) -> None:
    from yarl import URL

    from rusty_agent import APIConnectionError

    assert until(lambda: child_of(local).port is not None)
    error = APIConnectionError("broke")
    transport = local._core._calls.transport
    assert await transport.diagnose(error, URL(f"http://127.0.0.1:{child_of(local).port}")) is error
    assert await transport.diagnose(error, URL("http://127.0.0.1:1")) is error


def test_a_crash_while_loading(model: Path) -> None:
    async def main() -> None:
        llm = AsyncProvider.local(model, **SMALL)
        call = asyncio.create_task(llm.generate_text("Hi"))
        await asyncio.sleep(0)
        os.kill(pid_of(llm), signal.SIGSEGV)
        with pytest.raises(LocalModelError, match=r"could not be loaded: .* signal SIGSEGV"):
            await call

    asyncio.run(main())


def test_python_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(LocalModelError, match=r"could not be started with '/nowhere/python'"):
        Provider.local(model, **SMALL)


def test_a_closed_provider_leaves_no_process(model: Path) -> None:
    with Provider.local(model, **SMALL) as provider:
        pid = pid_of(provider)
    assert vanishes(pid, 0.5)

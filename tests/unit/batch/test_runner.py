"""`run_batch` itself: its arguments, and what a cancellation may not interrupt."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from rusty_agent import AsyncProvider
from rusty_agent.batch import runner
from rusty_agent.batch.job import Job
from rusty_agent.batch.lock import Lock
from rusty_agent.batch.runner import BatchResult, run_batch
from rusty_agent.errors import BatchError


@pytest.fixture
def provider() -> AsyncProvider:
    return AsyncProvider("m", api_key="test-key-12345", base_url="http://127.0.0.1:9/v1?key=secret")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sync": "never"}, "sync must be one of 'row', 'group', 'off', not 'never'"),
        ({"handle_signals": "no"}, "handle_signals must be True or False, not str"),
        ({"price": (1, 1e308)}, "price: output must be a number of USD"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"concurrency": "all"}, "concurrency must be"),
        ({"max_error_rate": 2}, "max_error_rate must be"),
        ({"progress": "loud"}, "progress must be"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"timeout": -1}, "must be"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages belongs in the rows"),
        ({"template": "{"}, "template: .* a literal brace"),
        ({"output": 7}, "output must be a string or a Path, not int"),
        ({"output": b"out"}, "output must be a string or a Path, not bytes"),
        ({"output": "a\0b"}, r"output must not contain a NUL character: 'a\\x00b'"),
        ({"report": True}, "report must be a string or a Path, not bool"),
        ({"source": "a\0b"}, "source must not contain a NUL character"),
    ],
)
async def test_what_cannot_be_right_is_refused_before_any_file_is_touched(
    provider: AsyncProvider, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        given = {"source": ["a"], "output": tmp_path / "out.jsonl", "fresh": True, **options}
        await run_batch(provider=provider, **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("on_bad_lines", ": did you mean 'on_bad_line'"),
        ("whole", ""),
        ("include_usage", ""),
    ],
)
async def test_an_argument_that_there_is_not(provider: AsyncProvider, tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"run_batch takes no argument '{name}'{hint}"):
        await run_batch(["a"], tmp_path / "out.jsonl", provider, **{name: 1})  # type: ignore[arg-type]


async def test_the_blocking_face_is_no_provider_here(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="provider"):
        await run_batch(["a"], tmp_path / "out.jsonl", object())  # type: ignore[arg-type]


@pytest.mark.parametrize("session", [False, True])
async def test_a_closed_provider_throws_nothing_away(tmp_path: Path, session: bool) -> None:
    (tmp_path / "out.jsonl").write_text("what was there")
    given = aiohttp.ClientSession() if session else None
    closed = AsyncProvider("m", api_key="test-key-12345", base_url="http://127.0.0.1:9/v1", session=given)
    await (given.close() if given is not None else closed.aclose())
    with pytest.raises(ValueError, match="closed: create a new one"):
        await run_batch(["a"], tmp_path / "out.jsonl", closed, fresh=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.jsonl", "what was there")]


def test_signals_need_the_main_thread(provider: AsyncProvider, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(run_batch(["a"], tmp_path / "out.jsonl", provider, handle_signals=True))
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "only the main thread" in str(errors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX ones here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_does_not_cut_the_tidying_up_short(
    provider: AsyncProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    sum_up, ours = Job.sum_up, list[int]()

    def struck(*arguments: Any) -> BatchResult:
        for _ in range(2):
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        return sum_up(*arguments)

    monkeypatch.setattr(Job, "sum_up", struck)
    before = signal.signal(number, lambda *_: ours.append(number))
    try:
        result = await run_batch([], tmp_path / "out.jsonl", provider, handle_signals=True)
    finally:
        signal.signal(number, before)
    assert (result.stopped, ours) == (None, [])
    assert (tmp_path / "out.summary.json").exists()


async def test_a_second_one_that_would_handle_signals_throws_nothing_away(
    provider: AsyncProvider, tmp_path: Path
) -> None:
    async def endless() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    first = asyncio.ensure_future(run_batch(endless(), tmp_path / "out.jsonl", provider, handle_signals=True))
    while not (tmp_path / "out.jsonl").exists():
        await asyncio.sleep(0.01)
    with pytest.raises(ValueError, match="another batch on this event loop already handles them"):
        await run_batch([], tmp_path / "other.jsonl", provider, handle_signals=True, fresh=True)
    assert not list(tmp_path.glob("other*"))
    first.cancel()
    await asyncio.wait([first])


@pytest.mark.parametrize("times", [1, 3])
async def test_cancellations_keep_the_lock_until_the_planning_has_ended(
    provider: AsyncProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def plan(*_: Any, **__: Any) -> None:
        begun.set()
        go_on.wait(10)
        raise ValueError("nobody hears of this")

    monkeypatch.setattr(runner, "make_plan", plan)
    running = asyncio.create_task(run_batch(["a"], tmp_path / "out.jsonl", provider))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(BatchError, match="Another batch is writing here"), Lock(tmp_path / "out.lock"):
        pass
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    with Lock(tmp_path / "out.lock"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="pipes cannot be waited for")
async def test_a_cancellation_waits_for_no_end_of_standard_input(
    provider: AsyncProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stdin, os.fdopen(theirs, "wb", 0) as writing:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
        writing.write(b'"a"\n')
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_batch("-", tmp_path / "out.jsonl", provider), 0.2)
    assert {path.name for path in tmp_path.iterdir()} <= {"out.lock"}  # which stays on Windows


async def test_the_manifest_holds_what_answers_depend_on_and_no_secret(provider: AsyncProvider, tmp_path: Path) -> None:
    await run_batch(
        [],
        tmp_path / "out.jsonl",
        provider,
        template="{x}",
        temperature=0.5,
        max_tokens=None,
        extra_body={"api_key": "hush", "max_completion_tokens": 5},
        extra_headers={"x-key": "hush"},
        timeout=3,
    )
    text = (tmp_path / "out.manifest.json").read_text()
    assert '{"extra_body":{"max_completion_tokens":5},"model":"m","temperature":0.5,"template":"{x}",' in text
    assert '"url":"http://127.0.0.1:9/v1/chat/completions"}' in text
    assert not [word for word in ("secret", "hush", "test-key") if word in text]
    assert (tmp_path / "out.jsonl").read_bytes() == b""

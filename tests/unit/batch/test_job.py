"""One run of a batch when its files fail it, or when it is told to end."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rusty_agent import AsyncProvider
from rusty_agent.batch import journal as journal_module
from rusty_agent.batch.files import Files
from rusty_agent.batch.index import Index
from rusty_agent.batch.job import Job
from rusty_agent.batch.journal import Journal, Sync
from rusty_agent.batch.plan import Plan
from rusty_agent.batch.settings import JobSettings
from rusty_agent.errors import BatchError
from rusty_agent.requests import Common
from rusty_agent.stop_rule import StopRule
from rusty_agent.testing import completion
from rusty_agent.types import GenerateResult

from .lines import batch, failure


class Answering(AsyncProvider):
    """Answers after `seconds`, without any endpoint."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__("m", api_key="test-key-12345", base_url="http://127.0.0.1:9/v1")
        self.seconds = seconds
        self.asked = 0

    async def _answer(self, *_: Any, **__: Any) -> GenerateResult:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        return GenerateResult(text="yes", finish_reason="stop", raw=completion("yes"))


def job(files: Files, provider: AsyncProvider, sync: Sync = "group") -> Job:
    return Job(JobSettings(files, concurrency=4, sync=sync), provider, Common(provider._requests, {}), StopRule())


def plan() -> Plan:
    return Plan(None, Index(), None)


async def test_a_file_that_cannot_be_written_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, provider = batch(tmp_path), Answering()
    write = os.write
    lines = 0

    def fail(number: int, data: Any) -> int:
        nonlocal lines
        if data[:1] == b"{":
            lines += 1
            if lines > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(number, data)

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(BatchError, match=r"out\.jsonl can no longer be written: No space left on device"):
        await job(files, provider).run(["x"] * 1000, plan())
    assert provider.asked < 40
    assert files.output.read_bytes().endswith(b"}\n")


async def test_a_row_whose_answer_could_not_be_written_keeps_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise BatchError("the disk is full")

    files = batch(tmp_path, [], [failure("1")])
    before = files.errors.read_bytes()
    monkeypatch.setattr(Journal, "append", fail)
    await job(files, Answering()).run(["x"], Plan(None, Index(failed=1), None))
    assert files.errors.read_bytes() == before


async def test_a_row_whose_answer_was_taken_but_not_written_keeps_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line waits for the end of the loop's iteration, when it counts as answered already."""

    def full(number: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = batch(tmp_path, [], [failure("1")])
    before = files.errors.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(BatchError, match=r"out\.jsonl can no longer be written"):
            await job(files, Answering()).run(["x"], Plan(None, Index(failed=1), None))
    assert files.errors.read_bytes() == before


async def test_the_output_is_closed_when_the_errors_cannot_be_opened(tmp_path: Path) -> None:
    files = batch(tmp_path)
    files.errors.mkdir()
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(BatchError, match=r"errors\.jsonl cannot be opened"):
        await job(files, Answering()).run(["x"], plan())
    assert len(os.listdir("/dev/fd")) == before


async def test_both_files_fail_before_any_row_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, open_file = batch(tmp_path), journal_module._open

    def opened(path: Path) -> tuple[int, int]:
        if path == files.output:
            return open_file(path)
        files.output.unlink()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(journal_module, "_open", opened)
    with pytest.raises(BatchError, match=r"out\.jsonl was removed"):
        await job(files, Answering()).run(["x"], plan())


async def test_abandoned_it_ends_at_once_and_says_so(tmp_path: Path) -> None:
    files, provider = batch(tmp_path), Answering(60)
    one = job(files, provider)
    running = asyncio.create_task(one.run(["x"] * 10, plan()))
    while not provider.asked:
        await asyncio.sleep(0.001)
    one.interrupt()
    await asyncio.sleep(0.01)
    assert not running.done()
    one.abandon()
    await asyncio.wait_for(running, 5)
    told = one.sum_up("out.jsonl", 0.0, None)
    assert (told.stopped, told.done, told.total) == ("interrupt", 0, None)


@pytest.mark.parametrize("how", ["abandoned", "all tasks cancelled"])
async def test_given_up_it_counts_the_rows_whose_lines_were_on_their_way_to_the_disk_and_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    go = threading.Event()

    def sync(_: int) -> None:
        assert go.wait(10)

    monkeypatch.setattr("rusty_agent.batch.journal._datasync", sync)
    files, provider = batch(tmp_path), Answering()
    one = job(files, provider, sync="row")
    running = asyncio.create_task(one.run(["x"] * 10, plan()))
    while not files.output.exists() or files.output.read_bytes().count(b"\n") < 4:
        await asyncio.sleep(0.001)
    if how == "abandoned":
        one.interrupt()
        one.abandon()
    else:  # as by `asyncio.run` at its end, in any order: here the workers come first
        for task in asyncio.all_tasks():
            if task.get_coro().__qualname__ == "_Crew._run":  # type: ignore[union-attr]
                task.cancel()
    go.set()
    await asyncio.wait_for(running, 5)
    told = one.sum_up("out.jsonl", 0.0, None)
    assert told.done == files.output.read_bytes().count(b"\n") == provider.asked == 4


async def under_way(folder: Path, clean_up: Callable[[], Awaitable[None]]) -> tuple[Job, asyncio.Task[None]]:
    """A job whose one row is asked for, and whose source waits long for another, and does something at its end."""
    begun = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            yield "x"
            begun.set()
            await asyncio.sleep(60)
        finally:
            await clean_up()

    one = job(batch(folder), Answering(60))
    running = asyncio.create_task(one.run(source(), plan()))
    await begun.wait()
    return one, running


async def test_cancelled_twice_it_closes_no_file_before_its_rows_have_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = asyncio.Event()

    async def clean_up() -> None:
        await go_on.wait()
        raise LookupError("nobody hears of this")

    one, running = await under_way(tmp_path, clean_up)
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0.01)
    assert not running.done()
    one._results.append(b"{}")  # which raises when it is closed
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    del running
    gc.collect()
    assert caplog.records == []


async def test_abandoned_more_than_once_it_waits_for_a_source_that_takes_its_time_to_end(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def clean_up() -> None:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()

    one, running = await under_way(tmp_path, clean_up)
    one.interrupt()
    for _ in range(3):
        one.abandon()
        await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.wait_for(running, 5)
    assert one.sum_up("out.jsonl", 0.0, None).stopped == "interrupt"


async def test_a_source_that_is_cancelled_is_no_end_of_the_run(tmp_path: Path) -> None:
    class Source:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> str:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await job(batch(tmp_path), Answering()).run(Source(), plan())

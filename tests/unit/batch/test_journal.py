"""Appending: whole lines only, few system calls, durable when promised, and an end with grace when the disk is full."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.batch import journal as module
from rusty_agent.batch.journal import Journal, Sync
from rusty_agent.errors import BatchError

from ...events import soon
from .lines import HOLE, unsynced

EVERY_SYNC: tuple[Sync, ...] = ("row", "group", "off")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


class Syncs:
    """Stands for fdatasync: counts, can wait for a sign, can fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []  # of the file, at the beginning of each
        self.go = threading.Event()
        self.go.set()
        self.error: OSError | None = None
        monkeypatch.setattr(module, "_datasync", self)

    def __call__(self, number: int) -> None:
        self.sizes.append(os.fstat(number).st_size)
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        os.fstat(number)  # the file is still open


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


@pytest.mark.parametrize("sync", EVERY_SYNC)
async def test_lines_come_in_order_and_more_after_opening_again(path: Path, sync: Sync) -> None:
    for run in range(2):
        journal = Journal(path, sync)
        for number in range(3):
            journal.append(b"%d-%d" % (run, number))
        await journal.commit()
        assert journal._size == path.stat().st_size == 12 * (run + 1)
        journal.append(b"")
        await journal.aclose()
        path.write_bytes(path.read_bytes()[:-1])  # the empty line
    assert path.read_bytes() == b"0-0\n0-1\n0-2\n1-0\n1-1\n1-2\n"


async def test_one_iteration_of_the_loop_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = os.write

    def noted(number: int, data: memoryview) -> int:
        writes.append(bytes(data))
        return write(number, data)

    monkeypatch.setattr(os, "write", noted)
    journal = Journal(path, "off")
    journal.append(b"a")
    journal.append(b"b")
    assert path.read_bytes() == b""
    await asyncio.sleep(0)
    assert path.read_bytes() == b"a\nb\n"
    journal.append(b"c")
    await asyncio.sleep(0)
    await journal.aclose()
    assert [data for data in writes if data.endswith(b"\n")] == [b"a\nb\n", b"c\n"]


async def test_what_waits_for_the_end_of_the_iteration_is_bounded(path: Path) -> None:
    journal = Journal(path, "off")
    for _ in range(6):
        journal.append(b"x" * 2**20)
    assert journal._size >= 2**22
    written = journal._size
    journal.append(b"y")
    assert journal._size == written  # the count of what waits has begun again
    await journal.aclose()
    assert path.stat().st_size == 6 * (2**20 + 1) + 2


async def test_a_newline_in_a_line_is_a_bug(path: Path) -> None:
    journal = Journal(path, "off")
    with pytest.raises(ValueError, match="must not hold a newline"):
        journal.append(b"a\nb")
    await journal.aclose()
    assert path.read_bytes() == b""


async def test_closed(path: Path) -> None:
    journal = Journal(path)
    journal.append(b"a")
    await journal.aclose()
    await journal.aclose()
    with pytest.raises(ValueError, match="is closed"):
        journal.append(b"b")
    await journal.commit()  # everything is durable
    assert path.read_bytes() == b"a\n"


@given(st.lists(st.sampled_from([b"a", b"\n", b"\0", b"xyz" * 3]), max_size=12).map(b"".join), st.integers(1, 9))
def test_a_torn_tail_is_cut_off(tmp_path_factory: pytest.TempPathFactory, data: bytes, block: int) -> None:
    path = tmp_path_factory.getbasetemp() / "torn.jsonl"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, unsynced():
        patch.setattr(module, "BLOCK_BYTES", block)
        journal = Journal(path, "off")
    whole = data[: data.rfind(b"\n") + 1]
    assert (path.read_bytes(), journal._size) == (whole, len(whole))
    asyncio.run(journal.aclose())


def test_what_cannot_be_a_journal(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"cannot be opened for writing: No such file or directory\. Check the path, "):
        Journal(tmp_path / "no" / "out.jsonl")
    with pytest.raises(BatchError, match="cannot be opened for writing: "):
        Journal(tmp_path)
    with pytest.raises(BatchError, match="is not a regular file"):
        Journal(Path(os.devnull))


def test_what_cannot_be_a_journal_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Mock(side_effect=[number := os.open(os.devnull, os.O_RDWR)])
    with monkeypatch.context() as patch, pytest.raises(BatchError, match="is not a regular file"):
        patch.setattr(os, "open", opened)
        Journal(Path(os.devnull))
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(number)


async def test_commits_share_syncs(path: Path, syncs: Syncs) -> None:
    journal = Journal(path, "row")
    syncs.go.clear()

    async def row(number: int) -> None:
        journal.append(b"%03d" % number)
        await journal.commit()
        assert syncs.sizes[-1] >= (number + 1) * 4

    async with asyncio.TaskGroup() as rows:
        rows.create_task(row(0))
        await soon(lambda: len(syncs.sizes) == 1)
        for number in range(1, 100):
            rows.create_task(row(number))
        await asyncio.sleep(0.01)
        assert syncs.sizes == [4]
        syncs.go.set()
    assert syncs.sizes == [4, 400]
    await journal.aclose()
    assert syncs.sizes == [4, 400]


async def test_a_cancelled_commit_disturbs_nobody(path: Path, syncs: Syncs) -> None:
    journal = Journal(path, "row")
    syncs.go.clear()
    journal.append(b"a")
    one, other = asyncio.ensure_future(journal.commit()), asyncio.ensure_future(journal.commit())
    await soon(lambda: bool(syncs.sizes))
    one.cancel()
    await asyncio.wait([one])
    assert one.cancelled()
    assert not other.done()
    syncs.go.set()
    await other
    await journal.aclose()


async def test_what_opening_does_is_durable_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could bring back the torn tail behind new lines, or take the file with all that it holds."""
    durable: list[object] = []
    monkeypatch.setattr(os, "fsync", lambda number: durable.append(os.fstat(number).st_size))
    monkeypatch.setattr(module, "sync_folder", durable.append)
    await Journal(path).aclose()
    assert durable == [path.parent]
    path.write_bytes(b"a\nto")
    await Journal(path).aclose()
    assert durable == [path.parent, 2, path.parent]


async def test_a_group_becomes_durable_by_itself(path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.1)
    journal = Journal(path, "group")
    began = time.monotonic()
    journal.append(b"a")
    await asyncio.sleep(0)
    journal.append(b"b")
    await soon(lambda: bool(syncs.sizes))
    assert time.monotonic() - began >= 0.099
    assert syncs.sizes == [4]
    await soon(lambda: journal._syncing is None)
    assert journal._timer is None  # nothing new, nothing to do
    journal.append(b"c")
    await soon(lambda: len(syncs.sizes) == 2)
    await journal.aclose()
    assert syncs.sizes == [4, 6]


async def test_a_large_group_does_not_wait(path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SYNC_SECONDS", 60)
    journal = Journal(path, "group")
    syncs.go.clear()
    for _ in range(1000):
        journal.append(b"a")
    await soon(lambda: syncs.sizes == [2000])
    for _ in range(1000):
        journal.append(b"b")
    await asyncio.sleep(0.005)
    assert syncs.sizes == [2000]
    syncs.go.set()
    await soon(lambda: syncs.sizes == [2000, 4000])
    await soon(lambda: journal._syncing is None)
    journal.append(b"c")
    await asyncio.sleep(0)
    assert journal._syncing is None  # one line is no large group again
    await journal.aclose()
    assert syncs.sizes == [2000, 4000, 4002]


async def test_off_never_syncs(path: Path, syncs: Syncs) -> None:
    journal = Journal(path, "off")
    for _ in range(2000):
        journal.append(b"a")
    await journal.commit()
    await journal.aclose()
    assert syncs.sizes == []


async def test_closing_makes_durable_what_an_earlier_run_left(path: Path, syncs: Syncs) -> None:
    path.write_bytes(b"a\n")
    await Journal(path, "group").aclose()
    assert syncs.sizes == [2]


async def test_a_cancelled_close_leaves_the_file_open_for_the_thread_that_uses_it(path: Path, syncs: Syncs) -> None:
    journal = Journal(path, "row")
    journal.append(b"a")
    syncs.go.clear()
    closing = asyncio.ensure_future(journal.aclose())
    await soon(lambda: bool(syncs.sizes))
    closing.cancel()
    await asyncio.wait([closing])
    number = journal._number
    os.fstat(number)
    syncs.go.set()
    await soon(lambda: journal._number < 0)
    with pytest.raises(OSError):
        os.fstat(number)
    await journal.aclose()


@pytest.mark.parametrize("asked", [True, False])
async def test_no_timer_strikes_after_a_cancelled_close(
    path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Neither one that was set before a sync that was asked for, nor one that its end would set."""
    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.05)
    complain = Mock()
    asyncio.get_running_loop().set_exception_handler(complain)
    journal = Journal(path)
    journal.append(b"a")
    syncs.go.clear()
    committing = asyncio.ensure_future(journal.commit() if asked else asyncio.sleep(0))
    await soon(lambda: bool(syncs.sizes))
    journal.append(b"b")  # which that sync does not cover
    closing = asyncio.ensure_future(journal.aclose())
    await asyncio.sleep(0)
    for task in (closing, committing):
        task.cancel()
    await asyncio.wait([closing, committing])
    assert journal._syncing is not None
    syncs.go.set()
    await soon(lambda: journal._number < 0)
    await asyncio.sleep(0.06)
    complain.assert_not_called()


@pytest.mark.parametrize("how", ["removed", "replaced", "cut"])
@pytest.mark.parametrize("sync", EVERY_SYNC)
async def test_a_file_that_is_not_there_any_more_is_told(path: Path, how: str, sync: Sync) -> None:
    errors: list[BatchError] = []
    journal = Journal(path, sync, on_error=errors.append)
    journal.append(b"one")
    await journal.commit()
    if how == "cut":
        os.truncate(path, 0)
    else:
        path.rename(path.with_name("elsewhere"))
        if how == "replaced":
            path.touch()
    with pytest.raises(BatchError, match=f"^{path} was removed, replaced or truncated while the batch wrote to it"):
        await journal.aclose()
    assert len(errors) == 1


async def test_a_file_that_is_not_there_any_more_ends_the_journal_early(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.01)
    errors: list[BatchError] = []
    journal = Journal(path, "group", on_error=errors.append)
    path.unlink()
    journal.append(b"one")
    await soon(lambda: bool(errors))
    with pytest.raises(BatchError, match="was removed"):
        journal.append(b"two")
    with pytest.raises(BatchError, match="was removed"):
        await journal.aclose()


@pytest.mark.parametrize("taken", [1, 2, 3, 700])
async def test_short_writes_are_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    write = os.write
    journal = Journal(path, "off")
    monkeypatch.setattr(os, "write", lambda number, data: write(number, data[:taken]))
    for number in range(100):
        journal.append(b"%d" % number * 9)
    await asyncio.sleep(0)
    monkeypatch.undo()
    await journal.aclose()
    assert path.read_bytes() == b"".join(b"%d" % number * 9 + b"\n" for number in range(100))


@pytest.mark.parametrize("room", range(14))
async def test_a_full_disk_keeps_whole_lines_and_ends_the_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch, syncs: Syncs, room: int
) -> None:
    path.write_bytes(b"old\n")
    write, left = os.write, room
    told: list[BatchError] = []

    def full(number: int, data: memoryview) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(number, data[:left])
        left -= done
        return done

    journal = Journal(path, "group", on_error=told.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for line in (b"one", b"twos", b"three"):
            journal.append(line)
        await asyncio.sleep(0)
    kept = b"old\n" + b"one\n" * (room >= 4) + b"twos\n" * (room >= 9)
    assert path.read_bytes() == kept
    assert journal._size == len(kept)
    (error,) = told
    assert "out.jsonl can no longer be written: No space left on device. Free some space there. Then" in error.message
    for _ in range(2):
        with pytest.raises(BatchError, match="No space left"):
            journal.append(b"more")
        with pytest.raises(BatchError, match="No space left"):
            await journal.commit()
    for _ in range(2):
        with pytest.raises(BatchError, match="No space left"):
            await journal.aclose()
    assert syncs.sizes[-1] == len(kept)  # what was written is made durable nevertheless
    assert len(told) == 1
    assert path.read_bytes() == kept


async def test_the_first_failure_is_the_one_that_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, syncs: Syncs
) -> None:
    told: list[BatchError] = []
    journal = Journal(path, on_error=told.append)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        journal.append(b"one")
        await asyncio.sleep(0)
    path.unlink()
    with pytest.raises(BatchError, match="No space left"):
        await journal.aclose()
    assert len(told) == 1


@pytest.mark.parametrize("sync", ["row", "group"])
async def test_a_failed_sync_is_never_tried_again(
    path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch, sync: Sync
) -> None:
    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.001)
    told: list[BatchError] = []
    journal = Journal(path, sync, on_error=told.append)
    syncs.error = OSError(errno.EIO, "Input/output error")
    journal.append(b"a")
    if sync == "row":
        with pytest.raises(BatchError, match="Input/output error"):
            await journal.commit()
    else:
        await soon(lambda: bool(told))
    syncs.error = None
    await asyncio.sleep(0.01)
    with pytest.raises(BatchError, match="Input/output error"):
        await journal.commit()
    with pytest.raises(BatchError, match="Input/output error"):
        await journal.aclose()
    assert (len(syncs.sizes), len(told)) == (1, 1)


async def test_nor_by_the_timer(path: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.02)
    journal = Journal(path, "group")
    syncs.error = OSError(errno.EIO, "Input/output error")
    journal.append(b"a")
    with pytest.raises(BatchError, match="Input/output error"):
        await journal.commit()
    await asyncio.sleep(0.04)
    assert len(syncs.sizes) == 1
    with pytest.raises(BatchError, match="Input/output error"):
        await journal.aclose()


async def test_lines_written_after_a_failed_sync_begin_none(path: Path, syncs: Syncs) -> None:
    told: list[BatchError] = []
    journal = Journal(path, "group", on_error=told.append)
    syncs.error = OSError(errno.EIO, "Input/output error")
    syncs.go.clear()
    for _ in range(1000):
        journal.append(b"a")
    await soon(lambda: bool(syncs.sizes))
    syncs.go.set()
    while not told:  # the last time round, the failure comes between taking the lines and writing them
        for _ in range(1000):
            journal.append(b"b")
        time.sleep(0.001)
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    with pytest.raises(BatchError, match="Input/output error"):
        await journal.aclose()
    assert len(syncs.sizes) == 1
    assert path.stat().st_size == journal._size


FILL = """
import asyncio, sys
from pathlib import Path
from rusty_agent.errors import BatchError
from rusty_agent.batch.journal import Journal
{before}
async def main():
    told = []
    journal = Journal(Path(sys.argv[1]), "group", on_error=told.append)
    try:
        while True:
            journal.append(b"x" * 1000)
            await asyncio.sleep(0)
    except BatchError as error:
        assert error.message == told[0].message and len(told) == 1
    try:
        await journal.aclose()
    except BatchError as error:
        print(journal._size, error)
asyncio.run(main())
{after}
"""


def check_filled(path: Path, done: subprocess.CompletedProcess[str], reason: str) -> None:
    size, told = done.stdout.split(" ", 1)
    assert reason in told, done.stderr
    assert done.stderr == ""
    assert path.stat().st_size == int(size) > 0
    assert int(size) % 1001 == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_file_that_may_not_grow(path: Path) -> None:
    limit = "import resource\nlimit = resource.RLIMIT_FSIZE\nhard = resource.getrlimit(limit)[1]\n"
    before, after = f"{limit}resource.setrlimit(limit, (50_000, hard))", "resource.setrlimit(limit, (hard, hard))"
    # -B: bytecode that it wrote would be cut, too, and broken for whoever imports it next.
    command = [sys.executable, "-B", "-c", FILL.format(before=before, after=after), str(path)]
    check_filled(path, subprocess.run(command, capture_output=True, text=True), "File too large")


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A small filesystem in a namespace of its own, so that nothing of it stays; copied out to be looked at."""
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=64k tmpfs {disk}"
    try:
        subprocess.run(["unshare", "--mount", "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a filesystem in a namespace (root on Linux)")
    script = f'{mount} && "$@" && cp {disk}/out.jsonl {copy}'
    program = [sys.executable, "-c", FILL.format(before="", after=""), str(disk / "out.jsonl")]
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *program], capture_output=True, text=True)
    check_filled(copy, done, "No space left on device")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fifteen_kills_lose_nothing_that_was_promised_and_double_nothing(path: Path) -> None:
    seed = random.randrange(10**6)
    command = [sys.executable, "-W", "error", "-m", "tests.unit.batch.crash", str(path), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), f"seed {seed}: {done.stdout} {done.stderr}"


def test_a_hole_at_the_end_is_a_torn_tail(path: Path) -> None:
    path.write_bytes(b"a\n" + HOLE)
    asyncio.run(Journal(path, "off").aclose())
    assert path.read_bytes() == b"a\n"

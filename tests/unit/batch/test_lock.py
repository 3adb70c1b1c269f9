"""One batch at a time: the lock, who holds it, and that it goes with its process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rusty_agent.batch import lock as lock_module
from rusty_agent.batch.lock import Lock
from rusty_agent.errors import BatchError

HOLD = """
import subprocess, sys
from pathlib import Path
from rusty_agent.batch.lock import Lock
with Lock(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_taker_is_told_who_is_there(tmp_path: Path) -> None:
    path = tmp_path / "out.lock"
    with Lock(path):
        for _ in range(2):  # asking does not disturb the holder
            with pytest.raises(BatchError, match=rf"process {os.getpid()} holds .*out\.lock\. Wait until it has ended"):
                Lock(path).__enter__()
    assert path.exists() is (os.name == "nt")
    with Lock(path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_file_that_its_holder_removes_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.lock"
    other = Lock(path)
    other.__enter__()
    take = lock_module._take

    def take_later(number: int) -> bool:
        monkeypatch.undo()
        other.__exit__(None, None, None)  # after the file was opened, before it is locked
        return take(number)

    monkeypatch.setattr(lock_module, "_take", take_later)
    with Lock(path):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(BatchError, match="holds"):
            Lock(path).__enter__()
    assert not path.exists()


def test_what_lies_there_at_the_end_and_is_another_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "out.lock").touch()
    with Lock(Path("out.lock").absolute()):
        monkeypatch.chdir("elsewhere")
    assert Path("out.lock").exists()
    assert (tmp_path / "out.lock").exists() is (os.name == "nt")


def test_the_file_of_another_that_took_its_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.lock"
    with Lock(path):
        if os.name == "nt":
            return  # which lets nobody take an open file's place
        path.unlink()
        path.touch()
    assert path.exists()


def test_nothing_stays_of_the_longer_number_that_a_killed_holder_left(tmp_path: Path) -> None:
    path = tmp_path / "out.lock"
    path.write_text("1234567890123456\n")
    with Lock(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_it_is_released_on_an_error(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "out.lock")
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    with lock, pytest.raises(BatchError):
        Lock(tmp_path / "out.lock").__enter__()


def test_it_dies_with_its_process_though_a_child_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "out.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BatchError, match=f"process {holder.pid} holds"):
            Lock(path).__enter__()
        holder.kill()
        holder.wait()
        with Lock(path):
            assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows hands no such file on")
def test_a_child_does_not_keep_it_once_it_was_released(tmp_path: Path) -> None:
    """As the workers of a process pool would, which inherit every descriptor.

    Whoever opened the file before its name went would be told that another batch still writes.
    """
    path = tmp_path / "out.lock"
    path.touch()
    with path.open("rb") as early:
        with Lock(path) as lock:
            command = [sys.executable, "-c", "input()"]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[lock._number])
            assert not lock_module._take(early.fileno())
        assert lock_module._take(early.fileno())
        child.communicate(b"\n")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    with Lock(tmp_path / "out.lock") as lock:
        os.fstat(lock._number)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(lock._number)


def test_what_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BatchError, match=r"locked: No such file or directory\. Check the path, .* Or name another"):
        Lock(tmp_path / "no" / "out.lock").__enter__()

    def take(number: int) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("rusty_agent.batch.lock._take", take)  # some network filesystems
    with pytest.raises(BatchError, match="No locks available"):
        Lock(tmp_path / "out.lock").__enter__()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(number: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        with pytest.raises(BatchError, match=r"No space left on device\. Free some space there\. Or name"):
            Lock(tmp_path / "out.lock").__enter__()
    with Lock(tmp_path / "out.lock"):
        pass


def test_a_filesystem_that_knows_no_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_has_name", lambda number, path: False)
    with pytest.raises(BatchError, match="cannot be locked: the file keeps being replaced"):
        Lock(tmp_path / "out.lock").__enter__()


@pytest.mark.skipif(os.name == "nt", reason="the test locks as POSIX does")
def test_a_holder_that_has_not_written_its_number_yet(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "out.lock"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BatchError, match="another process holds"):
            Lock(path).__enter__()

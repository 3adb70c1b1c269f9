"""The names of a batch's files; a file is replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rusty_agent.batch.files import Files, replace_atomically, sync_folder
from rusty_agent.errors import BatchError


@pytest.mark.parametrize(
    ("output", "start"),  # no two of them the same
    [("out.jsonl", "out."), ("out", "out-"), ("a.b.jsonl", "a.b."), ("out.json", "out.json-"), (".jsonl", ".jsonl-")],
)
def test_all_files_are_named_after_the_output(tmp_path: Path, output: str, start: str) -> None:
    assert Files.of(tmp_path / output) == Files(
        output=tmp_path / output,
        errors=tmp_path / f"{start}errors.jsonl",
        manifest=tmp_path / f"{start}manifest.json",
        lock=tmp_path / f"{start}lock",
        summary=tmp_path / f"{start}summary.json",
    )


def test_one_output_has_one_lock_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "out.jsonl")
    assert Files.of(tmp_path / "link.jsonl") == Files.of(tmp_path / "out.jsonl")


@pytest.mark.parametrize("output", ["", ".", "/"])
def test_a_path_without_a_name_is_no_output(output: str) -> None:
    with pytest.raises(ValueError, match="output must be the path of a file, not"):
        Files.of(Path(output))


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace_atomically(path, [b"one", b"two"])
    assert path.read_bytes() == b"onetwo"
    replace_atomically(path, (block.upper() for block in [path.read_bytes(), b"!"]))
    assert path.read_bytes() == b"ONETWO!"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
def test_permissions(tmp_path: Path) -> None:
    path, plain = tmp_path / "a", tmp_path / "plain"
    plain.touch()
    replace_atomically(path, [])
    assert path.stat().st_mode == plain.stat().st_mode  # not the 0600 of temporary files
    path.chmod(0o640)
    replace_atomically(path, [b"new"])
    assert path.stat().st_mode & 0o777 == 0o640


def test_nothing_is_written_through_a_link_that_somebody_has_put_there(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / "a.rusty-agent.tmp").symlink_to(other)
    replace_atomically(path, [b"new"])
    assert (path.read_bytes(), other.read_bytes()) == (b"new", b"precious")


def chunks(error: BaseException) -> Iterator[bytes]:
    yield b"half"
    raise error


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_the_old_file_alone(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        replace_atomically(path, chunks(error))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failing_disk_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(BatchError, match=r"a cannot be written: No space left on device\. .*run the batch again"):
        replace_atomically(path, chunks(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(BatchError, match="No such file or directory"):
        replace_atomically(tmp_path / "no" / "a", [])


def test_a_kill_leaves_the_old_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom rusty_agent.batch.files import replace_atomically\n"
        "def chunks():\n    yield b'half' * 2**20\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"replace_atomically(Path({str(path)!r}), chunks())"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "a.rusty-agent.tmp"]
    replace_atomically(path, [b"new"])
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_the_new_file_is_durable_before_it_takes_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number: int) -> None:
        steps.append("fsync")
        fsync(number)

    def noted_replace(old: Path, new: Path) -> None:
        steps.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    replace_atomically(tmp_path / "a", [b"new"])
    assert steps == ["fsync", "replace", "fsync"][: 2 if os.name == "nt" else 3]


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced on Windows")
@pytest.mark.parametrize(("number", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_filesystem_without_syncing_of_folders_is_no_failure_and_a_failing_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if raised:
        with pytest.raises(OSError):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


def test_an_output_that_would_have_to_be_compressed_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compressed"):
        Files.of(Path("out.jsonl.GZ"))

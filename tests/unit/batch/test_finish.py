"""Making the files tidy: what stays, in which order, and what a crash leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.batch.finish import drop_superseded, sort_output
from rusty_agent.batch.index import read_lines
from rusty_agent.errors import BatchError
from rusty_agent.wire.codec import dumps

from .lines import HOLE, batch, failure, refusal, result, unsynced

LINE = b'{"id":"batch_req_1","custom_id":"%b","response":null,"error":null,"x_rusty":%b}'


def lines(path: Path) -> list[bytes]:
    return [line[:-1] for _, _, line in read_lines(path)]


def test_errors_that_a_result_or_a_later_error_has_overtaken_go(tmp_path: Path) -> None:
    kept = [failure("b", 2), failure("c", 3, permanent=True)]
    files = batch(tmp_path, [], [failure("a"), failure("c"), kept[0], failure("a"), HOLE, kept[1]])
    drop_superseded(files, {"a", "z"})
    assert lines(files.errors) == kept
    before = files.errors.stat().st_ino
    drop_superseded(files, {"a"})
    assert files.errors.stat().st_ino == before


def test_bad_lines_keep_their_numbers_where_rows_have_new_ones(tmp_path: Path) -> None:
    bad, one, other = refusal(2), failure("a", 1), failure("b", 7)
    files = batch(tmp_path, [], [one, bad, other])
    sort_output(files, {"a": 3, "b": 1})
    assert lines(files.errors) == [other, bad, one]


def test_bad_lines_stay_whatever_rows_are_called(tmp_path: Path) -> None:
    files = batch(tmp_path, [], [failure("bad line 2"), refusal(2)])
    drop_superseded(files, {"bad line 2"})
    assert lines(files.errors) == [refusal(2)]
    drop_superseded(files, {"bad line 2"})
    assert lines(files.errors) == [refusal(2)]


@pytest.mark.parametrize("errors", [[failure("a"), failure("a")], [], None])
def test_an_errors_file_without_errors_goes(tmp_path: Path, errors: list[bytes] | None) -> None:
    files = batch(tmp_path, [], errors)
    drop_superseded(files, {"a"})
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_file_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlink(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    files = batch(tmp_path, [], [])
    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(BatchError, match=r"errors\.jsonl cannot be removed: Permission denied\. .* by hand"):
        drop_superseded(files, set())


def test_both_files_are_sorted_by_the_lines_of_the_input(tmp_path: Path) -> None:
    order = random.Random(1).sample(range(1, 2001), 2000)
    files = batch(
        tmp_path,
        [result(str(number), number, text="x" * (number % 300)) for number in order],
        [failure(str(number), number) for number in (3, 2, 1)],
    )
    sort_output(files)
    assert lines(files.output) == [result(str(n), n, text="x" * (n % 300)) for n in range(1, 2001)]
    assert lines(files.errors) == [failure(str(number), number) for number in (1, 2, 3)]


def test_lines_without_a_number_come_last_as_they_were(tmp_path: Path) -> None:
    odd = [LINE % (b"odd", b'{"line":%s}' % number) for number in (b'"1"', b"-1", b"true", b"1.5")]
    loose = [result("x"), HOLE, *odd, LINE % (b"y", b"7"), result("w")]
    files = batch(tmp_path, [*loose, result("b", 2), result("a", 1)])
    sort_output(files)
    assert lines(files.output) == [result("a", 1), result("b", 2), *loose]


def test_what_is_in_order_is_not_rewritten(tmp_path: Path) -> None:
    files = batch(tmp_path, [result("a", 1), result("b", 2), result("c")])
    before = files.output.stat().st_ino
    sort_output(files)
    assert files.output.stat().st_ino == before
    assert not files.errors.exists()


@given(st.lists(st.integers(0, 9) | st.integers(2**62, 2**70) | st.none(), max_size=12))
def test_sorting_is_stable_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int | None]
) -> None:
    """A number beyond 63 bits is none: no file has that many lines."""
    results = [LINE % (b"%d" % place, b'{"line":%s}' % dumps(number)) for place, number in enumerate(numbers)]
    files = batch(tmp_path_factory.getbasetemp(), results)
    with unsynced():
        sort_output(files)
    keys = [2**63 if number is None else min(number, 2**63) for number in numbers]
    assert lines(files.output) == [results[place] for place in sorted(range(len(keys)), key=keys.__getitem__)]


KILLED = """
import os, signal, sys
from pathlib import Path
from rusty_agent.batch.files import Files
from rusty_agent.batch.finish import drop_superseded, sort_output

def tidy(folder, left):
    def killing(function):
        def call(*arguments):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)
        return call

    os.fsync, os.replace = killing(os.fsync), killing(os.replace)
    files = Files.of(folder / "out.jsonl")
    drop_superseded(files, {"1", "2", "3"})
    sort_output(files)
    os._exit(0)

for steps, folder in enumerate(sys.argv[1:]):
    child = os.fork()
    if not child:
        tidy(Path(folder), steps)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    """Killed before each of the system calls that make something durable or visible, in turn: three per file."""
    results = [result(str(number), number) for number in (3, 1, 2)]
    errors = [failure("5", 5), failure("1", 1), failure("4", 4)]
    folders = [tmp_path / str(steps) for steps in range(10)]
    for folder in folders:
        folder.mkdir()
        batch(folder, results, errors)
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, folders)], capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * 9 + ["0"], done.stderr
    for folder in folders:
        files = batch(folder)
        assert sorted(lines(files.output)) == sorted(results)
        assert {failure("5", 5), failure("4", 4)} <= set(lines(files.errors)) <= set(errors)
        drop_superseded(files, {"1", "2", "3"})
        sort_output(files)
        assert lines(files.output) == [result(str(number), number) for number in (1, 2, 3)]
        assert lines(files.errors) == [failure("4", 4), failure("5", 5)]
        assert len(list(folder.iterdir())) == 2

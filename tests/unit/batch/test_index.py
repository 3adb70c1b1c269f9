"""What earlier runs left: which lines count, which are dropped, and which files are left alone."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rusty_agent.batch import index as module
from rusty_agent.batch.files import Files
from rusty_agent.batch.index import Index, read_lines, repair, scan
from rusty_agent.errors import BatchError

from .lines import HOLE, batch, failure, refusal, result, unsynced


def useless(index: Index) -> int:
    return len(index.useless_results) + len(index.useless_errors)


def test_nothing_yet(tmp_path: Path) -> None:
    for files in (batch(tmp_path), batch(tmp_path, [], [])):
        index = scan(files)
        assert (index.done, index.permanent, index.failed, useless(index)) == (set(), set(), 0, 0)
        repair(files, index)


def test_done_failed_and_failed_for_good(tmp_path: Path) -> None:
    files = batch(
        tmp_path,
        [result("a", 1), result("é", 2), result("later", 9)],
        [
            failure("b"),
            failure("c", permanent=True),
            failure("later", permanent=True),
            failure("d", permanent=True),
            failure("e"),
            failure("d"),  # the last one counts
            failure("e", permanent=True),
        ],
    )
    index = scan(files)
    assert index.done == {"a", "é", "later"}
    assert index.permanent == {"c", "e"}
    assert (index.failed, useless(index)) == (4, 3)


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": 7, "custom_id": "b", "response": null, "error": null}',
        b'{"id": "batch_req_1", "custom_id": ["b"], "response": null, "error": null}',
        b'{"id": "batch_req_1", "custom_id": "b", "response": {"status_code": 500}, "error": null}',
    ],
)
def test_what_is_no_result(tmp_path: Path, line: bytes) -> None:
    files = batch(tmp_path, [result("a"), line])
    files.manifest.touch()
    index = scan(files)
    assert (index.done, list(index.useless_results)) == ({"a"}, [len(result("a")) + 1])


def test_of_two_results_the_first_tells_what_was_asked(tmp_path: Path) -> None:
    line = b'{"id": "batch_req_1", "custom_id": "1", "response": null, "error": null, "x_rusty": {"mark": "%b"}}'
    marks: dict[str, str] = {}
    scan(batch(tmp_path, [line % b"first", line % b"second"]), marks)
    assert marks == {"1": "first"}


def test_looking_ends_soon_when_it_is_given_up(tmp_path: Path) -> None:
    files = batch(tmp_path, [result(str(number)) for number in range(1000)])
    with pytest.raises(BatchError, match=r"out\.jsonl was given up before its end"):
        scan(files, given_up=lambda: True)


def test_lines_of_other_programs_count_too(tmp_path: Path) -> None:
    start = b'{"id": "batch_req_1", "custom_id": "%b", "response": null, "error": null'
    files = batch(tmp_path, [start % b"a" + b"}", start % b"b" + b', "x_rusty": null}', b" " + start % b"c" + b" }\r"])
    assert scan(files).done == {"a", "b", "c"}


def test_what_the_decoder_forgives_is_no_damage(tmp_path: Path) -> None:
    """Or it would be paid for anew at each resume."""
    lone = b'{"id":"batch_req_1","custom_id":"a","response":"\\ud83d","error":123456789012345678901234567890}'
    assert scan(batch(tmp_path, [lone])).done == {"a"}


DAMAGED = [HOLE, b"", b"{", b"[]", b'"a"', b"{}", b'{"custom_id":7}', b'{"custom_id":null}', b"\xff", result("x")[:-9]]
DAMAGED += [
    b'{"custom_id":"a"}',
    b'{"id":"a","custom_id":"a","response":{},"error":null}',
    b'{"id":"batch_req_1","custom_id":"a"}',
]


@pytest.mark.parametrize("hole", DAMAGED, ids=repr)
def test_holes_are_dropped_and_nothing_else(tmp_path: Path, hole: bytes) -> None:
    files = batch(tmp_path, [result("a"), hole, result("b"), hole], [hole, failure("c")])
    files.manifest.touch()
    index = scan(files)
    assert (index.done, index.failed, useless(index)) == ({"a", "b"}, 1, 3)
    repair(files, index)
    assert files.output.read_bytes() == result("a") + b"\n" + result("b") + b"\n"
    assert files.errors.read_bytes() == failure("c") + b"\n"
    assert useless(index) == 0  # what it knew of places is spent
    assert useless(scan(files)) == 0


def test_the_first_result_and_the_last_error_stay(tmp_path: Path) -> None:
    files = batch(
        tmp_path,
        [result("a", text="first"), result("b"), result("a", text="second"), result("a", text="third")],
        [failure("c"), failure("d"), failure("c", permanent=True)],
    )
    index = scan(files)
    assert useless(index) == 3
    repair(files, index)
    assert files.output.read_bytes() == result("a", text="first") + b"\n" + result("b") + b"\n"
    assert files.errors.read_bytes() == failure("d") + b"\n" + failure("c", permanent=True) + b"\n"


def test_bad_lines_of_the_input_are_no_rows_and_are_forgotten(tmp_path: Path) -> None:
    kept = failure("bad line 2", permanent=True)
    files = batch(tmp_path, [], [refusal(2), kept, refusal(3)])
    index = scan(files)
    assert (index.permanent, index.failed, useless(index)) == ({"bad line 2"}, 1, 2)
    repair(files, index)
    assert files.errors.read_bytes() == kept + b"\n"


def test_sound_files_are_not_rewritten(tmp_path: Path) -> None:
    files = batch(tmp_path, [result("a"), HOLE], [failure("b")])
    files.manifest.touch()
    before = files.errors.stat().st_ino
    repair(files, scan(files))
    assert files.errors.stat().st_ino == before


def test_a_torn_tail_is_no_line(tmp_path: Path) -> None:
    files = batch(tmp_path, [result("a")])
    with files.output.open("ab") as file:
        file.write(result("b"))  # whole but for its newline, and yet it will be cut off
    index = scan(files)
    assert (index.done, useless(index)) == ({"a"}, 0)


@pytest.mark.parametrize("tail", [b"", b"tail without an end"])
def test_a_line_beyond_the_cap_is_damage_and_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: bytes
) -> None:
    monkeypatch.setattr(module, "MAX_RESULT_BYTES", 1000)
    monkeypatch.setattr(module, "BLOCK_BYTES", 512)
    long = result("long", text="x" * 5000)
    files = batch(tmp_path, [result("a"), long, result("b")])
    files.manifest.touch()
    with files.output.open("ab") as file:
        file.write(tail * 100)
    index = scan(files)
    assert (index.done, useless(index)) == ({"a", "b"}, 1)
    ends = [(start, end) for start, end, _ in read_lines(files.output)]
    assert ends[1] == (ends[0][1], ends[0][1] + len(long) + 1) == (ends[0][1], ends[2][0])
    assert max(len(line) for _, _, line in read_lines(files.output)) < 1000
    repair(files, index)
    assert files.output.read_bytes() == result("a") + b"\n" + result("b") + b"\n"


def test_a_huge_answer_is_a_line_like_others(tmp_path: Path) -> None:
    files = batch(tmp_path, [result("a", text="x" * 2**24), result("b")])
    assert scan(files).done == {"a", "b"}


error = st.one_of(
    st.sampled_from("abc").map(failure),
    st.sampled_from(DAMAGED),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b" ")),
)
line = st.one_of(error, st.sampled_from("abc").map(result))


@given(st.lists(line, max_size=12), st.lists(error, max_size=12), st.binary(max_size=9))
def test_repairing_keeps_each_row_once_and_changes_no_verdict(
    tmp_path_factory: pytest.TempPathFactory, results: list[bytes], errors: list[bytes], tail: bytes
) -> None:
    files = batch(tmp_path_factory.getbasetemp(), [result("z"), *results], [failure("z"), *errors])
    files.manifest.touch()
    with files.output.open("ab") as file:
        file.write(tail.replace(b"\n", b" "))
    before = scan(files)
    dropped = useless(before)
    with unsynced():
        repair(files, before)
    after = scan(files)
    assert useless(after) == 0
    assert (after.done, after.permanent, after.failed) == (before.done, before.permanent, before.failed)
    assert len(list(read_lines(files.output))) == len(after.done)
    assert len(list(read_lines(files.output))) + len(list(read_lines(files.errors))) + dropped == (
        len(results) + len(errors) + 2
    )


@pytest.mark.parametrize(
    "data",
    [
        b"my notes\n",
        b"my notes",
        b"a,b\n1,2\n",
        b'{"prompt":"an input"}\n{"prompt":"another"}\n',
        b'{\n  "name": "x"\n}\n',
        b"\x1f\x8b\x08",
        b'{"important":"data"}',
        b'{"id":"batch_42"}',
        b"\0\0notes",
        b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"messages":[]}}\n',
    ],
)
@pytest.mark.parametrize("which", ["output", "errors"])
def test_a_file_that_no_batch_has_written_is_left_alone(tmp_path: Path, which: str, data: bytes) -> None:
    files = Files.of(tmp_path / "notes.jsonl")
    path: Path = getattr(files, which)
    path.write_bytes(data)
    with pytest.raises(BatchError, match=r"holds no lines from a batch, so it is left alone\. Name another output"):
        scan(files)
    assert path.read_bytes() == data


@pytest.mark.parametrize("damage", [b"notes", b'{"custom_id":"b"}', HOLE])
@pytest.mark.parametrize("which", ["output", "errors"])
def test_lines_of_others_among_ours_are_left_alone_unless_a_batch_has_begun(
    tmp_path: Path, which: str, damage: bytes
) -> None:
    files = batch(tmp_path, [result("a")], [failure("b")])
    path: Path = getattr(files, which)
    with path.open("ab") as file:
        file.write(damage + b"\n")
    before = path.read_bytes()
    with pytest.raises(BatchError, match=r"holds lines that are not from a batch, so it is left alone"):
        scan(files)
    assert path.read_bytes() == before
    files.manifest.touch()
    assert useless(scan(files)) == 1


@pytest.mark.parametrize("data", [b"", b'{"id":"batch_r', b"{", HOLE, b'{"id":\0\0\0', result("a")])
def test_a_crash_in_the_very_first_line_is_no_reason_to_stop(tmp_path: Path, data: bytes) -> None:
    files = batch(tmp_path, [])
    files.output.write_bytes(data)
    assert scan(files).done == set()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    files = batch(tmp_path)
    files.output.mkdir()
    with pytest.raises(BatchError, match=r"out\.jsonl cannot be read: "):
        scan(files)


def test_memory_is_that_of_the_ids(tmp_path: Path) -> None:
    files = batch(tmp_path, [result(f"row-{number:08}", number) for number in range(20_000)])
    tracemalloc.start()
    try:
        index = scan(files)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(index.done) == 20_000
    assert peak < 20_000 * 190 + 3 * 2**20  # the set grows fourfold when it is small; and a buffer

"""What is settled before the first request: checked once, compared, nothing touched before all is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rusty_agent.batch.files import Files
from rusty_agent.batch.input import Checked, Input
from rusty_agent.batch.manifest import Manifest
from rusty_agent.batch.plan import Plan, make_plan
from rusty_agent.batch.rows import Row
from rusty_agent.batch.settings import JobSettings
from rusty_agent.errors import BatchError
from rusty_agent.wire.codec import dumps, loads_strict

from .lines import HOLE, batch, failure, refusal, result

ROWS = '{"prompt":"a"}\n{"prompt":"b"}\n"c"\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text(ROWS)
    return path


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The limits of the checks that were made."""
    made: list[int | None] = []
    check = Input.check

    def note(self: Input, *, limit: int | None = None) -> Checked:
        made.append(limit)
        return check(self, limit=limit)

    monkeypatch.setattr(Input, "check", note)
    return made


def plan(source: Any, files: Files, **options: Any) -> Plan:
    return make_plan(source, JobSettings(files, **options), {"model": "m"})


def test_a_good_input_is_checked_once(source: Path, tmp_path: Path, checks: list[int | None]) -> None:
    files = batch(tmp_path)
    first = plan(source, files)
    assert (first.total, first.bad_lines, first.repeated, checks) == (3, 0, set(), [None])
    manifest = Manifest.load(files.manifest)
    assert manifest is not None
    assert (manifest.rows, manifest.input_bytes, manifest.parameters) == (
        3,
        len(ROWS),
        {"model": "m", "template": None},
    )
    assert plan(source, files).total == 3
    assert plan(source, files, limit=2).total == 2
    assert plan(source, files, limit=9).total == 3
    assert checks == [None]


def test_a_list_that_was_found_good_is_not_looked_at_again(tmp_path: Path, checks: list[int | None]) -> None:
    files, rows = batch(tmp_path), ["a", {"prompt": "b"}]
    assert [plan(rows, files).total for _ in range(2)] == [2, 2]
    assert checks == [None]
    assert plan([*rows, "c"], files, allow_changed=True).total == 3
    assert checks == [None, None]


@pytest.mark.parametrize(
    ("rows", "results", "errors", "what"),
    [
        (1000, 0, 0, "the list of rows was"),
        (1, 1000, 0, r"out\.jsonl was"),
        (1, 0, 1000, r"out\.errors\.jsonl was"),
    ],
)
def test_planning_ends_soon_when_it_is_given_up(
    tmp_path: Path, rows: int, results: int, errors: int, what: str
) -> None:
    """While a list is looked at, and while what earlier runs have left is."""
    answered = [result(str(line), line) for line in range(1, results + 1)]
    files = batch(tmp_path, answered, [failure(str(line), line) for line in range(1, errors + 1)])
    with pytest.raises(BatchError, match=f"{what} given up"):
        make_plan(["a"] * rows, JobSettings(files), {}, given_up=lambda: True)
    assert not files.manifest.exists()


def test_a_limited_check_is_no_whole_one(source: Path, tmp_path: Path, checks: list[int | None]) -> None:
    files = batch(tmp_path)
    assert plan(source, files, limit=2).total == 2
    assert plan(source, files).total == 3
    assert plan(source, files, limit=1).total == 1
    assert checks == [2, None]


def test_bad_lines_are_looked_for_each_time(source: Path, tmp_path: Path, checks: list[int | None]) -> None:
    source.write_text(ROWS + '{"custom_id":"1","prompt":"x"}\n[\n')
    files = batch(tmp_path)
    for _ in range(2):
        made = plan(source, files, on_bad_line="skip")
        assert (made.total, made.bad_lines, made.repeated) == (3, 2, {4})
    with pytest.raises(BatchError, match="2 lines of the input are not requests"):
        plan(source, files)
    assert checks == [None] * 3


def test_what_is_left_over_is_indexed_and_repaired(source: Path, tmp_path: Path) -> None:
    plan(source, batch(tmp_path))
    files = batch(tmp_path, [result("1"), HOLE, result("1")], [failure("2"), failure("3", permanent=True)])
    made = plan(source, files)
    assert (made.index.done, made.index.permanent, made.index.failed) == ({"1"}, {"3"}, 2)
    assert files.output.read_bytes() == result("1") + b"\n"
    assert plan(source, files, retry_permanent=True).index.permanent == set()


def test_nothing_is_changed_when_something_is_wrong(source: Path, tmp_path: Path) -> None:
    files = batch(tmp_path, [result("1"), result("1")])
    before = files.output.read_bytes()
    plan_made = files.manifest
    source.write_text("[\n")
    for fresh in (False, True):
        with pytest.raises(BatchError, match="line 1: not JSON"):
            plan(source, files, fresh=fresh)
    assert files.output.read_bytes() == before
    assert not plan_made.exists()


@pytest.mark.parametrize("output", [None, b"", b'{"id":"batch_req_1'])  # of which the last was torn
def test_what_was_never_answered_is_begun_anew_when_something_changes(
    source: Path, tmp_path: Path, output: bytes | None
) -> None:
    files = batch(tmp_path, [], [failure("a", permanent=True), failure("b")])
    files.output.unlink(missing_ok=True)
    if output is not None:
        files.output.write_bytes(output)
    assert plan(source, files).index.permanent == {"a"}
    source.write_text('{"prompt":"another"}\n{"prompt":"b"}\n')
    made = make_plan(source, JobSettings(files), {"model": "not mistyped"})
    assert (made.index.permanent, made.index.failed, made.moved) == (set(), 0, False)
    assert not files.errors.exists()
    assert make_plan(source, JobSettings(files), {"model": "not mistyped"}).total == 2


def test_failures_of_other_parameters_are_forgotten_though_the_next_run_is_stopped(
    source: Path, tmp_path: Path
) -> None:
    files = batch(tmp_path, [result("1")], [failure("2", permanent=True), failure("3")])
    source.write_text("".join(json.dumps({"custom_id": name, "prompt": name}) + "\n" for name in "123"))
    assert plan(source, files).index.permanent == {"2"}
    with files.errors.open("ab") as file:
        file.write(refusal(9) + b"\n")
    for options in ({"template": "{prompt}", "allow_changed": True}, {"template": "{prompt}"}):
        index = plan(source, files, **options).index  # which sends nothing, as one that is stopped at once
        assert (index.done, index.permanent, index.failed) == ({"1"}, set(), 0)
    assert not files.errors.exists()


def test_what_changed_is_said(source: Path, tmp_path: Path) -> None:
    files = batch(tmp_path, [result("answered")])
    plan(source, files)
    source.write_text('"other"\n')
    with pytest.raises(
        BatchError, match=r"the input changed: 3 rows, .* -> an unknown (.|\n)*template: None -> '\{x\}'"
    ):
        plan(source, files, template="{x}", on_bad_line="skip")
    assert plan(source, files, allow_changed=True).total == 1
    assert plan(source, files).total == 1
    with pytest.raises(BatchError, match="not from a file"):
        plan(iter(["other"]), files)
    with pytest.raises(BatchError, match="the input changed"):
        plan(["another"], files)


def unnamed(line: str, prompt: str) -> bytes:
    """The result of a row without a name, without its newline."""
    told = loads_strict(result(line))
    told["x_rusty"]["mark"] = Row(int(line), line, {"prompt": prompt}, {}).mark
    return dumps(told)


NAMED = [{"custom_id": name, "prompt": name} for name in "abc"]


@pytest.mark.parametrize(
    ("before", "after", "right"),
    [
        (["a", "b"], ["a", "b", "c"], True),
        (["a", "b"], ["a", "z"], True),  # mended where it stood
        (["a", "b"], ["new", "a", "b"], False),
        (["a", "b"], ["b"], False),
        (["a", "b"], ["b", "c"], False),  # as many as before
        (["a", "b"], ["z", "b"], False),
        (NAMED[1:], NAMED, True),
        (NAMED, NAMED[1:], True),
    ],
)
@pytest.mark.parametrize("from_file", [False, True])
def test_rows_without_a_name_must_not_have_moved(
    before: list[Any], after: list[Any], right: bool, from_file: bool, tmp_path: Path
) -> None:
    def given(rows: list[Any]) -> Any:
        if not from_file:
            return rows
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    files = batch(tmp_path)
    plan(given(before), files)
    files = batch(tmp_path, [unnamed("1", "a"), HOLE], [failure("9", permanent=True)])
    again = given(after)
    there = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BatchError, match="the input changed"):
        plan(again, files)
    if right:
        assert plan(again, files, allow_changed=True).index.done == {"1"}
    else:
        with pytest.raises(BatchError, match="identified by their line"):
            plan(again, files, allow_changed=True)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == there


def test_a_row_without_a_name_is_not_the_one_that_was_answered_under_its_number(source: Path, tmp_path: Path) -> None:
    source.write_text('{"custom_id":"2","prompt":"a"}\n{"custom_id":"1","prompt":"b"}\n')
    plan(source, batch(tmp_path))
    files = batch(tmp_path, [result("2")])
    source.write_text('{"prompt":"a"}\n{"prompt":"b"}\n')
    with pytest.raises(BatchError, match="Line 2 of the input is not the one that was answered"):
        plan(source, files, allow_changed=True)


def test_a_line_that_is_taken_again_is_another_one(source: Path, tmp_path: Path) -> None:
    plan(source, batch(tmp_path))
    files = batch(tmp_path, [unnamed("2", "b")])
    source.write_text('"a"\n')
    plan(source, files, allow_changed=True)
    source.write_text('"a"\n"z"\n')  # which begins with what was read last
    with pytest.raises(BatchError, match="Line 2 of the input is not the one that was answered"):
        plan(source, files, allow_changed=True)


@pytest.mark.parametrize("from_file", [False, True])
def test_without_a_manifest_the_answers_tell_which_rows_they_are_of(
    source: Path, tmp_path: Path, from_file: bool
) -> None:
    files = batch(tmp_path, [unnamed("2", "b")])
    assert plan(source if from_file else ["a", "b"], files).index.done == {"2"}
    files.manifest.unlink()
    source.write_text('"a"\n"z"\n')
    with pytest.raises(BatchError, match="Line 2 of the input is not the one that was answered"):
        plan(source if from_file else ["a", "z"], files)
    assert plan(source, files, fresh=True).index.done == set()


def test_a_name_that_is_used_again_is_a_bad_line_and_moves_nothing(source: Path, tmp_path: Path) -> None:
    plan(source, batch(tmp_path))
    files = batch(tmp_path, [unnamed("2", "b")])
    source.write_text(ROWS + '{"custom_id":2,"prompt":"z"}\n')
    assert plan(source, files, allow_changed=True, on_bad_line="skip").repeated == {4}


@pytest.mark.parametrize(("end", "right"), [("", False), ("\n", True)])
def test_a_line_that_was_not_ended_has_changed(end: str, right: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"prompt\na{end}")
    plan(path, batch(tmp_path))
    files = batch(tmp_path, [unnamed("2", "a")])
    path.write_text(f"prompt\na{end}b\nc\n")
    if right:
        assert plan(path, files, allow_changed=True).total == 3
    else:
        with pytest.raises(BatchError, match="identified by their line"):
            plan(path, files, allow_changed=True)


def test_what_a_kill_has_left_of_a_file_that_was_replaced_goes(source: Path, tmp_path: Path) -> None:
    files = batch(tmp_path)
    replaced = (files.output, files.errors, files.manifest, files.summary)
    halves = [path.with_name(f"{path.name}.rusty-agent.tmp") for path in replaced]
    for half in halves:
        half.write_bytes(HOLE)
    plan(source, files)
    assert not any(half.exists() for half in halves)


def test_fresh_begins_anew_whatever_was_there(source: Path, tmp_path: Path) -> None:
    files = batch(tmp_path, [result("1")], [failure("2", permanent=True)])
    files.manifest.write_bytes(HOLE)  # as a loss of power may leave it
    files.summary.write_text('{"rows_per_second": 0, "failure_latency_s": null}')
    made = plan(source, files, fresh=True)
    assert (made.index.done, made.index.permanent) == (set(), set())
    assert not any(path.exists() for path in (files.output, files.errors, files.summary))
    assert Manifest.load(files.manifest) is not None


@pytest.mark.parametrize(("source", "total"), [(["a", "b"], 2), (iter(["a"]), None)])
def test_rows_one_by_one(source: Any, total: int | None, tmp_path: Path) -> None:
    files = batch(tmp_path)
    made = plan(source, files, limit=5)
    assert (made.input is None, made.total) == (total is None, total)
    assert plan(source, files, limit=1).total == (total and 1)

"""A batch's files: what it leaves alone, what it replaces, and that nothing else writes there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rusty_agent.batch.lock import Lock
from rusty_agent.batch.runner import run_batch
from rusty_agent.errors import BatchError
from rusty_agent.testing import Answer, Received, error

from .runs import Place, said, simple, write_rows


async def test_an_output_that_is_removed_is_told(place: Place) -> None:
    def remove(request: Received) -> Answer:
        if len(place.server.requests) == 20:
            place.output.unlink()
        return said()

    place.server.answer(remove)
    with pytest.raises(BatchError, match="was removed"):
        await place.run(simple(40))


async def test_a_folder_that_is_moved_away_is_told(place: Place) -> None:
    folder = place.output.parent / "results"
    folder.mkdir()
    place.output = folder / "out.jsonl"

    def move(request: Received) -> Answer:
        if len(place.server.requests) == 20:
            folder.rename(folder.with_name("elsewhere"))
        return said()

    place.server.answer(move)
    with pytest.raises(
        BatchError, match=r"out\.jsonl was removed, replaced or truncated .* If it was moved, move it back"
    ):
        await place.run(simple(40))


async def test_what_no_batch_has_written_is_left_alone(place: Place) -> None:
    place.output.write_text("dear diary\n")
    for fresh in (False, True):
        with pytest.raises(BatchError, match="holds no lines from a batch, so it is left alone"):
            await place.run(simple(1), fresh=fresh)
    assert place.output.read_text() == "dear diary\n"


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["out.manifest.json", "out.summary.json", "out.lock"])
@pytest.mark.parametrize("data", ["dear diary\n", "{}", "12 monkeys\n"])
async def test_what_would_be_replaced_is_a_batchs_own(place: Place, name: str, data: str, fresh: bool) -> None:
    mine = place.output.with_name(name)
    mine.write_text(data)
    with pytest.raises(BatchError, match=name.replace(".", r"\.")):
        await place.run(simple(1), fresh=fresh)
    with pytest.raises(BatchError):  # the input is refused, too
        await place.run([7], fresh=fresh)
    assert mine.read_text() == data
    assert not place.server.requests


async def test_two_batches_share_no_file(place: Place) -> None:
    other = Place(place.output.parent, place.server)
    other.output = place.errors
    await other.run(simple(2))
    before = place.errors.read_bytes()
    with pytest.raises(BatchError, match=r"out\.errors\.jsonl holds answers, so it is left alone"):
        await place.run()
    assert place.errors.read_bytes() == before
    for path in (place.errors, place.errors.with_name("out.errors.manifest.json")):
        path.unlink()
    place.server.answer(error(400))
    await place.run()
    before = place.errors.read_bytes()
    with pytest.raises(BatchError, match=r"out\.errors\.jsonl exists and holds no lines from a batch"):
        await other.run()
    assert place.errors.read_bytes() == before


async def test_files_called_tmp_are_left_alone(place: Place) -> None:
    names = ("out.jsonl", "out.errors.jsonl", "out.manifest.json", "out.summary.json", "r.html")
    mine = [place.output.with_name(f"{name}.tmp") for name in names]
    for path in mine:
        path.write_text("mine")
    await place.run(simple(3), sort=True, report=place.output.with_name("r.html"))
    assert [path.read_text() for path in mine] == ["mine"] * len(mine)


@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl", "out.manifest.json", "out.summary.json", "out.lock"])
async def test_the_input_is_not_overwritten(place: Place, name: str) -> None:
    source = write_rows(place.output.with_name(name), simple(1))
    before = source.read_bytes()
    with pytest.raises(BatchError):
        await place.run(source)
    assert source.read_bytes() == before


async def test_a_report_that_could_not_be_written_is_refused_before_anything_is_paid_for(place: Place) -> None:
    write_rows(place.input, simple(1))
    before = place.input.read_bytes()
    for report in (place.input, place.output, place.output.parent, place.output.parent / "no" / "r.html"):
        with pytest.raises(BatchError, match="report"):
            await place.run(report=report)
    assert list(place.output.parent.iterdir()) == [place.input]
    assert (place.input.read_bytes(), len(place.server.requests)) == (before, 0)


async def test_a_report_replaces_reports_alone(place: Place) -> None:
    answers, page = place.output.with_name("answers.jsonl"), place.output.with_name("page.html")
    answers.write_text("paid for")
    with pytest.raises(BatchError, match=r"answers\.jsonl, where the report is .* not a report, so it is left alone"):
        await place.run(simple(1), report=answers)
    assert (answers.read_text(), place.server.requests) == ("paid for", [])
    page.touch()
    for count in (1, 2):
        await place.run(simple(count), report=page, allow_changed=True)
        assert f"rows done of {count}" in page.read_text()


async def test_a_second_run_is_refused_while_the_first_has_the_lock(place: Place) -> None:
    with Lock(place.output.with_name("out.lock")), pytest.raises(BatchError, match="Another batch is writing here"):
        await place.run(simple(1))
    assert not place.server.requests


@pytest.mark.parametrize("when", ["planned", "run"])
async def test_all_files_lie_in_one_folder_though_the_working_folder_changes(
    when: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)

    def rows() -> Iterator[str]:
        yield "a"
        os.chdir(elsewhere)
        yield "b"

    class Rows(list[str]):
        def __iter__(self) -> Iterator[str]:
            return rows()

    async with place.provider() as llm:
        source = Rows("ab") if when == "planned" else rows()
        result = await run_batch(source, "out.jsonl", llm, report="report.html")
    assert result.summary["output"] == "out.jsonl"
    names = {path.name for path in tmp_path.iterdir()} - {"elsewhere", "out.lock"}  # which stays on Windows
    assert names == {"out.jsonl", "out.manifest.json", "out.summary.json", "report.html"}
    assert list(elsewhere.iterdir()) == []


async def test_a_report_on_a_file_whose_name_is_no_text(place: Place) -> None:
    place.input = place.input.with_name("i\udcff.jsonl")
    report = place.input.with_name("report.html")
    assert (await place.run(simple(1), report=report)).done == 1
    assert report.read_bytes().decode().startswith("<!DOCTYPE html>")
